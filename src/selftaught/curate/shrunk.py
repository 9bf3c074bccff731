"""Images in gray and small, as what looks at them without a network sees them."""

import numpy as np
from PIL import Image

from selftaught.data import Samples


def gray(samples: Samples, i: int, short: int) -> np.ndarray:
    """Image `i` as float32 [h, w], 0 to 255, its shorter side `short` pixels, or less.

    Args:
        samples: of images.
        i: which.
        short: pixels.

    Raises:
        BadSample: it cannot be read.
    """
    return resized(without_color(samples.read(i, min_side=short)), short)


def without_color(pixels: np.ndarray) -> Image.Image:
    """uint8 [H, W, C] in gray."""
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels[..., :3])
    return image.convert("L")


def resized(image: Image.Image, short: int, upward: bool = False) -> np.ndarray:
    """A gray image as float32 [h, w], its shorter side `short` pixels, or less if not `upward`."""
    scale = short / min(image.size)
    if scale < 1 or upward:
        size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)
