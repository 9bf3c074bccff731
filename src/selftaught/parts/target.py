"""Slow copies of a network (EMA): momentum encoders, EMA teachers."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """A copy that never receives gradient: a target."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """target <- momentum * target + (1 - momentum) * online, of the parameters alone.

    Buffers stay: in the papers' code the statistics of a target's batch norms come from its own
    forward passes (MoCo, BYOL, DINO).
    """
    weights: tuple[list[Tensor], list[Tensor]] = ([*target.parameters()], [*online.parameters()])
    torch._foreach_lerp_(*weights, 1 - momentum)
