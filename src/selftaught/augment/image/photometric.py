"""The part of a view that can wait for the device: colors, blur and solarization of batches.

A pipeline that is split (`Pipeline.split`) crops, resizes and flips, and hands over `Deferred`
views with their drawn parameters. `finish_on_device` carries these out where the model lives, with
the meaning of `render.py`: each operation at once for all images whose turn it is. Which these are
is known on the CPU, so that nobody waits for the device.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selftaught.augment.image.view import View

ORDER, FACTOR, REST, GRAY, SIGMA, REACH, SOLARIZE, ERASED = 0, 4, 8, 12, 13, 14, 15, 16
SETTINGS = 20
"""Numbers a view: four operations in order, -1 for none; their factors; 1 - factor, rounded once;
gray or not; sigma of the blur and where its Gaussian is cut, in pixels; solarized or not; of the
erased rectangle top, left, height and width. The level that each channel has in it follows."""

ROOM = 1 << 26
"""Levels that are worked on at once: a bound for the memory that floats take."""


class Deferred(NamedTuple):
    """Views that are cropped, resized and flipped, and what is left to do.

    images: of each view, uint8 [B, C, rows, columns]; of one sample without the B.
    settings: float32 [B, V, SETTINGS + C]; of one sample [V, SETTINGS + C].
    """

    images: list[Any]
    settings: Any


def take(params: np.ndarray, views: tuple[View, ...], channels: int) -> np.ndarray:
    """Take what `finish_on_device` can do out of drawn parameters; geometry is left in them.

    Args:
        params: `native.PARAMS` [..., V]; changed in place.
        views: V declarations.
        channels: C of the images.

    Returns:
        float32 [..., V, SETTINGS + C].
    """
    out = np.empty((*params.shape, SETTINGS + channels), np.float32)
    out[..., ORDER:FACTOR] = params["order"]
    out[..., FACTOR:REST] = params["factors"]
    out[..., REST:GRAY] = 1 - params["factors"]
    for column, name in ((GRAY, "gray"), (SIGMA, "sigma"), (SOLARIZE, "solarize")):
        out[..., column] = params[name]
    cut = [max(v.shape) - 1 if v.blur_radius is None else v.blur_radius for v in views]
    out[..., REACH] = np.minimum(np.ceil(5 * params["sigma"]), cut)
    out[..., ERASED:SETTINGS] = params["erased"]
    out[..., SETTINGS:] = [np.broadcast_to(v.fill if v.erase else 0, channels) for v in views]
    params["order"] = -1
    for name in ("gray", "sigma", "solarize", "erased"):
        params[name] = 0
    return out


@torch.no_grad()
def finish_on_device(views: Any, device: torch.device | str) -> Any:
    """Finish the `Deferred` views among `views`, on `device`.

    Args:
        views: Nested lists, tuples and dicts, collated.
        device: Where the images go; settings are to lie on the CPU.

    Returns:
        The same structure, with a list of uint8 tensors [B, C, rows, columns] for each `Deferred`.
        Everything else is handed through, where it is.
    """
    if isinstance(views, Deferred):
        return _finished(views, device)
    if isinstance(views, dict):
        return {key: finish_on_device(value, device) for key, value in views.items()}
    if isinstance(views, list | tuple):
        return type(views)([finish_on_device(value, device) for value in views])
    return views


def _finished(raw: Deferred, device: torch.device | str) -> list[Tensor]:
    out: list[Any] = list(raw.images)
    for size in sorted({x.shape[-2:] for x in out}):  # views of one size are one batch
        same = [v for v, x in enumerate(raw.images) if x.shape[-2:] == size]
        x = torch.cat([raw.images[v].to(device, non_blocking=True) for v in same])
        settings = raw.settings[:, same].transpose(0, 1).flatten(0, 1)
        rows = max(1, ROOM // x[0].numel())
        for some, theirs in zip(x.split(rows), settings.split(rows)):
            _apply(some, theirs)
        for v, done in zip(same, x.chunk(len(same))):
            out[v] = done
    return out


def _apply(x: Tensor, settings: Tensor) -> None:
    """Carry out `settings` [N, SETTINGS + C] on images [N, C, H, W], in place."""
    told = settings.numpy()
    steps = [(how, told[:, turn] == k) for turn in range(4) for k, how in enumerate(_JITTER)]
    steps += [(_grayscale, told[:, GRAY] > 0), (_blur, told[:, SIGMA] > 0)]
    steps += [(_solarize, told[:, SOLARIZE] > 0), (_erase, told[:, ERASED + 2] > 0)]
    if x.shape[1] != 3:
        steps = [step for step in steps if step[0] not in (_saturation, _hue, _grayscale)]
    todo = [(how, rows) for how, mine in steps if len(rows := np.flatnonzero(mine))]
    if not todo:
        return
    every = torch.from_numpy(np.concatenate([rows for _, rows in todo]))
    every, settings = (t.to(x.device, non_blocking=True) for t in (every, settings))
    for (how, _), rows in zip(todo, every.split([len(rows) for _, rows in todo])):
        x[rows] = how(x[rows], settings[rows, :, None, None, None]).to(torch.uint8)


# Operations on images [N, C, H, W] of bytes, each with settings of its own
# [N, SETTINGS + C, 1, 1, 1].
# They give levels 0..255, which are cut to whole ones; three channels are colors.


def _brightness(x: Tensor, s: Tensor) -> Tensor:
    return (x * s[:, FACTOR]).clamp_(0, 255)


def _contrast(x: Tensor, s: Tensor) -> Tensor:
    gray = _luminance(x) if x.shape[1] == 3 else x
    mean = gray.mean((1, 2, 3), keepdim=True, dtype=torch.float32)
    return _blend(x, mean, s[:, FACTOR + 1], s[:, REST + 1])


def _saturation(x: Tensor, s: Tensor) -> Tensor:
    return _blend(x, _luminance(x), s[:, FACTOR + 2], s[:, REST + 2])


def _grayscale(x: Tensor, s: Tensor) -> Tensor:
    return _luminance(x).expand_as(x)


def _blend(x: Tensor, other: Tensor, factor: Tensor, rest: Tensor) -> Tensor:
    return (x * factor).addcmul_(other, rest).clamp_(0, 255)


def _luminance(x: Tensor) -> Tensor:
    r, g, b = x.split(1, 1)
    return (r * 0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114).floor_()


def _hue(x: Tensor, s: Tensor) -> Tensor:
    """A channel as a function of hue is a trapezium: full for two of six sectors, empty for two."""
    r, g, b = x.float().split(1, 1)
    most, least = x.amax(1, keepdim=True).float(), x.amin(1, keepdim=True)
    spread = most - least
    red, green = r == most, g == most
    hue = torch.where(red, g - b, torch.where(green, b - r, r - g)).div_(spread.clamp_min(1))
    hue += torch.where(red, 0.0, torch.where(green, 2.0, 4.0)).add_(s[:, FACTOR + 3], alpha=6)
    sectors = torch.arange(5, 0, -2, device=x.device)[:, None, None]  # of red, green and blue
    hue = (hue + sectors).remainder_(6)
    lacking = torch.minimum(hue, 4 - hue).clamp_(0, 1)
    return (most - lacking.mul_(spread)).mul_(255.999 / 255)


def _blur(x: Tensor, s: Tensor) -> Tensor:
    """Multiply rows, then columns, by matrices of Gaussians whose tails are mirrored at the edges.

    Weights are exact to ten bits even where the device multiplies in TF32.
    """
    rows, columns = x.shape[-2:]
    across = _bells(columns, s)
    down = across if rows == columns else _bells(rows, s)
    out = x.float()
    with torch.autocast(x.device.type, enabled=False):
        for weight in (across, down):
            out = (out.flatten(1, 2) @ weight).view(out.shape).mT
    return out.round().clamp_(0, 255)


def _bells(side: int, s: Tensor) -> Tensor:
    """[N, side, side]: what each of `side` pixels, down, gives to each, across."""
    sigma = s[:, SIGMA].flatten(1)
    reach = s[:, REACH].flatten(1).clamp(max=side - 1)
    bell = torch.arange(2 * side - 1, device=s.device)
    bell = (bell / sigma).square_().mul_(-0.5).exp_() * (bell <= reach)
    to = torch.arange(side, device=s.device)
    fro, mirror = to[:, None], side - 1
    weight = bell[:, (to - fro).abs()]
    weight += bell[:, fro + to] * (fro > 0)
    weight += bell[:, 2 * mirror - fro - to] * (fro < mirror)
    return weight / weight.sum(1, keepdim=True)


def _solarize(x: Tensor, s: Tensor) -> Tensor:
    return torch.minimum(x, 255 - x)


def _erase(x: Tensor, s: Tensor) -> Tensor:
    top, left, height, width = (s[:, ERASED + k] for k in range(4))
    down, across = (torch.arange(n, device=x.device) for n in x.shape[-2:])
    down, across = down[:, None] - top, across - left
    inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    return torch.where(inside, s[:, SETTINGS:].flatten(2)[..., None], x)


_JITTER = (_brightness, _contrast, _saturation, _hue)
