"""What is seen of a dataset's images before the first step: few of them, in small."""

from dataclasses import dataclass
from functools import reduce

import numpy as np
import PIL.Image

from selftaught.data import BadSample, Samples
from selftaught.kinds import Kind

SIDE, COARSE = 32, 8
"""Pixels along a side of thumbnails, and of those that tell near-duplicates."""
ALIKE, ALIKE_DETAIL = 0.995, 0.7
"""Cosines from which on two images count as one: of coarse thumbnails less their mean, and of what
finer ones have beside these. The second tells images apart that share an illumination alone."""
FEW = 40
"""Images below which nothing is said of what they have in common."""
MARKED = 8
"""Pixels of a thumbnail that a mark has at least."""
SAMPLED = 128
"""Pixels of a line that are looked at for bars."""


@dataclass(frozen=True)
class Looks:
    """What the images that were looked at are like; shares are of these images.

    Args:
        count: of those that could be read.
        side: the middle of their shorter sides in pixels, 0 where none could be read.
        constant: share with one color.
        repeated: share that are exact copies of another.
        copied: share of all images of the dataset that are, as well as these tell; see `copied`.
        near: share that are all but copies of another: written again, the next frame of a video.
        tiny: share whose shorter side is below a third of the middle one.
        dull: share with no more than 16 of 256 levels between their darkest and lightest places.
        bars: share with bars of one color at their edges.
        unlike_bars: whether some have other bars than others, or none.
        mark: the mean detail at the same place of all images, in standard deviations; 0 to 0.8 in
            sets without marks.
        marked: how far those with a mark are from those without it, in standard deviations.
        patch: share with a place of one color, another in each, where others have detail.
        cameras: how far two groups of images are in their mean colors, in standard deviations.
    """

    count: int = 0
    side: int = 0
    constant: float = 0.0
    repeated: float = 0.0
    copied: float = 0.0
    near: float = 0.0
    tiny: float = 0.0
    dull: float = 0.0
    bars: float = 0.0
    unlike_bars: bool = False
    mark: float = 0.0
    marked: float = 0.0
    patch: float = 0.0
    cameras: float = 0.0


def look(samples: Samples, most: int) -> Looks:
    """Look at images all over a dataset, every other one with the image that follows it.

    Args:
        samples: the dataset.
        most: images that are read.
    """
    sides, constant, dull, thumbs, bars = [], [], [], [], []
    seen: dict[int, list[int]] = {}
    for i in map(int, places(len(samples), most)):
        try:
            image = samples.read(i)
        except BadSample:
            continue
        sides.append(min(image.shape[:2]))
        seen.setdefault(hash(image.tobytes()), []).append(i)
        bars.append(edges(image))
        thumbs.append(thumbnail(image))
        dull.append(np.ptp(thumbs[-1].mean(-1)) <= 16)
        constant.append(bool(dull[-1]) and np.ptp(image, axis=(0, 1)).max() <= 1)
    if not sides:
        return Looks()
    x = np.stack(thumbs)
    middle = sorted(sides)[len(sides) // 2]
    barred = np.array([any(b) for b in bars])
    found = Looks(
        count=len(sides),
        side=middle,
        constant=float(np.mean(constant)),
        repeated=1 - len(seen) / len(sides),
        copied=copied(list(seen.values()), len(samples)),
        near=float(copies(x).mean()),
        tiny=float(np.mean(np.array(sides) < middle / 3)),
        dull=float(np.mean(dull)),
        bars=float(barred.mean()),
        unlike_bars=len(set(bars)) > 1,
    )
    if len(x) < FEW or found.repeated + found.constant > 0.5:
        return found
    mark, marked = marks(x)
    means = x.mean((1, 2))
    lines = [*(means - means.mean(0)).T, (means - means.mean(0)) @ _direction(means)]
    return Looks(
        **vars(found)
        | {
            "mark": mark,
            "marked": marked,
            "patch": patches(x),
            "cameras": max(gap(line, 1.0) for line in lines),
        }
    )


def others(samples: Samples, kind: Kind, most: int) -> Looks:
    """What is seen of samples that are no images: how many are empty, and how many are copies."""
    empty: list[bool] = []
    seen: dict[int, list[int]] = {}
    for i in map(int, places(len(samples), most)):
        try:
            facts = kind.facts(samples.read(i))
        except BadSample:
            continue
        empty.append(facts.empty)
        seen.setdefault(hash(facts.content), []).append(i)
    if not empty:
        return Looks()
    return Looks(
        count=len(empty),
        constant=float(np.mean(empty)),
        repeated=1 - len(seen) / len(empty),
        copied=copied(list(seen.values()), len(samples)),
    )


def copied(groups: list[list[int]], count: int) -> float:
    """Share of `count` images that are copies of another one, from those that were looked at.

    Of two copies that lie anywhere, the second is hardly ever looked at as well: pairs that were,
    and are no neighbors, stand for as many more as were missed. A single one may be chance.

    Args:
        groups: places of the images that were looked at, those of the same image together.
        count: of images in the dataset.
    """
    looked = sum(map(len, groups))
    pairs = sum(len(g) == 2 and g[1] - g[0] > 1 for g in groups)
    seen = (looked - len(groups)) / looked
    more = (count - 1) / max(1, looked - 1) if pairs > 1 else 1.0
    return min(1.0, seen + (more - 1) * pairs / looked)


def places(count: int, most: int) -> np.ndarray:
    """Indices to look at, of `count`: all where that is few, else pairs of neighbors all over."""
    if count <= most:
        return np.arange(count)
    first = np.linspace(0, count - 2, most // 2).astype(int)
    return np.unique(np.concatenate([first, first + 1]))


def thumbnail(image: np.ndarray) -> np.ndarray:
    """[SIDE, SIDE, C], float32: means of the pixels of an image [H, W, C]."""
    size, box = (SIDE, SIDE), PIL.Image.Resampling.BOX
    whole = (image,) if image.shape[-1] == 3 else np.moveaxis(image, -1, 0)
    small = [np.asarray(PIL.Image.fromarray(part).resize(size, box)) for part in whole]
    return (small[0] if len(small[0].shape) == 3 else np.stack(small, -1)).astype(np.float32)


def copies(thumbs: np.ndarray) -> np.ndarray:
    """[N] whether an image is all but a copy of another; `thumbs` are [N, SIDE, SIDE, C]."""
    count, step = len(thumbs), SIDE // COARSE
    coarse = thumbs.reshape(count, COARSE, step, COARSE, step, -1).mean((2, 4))
    flat = (coarse - coarse.mean((1, 2), keepdims=True)).reshape(count, -1)
    fine = thumbs.reshape(count, 2 * COARSE, step // 2, 2 * COARSE, step // 2, -1).mean((2, 4, 5))
    rest = fine - coarse.mean(-1).repeat(2, 1).repeat(2, 2)
    alike = (_cosines(flat) > ALIKE) & (_cosines(rest.reshape(count, -1)) > ALIKE_DETAIL)
    np.fill_diagonal(alike, False)
    return np.asarray(alike.any(1))


def _cosines(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)  # or all is rounding
    return unit @ unit.T


def marks(thumbs: np.ndarray) -> tuple[float, float]:
    """How sure it is that all images have the same detail at the same place, and that some have.

    Of images of different things the details at a place have a mean near 0.

    Args:
        thumbs: [N, SIDE, SIDE, C].
    """
    gray = thumbs.mean(-1)
    around = reduce(np.add, _around(gray)) / 9
    detail = (gray[:, 1:-1, 1:-1] - around).reshape(len(gray), -1)
    mean = detail.mean(0)
    sure = np.abs(mean) / (detail.std(0) + 1)
    top = np.argsort(sure)[-2 * MARKED :]
    # each image beside the mean of the others
    others = (mean[top] * len(detail) - detail[:, top]) / (len(detail) - 1)
    shares = (detail[:, top] * others).sum(1) / max((mean[top] ** 2).sum(), 1e-9)
    return float(np.sort(sure)[-MARKED]), gap(shares, 0.01)


def _around(x: np.ndarray) -> list[np.ndarray]:
    """The 3 x 3 pixels around each pixel of [N, SIDE, SIDE, ...] but those at the edges."""
    most = SIDE - 2
    return [x[:, i : i + most, j : j + most] for i in range(3) for j in range(3)]


def patches(thumbs: np.ndarray) -> float:
    """Share of images that are flat at a place where their colors differ, while most are not."""
    near = _around(thumbs)
    flat = (reduce(np.maximum, near) - reduce(np.minimum, near)).max(-1) <= 3
    share = flat.mean(0)
    if np.median(share) > 0.3:
        return 0.0
    color = np.where(flat[..., None], thumbs[:, 1:-1, 1:-1], np.nan)
    often = share > 0.1  # elsewhere there may be none to take a deviation of
    spread = np.nanstd(color[:, often], axis=0).max(-1, initial=0)
    own = np.sort(share[often][spread > 16])
    return float(own[-MARKED // 2]) if len(own) >= MARKED // 2 else 0.0


def edges(image: np.ndarray) -> tuple[int, ...]:
    """Bars of one color at the four edges of an image [H, W, C]: their colors, in 8 levels, and 0
    where there is none.

    A bar ends in a straight line beyond which most pixels have another color: a white background
    does not.
    """
    found = []
    for turned in (image, image[::-1], image.swapaxes(0, 1), image.swapaxes(0, 1)[::-1]):
        lines = turned[: max(2, len(turned) * 2 // 5), :: max(1, turned.shape[1] // SAMPLED)]
        color = lines[0, lines.shape[1] // 2].astype(np.int16)
        if (np.abs(lines[0] - color).max(-1) <= 12).mean() <= 0.98:
            found.append(0)
            continue
        off = np.abs(lines - color).max(-1)
        depth = int(np.argmin([*((off <= 12).mean(1) > 0.98), False]))
        beyond = (off[depth + 1] > 24).mean() if depth < len(lines) - 1 else 0.0
        found.append(int(color.mean()) // 32 + 1 if beyond > 0.5 else 0)
    return tuple(found)


def gap(numbers: np.ndarray, least: float) -> float:
    """How far two groups of numbers, each a tenth at least, are apart, in standard deviations.

    Ashman's D at the best place to part them: 2.6 of a normal, 3.5 of a uniform distribution.

    Args:
        numbers: [N].
        least: standard deviation below which numbers count as alike.
    """
    x = np.sort(numbers.astype(np.float64))
    below = np.arange(1, len(x))
    sums, squares = np.cumsum(x)[:-1], np.cumsum(x**2)[:-1]
    above = len(x) - below
    means = sums / below, (x.sum() - sums) / above
    spreads = (
        squares / below - means[0] ** 2,
        ((x**2).sum() - squares) / above - means[1] ** 2,
    )
    apart = (means[1] - means[0]) / np.sqrt(np.maximum(sum(spreads) / 2, least**2))
    fair = np.minimum(below, above) >= max(2, len(x) // 10)
    return float(apart[fair].max(initial=0))


def _direction(rows: np.ndarray) -> np.ndarray:
    """[D] along which rows [N, D] differ most."""
    return np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][0]
