"""Tar shards as a source: by their index where one fits, else by a scan of their headers."""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selftaught.data import indexed, tar
from selftaught.data.absent import missing
from selftaught.data.files import walk
from selftaught.data.image.formats import IMAGE, INDEXED
from selftaught.data.places import alone, cache_folder
from selftaught.data.ranges import Local, Ranges
from selftaught.data.remote.address import inside, is_address, matching, parent
from selftaught.data.shards import TarSource, scanned
from selftaught.data.source import digest
from selftaught.errors import Unwritable, UserError

if TYPE_CHECKING:
    from selftaught.kinds import Kind

log = logging.getLogger("selftaught")

_PIECE = 64 << 20  # bytes of an index that are fetched at a time


def word_of(kind: "Kind | None") -> str:
    """What an index calls samples of a kind."""
    return "image" if kind is None else kind.word


def ranges_of(paths: Sequence[str], sizes: Sequence[int] | None = None) -> Ranges:
    """What reads files of these paths or addresses, of sizes that are known."""
    if not is_address(paths[0]):
        return Local()
    from selftaught.data.remote.ranges import Remote  # most data is here

    return Remote(dict(zip(paths, sizes)) if sizes else None)


def index(
    folder: str, kind: "Kind | None", column: str | None, labels: str | None
) -> TarSource | None:
    """What an index lists; None where there is none in the folder."""
    if not is_address(folder):
        if not indexed.is_index(Path(folder)):
            return None
        return indexed.opened(Path(folder), ranges_of, word_of(kind), column, labels)
    copy = _fetched(folder.rstrip("/"))
    if copy is None:
        return None
    return indexed.opened(copy, ranges_of, word_of(kind), column, labels, folder.rstrip("/"))


def shards_of(text: str) -> list[str]:
    """The tar shards that a path, an address, a pattern or a folder stands for.

    Raises:
        UserError: there are none.
    """
    path = Path(text)
    if is_address(text):
        paths = [found for found in matching(text) if found.lower().endswith(".tar")]
    elif path.is_dir():
        walked = walk(str(path), frozenset({".tar"}), look_inside=False)
        paths = [walked.path(i) for i in range(len(walked))]
    elif path.suffix.lower() == ".tar":
        paths = [text] if path.exists() else tar.expand(text)
    elif path.exists():
        paths = []
    else:
        raise missing(path)
    if not paths:
        raise UserError(
            f"{text} holds no tar shards: an index lists where samples lie in these; folders of "
            "files, tables and arrays are read as they are"
        )
    return _there(paths)


def beside(paths: Sequence[str]) -> str:
    """The index that is found by itself for these shards: in the folder that holds them all."""
    if is_address(paths[0]):
        return f"{parent(paths)}/{indexed.BESIDE}"
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return os.path.join(root, indexed.BESIDE)


def tars(
    paths: Sequence[str],
    column: str | None,
    labels: str | None,
    kind: "Kind | None" = None,
) -> TarSource:
    """Samples in the shards of a list of paths or addresses.

    They are looked up in the index beside the shards where it is of these and no others, and fits.
    Where several processes open the same shards, or they lie elsewhere, one of them lists them and
    the others wait for that.
    """
    _there(paths)
    found = _beside(paths, column, labels, kind)
    if found is not None:
        return found
    if several() or is_address(paths[0]):
        return _shared(paths, column, labels, kind)
    return scanned(paths, ranges_of(paths), column, labels, *_suffixes(kind))


def write(
    out: Path,
    paths: Sequence[str],
    kind: str,
    column: str | None,
    labels: str | None,
    suffixes: frozenset[str],
    tell: Callable[[int, int], None] | None = None,
) -> indexed.About:
    """Write the index of some shards; see `indexed.build`. Those in buckets are read aside."""
    given = kind, column, labels, suffixes
    if paths[0].startswith(("s3://", "gs://")):
        from selftaught.data.remote import aside

        return aside.run(indexed.build, out, paths, ranges_of(paths), *given)
    more = () if tell is None else (tell,)
    return indexed.build(out, paths, ranges_of(paths), *given, *more)


def several() -> bool:
    """Whether this is one of several processes that were started to train together."""
    return any(
        os.environ.get(name, "1") not in ("", "1") for name in ("WORLD_SIZE", "SLURM_NTASKS")
    )


def _there(paths: Sequence[str]) -> list[str]:
    """Refuse shards that do not exist; addresses are looked at as they are opened."""
    gone = [p for p in paths if not (is_address(p) or Path(p).is_file())]
    if gone:
        raise UserError(f"{len(gone)} of {len(paths)} shards do not exist; the first is {gone[0]}")
    return list(paths)


def _suffixes(kind: "Kind | None") -> tuple[frozenset[str], ...]:
    """Endings of files, where they are not those of images."""
    return () if kind is None else (kind.suffixes,)


def _whole(paths: Sequence[str]) -> list[str]:
    return [path if is_address(path) else os.path.abspath(path) for path in paths]


def _beside(
    paths: Sequence[str], column: str | None, labels: str | None, kind: "Kind | None"
) -> TarSource | None:
    """By the index in the folder of the shards; None where there is none that fits."""
    folder = beside(paths)
    try:
        found = index(folder, kind, column, labels)
    except UserError as error:
        log.warning("%s; it is left aside, and the shards are scanned", error)
        return None
    if found is not None and {*_whole(found.paths)} != {*_whole(paths)}:
        log.info("%s lists other shards than these: they are scanned", folder)
        return None
    return found


def _shared(
    paths: Sequence[str], column: str | None, labels: str | None, kind: "Kind | None"
) -> TarSource:
    """By an index in the cache of this machine, which the first process makes that needs it."""
    suffixes, whole, ranges = (*_suffixes(kind), IMAGE)[0], _whole(paths), ranges_of(paths)
    asked = (word_of(kind), str(column), str(labels), " ".join(sorted(suffixes)))
    key = digest("\n".join(whole), str(ranges.facts(whole)), *asked)
    folder = cache_folder() / "indexes" / key
    try:
        with alone(folder.with_suffix(".lock")):
            if not indexed.is_index(folder):
                if is_address(paths[0]):
                    log.info(
                        "listing the samples of %d shard%s from afar, which reads all of them; "
                        "selftaught index writes that down for everybody",
                        len(paths),
                        "s" if len(paths) > 1 else "",
                    )
                write(folder, whole, word_of(kind), column, labels, suffixes)
    except (OSError, Unwritable) as error:
        log.warning("%s; each process scans the shards itself", error)
        return scanned(paths, ranges, column, labels, suffixes)
    return indexed.opened(folder, ranges_of, word_of(kind), column, labels)


def _fetched(address: str) -> Path | None:
    """A copy of the index at an address, in the cache of this machine; None where there is none."""
    from selftaught.data.remote.ranges import Remote

    ranges, file = Remote(), f"{address}/{INDEXED}"
    if inside(file) is None:
        return None
    text = ranges.read(file, 0, ranges.fact(file).size)
    folder = cache_folder() / "indexes" / digest(address, text)
    with alone(folder.with_suffix(".lock")):
        if indexed.is_index(folder):
            return folder
        made = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            made.mkdir(parents=True)
            (made / INDEXED).write_bytes(text)
            for name, size, _ in indexed.about(made).files:
                with (made / os.path.basename(name)).open("wb") as out:
                    for at in range(0, size, _PIECE):
                        out.write(ranges.read(f"{address}/{name}", at, min(_PIECE, size - at)))
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder
