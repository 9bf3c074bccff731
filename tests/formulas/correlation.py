"""Losses of correlations between two views."""

from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from selftaught.method import Batch
from tests.formulas import cosine, numbers, unit


def two_branches(method: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """[B, dim] of both views, each by its own network where there are two."""
    one, two = batch.views
    other, head = method.other, method.other_head
    second = method.head(method.backbone(two)) if other is None else head(other(two))
    return numbers(method.head(method.backbone(one))), numbers(second)


def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[D, D'] over N - 1."""
    a, b = a - a.mean(0), b - b.mean(0)
    return sum(np.outer(x, y) for x, y in zip(a, b)) / (len(a) - 1)


def inverse_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def canonical(h1: np.ndarray, h2: np.ndarray, r: float) -> np.ndarray:
    """Correlations of Andrew et al. (2013): singular values of S11^-1/2 S12 S22^-1/2."""
    eye = np.eye(h1.shape[1])
    first, second = (inverse_root(covariance(h, h) + r * eye) for h in (h1, h2))
    return np.linalg.svd(first @ covariance(h1, h2) @ second, compute_uv=False)


def loss_dcca(method: Any, batch: Batch) -> float:
    found = canonical(*two_branches(method, batch), method.regularize)
    forms = {"sum": found.sum(), "squares": (found**2).sum(), "largest": found.max()}
    forms["frobenius"] = np.sqrt(forms["squares"])
    return -forms[method.form]


def loss_dccae(method: Any, batch: Batch) -> dict[str, float]:
    found, error = canonical(*two_branches(method, batch), method.regularize), 0.0
    nets = (
        (method.backbone, method.head, method.decoder),
        (method.other, method.other_head, method.other_decoder),
    )
    for x, (net, head, decode) in zip(batch.views, nets):
        told, true = numbers(decode(head(net(x)))), numbers(x)
        rows, columns = method.shape
        high, wide = true.shape[2] // rows, true.shape[3] // columns
        cells = true.reshape(*true.shape[:2], rows, high, columns, wide).mean((3, 5))
        squares = (told - cells.reshape(told.shape)) ** 2
        error += squares.mean() if method.element_mean else squares.sum(1).mean()
    return {"correlation": -found.sum(), "reconstruction": method.weight * error}


def whitened(h: np.ndarray, eps: float) -> np.ndarray:
    """Of mean 0 and covariance about 1, by the Cholesky factor."""
    cov = (1 - eps) * covariance(h, h) + eps * np.eye(h.shape[1])
    inverse = np.linalg.inv(np.linalg.cholesky(cov))
    return np.array([inverse @ row for row in h - h.mean(0)])


def loss_ace(method: Any, batch: Batch) -> float:
    phi, theta = two_branches(method, batch)
    of_phi, of_theta = whitened(phi, method.eps), whitened(theta, method.eps)
    total, count = 0.0, phi.size
    for i in range(len(phi)):
        for k in range(phi.shape[1]):
            total += (phi[i, k] - of_theta[i, k]) ** 2 / count
            total += (theta[i, k] - of_phi[i, k]) ** 2 / count
    return total / 2


def loss_barlow_twins(method: Any, batch: Batch) -> float:
    def standardized(z: np.ndarray) -> np.ndarray:
        return (z - z.mean(0)) / np.sqrt(z.var(0) + method.norm.eps)

    a, b = (standardized(numbers(method.projector(method.backbone(x)))) for x in batch.views)
    total = 0.0
    for i in range(a.shape[1]):
        for j in range(a.shape[1]):
            c = (a[:, i] * b[:, j]).mean()
            total += (c - 1) ** 2 if i == j else method.redundancy * c**2
    return total


def loss_vicreg(method: Any, batch: Batch) -> dict[str, float]:
    z1, z2 = (numbers(method.projector(method.backbone(x))) for x in batch.views)
    spread, mixed = 0.0, 0.0
    for z in (z1, z2):
        c = covariance(z, z)
        spread += np.mean([max(0, 1 - np.sqrt(v + 1e-4)) for v in np.diag(c)]) / 2
        mixed += ((c**2).sum() - (np.diag(c) ** 2).sum()) / len(c)
    return {
        "invariance": method.invariance * ((z1 - z2) ** 2).mean(),
        "variance": method.variance * spread,
        "covariance": method.covariance * mixed,
    }


def loss_w_mse(method: Any, batch: Batch) -> float:
    z = numbers(method.projector(method.backbone(torch.cat(list(batch.views)))))
    views, each = z.reshape(method.count, -1, z.shape[1]), []
    size = views.shape[1]
    for _ in range(method.draws):
        order = torch.randperm(size).numpy()
        parts = np.array_split(order, max(1, size // (method.group or size)))
        white = [np.concatenate([whitened(v[p], method.eps) for p in parts]) for v in views]
        for i in range(len(white)):
            for j in range(i):
                if method.normalize:
                    far = [2 - 2 * cosine(a, b) for a, b in zip(white[i], white[j])]
                else:
                    far = [((a - b) ** 2).mean() for a, b in zip(white[i], white[j])]
                each.append(np.mean(far))
    return float(np.mean(each))


def embedded(method: Any, batch: Batch) -> np.ndarray:
    """[V, B, dim] of views of several sizes, which go through the projector together."""
    pooled = torch.cat([method.backbone(torch.cat(list(x))) for x in each_side(batch.views)])
    return numbers(method.projector(pooled)).reshape(len(batch.views), len(batch.views[0]), -1)


def each_side(views: Any) -> list[Any]:
    """Views, those of one size together."""
    sides = {x.shape[-1] for x in views}
    return [[x for x in views if x.shape[-1] == side] for side in sorted(sides, reverse=True)]


def lines(method: Any) -> np.ndarray:
    """[slices, dim] of length 1."""
    return unit(torch.randn(method.dim, method.slices, dtype=torch.float64).T.numpy())


def from_mean(z: np.ndarray, known: int) -> float:
    """Mean squared coordinate of the way of each view from the mean of the first `known`."""
    total = 0.0
    for b in range(z.shape[1]):
        middle = sum(z[v, b] for v in range(known)) / known
        total += sum(((z[v, b] - middle) ** 2).mean() for v in range(len(z)))
    return total / z.shape[1] / len(z)


def loss_lejepa(method: Any, batch: Batch) -> dict[str, float]:
    """Eq. of Section 4.3 (Epps and Pulley) with the window of the listing, over both half lines."""
    z, t = embedded(method, batch), np.linspace(-method.reach, method.reach, method.points)
    every, found = lines(method), []
    for view in z:
        for line in every:
            seen = np.array([np.mean([np.exp(1j * s * (line @ x)) for x in view]) for s in t])
            error = np.abs(seen - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
            areas = [(a + b) / 2 * (t[1] - t[0]) for a, b in pairwise(error)]
            found.append(len(view) * sum(areas))
    return {
        "alike": (1 - method.weight) * from_mean(z, 2),
        "gaussian": method.weight * float(np.mean(found)),
    }


def loss_visreg(method: Any, batch: Batch) -> dict[str, float]:
    """Eq. 1 (scale), 5 (shape, of what Eq. 2 leaves) and 6 (center)."""
    z, every = embedded(method, batch), lines(method)
    center, scale, shape = [], [], []
    for view in z:
        mean = view.sum(0) / len(view)
        deviation = np.sqrt(((view - mean) ** 2).sum(0) / len(view) + 1e-8)
        center += [m**2 for m in mean]
        scale += [(1 - s) ** 2 for s in deviation]
        for line in every:
            ordered = sorted(float((x - mean) / deviation @ line) for x in view)
            for i, x in enumerate(ordered, 1):
                shape.append((x - NormalDist().inv_cdf(i / (len(view) + 1))) ** 2)
    return {
        "alike": (1 - method.weight) * from_mean(z, method.global_crops),
        "center": method.weight * method.center * float(np.mean(center)),
        "scale": method.weight * method.scale * float(np.mean(scale)),
        "shape": method.weight * method.shape * float(np.mean(shape)),
    }
