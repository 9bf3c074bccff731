"""Which image of a group of duplicates to keep, and what the others are to it."""

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from selftaught import kinds
from selftaught.data import BadSample
from selftaught.data.source import digest

if TYPE_CHECKING:
    from selftaught.index.index import Index


class _Sample(NamedTuple):
    """sides: width and height of an image; of what is none, its one size. bytes: of an encoded
    file, or of an array. content: their hash."""

    sides: tuple[int, ...]
    bytes: int
    content: str


def columns(index: "Index") -> tuple[str, ...]:
    """Names of what is told of each of a group.

    keep: whether it is the one to keep; similarity, kind: to that one; size: in the unit of its
    kind, of what is no image.
    """
    sides = ("width", "height") if kinds.of(index.samples).photos else ("size",)
    return "keep", "similarity", "kind", *sides, "bytes", "path", "index"


def described(index: "Index", group: np.ndarray) -> list[tuple[Any, ...]]:
    """Rows of `columns`, the one to keep first: the largest, then of most bytes, then the first;
    others follow by falling similarity to it."""
    images = [_look(index, int(i)) for i in group]
    best = max(range(len(group)), key=lambda n: (prod(images[n].sides), images[n].bytes))
    vectors = index.vectors.at(group)
    similarity = (vectors @ vectors[best]).clip(-1, 1).tolist()
    same = "same pixels" if kinds.of(index.samples).photos else "same view"
    rows = []
    for n, (i, image) in enumerate(zip(group.tolist(), images)):
        kind = "near"
        if n == best:
            kind = "kept"
        elif image.content == images[best].content:
            kind = "identical file"
        elif index.pixels[i] == index.pixels[group[best]]:
            kind = same
        where = index.name(i), int(index.positions[i])
        rows.append((n == best, similarity[n], kind, *image.sides, image.bytes, *where))
    return sorted(rows, key=lambda row: (not row[0], -row[1]))


def _look(index: "Index", i: int) -> _Sample:
    samples, kind = index.samples, kinds.of(index.samples)
    try:
        raw = samples.source.load(i)
        if kind.photos:
            header = samples.header_of(raw, index.name(i))
            sides = header.width, header.height
        else:
            sides = (kind.facts(samples.decode(raw, index.name(i))).size,)
    except BadSample:  # it could be read before: it has just gone, or a disk fails
        return _Sample((0, 0) if kind.photos else (0,), 0, f"gone {i}")
    data = raw if isinstance(raw, bytes) else np.ascontiguousarray(raw).tobytes()
    return _Sample(sides, len(data), digest(data))
