"""Looking at all embeddings at once: k-means, whitening, nearest neighbors.

Everything is exact, works in blocks of rows so that no [N, N] or [N, k] matrix is ever held, runs
where its input lies, and is deterministic given a seed.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import dist
from selftaught.errors import UserError

BLOCK = 2**25
"""Numbers in the largest intermediate matrix: 128 MiB of float32."""


class Clusters(NamedTuple):
    """centroids: [k, D]; assignment: [N], of each sample; inertia: sum of squared distances."""

    centroids: Tensor
    assignment: Tensor
    inertia: float


class Neighbors(NamedTuple):
    """index: [Q, k], nearest first; similarity: [Q, k], their cosines."""

    index: Tensor
    similarity: Tensor


@torch.no_grad()
def kmeans(
    x: Tensor,
    k: int,
    iterations: int = 20,
    seed: int = 0,
    init: Literal["k-means++", "random"] | Tensor = "k-means++",
) -> Clusters:
    """Lloyd's algorithm. A cluster that runs empty takes half of another, likelier a large one.

    Args:
        x: [N, D], finite.
        k: number of clusters, at most N.
        iterations: at most; fewer where the assignment stops changing.
        seed: of the initial centroids and of what empty clusters take.
        init: `k-means++` draws centroids far from each other (Arthur and Vassilvitskii, 2007) and
            is worth its k passes over the data up to some thousand clusters; `random` is faiss';
            or centroids to begin with, [k, D].

    Raises:
        UserError: k is not in [1, N], or a value is not finite.
    """
    x = _check(x, k, "k-means", "clusters")
    generator = torch.Generator().manual_seed(seed)
    # distances of embeddings that share a large mean would cancel in float32
    mean = x.mean(0)
    x = x - mean
    if isinstance(init, Tensor):
        centroids = init.to(x) - mean
    elif init == "random":
        centroids = x[torch.randperm(len(x), generator=generator)[:k].to(x.device)]
    else:
        centroids = x[spread(x, k, generator)]
    deviation = x.square().mean(0).sqrt()
    before = None
    for _ in range(iterations):
        assignment = nearest(x, centroids)
        sums, counts = _sums(x, assignment, k)
        centroids = sums / counts.clamp(min=1)[:, None]
        empty = bool((counts == 0).any())
        if empty:
            _split(centroids, counts, deviation, generator)
        elif before is not None and torch.equal(before, assignment):
            break
        before = assignment
    assignment = nearest(x, centroids)
    inertia = sum(
        (x[rows] - centroids[assignment[rows]]).square().sum(dtype=torch.float64).item()
        for rows in _blocks(len(x), x.shape[1])
    )
    return Clusters(centroids + mean, assignment, inertia)


@torch.no_grad()
def spherical_kmeans(x: Tensor, centroids: Tensor, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """k-means by cosine, from given centroids, over the samples of all processes.

    Each process holds its own samples and ends with the same centroids. Empty clusters keep their
    centroid (DeepCluster-v2's code in Caron et al., 2020).

    Args:
        x: [N, D] unit vectors of this process.
        centroids: [k, D] unit vectors, alike in all processes.
        iterations: exactly as many.

    Returns:
        centroids [k, D] and the nearest one of each sample, [N].
    """
    for _ in range(iterations):
        sums, counts = _sums(x, nearest(x, centroids, cosine=True), len(centroids))
        sums, counts = dist.total(sums), dist.total(counts)[:, None]
        means = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
        centroids = F.normalize(means, dim=1)
    return centroids, nearest(x, centroids, cosine=True)


@torch.no_grad()
def nearest(x: Tensor, centroids: Tensor, cosine: bool = False) -> Tensor:
    """[N] the centroid nearest to each row.

    Args:
        x: [N, D].
        centroids: [k, D].
        cosine: whether the largest dot product decides, not the smallest distance.
    """
    # |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2), and |x|^2 is the same for all c
    offset = centroids.square().sum(1) / 2 if not cosine else centroids.new_zeros(len(centroids))
    parts = [
        torch.addmm(-offset, x[rows], centroids.mT).argmax(1)
        for rows in _blocks(len(x), len(centroids))
    ]
    return torch.cat(parts)


@torch.no_grad()
def neighbors(x: Tensor, k: int, queries: Tensor | None = None) -> Neighbors:
    """The k rows of `x` nearest by cosine to each query.

    Args:
        x: [N, D], finite.
        k: number of neighbors.
        queries: [Q, D]; None for each row of `x` among the others, itself excluded even where
            other rows equal it.

    Raises:
        UserError: there are fewer than k rows to find, or a value is not finite.
    """
    x = F.normalize(_check(x, k + (queries is None), "a search", "neighbors"), dim=1)
    q = x if queries is None else F.normalize(queries.to(x), dim=1)
    index, similarity = [], []
    for rows in _blocks(len(q), len(x)):
        scores = q[rows] @ x.mT
        if queries is None:
            own = torch.arange(rows.start, rows.start + len(scores), device=x.device)
            scores.scatter_(1, own[:, None], -torch.inf)
        best = scores.topk(k, dim=1)
        index.append(best.indices)
        similarity.append(best.values)
    return Neighbors(torch.cat(index), torch.cat(similarity))


@torch.no_grad()
def whiten(x: Tensor, dim: int) -> Tensor:
    """Principal components of unit variance.

    Directions in which the data do not vary have no unit variance to be scaled to and are left out.

    Args:
        x: [N, D], finite.
        dim: components to keep, the strongest first.

    Returns:
        [N, min(dim, rank of x)] with zero mean and identity covariance (over N), of x's type.
    """
    n, width = x.shape
    mean = x.mean(0, dtype=torch.float64)
    if n < width:
        # fewer samples than dimensions: the smaller Gram matrix has the components themselves
        centered = x.double() - mean
        values, vectors = torch.linalg.eigh(centered @ centered.mT / n)
        return (vectors * math.sqrt(n))[:, _strongest(values, dim, x)].to(x.dtype)
    cov = torch.zeros(width, width, dtype=torch.float64, device=x.device)
    for rows in _blocks(n, width):
        centered = x[rows].double() - mean
        cov.addmm_(centered.mT, centered)
    values, vectors = torch.linalg.eigh(cov / n)
    keep = _strongest(values, dim, x)
    matrix = vectors[:, keep] * values[keep].rsqrt()
    return torch.cat([((x[r].double() - mean) @ matrix).to(x.dtype) for r in _blocks(n, width)])


def _strongest(values: Tensor, dim: int, x: Tensor) -> Tensor:
    """Where the `dim` largest of ascending eigenvalues are that x's precision tells from zero."""
    floor = values[-1] * max(x.shape) * torch.finfo(x.dtype).eps
    return torch.arange(len(values), device=x.device).flip(0)[values.flip(0) > floor][:dim]


def _check(x: Tensor, need: int, what: str, unit: str) -> Tensor:
    """`x` as float32 or float64."""
    if need < 1 or need > len(x):
        raise UserError(
            f"{what} over {len(x)} embeddings cannot give {need} {unit}; ask for at most {len(x)}, "
            "or bring more images"
        )
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x).all(1)).sum())
        raise UserError(
            f"{bad} of {len(x)} embeddings are not finite, so that {what} has no answer; "
            "the encoder has diverged, or its input has"
        )
    return x if x.dtype == torch.float64 else x.float()


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows whose product with `columns` fits into a block."""
    step = max(1, BLOCK // max(columns, 1))
    return (slice(i, i + step) for i in range(0, rows, step))


def _sums(x: Tensor, assignment: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """[k, D] sum and [k] number of each cluster's members.

    By sorting, because `index_add_` adds in any order on a GPU.
    """
    sums, counts = x.new_zeros(k, x.shape[1]), x.new_zeros(k)
    for rows in _blocks(len(x), x.shape[1]):
        own, order = assignment[rows].sort(stable=True)
        lengths = torch.bincount(own, minlength=k)
        sums += torch.segment_reduce(x[rows][order], "sum", lengths=lengths, initial=0.0)
        counts += lengths
    return sums, counts


def spread(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """[k] rows by greedy k-means++: of a few candidates, each drawn in proportion to its squared
    distance to the rows chosen so far, the one that leaves the smallest sum of such distances.

    Args:
        x: [N, D], whose mean is near zero.
        k: as many.
        generator: that draws.
    """
    trials = 2 + int(math.log(k))
    chosen = torch.randint(len(x), (1,), generator=generator).to(x.device)
    norms = x.square().sum(1)
    distance = (x - x[chosen]).square().sum(1)
    for _ in range(1, k):
        mass = distance.cumsum(0, dtype=torch.float64)
        draws = torch.rand(trials, generator=generator, dtype=torch.float64).to(x.device)
        candidates = torch.searchsorted(mass, draws * mass[-1], right=True).clamp(max=len(x) - 1)
        to = norms - 2 * (x[candidates] @ x.mT) + norms[candidates, None]
        left = torch.minimum(to.clamp(min=0), distance)
        best = left.sum(1).argmin()
        distance = left[best]
        chosen = torch.cat([chosen, candidates[best, None]])
    return chosen


def _split(centroids: Tensor, counts: Tensor, spread: Tensor, generator: torch.Generator) -> None:
    """Give each empty cluster half of another, chosen in proportion to its members but one.

    As in faiss, except that the two centroids are moved apart by a 1024th of the data's standard
    deviation, not of the centroid, which may be zero.
    """
    sizes = counts.double().cpu()
    nudge = spread / 1024
    nudge[1::2] *= -1
    for empty in (sizes == 0).nonzero()[:, 0].tolist():
        mass = (sizes - 1).clamp(min=0).cumsum(0)
        draw = torch.rand(1, generator=generator, dtype=torch.float64)
        other = int(torch.searchsorted(mass, draw * mass[-1], right=True).clamp(max=len(sizes) - 1))
        centroids[empty] = centroids[other] + nudge
        centroids[other] -= nudge
        sizes[empty] = sizes[other] // 2
        sizes[other] -= sizes[empty]
