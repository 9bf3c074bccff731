"""Images in gray and small, as what looks at them without a network sees them."""

import numpy as np
from PIL import Image

from selftaught.data import Samples


def gray(samples: Samples, i: int, short: int, upward: bool = False) -> np.ndarray:
    """Image `i` as float32 [h, w], 0 to 255, its shorter side `short` pixels.

    Args:
        samples: of images.
        i: which.
        short: pixels.
        upward: whether smaller images are made as large; otherwise they stay as they are.

    Raises:
        BadSample: it cannot be read.
    """
    pixels = samples.read(i, min_side=short)
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels[..., :3])
    return resized(image.convert("L"), short, upward)


def resized(image: Image.Image, short: int, upward: bool = False) -> np.ndarray:
    """A gray image as float32 [h, w], its shorter side `short` pixels, or less if not `upward`."""
    scale = short / min(image.size)
    if scale < 1 or upward:
        size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)
