"""What is known of scans without any training: how high points are, and where any are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from selftaught.kinds.floors.text import Bags, nearest, probe

SIDE = 16
"""Cells along a side of the map."""
BINS = 24
"""Heights that are told apart."""


@dataclass(frozen=True)
class Heights:
    """[B, N, C] -> [B, `BINS` + 2]: the share of the points at each height, and below and above.

    Args:
        reach: meters ahead and sideways; heights are told apart to a tenth of it, 3 m at most.
    """

    reach: float

    def __call__(self, x: Tensor) -> Tensor:
        high = min(3.0, self.reach / 5)
        edges = torch.linspace(-high, high, BINS + 1)
        where = torch.bucketize(x[..., 2].contiguous(), edges)
        counts = torch.zeros(len(x), BINS + 2)
        return counts.scatter_add_(1, where, torch.ones(where.shape)) / x.shape[1]


@dataclass(frozen=True)
class Occupied:
    """[B, N, C] -> [B, 256]: which of 16 x 16 cells have points, seen from above."""

    reach: float

    def __call__(self, x: Tensor) -> Tensor:
        at = ((x[..., :2] / self.reach + 1) / 2 * SIDE).long().clamp(0, SIDE - 1)
        return torch.zeros(len(x), SIDE**2).scatter_(1, at[..., 0] * SIDE + at[..., 1], 1.0)


def by_neighbors(
    train: Sequence[np.ndarray], labels: np.ndarray, test: Sequence[np.ndarray]
) -> np.ndarray:
    """Labels of the test scans, told by those of the most similar training scans."""
    return nearest(_bags(train, test), labels)


def by_regression(
    train: Sequence[np.ndarray], labels: np.ndarray, test: Sequence[np.ndarray]
) -> np.ndarray:
    """Labels of the test scans, told by logistic regression."""
    return probe(_bags(train, test), labels)


def _bags(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> Bags:
    """Of all points of each scan: heights, the map, and how many points there are.

    What is high and far is told from the training scans alone.
    """
    high = np.quantile(np.concatenate([x[:: max(1, len(x) // 1000), 2] for x in train]), [0, 1])
    far = float(np.median([np.quantile(np.abs(x[:, :2]).max(1), 0.95) for x in train])) or 1.0

    def of(scan: np.ndarray) -> np.ndarray:
        heights, _ = np.histogram(scan[:, 2].clip(*high), BINS, (high[0], high[1] + 1e-6))
        at = ((scan[:, :2] / far + 1) / 2 * SIDE).astype(int).clip(0, SIDE - 1)
        cells = np.bincount(at[:, 0] * SIDE + at[:, 1], minlength=SIDE**2)
        shares = np.sqrt(np.concatenate([heights / len(scan), cells / len(scan)]))
        return np.append(shares, np.log1p(len(scan)) / 10)

    return Bags(*(csr_matrix(np.stack([of(x) for x in part])) for part in (train, test)))
