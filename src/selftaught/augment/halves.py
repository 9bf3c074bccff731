"""One picture as two: its left and its right half."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught.augment.pipeline import Pipeline


@dataclass(frozen=True)
class Halves(Pipeline):
    """The two halves of the one view that `whole` makes: uint8 arrays [C, H, W // 2].

    The middle column of an odd width is in neither.
    """

    whole: Pipeline

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Any:
        (view,) = self.whole(image, rng)
        half = view.shape[2] // 2
        return [np.ascontiguousarray(view[:, :, :half]), np.ascontiguousarray(view[:, :, -half:])]
