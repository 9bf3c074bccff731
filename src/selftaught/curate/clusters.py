"""Clusters of clusters, and samples that are spread evenly over them (Vo et al., 2024, "Automatic
Data Curation for Self-Supervised Learning: A Clustering-Based Approach").

k-means puts many of its centroids where the data is dense. Clusters of centroids lie more evenly,
and clusters of these more evenly still; what is drawn evenly from the coarsest down covers what
there is to see, not what there is most of. Centroids begin far from each other (k-means++): begun
at random, the rare is lost before it can be drawn.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selftaught.index.exact import Vectors
from selftaught.vectors import kmeans, nearest, spread

EACH = 32
"""Rows for a centroid that k-means learns from."""
ROUNDS = 10
"""Of Lloyd's algorithm, at most."""
PLAIN = 512
"""Centroids up to which each is drawn by a pass over all rows."""
BLOCK = 65_536
"""Rows that are assigned at a time."""


class Level(NamedTuple):
    """centroids: [k, D]. of: [n] the cluster of each row, or of each centroid one level below."""

    centroids: Tensor
    of: np.ndarray


def levels(
    vectors: Vectors,
    sizes: Sequence[int],
    resampling: int = 10,
    members: int = 2,
    seed: int = 0,
    told: Callable[[str], None] = lambda _: None,
) -> list[Level]:
    """Hierarchical k-means, the finest level first.

    Args:
        vectors: N rows.
        sizes: clusters of each level, falling.
        resampling: passes of a level over the members nearest to each centroid.
        members: as many of each.
        seed: of what is drawn.
        told: is told what is done.
    """
    found = list[Level]()
    for n, k in enumerate(sizes):
        told(f"level {n + 1} of {len(sizes)}, {k:,} clusters")
        if not found:
            rng = np.random.default_rng(seed)
            count = min(len(vectors), EACH * k)
            some = np.sort(rng.permutation(len(vectors))[:count])
            rows = vectors.at(some)
        else:
            rows = found[-1].centroids
        centroids = _even(rows, k, resampling, members, seed)
        if found:
            of = nearest(rows, centroids).numpy()
        else:
            starts = range(0, len(vectors), BLOCK)
            blocks = (np.arange(a, min(a + BLOCK, len(vectors))) for a in starts)
            of = np.concatenate([nearest(vectors.at(b), centroids).numpy() for b in blocks])
        found.append(Level(centroids, of))
    return found


def _even(rows: Tensor, k: int, resampling: int, members: int, seed: int) -> Tensor:
    """[k, D] centroids of rows, evened out by resampling."""
    generator = torch.Generator().manual_seed(seed)
    found = kmeans(rows, k, ROUNDS, seed, init=_begun(rows, k, generator))
    for n in range(resampling):
        near = _members(rows, found.centroids, found.assignment, members)
        if len(near) <= k:
            break
        begun = _begun(rows[near], k, generator)
        centroids = kmeans(rows[near], k, ROUNDS, seed + n + 1, init=begun).centroids
        found = found._replace(centroids=centroids, assignment=nearest(rows, centroids))
    return found.centroids


def _begun(rows: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """[k, D] by k-means++; of many, by k-means++ within clusters, each of which gets as many as its
    share of the squared distances is, which is how often k-means++ would draw of it."""
    mean = rows.mean(0)
    if k <= PLAIN:
        return rows[spread(rows - mean, k, generator)]
    coarse = math.isqrt(k)
    found = kmeans(rows, coarse, 5, int(torch.randint(2**31, (1,), generator=generator)))
    distance = (rows - found.centroids[found.assignment]).square().sum(1).double()
    mass = torch.zeros(coarse, dtype=torch.float64).index_add_(0, found.assignment, distance)
    sizes = torch.bincount(found.assignment, minlength=coarse).numpy()
    each = shared(sizes, k, mass.numpy())
    order = torch.from_numpy(np.argsort(found.assignment.numpy(), kind="stable"))
    parts = []
    for own, count in zip(order.split(sizes.tolist()), each.tolist()):
        if count:
            mine = rows[own]
            parts.append(mine[spread(mine - mine.mean(0), count, generator)])
    return torch.cat(parts)


def _members(rows: Tensor, centroids: Tensor, of: Tensor, count: int) -> Tensor:
    """Positions of the rows nearest to the centroid of their cluster, `count` of each."""
    parts = [
        (rows[a : a + BLOCK] - centroids[of[a : a + BLOCK]]).square().sum(1)
        for a in range(0, len(rows), BLOCK)
    ]
    order = np.lexsort((torch.cat(parts).numpy(), of.numpy()))
    own = of.numpy()[order]
    first = np.searchsorted(own, own)
    return torch.from_numpy(np.sort(order[np.arange(len(order)) - first < count]))


def shared(sizes: np.ndarray, total: int, weights: np.ndarray | None = None) -> np.ndarray:
    """How many each of some groups gives, so that all give `total`: alike, or by weights, and none
    more than it has.

    Args:
        sizes: [n] that each has.
        total: at most their sum.
        weights: [n], at least 0.
    """
    weights = np.ones(len(sizes)) if weights is None else weights + 1e-12 * (1 + weights.sum())
    low, high = 0.0, float(np.max(sizes / weights))
    for _ in range(200):  # the height to which all are filled, where they have as much
        middle = (low + high) / 2
        if np.minimum(sizes, middle * weights).sum() < total:
            low = middle
        else:
            high = middle
    exact = np.minimum(sizes, high * weights)
    found = np.minimum(np.floor(exact + 1e-9).astype(np.int64), sizes)
    rest = np.argsort(-(exact - found), kind="stable")
    rest = rest[found[rest] < sizes[rest]]
    missing = total - int(found.sum())
    found[rest[:missing]] += 1
    return found


def drawn(tree: Sequence[Level], keep: int, seed: int = 0) -> np.ndarray:
    """[keep] rows, sorted, spread evenly over the clusters of each level, from the coarsest down.

    Args:
        tree: as `levels` gives it.
        keep: as many, or all rows where there are fewer.
        seed: of the rows that are drawn of the finest clusters.
    """
    rng = np.random.default_rng(seed)
    counts = [np.bincount(tree[0].of, minlength=len(tree[0].centroids))]
    for level in tree[1:]:
        counts.append(
            np.bincount(level.of, counts[-1], minlength=len(level.centroids)).astype(np.int64)
        )
    keep = min(keep, int(counts[0].sum()))
    order = rng.permutation(len(counts[-1]))  # whoever gives one more is drawn, too
    give = np.empty(len(order), np.int64)
    give[order] = shared(counts[-1][order], keep)
    for level, sizes in zip(tree[:0:-1], counts[-2::-1]):
        below = np.zeros(len(sizes), np.int64)
        for parent, own in _groups(level.of):
            own = rng.permutation(own)
            below[own] = shared(sizes[own], int(give[parent]))
        give = below
    rows = [rng.permutation(own)[: give[cluster]] for cluster, own in _groups(tree[0].of)]
    return np.sort(np.concatenate(rows))


def _groups(of: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each cluster that has members, with them."""
    order = np.argsort(of, kind="stable")
    starts = np.flatnonzero(np.diff(of[order], prepend=-1))
    return [(int(of[part[0]]), part) for part in np.split(order, starts[1:])]


def entropy(counts: np.ndarray) -> float:
    """Of shares, from 0, all in one, to 1, all alike."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum() / math.log(len(counts))) if len(counts) > 1 else 1.0


def gini(counts: np.ndarray) -> float:
    """Of sizes, from 0, all alike, to nearly 1, all in one."""
    ordered = np.sort(counts).astype(np.float64)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))
