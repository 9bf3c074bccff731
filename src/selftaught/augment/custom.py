"""Views by a function of the user's own, of any library or none."""

import inspect
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch

from selftaught.augment.pipeline import Pipeline, check_image
from selftaught.errors import SelftaughtError, UserError
from selftaught.sides import Size, both
from selftaught.signature import Checked


@dataclass(frozen=True)
class Custom(Checked, Pipeline):
    """The views that a function makes: `function(image)` gives one, and is called for each.

    It may give all at once, too, as a list. A parameter of it that is called `rng` is given the
    generator of this sample, `size` the side of the view that is to be made, or its (rows,
    columns), `view` its number from 0 on. The generators of torch, NumPy and `random` begin anew
    for each image with a seed of its own, and are afterwards as they were before: an image has the
    same views for any number of workers, and in a run that is resumed, if randomness comes from
    these alone.

    Args:
        function: of an image; such as a torchvision transform.
        sizes: side of each view in pixels, or (rows, columns); a training sets those of its
            method.
        given: what the function is given: a Pillow image, of one or three channels, or an array
            [H, W, C] of bytes, of any number.
    """

    function: Callable[..., Any]
    sizes: tuple[Size, ...] = (224, 224)
    given: Literal["PIL", "array"] = "PIL"

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Make the views of `image`, uint8 [H, W, C]: uint8 [C, rows, columns] each.

        Raises:
            UserError: `image` is no such array, the function fails, or what it gives is no view of
            the size that is wanted.
        """
        check_image(image)
        asked = {"rng": rng, "size": None, "view": None}
        taken = [name for name in asked if name in _parameters(self.function)]
        views: list[np.ndarray] = []
        with _seeded(int(rng.integers(2**32))):
            for number, size in enumerate(self.sizes):
                asked |= {"size": size, "view": number}
                made = self._made(image, {name: asked[name] for name in taken})
                if isinstance(made, list | tuple):
                    return self._all(made, image.shape[2])
                views.append(_view(made, size, image.shape[2], self.name))
        return views

    def _made(self, image: np.ndarray, asked: dict[str, Any]) -> Any:
        shown = self._shown(image)
        try:
            return self.function(shown, **asked)
        except SelftaughtError:
            raise
        except Exception as error:
            *_, (file, line, *_) = traceback.extract_tb(error.__traceback__)
            raise UserError(
                f"{self.name} fails for an image of {image.shape[1]} x {image.shape[0]} px: "
                f"{type(error).__name__}: {error} ({file}, line {line})"
            ) from error

    @property
    def name(self) -> str:
        """Of the function."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def _shown(self, image: np.ndarray) -> Any:
        if self.given == "array":
            return image.copy()  # which may be changed in place
        if image.shape[2] not in (1, 3):
            raise UserError(
                f"images of {image.shape[2]} channels are no Pillow images: give {self.name} "
                "arrays, by Custom(function, given='array')"
            )
        return PIL.Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)

    def _all(self, made: list[Any] | tuple[Any, ...], channels: int) -> list[np.ndarray]:
        if len(made) != len(self.sizes):
            raise UserError(
                f"{self.name} gives {len(made)} views and {len(self.sizes)} are needed, of "
                f"{', '.join(map(str, self.sizes))} px: give as many, or one, to be called for each"
            )
        return [_view(m, size, channels, self.name) for m, size in zip(made, self.sizes)]


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of what a function takes; none where it does not tell."""
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """A block in which the common generators begin with `seed`; afterwards they are as before."""
    generator = torch.default_generator
    before = generator.get_state(), np.random.get_state(), random.getstate()
    try:
        generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
    finally:
        generator.set_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _view(made: Any, size: Size, channels: int, name: str) -> np.ndarray:
    """What a function gave as bytes [C, rows, columns]."""
    tensor = isinstance(made, torch.Tensor)
    x = np.asarray(made.detach().cpu() if tensor else made)
    if x.ndim == 2:
        x = x[None] if tensor else x[..., None]
    if x.ndim == 3 and not tensor:
        x = x.transpose(2, 0, 1)
    sides = both(size)
    if x.shape != (channels, *sides):
        wanted = [channels, *sides] if tensor else [*sides, channels]
        way = "take `size` as a parameter, and make the view as large"
        if x.ndim != 3:
            way = "return the view"
        elif sorted(x.shape) == sorted(wanted):
            way = "put its axes into that order"
        elif x.shape[1:] == sides:
            way = "make its channels as many" + ", by convert('RGB') say" * (channels == 3)
        raise UserError(f"{name} gives {_told(made)}, and a view is to be {wanted} here: {way}")
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if not np.issubdtype(x.dtype, np.floating):
        raise UserError(
            f"{name} gives a view of {x.dtype}: give uint8 from 0 to 255, or floats from 0 to 1"
        )
    if not np.isfinite(x).all():
        raise UserError(f"{name} gives a view with NaN or infinity in it")
    if x.min() < 0 or x.max() > 1:
        raise UserError(
            f"{name} gives a view of floats from {x.min():.3g} to {x.max():.3g}, not from 0 to 1: "
            "leave the normalization to the training, which does it afterwards"
        )
    return np.round(255 * x).astype(np.uint8, order="C")


def _told(made: Any) -> str:
    """What was given, by its type and shape."""
    if isinstance(made, PIL.Image.Image):
        return f"a Pillow image of {made.width} x {made.height} px ({made.mode})"
    shape = f" of shape {list(made.shape)}" if hasattr(made, "shape") else ""
    return f"{type(made).__name__}{shape}"
