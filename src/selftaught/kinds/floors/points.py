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


SLICES = 12
"""Ranges that each number of a point's surroundings is told apart in."""


def surroundings(scan: np.ndarray, reach: float) -> np.ndarray:
    """[N, C] -> float32 [N, 6 or 7 of `SLICES`]: of each point in which range its figures are.

    Its height, its distance, its height above the lowest point nearby and below the highest, how
    far these are apart, how many points there are beside it, and its intensity: a linear layer on
    them may tell anything from each of them. Nearby is a fiftieth of `reach` around, on the ground.

    Args:
        scan: all points that are known.
        reach: meters, as of the kind.
    """
    side = reach / 50
    cells = np.floor(scan[:, :2] / side).astype(np.int64)
    low, high, count = _nearby(cells, scan[:, 2])
    far = np.linalg.norm(scan[:, :2], axis=1)
    z = scan[:, 2]
    figures = [z, far, z - low, high - z, high - low, np.log1p(count * np.square(far / reach))]
    figures += [scan[:, 3]] if scan.shape[1] > 3 else []
    edges = [
        np.linspace(-3, 3, SLICES - 1) * min(1.0, reach / 15),
        np.linspace(0, reach, SLICES - 1),
        *[np.geomspace(0.05, 5, SLICES - 1) * min(1.0, reach / 15)] * 3,
        np.linspace(0, 6, SLICES - 1),
        np.linspace(0, 1, SLICES - 1),
    ]
    told = [np.searchsorted(e, f) for e, f in zip(edges, figures)]
    return np.concatenate([np.eye(SLICES, dtype=np.float32)[t] for t in told], 1)


def _nearby(cells: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest point, and number of points, in a cell and those around it, [N] each."""
    cells = cells - cells.min(0) + 1
    shape = tuple(cells.max(0) + 2)
    at = cells[:, 0], cells[:, 1]
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    count = np.zeros(shape)
    np.minimum.at(low, at, z)
    np.maximum.at(high, at, z)
    np.add.at(count, at, 1)
    around = [(cells[:, 0] + i, cells[:, 1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return (
        np.min([low[a] for a in around], 0),
        np.max([high[a] for a in around], 0),
        np.sum([count[a] for a in around], 0),
    )
