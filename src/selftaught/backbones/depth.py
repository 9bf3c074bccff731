"""Stochastic depth, which a teacher must not have."""

from typing import TypeVar

from timm.layers import DropPath
from torch import nn

M = TypeVar("M", bound=nn.Module)


def without_drop_path(module: M) -> M:
    """`module` itself, from now on with all of its residual branches in each forward pass."""
    for layer in module.modules():
        if isinstance(layer, DropPath):
            layer.drop_prob = 0.0
    return module
