"""Views of several sizes through one network."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn


def each_size(network: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """V views [B, C, H, W] -> [V, B, D], with one forward pass for neighboring views of a size."""
    groups = [torch.cat(list(g)) for _, g in groupby(views, key=lambda v: v.shape[-2:])]
    return torch.cat([network(g) for g in groups]).unflatten(0, (len(views), -1))
