"""Regularized canonical correlation analysis (Hotelling, 1936; Vinod, 1976): what both sides of
pairs have in common that a line can tell."""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""Of the identity beside a covariance, relative to its mean eigenvalue, of which one is chosen."""
POWERS = (1, 4)
"""Of the correlation, by which a direction counts, of which one is chosen (Gong et al., 2014,
https://arxiv.org/abs/1212.4522, take 4)."""
MOST = 128
"""Principal components of a side, at most: fewer where there are fewer than four pairs to each."""


class Projections(NamedTuple):
    """Features of each side -> where those of a pair are alike by cosine."""

    first: Callable[[np.ndarray], Tensor]
    second: Callable[[np.ndarray], Tensor]


def ranks(queries: Tensor, keys: Tensor, relevant: Tensor) -> np.ndarray:
    """[Q] how many keys stand before the first relevant one, by cosine.

    Of keys that are as similar those that are not relevant come first: what is alike for all finds
    nothing.

    Args:
        queries, keys: [Q, D], [G, D].
        relevant: bool [Q, G], one of each row at least.
    """
    found = []
    keys = F.normalize(keys, dim=1)
    for q, right in zip(queries.split(256), relevant.split(256)):
        similar = F.normalize(q, dim=1) @ keys.mT
        best = similar.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        found.append(((similar >= best) & ~right).sum(1))
    return torch.cat(found).numpy()


def fit(x: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int = 0) -> Projections:
    """Projections of two sides, whose strength and power are the best on a fifth of the pairs.

    Args:
        x, y: [P, D1] and [P, D2] features of both sides of P pairs.
        groups: [P] of the same first sample, which are held out together.
        seed: of that fifth.
    """
    every, of = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(every))
    held = np.isin(of, order[: max(1, len(every) // 5)])
    choices, best = list(product(STRENGTHS, POWERS)), (STRENGTHS[-1], POWERS[-1])
    if held.any() and (~held).sum() > 2 and held.sum() > 1:
        found = []
        for each in choices:
            made = _fitted(x[~held], y[~held], *each)
            a, b = made.first(x[held]), made.second(y[held])
            same = torch.from_numpy(of[held][:, None] == of[held][None])
            found.append(float((1 / (1 + ranks(a, b, same))).mean()))
        best = choices[int(np.argmax(found))]
    return _fitted(x, y, *best)


def _fitted(x: np.ndarray, y: np.ndarray, strength: float, power: int) -> Projections:
    most = max(1, min(MOST, len(x) // 4))
    sides = [_components(v, most) for v in (x, y)]
    a, b = (reduce(v) for reduce, v in zip(sides, (x, y)))
    roots = []
    for v in (a, b):
        cov = v.mT @ v / len(v)
        cov += strength * (cov.trace() / len(cov) + 1e-12) * torch.eye(len(cov), dtype=v.dtype)
        roots.append(torch.linalg.cholesky(cov))
    cross = a.mT @ b / len(a)
    cross = torch.linalg.solve_triangular(roots[0], cross, upper=False)
    cross = torch.linalg.solve_triangular(roots[1], cross.mT, upper=False).mT
    u, s, vt = torch.linalg.svd(cross, full_matrices=False)

    def projection(
        reduce: Callable[[np.ndarray], Tensor], root: Tensor, turn: Tensor
    ) -> Callable[[np.ndarray], Tensor]:
        # what is more correlated counts more
        weights = torch.linalg.solve_triangular(root.mT, turn, upper=True) * s**power
        return lambda v: reduce(v) @ weights

    return Projections(projection(sides[0], roots[0], u), projection(sides[1], roots[1], vt.mT))


def _components(x: np.ndarray, most: int) -> Callable[[np.ndarray], Tensor]:
    """The first principal components of standardized features, in float64."""
    z = torch.from_numpy(np.asarray(x, np.float64))
    deviation, mean = torch.std_mean(z, 0, correction=0)
    scale = deviation + 1e-6 * deviation.mean() + 1e-12
    _, _, turned = torch.linalg.svd((z - mean) / scale, full_matrices=False)
    turned = turned[:most].mT

    def reduce(v: np.ndarray) -> Tensor:
        return ((torch.from_numpy(np.asarray(v, np.float64)) - mean) / scale) @ turned

    return reduce
