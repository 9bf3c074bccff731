"""Losses of correlations between two views."""

from typing import Any

import numpy as np
import torch

from selftaught.method import Batch
from tests.formulas import cosine, numbers


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
