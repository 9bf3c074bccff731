"""One module a golden file, of the same name: `check(golden)` maps its arrays to the public code.

A module for a two-process file (`*_dist2`) has `check(golden, rank)` instead: it runs in both
processes at once, and compares the arrays of its own rank.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Golden:
    """The arrays of one file, its hyper-parameters, and what the index says of each array."""

    arrays: dict[str, np.ndarray]
    hyper: dict[str, Any]
    about: dict[str, dict[str, Any]]

    def __getitem__(self, name: str) -> Tensor:
        """The array as a tensor; float32 inputs are exact and become float64."""
        x = torch.from_numpy(np.array(self.arrays[name]))
        return x.double() if x.dtype == torch.float32 else x

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def starting(self, prefix: str) -> dict[str, Tensor]:
        """Arrays whose name starts with `prefix`, keyed by the rest of the name."""
        return {n.removeprefix(prefix): self[n] for n in self.arrays if n.startswith(prefix)}

    def leaf(self, name: str) -> Tensor:
        """The array as a tensor that collects gradient."""
        return self[name].clone().requires_grad_()


def close(actual: Any, expected: Any, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """Assert equality to 1e-9 of the value, and to 1e-12 where values cancel to about zero."""
    if not isinstance(actual, Tensor):
        actual = torch.as_tensor(actual, dtype=torch.float64)
    actual, expected = actual.detach(), torch.as_tensor(expected)
    torch.testing.assert_close(
        actual.double(), expected.double().reshape(actual.shape), rtol=rtol, atol=atol
    )
