"""One module a golden file, of the same name: `check(golden)` maps its arrays to the public code.

A module for a two-process file (`*_dist2`) has `check(golden, rank)` instead: it runs in both
processes at once, and compares the arrays of its own rank.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.method import Method

NUMBER = r"(\d*\.?\d+(?:e-?\d+)?)"
"""Pattern of a number in the words of an index."""


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

    def own(self, *names: str) -> dict[str, Any]:
        """Settings of arrays, without the file's; a name that ends in "." or "_" is a prefix."""
        return {
            key: value
            for about in self._about(names)
            for key, value in (about.get("hyperparameters") or {}).items()
        }

    def given(self, *names: str) -> dict[str, Any]:
        """Settings of the file, and over them those of the arrays, named as in `own`."""
        return self.hyper | self.own(*names)

    def setting(self, array: str, key: str, words: str = "", otherwise: Any = None) -> Any:
        """One setting of an array: its own, or a number that the index has in words alone.

        Args:
            array: as in `own`.
            key: of its `hyperparameters`.
            words: pattern in what the index says of the array, with one group.
            otherwise: where nothing is said.
        """
        if key in (own := self.own(array)):
            return own[key]
        if words and (found := re.search(words, self.said(array))):
            return float(found[1])
        assert otherwise is not None, f"the index names no {key} of {array}"
        return otherwise

    def said(self, *names: str) -> str:
        """What the index says in words of the arrays."""
        return " ".join(
            f"{a.get('meaning', '')} {a.get('formula', '')}" for a in self._about(names)
        )

    def _about(self, names: tuple[str, ...]) -> list[dict[str, Any]]:
        return [
            about
            for wanted in names
            for name, about in self.about.items()
            if name == wanted or (wanted.endswith((".", "_")) and name.startswith(wanted))
        ]


def warm(given: dict[str, Any]) -> float:
    """Steps, or epochs, of a warm-up, under either name that the files have for it."""
    return given["warmup_steps"] if "warmup_steps" in given else given["warmup"]


def close(actual: Any, expected: Any, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """Assert equality to 1e-9 of the value, and to 1e-12 where values cancel to about zero."""
    if not isinstance(actual, Tensor):
        actual = torch.as_tensor(actual, dtype=torch.float64)
    actual, expected = actual.detach(), torch.as_tensor(expected)
    torch.testing.assert_close(
        actual.double(), expected.double().reshape(actual.shape), rtol=rtol, atol=atol
    )


def momenta(method: Method, progress: Iterable[float]) -> list[float]:
    """The momentum of `method.after_step` at each progress, seen in what becomes of its copies.

    A copy of ones beside a network of zeros is the momentum afterwards.
    """
    copies = tuple(f"{target}." for target, _ in method.insight.copies)
    slow = [p for name, p in method.named_parameters() if name.startswith(copies)]
    found = []
    for method.progress in progress:
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.zero_()
            for parameter in slow:
                parameter.fill_(1.0)
        method.after_step()
        values = torch.cat([parameter.flatten() for parameter in slow])
        close(values, values[0].expand_as(values), rtol=0)
        found.append(float(values[0]))
    return found
