"""Fixed changes of images: corruptions that a classifier should bear, copies that should be found.

Each is a pure function of a plain view and a generator, which belongs to the image: nothing depends
on the order or number of images.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import scipy
import simplejpeg

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""(float64 [C, S, S] in [0, 1], generator of this image) -> the same, values clipped afterwards."""


def changed(
    view: np.ndarray, index: int, changes: Mapping[str, Change], seed: int = 0
) -> np.ndarray:
    """uint8 [C, S, S] -> [V, C, S, S]: the view after each of V changes."""
    image = view / 255.0
    return np.stack(
        [
            (change(image, np.random.default_rng([seed, n, index])) * 255)
            .round()
            .clip(0, 255)
            .astype(np.uint8)
            for n, change in enumerate(changes.values())
        ]
    )


def gaussian_noise(x: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Noise of one deviation everywhere, as of a sensor in the dark."""
    return x + deviation * rng.normal(size=x.shape)


def shot_noise(x: np.ndarray, rng: np.random.Generator, photons: float) -> np.ndarray:
    """Poisson noise: white is `photons`."""
    return rng.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """A share of all values is black or white."""
    hit, white = rng.random(x.shape) < share, rng.random(x.shape) < 0.5
    return np.where(hit, white, x)


def blur(x: np.ndarray, _: np.random.Generator, share: float) -> np.ndarray:
    """Gaussian, of a deviation that is a share of the shorter side."""
    deviation = share * min(x.shape[1:])
    return scipy.ndimage.gaussian_filter(x, (0, deviation, deviation), mode="nearest")


def pixelate(x: np.ndarray, _: np.random.Generator, share: float) -> np.ndarray:
    """Reduced to a share of each side, nearest pixels, and back."""

    def where(side: int) -> np.ndarray:
        few = max(1, round(share * side))
        back = ((np.arange(side) * few // side + 0.5) * side / few).astype(int)
        return np.minimum(back, side - 1)

    return x[:, where(x.shape[1])][:, :, where(x.shape[2])]


def brightness(x: np.ndarray, _: np.random.Generator, more: float) -> np.ndarray:
    """Added to all values."""
    return x + more


def contrast(x: np.ndarray, _: np.random.Generator, factor: float) -> np.ndarray:
    """Of the distances from the mean of each channel."""
    mean = x.mean((1, 2), keepdims=True)
    return mean + factor * (x - mean)


def jpeg(x: np.ndarray, _: np.random.Generator, quality: int) -> np.ndarray:
    """Encoded and decoded: colors together, any other number of channels one by one."""
    pixels = (x * 255).round().clip(0, 255).astype(np.uint8)
    if len(pixels) == 3:
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels.transpose(1, 2, 0)), quality, "RGB", "420"
        )
        return simplejpeg.decode_jpeg(data, "RGB").transpose(2, 0, 1) / 255
    gray = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(c[..., None]), quality, "GRAY", "Gray")
        for c in pixels
    ]
    return np.stack([simplejpeg.decode_jpeg(g, "GRAY")[..., 0] for g in gray]) / 255


def flip(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Left is right."""
    return x[:, :, ::-1]


def crop(x: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """A random part, a share of each side, enlarged to all of it, bilinear."""
    place = _part(x, rng, share)
    part = x[place]
    where = (
        (np.arange(side) + 0.5) * kept / side - 0.5
        for side, kept in zip(x.shape[1:], part.shape[1:])
    )
    grid = np.meshgrid(*where, indexing="ij")
    return np.stack([scipy.ndimage.map_coordinates(c, grid, order=1, mode="nearest") for c in part])


def _part(x: np.ndarray, rng: np.random.Generator, share: float) -> tuple[slice, ...]:
    """Where a random part of an image lies that has this share of each side."""
    sides = np.array(x.shape[1:], int)
    kept = [max(1, round(share * side)) for side in x.shape[1:]]
    start = rng.integers(0, sides - np.array(kept) + 1, 2)
    return slice(None), *(slice(a, a + n) for a, n in zip(start, kept))


def turn(x: np.ndarray, rng: np.random.Generator, degrees: float) -> np.ndarray:
    """To the left or to the right."""
    angle = degrees * rng.choice((-1, 1))
    return scipy.ndimage.rotate(x, angle, (1, 2), reshape=False, order=1, mode="reflect")


def gray(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """The mean of all channels."""
    return np.broadcast_to(x.mean(0), x.shape)


def cover(x: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """A random part, a share of each side, is gray."""
    x = x.copy()
    x[_part(x, rng, share)] = 0.5
    return x


def tint(x: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Each channel times a factor of its own."""
    return x * rng.uniform(1 - most, 1 + most, (len(x), 1, 1))


CORRUPTIONS: dict[str, Change] = {
    "mild gaussian noise": partial(gaussian_noise, deviation=0.08),
    "strong gaussian noise": partial(gaussian_noise, deviation=0.18),
    "mild shot noise": partial(shot_noise, photons=60.0),
    "strong shot noise": partial(shot_noise, photons=12.0),
    "mild impulse noise": partial(impulse_noise, share=0.03),
    "strong impulse noise": partial(impulse_noise, share=0.09),
    "mild blur": partial(blur, share=0.01),
    "strong blur": partial(blur, share=0.03),
    "mild pixelation": partial(pixelate, share=0.6),
    "strong pixelation": partial(pixelate, share=0.3),
    "mildly brighter": partial(brightness, more=0.1),
    "much brighter": partial(brightness, more=0.3),
    "mildly darker": partial(brightness, more=-0.1),
    "much darker": partial(brightness, more=-0.3),
    "mildly less contrast": partial(contrast, factor=0.5),
    "much less contrast": partial(contrast, factor=0.2),
    "mild JPEG": partial(jpeg, quality=25),
    "strong JPEG": partial(jpeg, quality=10),
}
"""Noise as in ImageNet-C's severities 1 and 3 (Hendrycks and Dietterich, 2019, arXiv 1903.12261);
blur relative to the side, so that small images bear the same."""

COPIES: dict[str, Change] = {
    "flipped": flip,
    "cropped to 80 %": partial(crop, share=0.8),
    "cropped to 50 %": partial(crop, share=0.5),
    "turned by 15 degrees": partial(turn, degrees=15.0),
    "blurred": partial(blur, share=0.02),
    "JPEG of quality 10": partial(jpeg, quality=10),
    "gray": gray,
    "tinted": partial(tint, most=0.4),
    "partly covered": partial(cover, share=0.4),
}
