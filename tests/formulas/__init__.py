"""Each method's loss once more, slowly: loops over numbers, from what its own submodules give.

One module a family of methods, in which `loss_<name>(method, batch)` returns the value of
`method.loss(batch)`, or of each of its terms by name. It draws from torch's generator what the loss
draws, in the same order. It uses the method's submodules, and none of its objectives.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from selftaught.method import Batch

Formula = Callable[[Any, Batch], Any]


def numbers(x: Tensor) -> np.ndarray:
    """As float64, or as whole numbers."""
    array = x.detach().numpy()
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def unit(x: np.ndarray) -> np.ndarray:
    """[..., D] vectors of length 1."""
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def softmax(x: Any) -> np.ndarray:
    """Of the last axis; fine for the small numbers here."""
    e = np.exp(np.asarray(x, np.float64))
    return e / e.sum(-1, keepdims=True)


def find(scores: Sequence[float], right: int) -> float:
    """Cross entropy of one row of scores."""
    return float(-np.log(softmax(scores)[right]))


def find_all(scores: np.ndarray, right: Sequence[int] | None = None) -> float:
    """Mean cross entropy of rows [N, K], by default of the diagonal."""
    rows = range(len(scores)) if right is None else right
    return float(np.mean([find(row, int(i)) for row, i in zip(scores, rows)]))


def told(goal: np.ndarray, scores: np.ndarray) -> float:
    """Cross entropy of a distribution [K] with the softmax of scores [K]."""
    return float(-(goal * np.log(softmax(scores))).sum())


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(unit(a) @ unit(b))


def balanced(
    scores: np.ndarray, epsilon: float, rounds: int, shares: Sequence[float] = ()
) -> np.ndarray:
    """Sinkhorn-Knopp on exp(scores / epsilon), [B, K]; rows sum to 1, columns go by `shares`."""
    q = np.exp(scores / epsilon)
    wanted = np.array(shares or [1 / q.shape[1]] * q.shape[1])
    for _ in range(rounds):
        q = q / q.sum(0) * wanted
        q = q / q.sum(1, keepdims=True) / len(q)
    return q * len(q)


def swapped(goals: np.ndarray, scores: np.ndarray) -> float:
    """Mean over goals [T, B, K] and views [V, B, K] that are others."""
    each = [
        told(goals[t, b], scores[v, b])
        for t in range(len(goals))
        for v in range(len(scores))
        for b in range(goals.shape[1])
        if v != t
    ]
    return float(np.mean(each))


def _all() -> dict[str, Formula]:
    found: dict[str, Formula] = {}
    for file in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        module = importlib.import_module(f"tests.formulas.{file.stem}")
        found |= {n.removeprefix("loss_"): f for n, f in vars(module).items() if n[:5] == "loss_"}
    return found


FORMULAS = _all()
"""By the names of the methods."""
