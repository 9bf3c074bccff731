"""The contract of a pipeline, the randomness of a sample, and the adaptor for plain torch users."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import PIL.Image
import torch
from torch.utils.data import default_convert

from selftaught.errors import UserError


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample in one epoch: the same on every worker, process and machine.

    Args:
        seed: Seed of the run, at least 0.
        epoch: Pass over the data, at least 0.
        index: Position of the sample in the dataset, at least 0.

    Raises:
        UserError: One of the three is negative.
    """
    if min(seed, epoch, index) < 0:
        raise UserError(
            f"seed={seed}, epoch={epoch}, index={index} cannot seed a sample: use numbers from 0 on"
        )
    return np.random.default_rng((seed, epoch, index))


def check_image(image: np.ndarray) -> None:
    """Raise UserError unless `image` is a uint8 array [H, W, C] with at least one pixel."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        got = (
            f"{image.dtype} {list(image.shape)}"
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise UserError(
            f"An image must be a uint8 array [H, W, C], not {got}: scale floats to 0..255, "
            "and give a gray image its channel axis with image[..., None]"
        )
    if image.size == 0:
        raise UserError(f"An image of shape {list(image.shape)} has no pixels: leave it out")


def tensors(views: Any) -> list[torch.Tensor]:
    """All tensors among nested views, in their order."""
    if isinstance(views, torch.Tensor):
        return [views]
    nodes = views.values() if isinstance(views, dict) else views
    return (
        [x for node in nodes for x in tensors(node)]
        if isinstance(views, dict | list | tuple)
        else []
    )


class Pipeline(ABC):
    """What turns one image into views; a frozen dataclass, so that it pickles and compares."""

    @abstractmethod
    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Any:
        """Make the views of `image`, uint8 [H, W, C], with randomness from `rng` alone."""

    def split(self) -> "Pipeline | None":
        """This pipeline with colors and blur left to `photometric.finish_on_device`.

        None where nothing of the kind is in it, or where what follows needs finished pixels.
        """
        return None

    def replaced(self, make: Callable[[Any], "Pipeline"]) -> "Pipeline":
        """This pipeline with what `make` makes of its declared `Views` in their place.

        Raises:
            UserError: it has none, or needs to know more of them than others would tell.
        """
        raise UserError(
            f"what it makes ({type(self).__name__}) is not made of views that could be others"
        )

    def transform(self, seed: int = 0) -> "Transform":
        """This pipeline as the `transform` of a torchvision-style dataset (see `Transform`)."""
        return Transform(self, seed)


@dataclass(frozen=True)
class Around(Pipeline):
    """Declared views, with something beside them that does not look at finished pixels."""

    views: Any

    def split(self) -> Self | None:
        """With colors and blur of the views left to the device, or None where there are none."""
        views = self.views.split()
        return None if views is None else replace(self, views=views)

    def replaced(self, make: Callable[[Any], Pipeline]) -> Self:
        """With other views."""
        return replace(self, views=make(self.views))


@dataclass(frozen=True)
class Transform:
    """A pipeline for a torch dataset of one's own: PIL image in, views as uint8 tensors out.

    Its randomness follows torch's global generator, as torchvision's transforms do: reproducible
    with `torch.manual_seed`, different in every loader worker and epoch. (`pretrain` seeds by
    sample index instead.) `device.normalize` makes floats of the collated batch.

    Args:
        pipeline: What makes the views.
        seed: Number that sets two transforms apart which share torch's generator, at least 0.
    """

    pipeline: Pipeline
    seed: int = 0

    def __call__(self, image: PIL.Image.Image | np.ndarray) -> Any:
        if isinstance(image, PIL.Image.Image):
            image = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
            image = image.reshape(*image.shape[:2], -1)
        draw = int(torch.randint(2**62, ()))
        return default_convert(self.pipeline(image, sample_rng(self.seed, 0, draw)))


@dataclass(frozen=True)
class Noised(Pipeline):
    """The one view of `view`, and `count` uniform numbers: one for each of its patches.

    Drawn by the sample's own generator, not in the loss, masks are alike for any number of workers
    and processes.
    """

    view: Pipeline
    count: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Any:
        (view,) = self.view(image, rng)
        return view, rng.random(self.count, dtype=np.float32)
