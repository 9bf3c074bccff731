"""Whether classes are clusters: k-means without labels, compared with them afterwards."""

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from torch import nn
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.evaluate.scores import Score, Task, draws

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

STARTS = 5
"""Runs of k-means from other centroids, of which the one with the least inertia is taken."""


def cluster(
    train: Any,
    test: Any = None,
    *,
    encoder: nn.Module | str | Path | None = None,
    k: int | None = None,
    seed: int = 0,
) -> tuple[Score, Score, Score]:
    """k-means on unit-length training features; how its clusters of test samples fit the classes.

    NMI (mutual information over the mean of the two entropies), ARI (pairs that are together or
    apart in both, adjusted for chance; Hubert and Arabie, 1985; may be below 0) and the share of
    test samples in the cluster that stands for their class, clusters and classes being matched one
    to one on the test samples so that it is largest (Kuhn, 1955).

    Args:
        train, test, encoder: as of `knn`; labels take no part in the clustering.
        k: number of clusters; by default that of the classes.
        seed: of the initial centroids.

    Raises:
        UserError: labels are missing, features do not fit, or k is out of range.
    """
    task = Task.of(train, test, encoder)
    start = time.perf_counter()
    k = task.classes if k is None else k
    if not 1 < k <= len(task.train_x):
        raise UserError(f"k={k} must be at least 2 and at most {len(task.train_x)}, the samples")
    x, test_x = (F.normalize(v, dim=1).cpu().numpy() for v in (task.train_x, task.test_x))
    model = kmeans(x, k, STARTS, seed)
    y = task.test_y.cpu().numpy()
    found, y = model.predict(test_x), np.where(y < 0, task.classes, y)
    joint, shape = found * (task.classes + 1) + y, (k, task.classes + 1)

    def scored(rows: Any) -> tuple[float, float, float]:
        return agreement(np.bincount(joint[rows], minlength=shape[0] * shape[1]).reshape(shape))

    values = scored(slice(None))
    resampled = np.array([scored(rows) for rows in draws(len(y))])
    protocol = (
        f"{task.protocol}; k-means, k={k}, on unit-length training features, best of {STARTS} "
        "starts, test samples to the nearest centroid"
    )
    nmi, ari, accuracy = (
        Score(
            name,
            100 * value,
            len(y),
            f"{protocol}; {how}",
            time.perf_counter() - start,
            measure=measure,
            resampled=100 * each,
            settings={"clusters": k},
        )
        for name, measure, how, value, each in zip(
            ("cluster NMI", "cluster ARI", "cluster accuracy"),
            ("normalized mutual information", "adjusted Rand index", "right"),
            (
                "normalized by the mean entropy",
                "adjusted for chance",
                "clusters matched to classes on the test samples",
            ),
            values,
            resampled.T,
        )
    )
    return nmi, ari, accuracy


def kmeans(x: np.ndarray, k: int, starts: int, seed: int) -> "KMeans":
    """scikit-learn's, which may find fewer clusters: a collapsed encoder has no k places."""
    from sklearn.cluster import KMeans  # which takes a second to import
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(k, n_init=starts, random_state=seed).fit(x)


def agreement(table: np.ndarray) -> tuple[float, float, float]:
    """NMI, ARI and accuracy after matching of a contingency table [clusters, classes] of counts.

    From the table, because each of hundreds of resampled test sets has one.
    """
    n = table.sum()
    rows, columns = table.sum(1), table.sum(0)

    def entropy(counts: np.ndarray) -> float:
        p = counts[counts > 0] / n
        return float(-(p * np.log(p)).sum())

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1.0) / 2).sum())

    h_rows, h_columns = entropy(rows), entropy(columns)
    mutual = h_rows + h_columns - entropy(table)
    nmi = max(0.0, mutual) / ((h_rows + h_columns) / 2) if h_rows + h_columns else 1.0
    expected = pairs(rows) * pairs(columns) / max(1.0, n * (n - 1.0) / 2)
    most = (pairs(rows) + pairs(columns)) / 2
    ari = (pairs(table) - expected) / (most - expected) if most != expected else 1.0
    matched = table[scipy.optimize.linear_sum_assignment(table, maximize=True)].sum() / n
    return nmi, ari, float(matched)
