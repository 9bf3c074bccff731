"""Indexes of shards: where each sample lies, written once and mapped by every process from then on.

An index is a folder: `data-index.json` says of what it is, two Arrow files hold the rest. One that
lies beside its shards (`BESIDE`) is found by itself.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import final

from selftaught.data.columns import KEYS, PLACES, Columns, Writer
from selftaught.data.image.formats import INDEXED
from selftaught.data.ranges import Ranges
from selftaught.data.shards import Scan, TarSource, fingerprint, shown
from selftaught.data.skipped import Skipped
from selftaught.data.tar import members
from selftaught.errors import Unwritable, UserError

BESIDE = "selftaught-index"
"""What an index is called that lies in the folder of its shards."""
VERSION = 1
HASHED = 256 << 20
"""Bytes up to which a file of an index is hashed as it is opened; of larger ones the size is
compared."""
_LOOKED_AT = 64  # shards far away whose size and time are compared as an index is opened
_COPIES = 4  # of these, those of other times whose samples are looked at
_PROBES = 3  # samples of a shard that is as large as it was, and newer
_NAMED = 90  # letters that the header before a sample has of its name; longer ones lie elsewhere


@final
@dataclass(frozen=True)
class About:
    """What an index says of itself.

    shards: addresses, from the index's folder on where they lie beside it, each with its `Facts`.
    kind, column, labels: what was looked for. count: samples. data: their bytes. classes: names of
    labels. fingerprint: of the samples, as a scan would give it. files: name, size and hash of each
    of its own, places and then keys.
    """

    shards: list[tuple[str, int, str]]
    kind: str
    column: str | None
    labels: str | None
    count: int
    data: int
    classes: list[str] | None
    skipped: dict[str, dict[str, int]]
    fingerprint: str
    files: list[tuple[str, int, str]]

    @property
    def left(self) -> Skipped:
        """What lies in the shards beside the samples."""
        return Skipped(ignored=self.skipped["ignored"], refused=self.skipped["refused"])

    def paths(self, folder: str) -> list[str]:
        """Where the shards are, of an index in `folder`."""
        root = folder.rpartition("/")[0] if "://" in folder else str(Path(folder).absolute().parent)
        return [
            path if "://" in path or os.path.isabs(path) else f"{root}/{path}"
            for path, _, _ in self.shards
        ]


def is_index(path: Path) -> bool:
    """Whether a folder holds an index of shards."""
    return (path / INDEXED).is_file()


def about(folder: Path) -> About:
    """What the index in `folder` says of itself.

    Raises:
        UserError: it is none, of another version, or damaged.
    """
    try:
        found = json.loads((folder / INDEXED).read_text("utf-8"))
        version = found.pop("version")
        if version == VERSION:
            made = About(**found)
            assert all(len(part) == 3 for part in made.shards + made.files)
            assert len(made.files) == 2
            assert {*made.skipped} == {"ignored", "refused"}
            return made
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(
            f"{folder} is no index that can be read ({error}); make one with: selftaught index "
            f"shards/ --out {folder}"
        ) from error
    raise UserError(
        f"{folder} is an index of version {version}, and {VERSION} is read: make it again"
    )


def build(
    out: Path,
    paths: Sequence[str],
    ranges: Ranges,
    kind: str,
    column: str | None,
    labels: str | None,
    suffixes: frozenset[str],
    tell: Callable[[int, int], None] = lambda _, __: None,
) -> About:
    """Write the index of some shards; whoever is killed leaves what there was before.

    Memory holds one shard's samples at a time, at a few tens of bytes each.

    Args:
        out: folder, which is replaced.
        paths, ranges: the shards, and what reads them.
        kind, column, labels, suffixes: what is looked for.
        tell: called with bytes of shards that are done, and of all.

    Raises:
        UserError: a shard is none, or no sample is found.
    """
    facts = ranges.facts(paths)
    scan = Scan(ranges, column, labels, suffixes)
    made = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        writer = Writer(made)
        try:
            done, total = 0, sum(f.size for f in facts)
            for shard, part in enumerate(scan.parts(paths, [f.size for f in facts])):
                writer.add(shard, part)
                done += facts[shard].size
                tell(done, total)
            found, classes = scan.numbers(writer.texts(), paths[0])
            writer.finish(found)
        finally:
            writer.close()
        columns = Columns.mapped(made / PLACES, made / KEYS)
        if not len(columns):
            raise UserError(
                f"{paths[0]}{' and the others' if len(paths) > 1 else ''} hold nothing to list; "
                f"left out: {scan.skipped.advice() or 'nothing'}"
            )
        made_of = About(
            [(path, f.size, f.stamp) for path, f in zip(_named(paths, out), facts)],
            kind,
            column,
            labels,
            len(columns),
            int(columns.sizes.sum(dtype="int64")),
            classes,
            {"ignored": dict(scan.skipped.ignored), "refused": dict(scan.skipped.refused)},
            fingerprint(shown(paths), columns),
            [_settled(made / name) for name in (PLACES, KEYS)],
        )
        text = json.dumps({"version": VERSION, **vars(made_of)}, indent=1, ensure_ascii=True)
        (made / INDEXED).write_text(text + "\n", "utf-8")
        _replace(made, out, made_of)
        return made_of
    except OSError as error:
        raise Unwritable.of(out, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def opened(
    folder: Path,
    ranges_of: Callable[[Sequence[str], Sequence[int]], Ranges],
    kind: str,
    column: str | None = None,
    labels: str | None = None,
    where: str | None = None,
) -> TarSource:
    """What an index lists, mapped.

    Args:
        ranges_of: makes what reads shards of these addresses and sizes.
        kind, column, labels: what is wanted.
        where: address of the index, of which `folder` is a copy; the folder itself unless given.

    Raises:
        UserError: it is damaged, lists something else, or its shards have changed since.
    """
    told = about(folder)
    place = where or str(folder)
    if told.kind != kind:
        raise UserError(
            f"{place} lists samples of the kind {told.kind}, and {kind} was asked for: index the "
            f"shards again, with --kind {kind} and another --out"
        )
    for name, asked, has in (("column", column, told.column), ("labels", labels, told.labels)):
        if asked is not None and asked != has:
            raise UserError(
                f"{place} was made with {name} {has or 'not given'}, and {asked} is asked for: "
                f"index the shards again, with --{name} {asked} and another --out"
            )
    for name, size, tag in told.files:
        if _facts(folder / name, size <= HASHED) != (size, tag if size <= HASHED else ""):
            raise UserError(f"{folder / name} is damaged: index the shards again")
    paths, sizes = told.paths(place), [size for _, size, _ in told.shards]
    columns = Columns.mapped(*(folder / name for name, _, _ in told.files))
    made = TarSource(
        paths, columns, ranges_of(paths, sizes), told.classes, told.left, told.fingerprint
    )
    _refuse_changed(made, told, place)
    return made


def _refuse_changed(source: TarSource, told: About, where: str) -> None:
    again = f"run selftaught index {os.path.dirname(source.paths[0])} --out {where} again"
    # those far away are looked at again as each is first read
    far, copies = "://" in source.paths[0], 0
    step = -(-len(source.paths) // _LOOKED_AT) if far else 1
    some = range(0, len(source.paths), step)
    found = source.ranges.facts([source.paths[i] for i in some])
    for shard, now in zip(some, found):
        path, (_, size, stamp) = source.paths[shard], told.shards[shard]
        if now.size != size:
            raise UserError(
                f"{path} has changed since {where} listed it ({size:,} bytes then, {now.size:,} "
                f"now): {again}"
            )
        if now.stamp == stamp or (far and copies == _COPIES):
            continue
        copies += 1
        if not _fits(source, shard, size):
            raise UserError(
                f"{path} has changed since {where} listed it (as large, and other samples): {again}"
            )


def _fits(source: TarSource, shard: int, size: int) -> bool:
    """Whether samples lie in a shard where they are listed: it may be a copy, with another time."""
    first, end = source.columns.shards.searchsorted([shard, shard + 1])
    for row in range(int(first), int(end), max(1, int(end - first) // _PROBES)):
        place = int(source.columns.offsets[row]) - 512
        header = source.ranges.peek(source.paths[shard], place, 512)
        found = members(
            lambda at, n, h=header: h[at : at + n], size, Counter(), source.paths[shard]
        )
        member = next(found, None)
        if member is None or member.size != int(source.columns.sizes[row]):
            return False
        key = os.fsdecode(source.columns.keys[row].as_py())
        if key.isascii() and not member.name.startswith(key[:_NAMED]):  # others are spelled anew
            return False
    return True


def _named(paths: Sequence[str], out: Path) -> list[str]:
    """Addresses as an index holds them: from its folder on where the shards lie there, too."""
    if any("://" in path for path in paths):
        return list(paths)
    root = out.absolute().parent
    whole = [Path(os.path.abspath(path)) for path in paths]
    if all(path.is_relative_to(root) for path in whole):
        return [path.relative_to(root).as_posix() for path in whole]
    return [str(path) for path in whole]


def _facts(file: Path, hashed: bool = True) -> tuple[int, str]:
    """Size and hash of a file; empty where it is not asked for, and none where it is gone."""
    try:
        with file.open("rb") as opened:
            tag = file_digest(opened, lambda: blake2b(digest_size=16)).hexdigest() if hashed else ""
            return os.fstat(opened.fileno()).st_size, tag
    except OSError:
        return -1, ""


def _settled(file: Path) -> tuple[str, int, str]:
    """The file under a name of its own, that of no other content; its facts."""
    size, tag = _facts(file)
    named = file.with_stem(f"{file.stem}-{tag[:12]}")
    os.rename(file, named)
    return named.name, size, tag


def _replace(made: Path, out: Path, told: About) -> None:
    """Put an index in the place of another one: at each moment one of them is there, whole."""
    if not out.exists():
        os.rename(made, out)
        return
    for name, _, _ in told.files:
        os.replace(made / name, out / name)
    os.replace(made / INDEXED, out / INDEXED)
    for file in out.glob("*.arrow"):
        if file.name not in {name for name, _, _ in told.files}:
            file.unlink(missing_ok=True)


def refuse_other(out: Path) -> None:
    """Refuse to write an index over what is none: UserError."""
    if out.is_dir() and (is_index(out) or not any(out.iterdir())):
        return
    if out.exists():
        raise UserError(f"{out} is there, and no index of data: name another folder with --out")
