"""Perceptual hashes: 64 bits that stay nearly the same where a picture is written anew, larger or
smaller, brighter or in gray; and turned or mirrored, one of eight.

The signs of the lowest 8 x 8 coefficients of a cosine transform about their median, as in pHash
(Zauner, 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"). To mirror a
picture is to change the signs of every second row or column of coefficients, to transpose it is to
transpose them: all eight hashes come of one transform.
"""

from collections.abc import Iterator

import numpy as np
from scipy.fft import dctn

SIDE = 32
"""Of the gray picture that is transformed."""
LOW = 8
FEW = 20_000
"""Hashes up to which each is compared with each; of more, only those that share most of 16 bits."""
CHUNK = 2**22
"""Comparisons at a time."""
WORD = 16
PLAIN = 2.0
"""Standard deviation of gray values below which a picture has no hash that says anything."""


def hashes(gray: np.ndarray) -> np.ndarray:
    """Of a gray picture float32 [32, 32]: uint64 [8], of it as it is first, then of the seven ways
    to mirror and turn it."""
    low = dctn(gray, norm="ortho")[:LOW, :LOW]
    sign = (-1.0) ** np.arange(LOW)
    ways = []
    for one in (low, low.T):
        for rows in (1.0, sign[:, None]):
            for columns in (1.0, sign[None]):
                ways.append(one * rows * columns)
    flat = np.stack(ways).reshape(8, -1)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(-1)


def pairs(first: np.ndarray, bits: int, others: np.ndarray | None = None) -> np.ndarray:
    """Which hashes differ by so many bits at most, in any of the ways to turn one of them.

    Of more than 20,000, pairs are looked for among those that agree in three quarters of a quarter
    of their bits: where hashes differ in 11 of 64, one of four words of 16 bits differs in two at
    most, so that up to 11 none is missed.

    Args:
        first: [N, 8] uint64.
        bits: of 64.
        others: [M, 8] that `first` are compared with; by default with each other.

    Returns:
        [P, 2] positions; the first is the smaller one where they are of one set.
    """
    to = first if others is None else others
    search = _all if min(len(first), len(to)) * len(to) <= FEW**2 or bits > 11 else _by_words
    found = [np.empty((0, 2), np.int64)]
    for a, b in search(first, to, bits):
        if others is None:
            a, b = a[a != b], b[a != b]
            a, b = np.minimum(a, b), np.maximum(a, b)
        found.append(np.stack([a, b], 1))
    return np.unique(np.concatenate(found), axis=0)


def _all(first: np.ndarray, to: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    step = max(1, CHUNK // max(1, len(to)))
    for a in range(0, len(first), step):
        for way in range(8):
            differ = np.bitwise_count(first[a : a + step, way, None] ^ to[None, :, 0])
            mine, theirs = np.nonzero(differ <= bits)
            yield a + mine, theirs


def _by_words(
    first: np.ndarray, to: np.ndarray, bits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    masks = [1 << i for i in range(WORD)]
    near = np.array([0, *masks, *(a | b for i, a in enumerate(masks) for b in masks[:i])], np.int64)
    near = near[: {0: 1, 1: 1 + WORD}.get(bits // 4, len(near))]  # words that may differ by so many
    for shift in range(0, 64, WORD):
        word = (to[:, 0] >> np.uint64(shift)).astype(np.int64) & 0xFFFF
        order = np.argsort(word, kind="stable")
        bounds = np.searchsorted(word[order], np.arange(2**WORD + 1))
        mine = (first >> np.uint64(shift)).astype(np.int64) & 0xFFFF
        for way in range(8):
            by = np.argsort(mine[:, way], kind="stable")
            starts = np.flatnonzero(np.diff(mine[by, way], prepend=-1))
            for group in np.split(by, starts[1:]):
                if not len(group):
                    continue
                words = mine[group[0], way] ^ near
                low, high = bounds[words], bounds[words + 1]
                there = np.concatenate([order[a:b] for a, b in zip(low, high) if b > a] or [[]])
                there = there.astype(np.int64)
                step = max(1, CHUNK // max(1, len(there)))
                for a in range(0, len(group), step):
                    some = group[a : a + step]
                    differ = np.bitwise_count(first[some, way, None] ^ to[None, there, 0])
                    i, j = np.nonzero(differ <= bits)
                    yield some[i], there[j]
