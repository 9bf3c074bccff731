"""The part of a view that runs where the model lives: bytes to normalized floats."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from selftaught.errors import UserError

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel."""


def normalize(
    views: Any, mean: Sequence[float], std: Sequence[float], channels_last: bool = False
) -> Any:
    """Turn the image batches among `views` into floats, (x / 255 - mean) / std, on their device.

    Args:
        views: Nested lists, tuples and dicts. uint8 tensors [..., C, H, W] with at least 4 axes
            are images; everything else is handed through as it is.
        mean: Of each channel, on the scale 0..1; one number serves all channels.
        std: Of each channel, on the scale 0..1, above 0.
        channels_last: Give batches of four axes the memory layout that convolutions on a GPU like.

    Returns:
        The same structure; images as float32.

    Raises:
        UserError: `mean` and `std` do not fit each other or the images' channels.
    """
    if len(mean) != len(std) or not mean or min(std) <= 0:
        raise UserError(
            f"mean={list(mean)} and std={list(std)} must be equally many, one a channel, "
            "and std above 0"
        )
    return _walk(views, tuple(mean), tuple(std), channels_last)


def renormalize(x: Tensor, given: Statistics, wanted: Statistics) -> Tensor:
    """Images [..., C, H, W] that are normalized in one way, normalized in another.

    Args:
        x: floats.
        given: mean and std of each channel that they were normalized with, on the scale 0..1.
        wanted: those that they are to be normalized with.
    """
    if given == wanted:
        return x
    each = zip(*given, *wanted, strict=True)
    factors = [(s / std, (m - mean) / std) for m, s, mean, std in each]
    scale, offset = x.new_tensor(factors).T[..., None, None]
    return x * scale + offset


def _walk(node: Any, mean: tuple[float, ...], std: tuple[float, ...], channels_last: bool) -> Any:
    if isinstance(node, Tensor):
        return _images(node, mean, std, channels_last)
    if isinstance(node, dict):
        return {key: _walk(value, mean, std, channels_last) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)([_walk(value, mean, std, channels_last) for value in node])
    return node


def _images(
    x: Tensor, mean: tuple[float, ...], std: tuple[float, ...], channels_last: bool
) -> Tensor:
    if x.dtype != torch.uint8 or x.ndim < 4:
        return x
    if len(mean) not in (1, x.shape[-3]):
        raise UserError(
            f"Images of shape {list(x.shape)} have {x.shape[-3]} channels, but mean and std have "
            f"{len(mean)}: give one number, or one a channel"
        )
    if channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    scale, offset = _affine(mean, std, x.device)
    # Type promotion converts and multiplies in one pass over the bytes.
    return (x * scale).add_(offset)


@lru_cache(maxsize=32)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """(x / 255 - mean) / std as x * scale + offset, [C, 1, 1] each; kept, to copy them once."""
    with torch.inference_mode(False):
        scale = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32)
        offset = torch.tensor([-m / s for m, s in zip(mean, std)], dtype=torch.float32)
        return scale[:, None, None].to(device), offset[:, None, None].to(device)
