"""Edges in place of colors, for networks that would otherwise cluster images by color."""

import torch
from torch import Tensor
from torch.nn import functional as F


def sobel(x: Tensor) -> Tensor:
    """Horizontal and vertical Sobel differences of the gray image, then channels of zeros.

    Zeros, so that networks of any number of channels can look at the two that matter.

    Args:
        x: [B, C, H, W] with C of at least 2.
    """
    gray = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1))
    across = gray[..., :-2] - gray[..., 2:]
    down = gray[..., :-2, :] - gray[..., 2:, :]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return torch.cat([across, down, torch.zeros_like(x[:, 2:])], 1)
