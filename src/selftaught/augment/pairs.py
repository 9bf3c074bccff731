"""Two views that are not two crops of one picture: its halves, or pictures of two modalities."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from selftaught.augment.image.views import Views, declared
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


@dataclass(frozen=True)
class Modalities(Pipeline):
    """The one view that `first` makes of the first sample, and `second` of the second.

    Args:
        first, second: of one view each: declared, or what stands for that of another kind than
            images.
        mean, std: of the second modality's channels, on the scale 0..1.
        normalized: whether the second, a picture, leaves as float32, normalized with these; other
            kinds leave as they are, and are prepared where the encoder lives.
    """

    first: Any
    second: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalized: bool = True

    def replaced(self, make: Callable[[Views], Pipeline]) -> Self:
        """With other declared views, of which the second is erased with its own mean."""
        first, second = declared(make(Views((*self.first.views, *self.second.views)))).views
        fill = tuple(round(255 * level) for level in self.mean)
        second = replace(second, fill=fill if second.erase else second.fill)
        return replace(self, first=Views((first,)), second=Views((second,)))

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        one, two = image
        (left,), (right,) = self.first(one, rng), self.second(two, rng)
        if not self.normalized:
            return [left, right]
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (self.mean, self.std))
        return [left, (right.astype(np.float32) / 255 - mean) / std]
