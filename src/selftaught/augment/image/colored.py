"""Views for tasks that are about color: photos without any are refused."""

from dataclasses import dataclass

import numpy as np
import torch

from selftaught.augment.image.views import Views
from selftaught.augment.pipeline import Pipeline, check_image
from selftaught.data.image.decode import BadSample
from selftaught.parts.colors import lab

LEAST = 5.0
"""|a| or |b| above which a pixel has a color (Zhang et al. 2016's code)."""
SURE = 32
"""Difference of two channels, in levels, above which a pixel has a color in any light."""


@dataclass(frozen=True)
class Colored(Pipeline):
    """The one view of `views`; a photo of three channels that is gray everywhere is no sample."""

    views: Views

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Make the view of `image`, uint8 [H, W, C]: [C, size, size].

        Raises:
            BadSample: the image is gray; training counts it and takes another.
            UserError: `image` is not a uint8 array [H, W, C] with pixels.
        """
        check_image(image)
        (view,) = self.views(image, rng)
        if len(view) == 3 and not colored(view) and not colored(image.transpose(2, 0, 1)):
            raise BadSample("it is gray, and this method learns from colors")
        return view


def colored(image: np.ndarray) -> bool:
    """Whether any pixel of an image [3, H, W] has a color."""
    spread = image.max(0) - image.min(0)
    if spread.max() >= SURE:
        return True
    found = lab(torch.from_numpy(np.ascontiguousarray(image)) / 255)
    return bool((found[1:].abs() > LEAST).any())
