"""Tar shards as a source: by their index where one fits, else by a scan of their headers."""

import logging
import os
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from selftaught.data import indexed, tar
from selftaught.data.absent import missing
from selftaught.data.files import walk
from selftaught.data.image.formats import IMAGE
from selftaught.data.ranges import Local, Ranges
from selftaught.data.shards import TarSource, scanned
from selftaught.data.source import digest
from selftaught.errors import Unwritable, UserError

try:
    import fcntl
except ImportError:  # there are no locks: several processes may do the same at once
    fcntl = None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selftaught.kinds import Kind

log = logging.getLogger("selftaught")


def word_of(kind: "Kind | None") -> str:
    """What an index calls samples of a kind."""
    return "image" if kind is None else kind.word


def ranges_of(paths: Sequence[str]) -> Ranges:
    """What reads files of these addresses."""
    return Local()


def index(folder: Path, kind: "Kind | None", column: str | None, labels: str | None) -> TarSource:
    """What an index lists."""
    return indexed.opened(folder, ranges_of, word_of(kind), column, labels)


def shards_of(text: str) -> list[str]:
    """The tar shards that a path, a pattern or a folder stands for.

    Raises:
        UserError: there are none.
    """
    path = Path(text)
    if path.is_dir():
        found = walk(str(path), frozenset({".tar"}), look_inside=False)
        paths = [found.path(i) for i in range(len(found))]
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
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return os.path.join(root, indexed.BESIDE)


def _there(paths: Sequence[str]) -> list[str]:
    gone = [p for p in paths if not Path(p).is_file()]
    if gone:
        raise UserError(f"{len(gone)} of {len(paths)} shards do not exist; the first is {gone[0]}")
    return list(paths)


def tars(
    paths: Sequence[str],
    column: str | None,
    labels: str | None,
    kind: "Kind | None" = None,
) -> TarSource:
    """Samples in the shards of a list of paths.

    They are looked up in the index beside the shards where it is of these and no others, and fits.
    Where several processes open the same shards, one of them lists them and the others wait for
    that.
    """
    _there(paths)
    found = _beside(paths, column, labels, kind)
    if found is not None:
        return found
    if several():
        return _shared(paths, column, labels, kind)
    return scanned(paths, ranges_of(paths), column, labels, *_suffixes(kind))


def several() -> bool:
    """Whether this is one of several processes that were started to train together."""
    return any(
        os.environ.get(name, "1") not in ("", "1") for name in ("WORLD_SIZE", "SLURM_NTASKS")
    )


def cache_folder() -> Path:
    """Where this machine keeps what can be had again: `SELFTAUGHT_CACHE`, or the user's usual
    place."""
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("SELFTAUGHT_CACHE") or os.path.join(usual, "selftaught"))


def _suffixes(kind: "Kind | None") -> tuple[frozenset[str], ...]:
    """Endings of files, where they are not those of images."""
    return () if kind is None else (kind.suffixes,)


def _beside(
    paths: Sequence[str], column: str | None, labels: str | None, kind: "Kind | None"
) -> TarSource | None:
    """By the index in the folder of the shards; None where there is none that fits."""
    folder = Path(beside(paths))
    if not indexed.is_index(folder):
        return None
    try:
        told = indexed.about(folder)
        whole = {os.path.abspath(path) for path in paths}
        if {os.path.abspath(path) for path in told.paths(str(folder))} != whole:
            log.info("%s lists other shards than these: they are scanned", folder)
            return None
        return index(folder, kind, column, labels)
    except UserError as error:
        log.warning("%s; it is left aside, and the shards are scanned", error)
        return None


def _shared(
    paths: Sequence[str], column: str | None, labels: str | None, kind: "Kind | None"
) -> TarSource:
    """By an index in the cache of this machine, which the first process makes that needs it."""
    ranges, suffixes = ranges_of(paths), (*_suffixes(kind), IMAGE)[0]
    facts = ranges.facts(paths)
    asked = (word_of(kind), str(column), str(labels), " ".join(sorted(suffixes)))
    whole = [path if "://" in path else os.path.abspath(path) for path in paths]
    key = digest("\n".join(whole), str(facts), *asked)
    folder = cache_folder() / "indexes" / key
    try:
        with alone(folder.with_suffix(".lock")):
            if not indexed.is_index(folder):
                indexed.build(folder, whole, ranges, word_of(kind), column, labels, suffixes)
    except (OSError, Unwritable) as error:
        log.warning(
            "%s; each process scans the shards itself (SELFTAUGHT_CACHE names a folder)", error
        )
        return scanned(paths, ranges, column, labels, suffixes)
    return indexed.opened(folder, ranges_of, word_of(kind), column, labels)


@contextmanager
def alone(lock: Path) -> "Iterator[None]":
    """A block that one process of this machine runs at a time; it is left to the next one where
    this one is killed."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
