"""Images in a column of Parquet or Arrow files (Hugging Face data sets among them)."""

import json
import logging
import os
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selftaught.data.image.decode import BadSample, read_bytes
from selftaught.data.labels import as_text, coded, encode, tell_unlabeled, warn_once
from selftaught.data.lists import LABEL_COLUMNS
from selftaught.data.ranges import Local, Ranges
from selftaught.data.remote.ranges import Remote, RemoteFile
from selftaught.data.sharded import ranges_of
from selftaught.data.shards import shown
from selftaught.data.source import Skipped, Source, digest
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

KEEP = 512 << 20
"""Bytes of images up to which a Parquet column is kept in memory, encoded as it is."""

_CACHE = 256 << 20  # above that: bytes of row groups that a process keeps
IMAGE_COLUMNS = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp")


class Chunks(ABC):
    """A column in pieces that are read one at a time."""

    paths: list[str]
    column: str
    files: list[int]  # position in `paths` of each piece's file, ascending
    rows: list[int]  # of each piece
    sizes: list[int]  # of each piece, in bytes, at most
    ranges: Ranges  # which knows the files

    @abstractmethod
    def read(self, k: int) -> pa.Array:
        """Piece `k` of the column."""


@final
class ParquetChunks(Chunks):
    """Row groups."""

    def __init__(self, paths: list[str], column: str, ranges: Ranges):
        self.paths, self.column, self.ranges = paths, column, ranges
        self.files, self.rows, self.sizes = [], [], []
        self._group: list[int] = []
        for n, path in enumerate(paths):
            metadata = pq.read_metadata(_file(path, ranges))
            for g in range(metadata.num_row_groups):
                group = metadata.row_group(g)
                self.rows.append(group.num_rows)
                # of all its columns: pyarrow ends the process where a damaged one is asked alone
                self.sizes.append(group.total_byte_size)
                self.files.append(n)
                self._group.append(g)

    def read(self, k: int) -> pa.Array:
        path = self.paths[self.files[k]]
        try:
            with pq.ParquetFile(_file(path, self.ranges)) as file:
                table = file.read_row_group(
                    self._group[k], columns=[self.column], use_threads=False
                )
        except (OSError, pa.ArrowException) as error:
            raise BadSample(f"cannot be read from {path}: {_reason(error)}") from error
        return _one(table.column(self.column))


@final
class ArrowChunks(Chunks):
    """Record batches of memory-mapped files: nothing is read before it is asked for."""

    def __init__(self, paths: list[str], column: str):
        self.paths, self.column, self.ranges = paths, column, Local()
        self.files, self.rows, self.sizes = [], [], []
        self._mapped: dict[int, list[pa.Array]] = {}
        for n in range(len(paths)):
            pieces = self._pieces(n)
            self.files += [n] * len(pieces)
            self.rows += [len(p) for p in pieces]
            self.sizes += [0] * len(pieces)  # mapped: they take no memory

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_mapped": {}}

    def _pieces(self, n: int) -> list[pa.Array]:
        if n not in self._mapped:
            self._mapped[n] = arrow_table(self.paths[n]).column(self.column).chunks
        return self._mapped[n]

    def read(self, k: int) -> pa.Array:
        return self._pieces(self.files[k])[k - self.files.index(self.files[k])]


@final
class TableSource(Source):
    """Rows of an image column; pieces are kept whole where they fit, else the latest ones are."""

    numbered = True

    def __init__(
        self,
        chunks: Chunks,
        labels: np.ndarray | None,
        classes: list[str] | None,
        left: Skipped = Skipped(),  # noqa: B008
    ):
        self.chunks, self.labels, self.classes, self.skipped = chunks, labels, classes, left
        self.ends = np.cumsum(chunks.rows, dtype=np.int64)
        self._first: dict[int, int] = {}  # of each file: the position of its first row
        for n, end, rows in zip(chunks.files, self.ends, chunks.rows, strict=True):
            self._first.setdefault(n, int(end) - rows)
        self.keep = sum(chunks.sizes) <= KEEP
        largest = max(chunks.sizes, default=0)
        self.held = None if self.keep or not largest else max(1, _CACHE // largest)
        self._held: OrderedDict[int, pa.Array] = OrderedDict()
        self.shown = shown(chunks.paths)
        if self.keep:  # before workers start, so that forked ones share the memory
            for k in range(len(chunks.rows)):
                self._piece(k)
        else:
            log.warning(
                "%s holds %.1f GB of images, read by whole row groups of %.0f MB at random: export "
                "them to tar shards or files if the loader cannot keep up",
                os.path.dirname(chunks.paths[0]) or ".",
                sum(chunks.sizes) / 1e9,
                max(chunks.sizes) / 1e6,
            )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_held": OrderedDict()}

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def load(self, i: int) -> bytes:
        k, row = self._at(i)
        cell = self._piece(k)[row]
        if isinstance(cell, pa.StructScalar):
            value = cell.as_py()
            if value is None:
                raise BadSample("has no image in this row")
            data, path = value.get("bytes"), value.get("path")
            if data is None and path:
                folder = os.path.dirname(self.chunks.paths[self.chunks.files[k]])
                return read_bytes(os.path.join(folder, path))
        else:
            data = cell.as_py()
        if data is None:
            raise BadSample("has no image in this row")
        return data

    def name(self, i: int) -> str:
        n = self.chunks.files[self._at(i)[0]]
        return f"{self.shown[n]}::{i - self._first[n]}"

    def fingerprint(self) -> str:
        return digest(len(self), "\n".join(self.shown), str(self.chunks.rows), *self._file_sizes())

    def stamp(self, i: int) -> str:
        """A file that was written again has another time, and so have all of its rows."""
        path = self.chunks.paths[self.chunks.files[self._at(i)[0]]]
        (found,) = self.chunks.ranges.facts([path])
        return f"{found.size} {found.stamp}"

    def blocks(self) -> np.ndarray:
        """The pieces, which are read whole."""
        return self.ends[np.diff(self.ends, prepend=0) > 0]

    def _file_sizes(self) -> list[int]:
        return [found.size for found in self.chunks.ranges.facts(self.chunks.paths)]

    def _at(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        k = int(np.searchsorted(self.ends, i, side="right"))
        return k, int(i - (self.ends[k] - self.chunks.rows[k]))

    def _piece(self, k: int) -> pa.Array:
        piece = self._held.get(k)
        if piece is None:
            piece = self.chunks.read(k)
            self._held[k] = piece
            if not self.keep:
                while len(self._held) > 1 and self._held_bytes() > _CACHE:
                    self._held.popitem(last=False)
        elif not self.keep:
            self._held.move_to_end(k)
        return piece

    def _held_bytes(self) -> int:
        return sum(self.chunks.sizes[k] for k in self._held)


def _file(path: str, ranges: Ranges) -> Any:
    """What pyarrow opens: a path, or a file behind an address."""
    return RemoteFile(path, ranges) if isinstance(ranges, Remote) else path


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column of one piece. 32-bit offsets would overflow beyond 2 GB: widen them first."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_binary(column.type):
        column = column.cast(pa.large_binary())
    combined = column.combine_chunks()
    return combined.combine_chunks() if isinstance(combined, pa.ChunkedArray) else combined


def arrow_table(path: str) -> pa.Table:
    """An Arrow file or stream, memory-mapped."""
    mapped = pa.memory_map(path)
    try:
        return pa.ipc.open_stream(mapped).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(mapped).read_all()


@contextmanager
def reading(path: str, kind: str) -> Iterator[None]:
    """Whatever a damaged file makes of its reader becomes UserError."""
    try:
        yield
    except (OSError, pa.ArrowException, OverflowError, MemoryError, UnicodeError) as error:
        raise UserError(f"{path} is not {kind} file that can be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """In one line: Arrow's have several."""
    return " ".join((str(error) or type(error).__name__).split())


def _legible(schema: pa.Schema) -> pa.Schema:
    """The schema, whose names are only decoded, or fail, when they are asked for."""
    "".join(schema.names)
    return schema


def parquet(
    paths: Sequence[str],
    column: str | None,
    labels: str | None,
    columns: Sequence[str] = IMAGE_COLUMNS,
) -> TableSource:
    """The image column of one or more Parquet files of the same shape."""
    schemas: list[pa.Schema] = []
    ranges = ranges_of(paths)
    for path in paths:
        with reading(path, "a Parquet"):
            schemas.append(_legible(pq.read_schema(_file(path, ranges))))
    name = _image_column(schemas[0], column, paths[0], columns)
    left: Counter[str] = Counter()
    good: list[str] = []
    for path, schema in zip(paths, schemas, strict=True):
        if name in schema.names and _holds_images(schema.field(name).type):
            good.append(path)
        else:
            left[f"Parquet files without a column {name}"] += 1
    numbers, classes = None, None
    label = label_column(schemas[0], labels, paths[0])
    with reading(paths[0], "a Parquet"):
        if label is not None:
            tables = (labels_of(path, label, ranges) for path in good)
            numbers, classes = labels_in(tables, label, labels is not None, paths[0])
        return TableSource(
            ParquetChunks(good, name, ranges), numbers, classes, Skipped(refused=dict(left))
        )


def arrow(
    paths: Sequence[str],
    column: str | None,
    labels: str | None,
    columns: Sequence[str] = IMAGE_COLUMNS,
) -> TableSource:
    """The image column of Arrow files, memory-mapped."""
    tables = []
    for path in paths:
        with reading(path, "an Arrow"):
            tables.append(arrow_table(path))
            _legible(tables[-1].schema)
    schema = tables[0].schema
    name = _image_column(schema, column, paths[0], columns)
    label = label_column(schema, labels, paths[0])
    for path, table in zip(paths, tables, strict=True):
        with reading(path, "an Arrow"):
            for used in filter(None, {name, label}):  # offsets are followed blindly later on
                table.column(used).validate(full=True)
    numbers, classes = None, None
    with reading(paths[0], "an Arrow"):
        if label is not None:
            numbers, classes = labels_in(tables, label, labels is not None, paths[0])
        return TableSource(ArrowChunks(list(paths), name), numbers, classes)


def saved(
    folder: Path,
    column: str | None,
    labels: str | None,
    columns: Sequence[str] = IMAGE_COLUMNS,
) -> TableSource:
    """A Hugging Face data set that was written with `save_to_disk`."""
    return arrow(saved_files(folder), column, labels, columns)


def saved_files(folder: Path) -> list[str]:
    """The .arrow files of such a data set, in their order."""
    if (folder / "dataset_dict.json").exists():
        splits = _json(folder / "dataset_dict.json").get("splits", [])
        raise UserError(
            f"{folder} holds the splits {', '.join(map(str, splits))}: name one of them, such as "
            f"{folder / str(splits[0] if splits else 'train')}"
        )
    state = _json(folder / "state.json")
    if state.get("_indices_files"):
        raise UserError(f"{folder} was saved with a row selection: call flatten_indices() on it")
    files = [str(folder / str(f["filename"])) for f in state.get("_data_files") or []]
    files = files or sorted(str(p) for p in folder.glob("*.arrow"))
    if not files:
        raise UserError(f"{folder} has a state.json but no .arrow files")
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


@final
class HubSource(Source):
    """A `datasets.Dataset` in memory, read row by row through its own Arrow view."""

    numbered = True

    def __init__(
        self,
        dataset: Any,
        column: str | None,
        labels: str | None,
        columns: Sequence[str] = IMAGE_COLUMNS,
    ):
        self.rows = dataset.with_format("arrow")
        schema = self.rows[:0].schema
        self.column = _image_column(schema, column, "the data set", columns)
        label = label_column(schema, labels, "the data set")
        if label is not None:
            only = dataset.select_columns([label]).with_format("arrow")[:]  # not the images
            only = only.replace_schema_metadata(dataset.features.arrow_schema.metadata)
            given = labels is not None
            self.labels, self.classes = labels_in([only], label, given, "the data set")

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, i: int) -> bytes:
        value = self.rows[i].column(self.column)[0].as_py()
        if isinstance(value, Mapping):
            if value.get("bytes") is None and value.get("path"):
                return read_bytes(value["path"])
            value = value.get("bytes")
        if value is None:
            raise BadSample("has no image in this row")
        return value

    def name(self, i: int) -> str:
        return f"row::{i}"

    def fingerprint(self) -> str:
        labels = self.labels if self.labels is not None else b""
        return digest(len(self), str(self.rows[:0].schema), labels)

    def stamp(self, i: int) -> str:
        return self.content(i)  # no file tells of rows in memory


# ----------------------------------------------------------------------------------------- columns


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _image_column(
    schema: pa.Schema, column: str | None, where: str, usual: Sequence[str] = IMAGE_COLUMNS
) -> str:
    columns = f"its columns are {', '.join(f'{f.name} ({f.type})' for f in schema)}"
    if column is not None:
        if column not in schema.names:
            raise UserError(f"{where} has no column {column}; {columns}")
        if not _holds_images(schema.field(column).type):
            raise UserError(f"column {column} of {where} does not hold encoded images; {columns}")
        return column
    candidates = [f.name for f in schema if _holds_images(f.type)]
    named = [c for name in usual for c in candidates if c.lower() == name]
    if named or len(candidates) == 1:
        return (named or candidates)[0]
    if not candidates:
        raise UserError(f"{where} has no image column (bytes of image files); {columns}")
    raise UserError(f"{where} has several columns of bytes, name one with --column; {columns}")


def label_column(schema: pa.Schema, labels: str | None, where: str) -> str | None:
    """The column of labels: the one that `labels` names, or one that is called so, or None."""
    if labels is not None:
        if labels not in schema.names:
            raise UserError(f"{where} has no column {labels}; it has {', '.join(schema.names)}")
        if not _is_label(schema.field(labels).type):
            raise UserError(f"column {labels} of {where} is neither numbers nor text")
        return labels
    found = {f.name.lower(): f.name for f in schema if _is_label(f.type)}
    label = next((found[name] for name in LABEL_COLUMNS if name in found), None)
    if found and label is None:
        tell_unlabeled(where, found.values())
    return label


def _is_label(kind: pa.DataType) -> bool:
    of = pa.types
    if of.is_list(kind) or of.is_large_list(kind):  # several labels of one image
        kind = kind.value_type
    if of.is_dictionary(kind):
        kind = kind.value_type
    numbers = (of.is_integer, of.is_floating, of.is_decimal, of.is_boolean)
    texts = (of.is_string, of.is_large_string, of.is_string_view)
    return any(holds(kind) for holds in (*numbers, *texts))


def labels_of(path: str, label: str, ranges: Ranges) -> pa.Table:
    """The column of labels of a Parquet file, nulls where it has none."""
    try:
        found = pq.read_schema(_file(path, ranges))
        if label not in found.names or not _is_label(found.field(label).type):
            warn_once(f"{path} has no labels in a column {label}, which other files have")
            return pa.table(
                {label: pa.nulls(pq.read_metadata(_file(path, ranges)).num_rows, pa.string())}
            )
        return pq.read_table(_file(path, ranges), columns=[label])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"the column {label} of {path} cannot be read: {_reason(error)}") from error


def labels_in(
    tables: Iterable[pa.Table], label: str, asked: bool, where: str
) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels of all tables; each may name its classes in an order of its own.

    asked: whether somebody has named the column; otherwise fractions are no labels.
    """
    where = f"{label} in {where}"
    texts: list[list[str]] = []
    names: list[list[str] | None] = []
    for table in tables:
        column = table.column(label)
        names.append(_class_names(table.schema, label) if _is_whole(column.type) else None)
        texts.append([t for chunk in column.chunks for t in _texts(chunk)])
        if not asked and _fractions(column):
            log.info("%s holds fractions and is not taken for labels; --labels does", where)
            return None, None
    if names and names[0] is not None and all(n == names[0] for n in names):
        return coded(chain(*texts), names[0], where)
    for each, own in zip(texts, names, strict=True):
        if own is not None:
            known = {str(i): name for i, name in enumerate(own)}
            each[:] = [known.get(t, "" if t.startswith("-") else t) for t in each]
    return encode(chain(*texts), where)


def _is_whole(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _texts(chunk: pa.Array) -> list[str]:
    """Labels as text, each different one made once."""
    if pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type):
        return [*map(as_text, chunk.to_pylist())]
    if not pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_encode()
    names = [*map(as_text, chunk.dictionary.to_pylist()), ""]
    return [names[i] for i in pc.fill_null(chunk.indices.cast(pa.int64()), -1).to_pylist()]


def _fractions(column: pa.ChunkedArray) -> bool:
    """Whether a column holds numbers between the whole ones."""
    if not pa.types.is_floating(column.type):
        return False
    values = column.cast(pa.float64()).to_numpy()
    values = values[np.isfinite(values)]
    return bool((values != np.trunc(values)).any())


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Names of a Hugging Face ClassLabel, which lie in the schema's metadata."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        names = info["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return [str(n) for n in names]
