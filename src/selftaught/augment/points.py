"""Views of points: declared for images, and translated."""

from dataclasses import dataclass

import numpy as np

from selftaught.augment.image.view import View
from selftaught.augment.pipeline import Pipeline
from selftaught.data.points.parts import drawn, within

LEAST = 0.3
"""Share of the points that a large crop has at least."""
SCALED = 0.05
"""By how much all lengths are changed at most."""
SHAKEN = 0.02
"""Meters by which points are moved where images are blurred, as a standard deviation."""


@dataclass(frozen=True)
class PointsViews(Pipeline):
    """Declared views of scans: as many of the points as a crop has of an image, turned about the
    vertical axis, mirrored and scaled a little (DepthContrast, Zhang et al., 2021, arXiv
    2101.02691, section 3.3).

    A crop has the points nearest to one of them, on the ground. Brightness and contrast become
    those of the intensity, hue noise of it, gray leaves it out, and blur moves each point a little.

    Args:
        views: as a method declared them for images.
        reach: meters up to which points are seen, ahead and sideways.
    """

    views: tuple[View, ...]
    reach: float

    def __call__(self, sample: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:  # type: ignore[override]
        """[N, C] -> for each view float32 [size, C]."""
        x = within(sample, self.reach)
        return [self._view(x, view, rng) for view in self.views]

    def _view(self, x: np.ndarray, view: View, rng: np.random.Generator) -> np.ndarray:
        share, jittered, left_out, shaken = rng.random(4)
        low, high = view.scale
        low = max(low, min(LEAST, high / 2))
        count = max(1, round(len(x) * (low + (high - low) * share)))
        middle = x[rng.integers(len(x)), :2]
        if count < len(x):
            away = np.square(x[:, :2] - middle).sum(1)
            x = x[np.sort(np.argpartition(away, count - 1)[:count])]
        out = turned(drawn(x, max(view.shape), rng), rng, view.flip > 0)
        out[:, :3] *= 1 + SCALED * rng.uniform(-1, 1)
        if shaken < view.blur:
            out[:, :3] += (SHAKEN * rng.standard_normal((len(out), 3))).clip(-0.1, 0.1)
        if out.shape[1] > 3:
            brightness, contrast, _, hue = view.jitter
            if jittered < view.jitter_p and any(view.jitter):
                light = out[:, 3] * (1 + contrast * rng.uniform(-0.5, 0.5))
                light += 0.25 * brightness * rng.uniform(-0.5, 0.5)
                out[:, 3] = light + 0.25 * hue * rng.standard_normal(len(out))
            if left_out < view.gray:
                out[:, 3] = 0
        return out.astype(np.float32)


def turned(x: np.ndarray, rng: np.random.Generator, mirrored: bool = True) -> np.ndarray:
    """[N, C], a copy turned by any angle about the vertical axis and, by half chances, mirrored
    along each of the others."""
    angle, flips = rng.uniform(0, 2 * np.pi), rng.integers(0, 2, 2) * 2 - 1
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, s], [-s, c]]) * (flips if mirrored else 1)
    out = x.copy()
    out[:, :2] = x[:, :2] @ turn
    return out
