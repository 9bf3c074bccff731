"""Which images there are: their sizes, and a hash of their bytes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, final

import numpy as np

from selftaught.curate.engines import threads
from selftaught.curate.settings import Scanning
from selftaught.curate.stage import Block, Part, Stage
from selftaught.data import BadSample
from selftaught.data.source import digest
from selftaught.evaluate.writing import texts


@final
class Scan(Stage[Scanning]):
    """Header and bytes of each image; what has no header that can be read leaves."""

    name: ClassVar = "scan"
    options: ClassVar = Scanning

    @property
    def passes(self) -> tuple[str, ...]:
        """One."""
        return ("read",)

    def inputs(self, step: str) -> str:
        """Nothing but the data itself."""
        return ""

    def key(self, step: str, block: Block) -> str:
        """Of names, and of what changes where files do; not of the bytes, which are to be read."""
        samples = self.pool.raw
        rows = range(block.start, block.start + block.count)
        return digest(*(f"{samples.name(i)}\0{samples.stamp(i)}" for i in rows))

    def look(self, step: str, block: Block) -> Part:
        """Read each image of a block once, undecoded."""
        rows = np.arange(block.start, block.start + block.count)
        with ThreadPoolExecutor(threads(self.asked.workers)) as pool:
            found = list(pool.map(self._read, rows.tolist()))
        width, height, size, content, reason = (list(column) for column in zip(*found))
        columns: dict[str, Any] = {
            "name": texts(self.pool.raw, rows),
            "width": np.array(width, np.int32),
            "height": np.array(height, np.int32),
            "bytes": np.array(size, np.int64),
            "hash": content,
            "reason": reason,
        }
        return Part(columns)

    def _read(self, i: int) -> tuple[int, int, int, str, str]:
        samples = self.pool.raw
        try:
            raw = samples.source.load(i)
            header = samples.header_of(raw, samples.name(i))
        except BadSample as error:
            return 0, 0, 0, "", f"unreadable: {error.reason}"
        data = raw if isinstance(raw, bytes) else np.ascontiguousarray(raw)
        size = len(data) if isinstance(data, bytes) else data.nbytes
        return header.width, header.height, size, digest(data), ""

    def gather(self) -> dict[str, Any]:
        """All rows."""
        names = ("name", "width", "height", "bytes", "hash", "reason")
        return {"row": np.arange(self.pool.count), **self.columns("read", names)}
