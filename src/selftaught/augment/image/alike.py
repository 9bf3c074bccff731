"""The same crops at several sizes, for networks that look at the same with other resolutions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught.augment.image.view import Params
from selftaught.augment.image.views import Views, declared
from selftaught.augment.pipeline import Pipeline, check_image


@dataclass(frozen=True)
class Alike(Pipeline):
    """The same crops at several sizes: a list of views for each of these pipelines.

    Pipelines after the first may have fewer views: then those of its first ones alone. A blur is as
    strong in each, seen from afar: its sigma grows with the size.
    """

    sizes: tuple[Views, ...]

    def replaced(self, make: Callable[[Views], Any]) -> "Alike":
        """With other declared views, at each size alike."""
        return Alike(tuple(declared(make(views)) for views in self.sizes))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[list[np.ndarray]]:
        check_image(image)
        first = self.sizes[0]
        params = first.draw(rng, *image.shape[:2])
        made = []
        for views in self.sizes:
            times = views.views[0].shape[0] / first.views[0].shape[0]
            seen = params[: len(views.views)]
            made.append(views.render(image, [_larger(p, times) for p in seen]))
        return made


def _larger(p: Params, times: float) -> Params:
    """What is in pixels of a view, for one that is so many times as large."""
    top, left, height, width = (int(n * times) for n in p.erased)
    return p._replace(sigma=p.sigma * times, erased=(top, left, height, width))
