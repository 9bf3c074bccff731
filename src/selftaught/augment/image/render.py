"""The reference renderer: drawn parameters to pixels, with the meaning of torchvision's v2 tensors.

Between resizing and the result, an image is a float32 tensor [C, H, W] of *whole levels* 0..255:
every operation rounds as torchvision's does on uint8. That equals torchvision's uint8 path bit by
bit (blur: within one level, where rounding falls on a tie) without converting at each step.
Operations change their argument in place.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import get_worker_info

from selftaught.augment.image.view import Params, View
from selftaught.errors import UserError
from selftaught.sides import Sides, Size, both

_log = logging.getLogger("selftaught")

LONGEST = 4
"""Longest aspect ratio that `render_plain` resizes whole; what lies beyond is never visible."""


@torch.inference_mode()
def render_view(image: np.ndarray, view: View, params: Params) -> np.ndarray:
    """Render one view of `image`, uint8 [H, W, C], as uint8 [C, rows, columns]."""
    p = params
    cut = image[p.top : p.top + p.height, p.left : p.left + p.width]
    pixels = _resize(cut, *view.shape, view.interpolation)
    if p.flip:
        pixels = pixels[:, ::-1]
    if p.vertical:
        pixels = pixels[::-1]
    if p.transpose:
        pixels = pixels.transpose(1, 0, 2)
    planes = np.array(pixels.transpose(2, 0, 1), order="C")  # never a view of the image
    check_views([view], len(planes))
    if p.order or p.gray or p.sigma or p.solarize:
        planes = _colored(planes, view, p)
    top, left, height, width = p.erased
    planes[:, top : top + height, left : left + width] = np.array(view.fill)[:, None, None]
    return planes


def _colored(planes: np.ndarray, view: View, p: Params) -> np.ndarray:
    x = torch.from_numpy(planes).float()
    for k in p.order:
        x = _JITTER[k](x, p.factors[k])
    if p.gray:
        x = grayscale(x)
    if p.sigma:
        x = blur(x, p.sigma, view.blur_radius)
    if p.solarize:
        x = solarize(x)
    return x.numpy().astype(np.uint8, order="C")


@torch.inference_mode()
def render_plain(image: np.ndarray, resize: Size, size: Size) -> np.ndarray:
    """Resize `image`, uint8 [H, W, C], until it covers `resize`, cut the center: uint8 [C, *size].

    Images much longer than that lose their ends first (`covering`).
    """
    rows, columns = both(size)
    sides, whole = covering(image.shape[:2], both(resize))
    pixels = _resize(_middle(image, sides), *whole, "bilinear")
    top, left = round((whole[0] - rows) / 2), round((whole[1] - columns) / 2)
    pixels = pixels[top : top + rows, left : left + columns]
    return np.array(pixels.transpose(2, 0, 1), order="C")


def plain_mask(mask: np.ndarray, resize: Size, size: Size) -> np.ndarray:
    """The part of a mask [H, W] that `render_plain` shows of its image: `size`, nearest."""
    sides, wholes = covering(mask.shape[:2], both(resize))
    mask = _middle(mask, sides)
    where = []
    for kept, side, whole in zip(both(size), sides, wholes):
        places = np.arange(kept) + round((whole - kept) / 2) + 0.5
        where.append((places * side / whole).astype(int).clip(0, side - 1))
    return mask[where[0]][:, where[1]]


def covering(sides: Sequence[int], resize: Sides) -> tuple[Sides, Sides]:
    """How much of an image of these `sides` is kept, and to what that is resized until both sides
    are at least as in `resize`.

    Of an image more than `LONGEST` times as long as that the ends go first, so that a thin strip
    cannot ask for gigabytes.
    """
    height, width = sides
    rows, columns = resize
    if height * columns >= width * rows:  # the width decides
        kept = min(height, max(1, LONGEST * width * rows // columns)), width
        return kept, (columns * kept[0] // width, columns)
    kept = height, min(width, max(1, LONGEST * height * columns // rows))
    return kept, (rows, rows * kept[1] // height)


def _middle(image: np.ndarray, sides: Sides) -> np.ndarray:
    """The middle of an image, with these sides."""
    (top, height), (left, width) = (((n - k) // 2, k) for n, k in zip(image.shape, sides))
    return image[top : top + height, left : left + width]


def _resize(pixels: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Resize [H, W, C] with antialiasing. Stays channels-last: torch's fast path for 3 and 4."""
    if pixels.shape[:2] == (height, width):
        return pixels
    # The copy is contiguous and writable, whatever the image is: from_numpy warns otherwise.
    x = torch.from_numpy(np.array(pixels, order="C")).permute(2, 0, 1)[None]
    # A batch of one only counts as channels-last with the stride that a full batch would have.
    x = x.as_strided(x.shape, (x.numel(), *x.stride()[1:]))
    x = F.interpolate(x, (height, width), mode=interpolation, antialias=True, align_corners=False)
    return x[0].permute(1, 2, 0).numpy()


def check_views(views: Iterable[View], channels: int) -> None:
    """Say once which operations images of `channels` channels go without.

    Raises:
        UserError: a rectangle is to be filled with levels of another number of channels.
    """
    for view in views:
        if view.erase and len(view.fill) not in (1, channels):
            raise UserError(
                f"images of {channels} channels are erased with the levels {list(view.fill)}: give "
                "one, or one a channel"
            )
    if channels != 3 and any(any(view.jitter[2:]) or view.gray for view in views):
        _warn_color(channels)


@lru_cache
def _warn_color(channels: int) -> None:
    worker = get_worker_info()
    if worker is None or worker.id == 0:
        _log.warning(
            "Saturation, hue and grayscale need 3 channels: images with %d get the other "
            "operations of their views only",
            channels,
        )


def brightness(x: Tensor, factor: float) -> Tensor:
    """Multiply all levels of `x`, [C, H, W], by `factor`."""
    return x.mul_(factor).clamp_(0, 255).floor_()


def contrast(x: Tensor, factor: float) -> Tensor:
    """Blend `x`, [C, H, W], with its mean: of the luminance for 3 channels, else of everything."""
    gray = _luminance(x) if len(x) == 3 else x
    return _blend(x, gray.mean(dim=(-3, -2, -1), keepdim=True), factor)


def saturation(x: Tensor, factor: float) -> Tensor:
    """Blend `x`, [C, H, W], with its luminance. Only 3 channels have colors."""
    return _blend(x, _luminance(x), factor) if len(x) == 3 else x


def grayscale(x: Tensor) -> Tensor:
    """Put the luminance of `x`, [C, H, W], into every channel. Only 3 channels have colors."""
    return _luminance(x).expand_as(x) if len(x) == 3 else x


def solarize(x: Tensor) -> Tensor:
    """Invert levels from 128 on: for whole levels, the smaller of a level and its inverse."""
    return torch.minimum(x, 255 - x)


def _luminance(x: Tensor) -> Tensor:
    return x[:1].mul(0.2989).add_(x[1:2], alpha=0.587).add_(x[2:], alpha=0.114).floor_()


def _blend(x: Tensor, other: Tensor, factor: float) -> Tensor:
    return x.mul_(factor).add_(other, alpha=1.0 - factor).clamp_(0, 255).floor_()


def hue(x: Tensor, turn: float) -> Tensor:
    """Turn the colors of `x`, [C, H, W], by `turn` circles. Only 3 channels have colors.

    Masks are float planes of 0 and 1 and selections are sums: multiplying by one and adding
    zero is exact, and an order of magnitude faster than indexing.
    """
    if len(x) != 3:
        return x
    rgb = x.mul_(1.0 / 255)
    r, g, b = rgb
    value = torch.maximum(torch.maximum(r, g), b)
    spread = value - torch.minimum(torch.minimum(r, g), b)
    # A gray pixel has no spread: its numerators are zero, so any divisor does.
    sat = spread / value.clamp_min(1e-9)
    rc, gc, bc = (value - rgb).div_(spread.clamp_min_(1e-9))
    is_r = r.eq_(value)
    is_g = g.eq_(value).mul_(1 - is_r)
    is_b = (1 - is_r).sub_(is_g)
    h = (bc - gc).mul_(is_r)
    h.add_((rc + 2.0).sub_(bc).mul_(is_g)).add_((gc + 4.0).sub_(rc).mul_(is_b))
    h = _fraction(h.mul_(1.0 / 6.0).add_(1.0))
    h = _fraction(h.add_(turn)).mul_(6)

    sector = h.floor()
    part = h.sub_(sector).mul_(sat)
    low = 1.0 - sat
    down = (1.0 - part).mul_(value).clamp_(0, 1)
    up = part.add_(low).mul_(value).clamp_(0, 1)
    low.mul_(value).clamp_(0, 1)
    s0, s1, s2, s3, s4, s5 = (sector.clone().eq_(k) for k in range(6))
    s0.add_(sector.eq_(6))  # rounding can turn a hue just below zero into a whole circle
    out = torch.empty_like(x)
    for plane, full, falling, empty, rising in (
        (out[0], s5 + s0, s1, s2 + s3, s4),
        (out[1], s1 + s2, s3, s4 + s5, s0),
        (out[2], s3 + s4, s5, s0 + s1, s2),
    ):
        torch.mul(value, full, out=plane)
        plane.addcmul_(down, falling).addcmul_(low, empty).addcmul_(up, rising)
    return out.mul_(255 + 1.0 - 1e-3).floor_()


def _fraction(x: Tensor) -> Tensor:
    return x.sub_(x.floor())


_JITTER: tuple[Callable[[Tensor, float], Tensor], ...] = (brightness, contrast, saturation, hue)


def blur(x: Tensor, sigma: float, radius: int | None = None) -> Tensor:
    """Blur `x`, [C, H, W], with a Gaussian of `sigma` pixels; edges are mirrored.

    Two passes of shifted sums. Weights beyond 5 sigma (less than a millionth) are never computed.

    Args:
        x: Whole levels [C, H, W].
        sigma: Standard deviation in pixels, above 0.
        radius: Half-width in pixels at which the Gaussian is cut; None leaves it whole.
    """
    height, width = x.shape[-2:]
    reach = math.ceil(5 * sigma) if radius is None else min(radius, math.ceil(5 * sigma))
    down, across = min(reach, height - 1), min(reach, width - 1)
    x = F.pad(x[None], (across, across, down, down), mode="reflect")[0]
    x = _shifted_sum(x, _gaussian(across, sigma), -1, width)
    return _shifted_sum(x, _gaussian(down, sigma), -2, height).round_()


def _gaussian(radius: int, sigma: float) -> list[float]:
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    total = sum(weights)
    return [w / total for w in weights]


def _shifted_sum(x: Tensor, weights: list[float], dim: int, length: int) -> Tensor:
    out = x.narrow(dim, 0, length) * weights[0]
    for k, weight in enumerate(weights[1:], 1):
        out.add_(x.narrow(dim, k, length), alpha=weight)
    return out
