"""What is known of clips without any training: how their middle looks, and where they change."""

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.kinds.floors.image import Pixels

SIDE = 8


def still(x: Tensor) -> Tensor:
    """uint8 [B, T, C, H, W] -> [B, C * 64]: pixels of the middle frame."""
    return Pixels(SIDE)(x[:, x.shape[1] // 2])


def changes(x: Tensor) -> Tensor:
    """uint8 [B, T, C, H, W] -> [B, C * 64 + 64]: `still`, and how much each of 8 x 8 gray cells
    changes from frame to frame on average; 0 where there is one frame."""
    gray = x.flatten(0, 1).float().mean(1, keepdim=True) / 255
    small = F.adaptive_avg_pool2d(gray, SIDE).view(*x.shape[:2], -1)
    change = small.diff(dim=1).abs().mean(1) if x.shape[1] > 1 else torch.zeros_like(small[:, 0])
    return torch.cat([still(x), change], 1)
