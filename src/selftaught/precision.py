"""Losses keep full precision where the network runs in half."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Let a loss compute in float32, or the float64 it is given, also under autocast.

    Losses subtract and exponentiate near-equal numbers: 2 - 2 cos in bfloat16 has two digits left.
    Tensors are to be given by position.
    """

    @wraps(loss)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        full = [
            a.float() if isinstance(a, Tensor) and a.dtype in (torch.float16, torch.bfloat16) else a
            for a in args
        ]
        device = next(a.device.type for a in args if isinstance(a, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*full, **kwargs)  # type: ignore[arg-type]

    return run
