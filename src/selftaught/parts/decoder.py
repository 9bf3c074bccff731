"""From coarse features to maps: what predicts something of every few pixels."""

import math

from torch import Tensor, nn


def decoder(dim: int, width: int, reduction: int, step: int, channels: int) -> nn.Sequential:
    """[B, dim, h, w] -> [B, channels, H, W], twice as fine as often as it takes.

    Args:
        dim: width of the features.
        width: of the layers.
        reduction: pixels of the image to one feature, along a side.
        step: pixels to one place of the result.
        channels: of the result.
    """
    layers: list[nn.Module] = [nn.Conv2d(dim, width, 1), nn.BatchNorm2d(width), nn.ReLU(True)]
    for _ in range(max(0, round(math.log2(reduction / step)))):
        layers += [nn.ConvTranspose2d(width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 1))


def as_map(local: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, N, D] features of cells -> [B, D, rows, columns]."""
    return local.mT.unflatten(2, grid)
