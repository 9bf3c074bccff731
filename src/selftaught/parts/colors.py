"""CIE Lab: lightness L in 0..100, and color (a, b), about -110..110; 0 for gray."""

from collections.abc import Sequence

import torch
from torch import Tensor

# sRGB (IEC 61966-2-1) to CIE XYZ under D65, each row divided by the white's
_XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)
_EDGE = 6 / 29


def lab(rgb: Tensor) -> Tensor:
    """[..., 3, H, W] colors of sRGB in [0, 1] (others are clipped) -> L, a, b."""
    rgb = rgb.clamp(0, 1)
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mixed(_XYZ, linear)
    cubed = xyz.clamp_min(_EDGE**3) ** (1 / 3)
    x, y, z = torch.where(xyz > _EDGE**3, cubed, xyz / (3 * _EDGE**2) + 4 / 29).unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -3)


def rgb(lab: Tensor) -> Tensor:
    """[..., 3, H, W] L, a, b -> colors of sRGB in [0, 1], clipped."""
    light, a, b = lab.unbind(-3)
    y = (light + 16) / 116
    xyz = torch.stack([y + a / 500, y, y - b / 200], -3)
    xyz = torch.where(xyz > _EDGE, xyz**3, 3 * _EDGE**2 * (xyz - 4 / 29))
    linear = _mixed(torch.tensor(_XYZ, dtype=torch.float64).inverse().tolist(), xyz).clamp(0, 1)
    bright = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, bright, 12.92 * linear)


def _mixed(matrix: Sequence[Sequence[float]], x: Tensor) -> Tensor:
    """A matrix times the channels; no matrix product, which autocast would round."""
    channels = x.unbind(-3)
    rows = [[weight * c for weight, c in zip(row, channels)] for row in matrix]
    return torch.stack([a + b + c for a, b, c in rows], -3)
