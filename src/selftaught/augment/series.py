"""Views of series: declared for images, and translated."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught.augment.image.view import View
from selftaught.augment.pipeline import Pipeline

LEAST = 0.3
"""Share of a series that a large crop has at least: a tenth of an image still shows things, a tenth
of a heartbeat none."""


@dataclass(frozen=True)
class SeriesViews(Pipeline):
    """Declared views of standardized series: crops of the same share, then what colors are there.

    Brightness and contrast become an offset and a factor of each channel, hue noise, blur smoothing
    and gray a channel that is left out. Nothing is mirrored: time has a direction.

    Args:
        views: as a method declared them for images.
    """

    views: tuple[View, ...]

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """[C, steps] -> for each view float32 [C, size]."""
        return [self._view(x, view, rng) for view in self.views]

    def _view(self, x: np.ndarray, view: View, rng: np.random.Generator) -> np.ndarray:
        share, place, jittered, left_out, smoothed, width = rng.random(6)
        whole, size = x.shape[1], max(view.shape)
        low, high = view.scale
        low = max(low, min(LEAST, high / 2))
        long = max(2, min(whole, round(whole * (low + (high - low) * share))))
        out = resized(x, int(place * (whole - long + 1)), long, size)
        brightness, contrast, _, hue = view.jitter
        if jittered < view.jitter_p and any(view.jitter):
            each = (len(x), 1)
            out = out * (1 + contrast * rng.uniform(-0.5, 0.5, each))
            out = out + brightness * rng.uniform(-0.5, 0.5, each)
            out = out + 0.5 * hue * rng.standard_normal(out.shape)
        if len(x) > 1 and left_out < view.gray:
            out[rng.integers(len(x))] = 0
        if smoothed < view.blur:
            out = _smooth(out, 3 + 2 * int(2 * width))
        return out.astype(np.float32)


def resized(x: np.ndarray, start: int, long: int, size: int) -> np.ndarray:
    """Steps `start` to `start + long` of [C, steps] as float32 [C, size].

    Where they are fewer values lie on the line between two; where they are more each is the mean of
    those that it stands for.
    """
    part = x[:, start : start + long]
    if long == size:
        return part.astype(np.float32)
    if long > size:
        sums = np.pad(np.cumsum(part, 1, dtype=np.float64), ((0, 0), (1, 0)))
        edges = np.linspace(0, long, size + 1)
        whole = np.minimum(edges.astype(int), long - 1)
        at = sums[:, whole] + (edges - whole) * part[:, whole]
        return (np.diff(at, axis=1) * size / long).astype(np.float32)
    at = np.linspace(0, long - 1, size)
    low = np.minimum(at.astype(int), max(0, long - 2))
    share = at - low
    high = np.minimum(low + 1, long - 1)
    return (part[:, low] * (1 - share) + part[:, high] * share).astype(np.float32)


def _smooth(x: Any, width: int) -> np.ndarray:
    """The mean of each step and those around it, `width` of them, an odd number."""
    padded = np.pad(x, ((0, 0), (width // 2, width // 2)), mode="edge")
    sums = np.pad(np.cumsum(padded, 1), ((0, 0), (1, 0)))
    return (sums[:, width:] - sums[:, :-width]) / width
