"""Blocks of files that lie elsewhere, on a local disk: one cache for all processes of a machine.

A block is a file that appears whole, under a name made of the file's address, its tag and the place
in it: what has changed has another name. What was used longest ago goes first.
"""

import logging
import os
import re
import shutil
import tempfile
import time
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path
from typing import final
from zlib import crc32

from selftaught.data.places import alone, cache_folder
from selftaught.data.source import digest
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

LARGEST = 64 << 30
"""Bytes that are kept where nobody says how many, if half of the disk's free space holds them."""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_FRESH = 60  # seconds in which a use is not noted again
_LOOK = 0.05  # share of the limit that a process writes between two looks at all of it
_ROOM = 0.9  # share that is left when room was made
_LOCKS = 256
_OPEN = 64


@final
class Cache:
    """Blocks by name.

    Args:
        folder: for them.
        limit: bytes that they may take; more only until it is noticed.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit
        self._written, self._full = limit, False  # so that the first one looks
        self._files: dict[str, int] = {}

    def get(self, name: str, low: int, high: int, size: int) -> bytes | None:
        """Part of a block of `size` bytes; None where it is not there."""
        try:
            if name not in self._files:
                file = self._path(name)
                opened = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                info = os.fstat(opened)
                if info.st_size != size:
                    os.close(opened)
                    file.unlink(missing_ok=True)
                    return None
                while len(self._files) >= _OPEN:
                    os.close(self._files.pop(next(iter(self._files))))
                self._files[name] = opened
                self._note(file, info.st_mtime)
            return os.pread(self._files[name], high - low, low)
        except OSError:
            return None

    def put(self, name: str, block: bytes) -> None:
        """Keep a block. Where the disk is full nothing is kept, which is said once."""
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
            try:
                with open(handle, "wb") as file:
                    file.write(block)
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            if not self._full:
                self._full = True
                log.warning(
                    "%s cannot keep what is fetched (%s), and it is fetched again each time; name "
                    "another folder with SELFTAUGHT_CACHE",
                    self.folder,
                    error.strerror,
                )
            return
        self._written += len(block)
        if self._written > _LOOK * self.limit:
            self._written = 0
            self._make_room()

    def alone(self, name: str) -> AbstractContextManager[None]:
        """A block that one process runs at a time, of those that want this name or a few others."""
        return alone(self.folder / "locks" / str(crc32(name.encode()) % _LOCKS))

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def _note(self, file: Path, used: float) -> None:
        """Note that a block is used."""
        if time.time() - used > _FRESH:
            with suppress(OSError):
                os.utime(file)

    def _make_room(self) -> None:
        """Delete what was used longest ago, down to a share of the limit."""
        found = []
        for folder in self.folder.glob("??"):
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        info = entry.stat()
                        found.append((info.st_mtime, info.st_size, entry.path))
        total = sum(size for _, size, _ in found)
        if total <= self.limit:
            return
        for _, size, path in sorted(found):
            with suppress(OSError):
                os.unlink(path)
            total -= size
            if total <= _ROOM * self.limit:
                return


def name_of(address: str, stamp: str, size: int, start: int) -> str:
    """The name of a block, by its file's address, tag and size, and where it starts there."""
    return f"{digest(address, stamp, size)}-{start}"


@cache
def cache_of(process: int) -> Cache:
    """The one of this machine, as this process has it."""
    folder = cache_folder() / "blocks"
    return Cache(folder, _limit(folder))


def _limit(folder: Path) -> int:
    text = os.environ.get("SELFTAUGHT_CACHE_SIZE", "").strip().lower()
    if text:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text)
        if found is None or not float(found[1]):
            raise UserError(f"SELFTAUGHT_CACHE_SIZE={text} must be a size such as 200GB")
        return int(float(found[1]) * _UNITS[found[2]])
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return min(LARGEST, shutil.disk_usage(there).free // 2)
