"""Many texts in one buffer."""

from collections.abc import Sequence
from typing import final

import numpy as np
import pyarrow as pa

from selftaught.data.labels import encode
from selftaught.data.source import Skipped, Source, digest


@final
class Texts(Source):
    """Lines or rows, in memory: one buffer for worker processes to share, not a million strings.

    Args:
        data: UTF-8, one text an entry.
        places: (name of a file, texts of it) in their order.
        numbers: int64 [N] which line or row of its file each is.
        mark: between a file's name and the number.
        left: what was found and left out.
    """

    numbered = True

    def __init__(
        self,
        data: pa.LargeBinaryArray,
        places: Sequence[tuple[str, int]],
        numbers: np.ndarray,
        mark: str,
        left: Skipped = Skipped(),  # noqa: B008
    ):
        self.data, self.numbers, self.mark, self.skipped = data, numbers, mark, left
        self.files = [name for name, _ in places]
        self.ends = np.cumsum([count for _, count in places], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.data)

    def load(self, i: int) -> bytes:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.data[i].as_py()

    def name(self, i: int) -> str:
        file = self.files[int(np.searchsorted(self.ends, i, side="right"))]
        return f"{file}{self.mark}{self.numbers[i]}"

    def fingerprint(self) -> str:
        return digest("\n".join(self.files), str(self.ends), *_buffers(self.data))

    def stamp(self, i: int) -> str:
        return self.content(i)  # which is at hand


def _buffers(data: pa.LargeBinaryArray) -> tuple[np.ndarray, bytes]:
    """Lengths and bytes: Arrow may lay the same texts out from different offsets."""
    offsets = np.frombuffer(data.buffers()[1], np.int64)[data.offset :][: len(data) + 1]
    held = data.buffers()[2]
    content = memoryview(held)[offsets[0] : offsets[-1]] if held is not None and len(data) else b""
    return np.diff(offsets), bytes(content)


class Gathered:
    """Texts that are met one by one, of one file after the other; empty ones are counted."""

    def __init__(self) -> None:
        self._data, self._ends = bytearray(), [0]
        self._numbers: list[int] = []
        self._labels: list[str] = []
        self._places: list[tuple[str, int]] = []
        self.empty = 0
        self.other = 0

    def add(self, text: object, number: int, label: str | None = None) -> None:
        """One text, and what it is labeled with; anything else is counted as left out."""
        if text is not None and not isinstance(text, str):
            self.other += 1
            return
        data = _encoded((text or "").strip())
        if not data:
            self.empty += 1
            return
        self._data += data
        self._ends.append(len(self._data))
        self._numbers.append(number)
        if label is not None:
            self._labels.append(label)

    def close(self, name: str) -> None:
        """All that was added since the last time is of the file `name`."""
        self._places.append((name, len(self._numbers) - sum(count for _, count in self._places)))

    def texts(self, mark: str, where: str) -> Texts:
        """All that was added; `where` names it in messages about labels."""
        offsets = pa.py_buffer(np.array(self._ends, np.int64))
        buffers = [None, offsets, pa.py_buffer(self._data)]
        data = pa.Array.from_buffers(pa.large_binary(), len(self._numbers), buffers)
        refused = {"rows whose text is none": self.other} if self.other else {}
        left = Skipped(refused=refused, empty=self.empty)
        found = Texts(data, self._places, np.array(self._numbers, np.int64), mark, left)
        if self._labels:
            found.labels, found.classes = encode(self._labels, where)
        return found


def _encoded(text: str) -> bytes:
    """Bytes as they were; halves of characters, which JSON can hold, stay halves."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
