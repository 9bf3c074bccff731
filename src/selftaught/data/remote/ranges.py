"""Parts of files that lie elsewhere, block by block."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import final

from selftaught.data.ranges import Facts, Ranges
from selftaught.data.remote.address import store_of
from selftaught.data.remote.cache import cache_of, name_of
from selftaught.data.remote.store import changed
from selftaught.data.shards import BLOCK

_AT_ONCE = 16
_TAIL = 4  # a rest of a sample that is less than such a share of a block is fetched alone


@final
class Remote(Ranges):
    """Files behind addresses, read through the cache of this machine.

    Args:
        sizes: of files that are listed somewhere; another size is a change.
    """

    def __init__(self, sizes: dict[str, int] | None = None):
        self.sizes = sizes or {}
        self._known: dict[str, Facts] = {}

    def read(self, path: str, offset: int, size: int) -> bytes:
        """What spans two blocks is read of the first, and its rest alone where that is small: the
        second one is another block's, which comes at another time."""
        facts = self.fact(path)
        end = min(offset + size, facts.size)
        parts, at = [], offset
        while at < end:
            start = at // BLOCK * BLOCK
            stop = min(start + BLOCK, facts.size)
            upto = min(end, stop)
            rest = at > offset and (upto - at) * _TAIL < stop - start
            parts.append(self._part(path, facts, (start, stop), (at, upto), rest))
            at = upto
        return b"".join(parts)

    def peek(self, path: str, offset: int, size: int) -> bytes:
        facts, store = self.fact(path), store_of(path.partition("://")[0])
        return store.fetch(path, offset, size, facts, lambda _, __: None)

    def _part(
        self, path: str, facts: Facts, block: tuple[int, int], part: tuple[int, int], rest: bool
    ) -> bytes:
        """Part of a block; what is a small rest of a sample is fetched without the block."""
        kept, (start, stop) = cache_of(os.getpid()), block
        where = part[0] - start, part[1] - start, stop - start
        name = name_of(path, facts.stamp, facts.size, start)
        found = kept.get(name, *where)
        if found is not None:
            return found

        def keep(at: int, data: bytes) -> None:
            kept.put(name_of(path, facts.stamp, facts.size, at), data)

        store = store_of(path.partition("://")[0])
        if rest:
            return store.fetch(path, part[0], part[1] - part[0], facts, keep)
        with kept.alone(name):
            found = kept.get(name, *where)  # another process may have fetched it meanwhile
            if found is None:
                whole = store.fetch(path, start, stop - start, facts, keep)
                keep(start, whole)
                found = whole[where[0] : where[1]]
        return found

    def fact(self, path: str) -> Facts:
        """Of one file, asked for once."""
        if path not in self._known:
            found = store_of(path.partition("://")[0]).facts(path)
            size = self.sizes.get(path, found.size)
            if size != found.size:
                raise changed(path, f"{size:,} bytes then, {found.size:,} now")
            self._known[path] = found
        return self._known[path]

    def facts(self, paths: Sequence[str]) -> list[Facts]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self.fact, paths))


@final
class RemoteFile(io.RawIOBase):
    """A file behind an address, as one that is open.

    Args:
        path: the address.
        ranges: reads it.
    """

    def __init__(self, path: str, ranges: Remote):
        super().__init__()
        self.path, self.ranges, self.size, self._at = path, ranges, ranges.fact(path).size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        data = self.ranges.read(self.path, self._at, count)
        self._at += len(data)
        return data

    def readinto(self, buffer) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
