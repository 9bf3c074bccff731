"""A stage of a pool: passes over blocks of rows, each block's result a file, then a verdict on all.

A block's file holds a key over everything that it depends on: the options, the model, the rows that
were left and their content. What is there under its key is never made again, in whichever process,
order or number of jobs; what was killed half-way is not there.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from selftaught.curate.settings import Working
from selftaught.data.source import digest
from selftaught.evaluate.writing import write_table
from selftaught.export.files import atomic

if TYPE_CHECKING:
    from selftaught.curate.pool import Pool


Asked = TypeVar("Asked", bound=Working)


class Block(NamedTuple):
    """Rows that are done together: `count` of one source, the first of which is `start` of all.

    number: among all blocks. name: of its files.
    """

    number: int
    name: str
    start: int
    count: int

    @property
    def rows(self) -> slice:
        """Of the pool."""
        return slice(self.start, self.start + self.count)


@dataclass(frozen=True)
class Part:
    """The result of a block: columns of a table, and arrays that are mapped when they are read."""

    columns: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


class Stage(ABC, Generic[Asked]):
    """One verb of a pool, with its options.

    name: of the verb. options: class of its options.
    """

    name: ClassVar[str]
    options: ClassVar[type[Working]]

    def __init__(self, pool: "Pool", asked: Asked):
        self.pool, self.asked = pool, asked

    @property
    def passes(self) -> tuple[str, ...]:
        """Over the blocks, in their order: one begins when the one before has all its blocks."""
        return ()

    @cached_property
    def alive(self) -> np.ndarray:
        """[N] bool: rows that the stages before have left."""
        return self.pool.alive(before=self.name)

    @cached_property
    def given(self) -> dict[str, Any]:
        """The options, as plain values, without those that say who does the work, and where."""
        work = {f.name for f in fields(Working)} | {"batch", "device", "out"}
        return {
            f.name: _plain(getattr(self.asked, f.name))
            for f in fields(self.asked)
            if f.name not in work
        }

    # ------------------------------------------------------------------------------------- passes

    def inputs(self, step: str) -> str:
        """What all blocks of a pass depend on, in a few letters; by default all options."""
        return digest(repr(sorted(self.given.items())))

    def rows_of(self, step: str, block: Block) -> np.ndarray:
        """[n] rows of the pool that a pass looks at, in order: by default those that are left."""
        return block.start + np.flatnonzero(self.alive[block.rows])

    def key(self, step: str, block: Block) -> str:
        """What the result of a block depends on, in a few letters."""
        content = self.pool.content(block)
        return digest(step, self.inputs(step), self.rows_of(step, block), content)

    def look(self, step: str, block: Block) -> Part:
        """Do a block of a pass."""
        raise NotImplementedError(f"{self.name} has no passes")

    def prepare(self, step: str) -> None:
        """Make what all blocks of a pass need, once, and keep it in the pool, whole or absent."""

    # ------------------------------------------------------------------------------------ verdict

    @abstractmethod
    def gather(self) -> dict[str, Any]:
        """When all passes are done: columns `row`, those that came in, `reason`, "" where one
        stays, and what else is known of each."""

    def told(self, columns: Mapping[str, Any]) -> str:
        """A sentence about the verdict, beyond its counts."""
        return ""

    def facts(self) -> dict[str, Any]:
        """Plain values for stages.json: what the verdict was made with."""
        return {}

    # ---------------------------------------------------------------------------------- the files

    def file(self, step: str, block: Block) -> Path:
        """Where the result of a block is."""
        return file_of(self.pool.folder, self.name, step, block)

    def done(self, step: str, block: Block) -> bool:
        """Whether a block's result is there, made of what is there now."""
        return key_of(self.file(step, block)) == self.key(step, block)

    def do(self, step: str, block: Block) -> None:
        """Make a block's result, whole or not at all."""
        file, key = self.file(step, block), self.key(step, block)
        part = self.look(step, block)
        for name, array in part.arrays.items():
            with atomic(_array(file, key, name)) as temporary:
                np.save(temporary, array)
        with atomic(file) as temporary:
            write_table(temporary, part.columns, {"key": key})
        for old in file.parent.glob(f"{block.name}-*.npy"):  # of other options or rows
            if not old.name.startswith(f"{block.name}-{key}."):
                old.unlink(missing_ok=True)

    def columns(self, step: str, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Columns of all blocks of a pass, one after the other."""
        from pyarrow import parquet

        found: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for block in self.pool.blocks:
            table = parquet.read_table(self.file(step, block), columns=list(names))
            for name in names:
                found[name].append(table.column(name).to_numpy())
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def arrays(self, step: str, name: str) -> list[np.ndarray]:
        """An array of each block of a pass, mapped."""
        files = [self.file(step, block) for block in self.pool.blocks]
        return [np.load(_array(file, key_of(file), name), mmap_mode="r") for file in files]


def file_of(pool: Path, stage: str, step: str, block: Block) -> Path:
    """Where the result of a block of a pass is."""
    return pool / "parts" / f"{stage}-{step}" / f"{block.name}.parquet"


def _array(file: Path, key: str, name: str) -> Path:
    return file.with_name(f"{file.stem}-{key}.{name}.npy")


def key_of(file: Path) -> str:
    """The key of a block's result; empty where it is absent or damaged."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        about = parquet.read_schema(file).metadata or {}
    except (OSError, pa.ArrowException):
        return ""
    return about.get(b"key", b"").decode("utf-8", "replace")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
