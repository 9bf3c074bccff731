"""Which image of a group of duplicates to keep, and what the others are to it."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from selftaught.data import BadSample
from selftaught.data.source import digest

if TYPE_CHECKING:
    from selftaught.index.index import Index


class Row(NamedTuple):
    """An image of a group. keep: whether it is the one to keep; similarity, kind: to that one."""

    keep: bool
    similarity: float
    kind: str
    width: int
    height: int
    bytes: int
    path: str
    index: int


class _Image(NamedTuple):
    """size: bytes of an encoded file, or of an array. content: their hash."""

    width: int
    height: int
    size: int
    content: str


def described(index: "Index", group: np.ndarray) -> list[Row]:
    """The one to keep first: of most pixels, then of most bytes, then the first; others follow by
    falling similarity to it."""
    images = [_look(index, int(i)) for i in group]
    best = max(
        range(len(group)), key=lambda n: (images[n].width * images[n].height, images[n].size)
    )
    vectors = index.vectors.at(group)
    similarity = (vectors @ vectors[best]).clip(-1, 1).tolist()
    rows = []
    for n, (i, image) in enumerate(zip(group.tolist(), images)):
        kind = "near"
        if n == best:
            kind = "kept"
        elif image.content == images[best].content:
            kind = "identical file"
        elif index.pixels[i] == index.pixels[group[best]]:
            kind = "same pixels"
        about = image.width, image.height, image.size, index.name(i), int(index.positions[i])
        rows.append(Row(n == best, similarity[n], kind, *about))
    return sorted(rows, key=lambda row: (not row.keep, -row.similarity))


def _look(index: "Index", i: int) -> _Image:
    try:
        raw = index.samples.source.load(i)
        header = index.samples.header_of(raw, index.name(i))
    except BadSample:  # it could be read before: it has just gone, or a disk fails
        return _Image(0, 0, 0, f"gone {i}")
    data = raw if isinstance(raw, bytes) else np.ascontiguousarray(raw).tobytes()
    return _Image(header.width, header.height, len(data), digest(data))
