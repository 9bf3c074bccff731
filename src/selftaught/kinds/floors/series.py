"""What is known of series without any training: their values, and random kernels over them."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

KERNELS = 1000
"""Random kernels, of which each gives two numbers."""
LENGTHS = (7, 9, 11)
SEED = 0


def values(x: Tensor) -> Tensor:
    """[B, C, T] -> [B, C T]: 1-NN over these is the oldest floor of all."""
    return x.flatten(1).float()


def kernels(x: Tensor) -> Tensor:
    """[B, C, T] -> [B, 2 KERNELS]: of each random kernel, how often it is above a threshold, and
    its maximum (ROCKET, Dempster et al., arXiv 1910.13051, section 3).

    Lengths, dilations, channels, weights and thresholds are drawn as in the paper, from a seed of
    their own; each series is standardized first.
    """
    x = x.float()
    x = (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True).clamp(min=1e-8)
    rng, (_, channels, steps) = np.random.default_rng(SEED), x.shape
    drawn: dict[tuple[int, int, bool], list[tuple[np.ndarray, float]]] = {}
    for _ in range(KERNELS):
        length = int(rng.choice(LENGTHS))
        most = max(0.0, np.log2(max(1, steps - 1) / (length - 1)))
        dilation = int(2 ** rng.uniform(0, most))
        weights = rng.standard_normal((channels, length))
        weights -= weights.mean(1, keepdims=True)
        kept = rng.choice(channels, int(2 ** rng.uniform(0, np.log2(channels + 1))), replace=False)
        weights[np.setdiff1d(np.arange(channels), kept)] = 0
        padded = bool(rng.integers(2)) or steps <= (length - 1) * dilation
        drawn.setdefault((length, dilation, padded), []).append((weights, rng.uniform(-1, 1)))
    found = []
    for (length, dilation, padded), group in drawn.items():
        weights = torch.from_numpy(np.stack([w for w, _ in group])).float()
        pad = (length - 1) * dilation // 2 if padded else 0
        y = F.conv1d(x, weights, torch.tensor([b for _, b in group]).float(), 1, pad, dilation)
        found += [(y > 0).float().mean(2), y.amax(2)]
    return torch.cat(found, 1)
