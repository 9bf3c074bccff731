"""Whether two pictures are one: places of one that are found in the other, all by one movement, and
what is to be seen there.

Local features (SIFT: Lowe, 2004) of both are matched, mirrored too; the turn, scale and shift on
which most agree (RANSAC) lays one picture over the other. Two photos of one scene may agree in as
many features as copies do, but copies are alike in most places where there is something to see.
"""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from selftaught.curate.shrunk import resized, without_color
from selftaught.data import BadSample, Samples

SIDE = 256
"""Longer side of the pictures that are compared."""
POINTS = 300
"""Local features of a picture, at most."""
RATIO = 0.8
"""Of the distances to the nearest and second nearest feature (Lowe's test)."""
NEAR = 0.02
"""How far off a place may be, as a share of the longer side."""
SCALES = (0.3, 3.4)
AGREE = 4
"""Places that agree, at least, for the pictures to be laid over each other."""
WINDOW = 25
"""Side of the places at which two pictures that overlap are held against each other."""
DETAIL = 4.0
"""Mean square of the detail below which there is nothing to be seen in a place, in gray values."""
ALIKE, SHARE = 0.7, 0.52
"""Correlation with which a place is the same, and share of places that are the same in copies. Of
photos of one scene the background is, as far as it is to be seen: at most 0.45 of the places of 272
pairs of photos of clothes on one floor, and of 7 of ImageNet-mini; of 899 pairs of altered copies
at least 0.58, be there writing or a frame over one."""
OVERLAP = 0.08
"""Share of a picture that must overlap."""
KEPT = 2048
"""Pictures whose features are kept in memory."""


def installed() -> bool:
    """Whether there is OpenCV, which finds the features."""
    return find_spec("cv2") is not None


class Seen(NamedTuple):
    """A gray picture, uint8 [h, w], its longer side 256, and its features: places [n, 2] and their
    descriptions [n, 128]; and those of its mirror image."""

    gray: np.ndarray
    places: np.ndarray
    words: np.ndarray
    mirrored_places: np.ndarray
    mirrored_words: np.ndarray


class Looker:
    """Looks at images of some data, and remembers the latest; None for what cannot be read."""

    def __init__(self, samples: Samples):
        self.samples, self.known = samples, dict[int, Seen | None]()

    def all(self, rows: Sequence[int], each: Callable[..., Any] = map) -> dict[int, Seen | None]:
        """Images by their rows, at most `KEPT` of them; `each` as Python's `map`, or in threads."""
        new = [i for i in rows if i not in self.known]
        made = dict(zip(new, each(partial(opened, self.samples), new)))
        found = {i: made[i] if i in made else self.known[i] for i in rows}
        rest = [i for i in self.known if i not in found][: KEPT - len(found)]
        self.known = found | {i: self.known[i] for i in rest}
        return found

    def seen(self, i: int) -> Seen | None:
        """Image `i`."""
        return self.all([i])[i]


def opened(samples: Samples, i: int) -> Seen | None:
    """Image `i` with its features; None where it cannot be read."""
    try:
        pixels = samples.read(i, min_side=SIDE // 2)
    except BadSample:
        return None
    image = without_color(pixels)
    short = max(1, round(SIDE * min(image.size) / max(image.size)))
    gray = resized(image, short, upward=True).round().astype(np.uint8)
    return Seen(gray, *_features(gray), *_features(np.ascontiguousarray(gray[:, ::-1])))


def same(one: Seen | None, other: Seen | None) -> bool:
    """Whether two pictures are one."""
    if one is None or other is None:
        return False
    mirrored = np.ascontiguousarray(other.gray[:, ::-1])
    return _found(one.gray, one.places, one.words, other.gray, other.places, other.words) or _found(
        one.gray, one.places, one.words, mirrored, other.mirrored_places, other.mirrored_words
    )


def _features(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    made: Any = cv2  # whose stubs know no SIFT
    finder = made.SIFT_create(nfeatures=POINTS, contrastThreshold=0.02)
    points, words = finder.detectAndCompute(gray, None)
    if words is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    # roots of shares compare better than lengths (Arandjelovic and Zisserman, 2012)
    words = np.sqrt(words / np.maximum(words.sum(1, keepdims=True), 1e-6))
    return np.array([p.pt for p in points], np.float32), words.astype(np.float32)


def _found(
    gray: np.ndarray,
    places: np.ndarray,
    words: np.ndarray,
    gray_2: np.ndarray,
    places_2: np.ndarray,
    words_2: np.ndarray,
) -> bool:
    import cv2

    if min(len(places), len(places_2)) < AGREE:
        return False
    likeness = words @ words_2.T
    best = likeness.argmax(1)
    rows = np.arange(len(best))
    top = likeness[rows, best]
    mutual = likeness.argmax(0)[best] == rows
    likeness[rows, best] = -1
    ahead = 1 - top < RATIO**2 * (1 - likeness.max(1))  # squared distances
    hit = mutual & ahead
    if hit.sum() < AGREE:
        return False
    cv2.setRNGSeed(0)
    move, agree = cv2.estimateAffinePartial2D(
        places[hit], places_2[best[hit]], method=cv2.RANSAC, maxIters=500,
        ransacReprojThreshold=SIDE * NEAR,
    )  # fmt: skip
    if move is None or not SCALES[0] < np.hypot(move[0, 0], move[0, 1]) < SCALES[1]:
        return False
    # many features may lie in one place
    where = np.unique(np.round(places[hit][agree[:, 0] > 0] / 3), axis=0)
    if len(where) < AGREE:
        return False
    return _alike(gray, gray_2, move) > SHARE


def _alike(gray: np.ndarray, gray_2: np.ndarray, move: np.ndarray) -> float:
    """Share of the places with detail, where two pictures overlap once the first is moved, that are
    the same; 0 where they hardly overlap."""
    import cv2

    if np.hypot(move[0, 0], move[0, 1]) < 1:  # no detail is invented: the finer one is made coarser
        gray, gray_2, move = gray_2, gray, cv2.invertAffineTransform(move)
    size = gray_2.shape[1], gray_2.shape[0]
    moved = cv2.warpAffine(gray, move, size, flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.full_like(gray, 255), move, size, flags=cv2.INTER_NEAREST)
    inside = cv2.erode(inside, np.ones((9, 9), np.uint8), borderValue=0) > 0
    if inside.mean() < OVERLAP:
        return 0.0
    a, b = _detail(moved), _detail(gray_2)
    own, other, both = (_around(x) for x in (a * a, b * b, a * b))
    seen = inside & (np.maximum(own, other) > DETAIL)
    if seen.sum() < WINDOW:
        return 0.0
    return float((both[seen] > ALIKE * np.sqrt(np.maximum(own * other, 1e-6))[seen]).mean())


def _detail(gray: np.ndarray) -> np.ndarray:
    """What is neither light nor grain."""
    import cv2

    gray = gray.astype(np.float32)
    return cv2.GaussianBlur(gray, (0, 0), 1.5) - cv2.GaussianBlur(gray, (0, 0), 6)


def _around(x: np.ndarray) -> np.ndarray:
    """The mean around each pixel."""
    import cv2

    return cv2.boxFilter(x, -1, (WINDOW, WINDOW), borderType=cv2.BORDER_REFLECT)
