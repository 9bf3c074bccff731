"""From features to what they say: ridge, logistic and k-NN classifiers, and how sure they are."""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import scipy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.evaluate.scores import STRENGTHS, standardized

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Weights of the squared norm that a logistic regression is tried with, for one sample."""

NEIGHBORS = (20, 5, 1)
"""Numbers of neighbors that are tried."""

VOTES = 0.07
"""Temperature of their votes, as of k-NN scores."""

MOST_KEYS = 20_000
"""Labels up to which neighbors are among the candidates: a classifier of them holds them all."""

SHARE = 1e-3
"""A share of votes is kept this far from 0 and 1, which no number of neighbors can tell."""

ITERATIONS = 60
"""Of L-BFGS for each penalty; the next one starts where the last one ended."""

Kind = Literal["classes", "multilabel", "regression"]


class Linear(nn.Module):
    """A weighted sum of features.

    weight: [D, C]. bias: [C].
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, C]."""
        return x @ self.weight + self.bias


class Neighbors(nn.Module):
    """Votes of the nearest labeled samples by cosine (Wu et al., 2018, arXiv 1805.01978).

    keys: [N, D], normalized. targets: [N, C]. kind: whether shares of votes become logarithms
    (classes), log odds (multilabel), or stay means (regression).
    """

    keys: Tensor
    targets: Tensor

    def __init__(self, keys: Tensor, targets: Tensor, k: int, kind: Kind):
        super().__init__()
        self.register_buffer("keys", keys.float())
        self.register_buffer("targets", targets.float())
        self.k, self.kind = k, kind

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, C]."""
        near, where = (F.normalize(x, dim=1) @ self.keys.T).topk(min(self.k, len(self.keys)), 1)
        votes = (near / VOTES).softmax(1)
        found = (votes[..., None] * self.targets[where]).sum(1)
        if self.kind == "regression":
            return found
        found = found.clamp(SHARE, 1 - SHARE)
        return found.log() if self.kind == "classes" else found.logit()


class Head(nn.Module):
    """A classifier of features, and how sure it is: probabilities, or amounts.

    scores: of each name. scale, shift: by which they become logits.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scores: nn.Module, kind: Kind, scale: float = 1.0, shift: float = 0.0):
        super().__init__()
        self.scores, self.kind = scores, kind
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("shift", torch.tensor(float(shift)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] features -> [B, C]."""
        return self.of(self.scores(x))

    def of(self, scores: Tensor) -> Tensor:
        """[B, C] scores -> probabilities or amounts."""
        if self.kind == "regression":
            return scores
        logits = scores * self.scale + self.shift
        return logits.softmax(1) if self.kind == "classes" else logits.sigmoid()


def ridge(x: Tensor, targets: Tensor) -> Iterator[tuple[str, nn.Module]]:
    """Least squares on standardized features, for each strength, the strongest first.

    All from one eigendecomposition, as `evaluate.probe`.

    Args:
        x: [N, D].
        targets: [N, C].
    """
    mean, scale = _measure(x)
    z, bias = (x.double() - mean) / scale, targets.double().mean(0)
    wide = z.shape[1] > len(z)
    values, vectors = torch.linalg.eigh(z @ z.T if wide else z.T @ z)
    values = values.clamp(min=0)
    rest = targets.double() - bias
    right = vectors.T @ (rest if wide else z.T @ rest)
    left = z.T @ vectors if wide else vectors
    unit = values.sum() / z.shape[1] + 1e-12
    for strength in reversed(STRENGTHS):
        weight = left @ (right / (values + strength * unit)[:, None]) / scale[:, None]
        yield f"ridge, strength {strength:g}", Linear(weight, bias - mean @ weight)


def logistic(x: Tensor, targets: Tensor, kind: Kind) -> Iterator[tuple[str, nn.Module]]:
    """Logistic regression on standardized features by L-BFGS, the strongest penalty first.

    Args:
        x: [N, D].
        targets: [N, C] of 0 and 1.
        kind: softmax for classes, else one regression a name.
    """
    mean, scale = _measure(x)
    z = ((x.double() - mean) / scale).float()
    basis = None
    if z.shape[1] > len(z):  # what is orthogonal to all samples has no weight
        values, vectors = torch.linalg.eigh((z @ z.T).double())
        held = values > 1e-9 * values[-1]
        basis = z.T.double() @ vectors[:, held] / values[held].sqrt()
        z = (z.double() @ basis).float()
    z1 = np.concatenate([z.numpy(), np.ones((len(z), 1), np.float32)], 1)
    at = np.zeros((z1.shape[1], targets.shape[1]))
    for penalty in reversed(PENALTIES):
        at = _descend(z1, targets.numpy(), at, penalty, kind)
        found = torch.from_numpy(at[:-1])
        found = (found if basis is None else basis @ found) / scale[:, None]
        yield (
            f"logistic, penalty {penalty:g}",
            Linear(found, torch.from_numpy(at[-1]) - mean @ found),
        )


def _descend(
    z: np.ndarray, y: np.ndarray, start: np.ndarray, penalty: float, kind: Kind
) -> np.ndarray:
    """[D + 1, C] weights, the last row without a penalty, that are best for samples z [N, D + 1].

    NumPy, as autograd would take most of the time of the many small problems.
    """

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        at = flat.reshape(start.shape)
        logits = (z @ at.astype(z.dtype)).astype(np.float64)
        if kind == "classes":
            logits -= logits.max(1, keepdims=True)
            total = np.exp(logits).sum(1, keepdims=True)
            value = float((np.log(total) - (y * logits).sum(1, keepdims=True)).mean())
            error = np.exp(logits) / total - y
        else:
            value = float((np.logaddexp(0, logits) - y * logits).sum() / len(y))
            error = scipy.special.expit(logits) - y
        gradient = (z.T @ (error / len(y)).astype(z.dtype)).astype(np.float64)
        gradient[:-1] += penalty * at[:-1]
        return value + 0.5 * penalty * float((at[:-1] ** 2).sum()), gradient.ravel()

    options = {"maxiter": ITERATIONS, "gtol": 1e-4}
    found = scipy.optimize.minimize(
        loss, start.ravel(), jac=True, method="L-BFGS-B", options=options
    )
    return found.x.reshape(start.shape)


def neighbors(x: Tensor, targets: Tensor, kind: Kind) -> Iterator[tuple[str, nn.Module]]:
    """k-NN for each number of neighbors that there are."""
    keys = F.normalize(x, dim=1)
    for k in NEIGHBORS:
        if k < len(x):
            yield f"k-NN, k={k}", Neighbors(keys, targets, k, kind)


def candidates(
    x: Tensor, targets: Tensor, kind: Kind, heads: tuple[str, ...]
) -> Iterator[tuple[str, nn.Module]]:
    """Each classifier that is to be chosen from, fitted, by its name.

    Args:
        x: [N, D]. targets: [N, C], of 0 and 1 or amounts.
        kind: of the target.
        heads: ridge, logistic, knn.
    """
    made: dict[str, Callable[[], Iterator[tuple[str, nn.Module]]]] = {
        "ridge": lambda: ridge(x, targets),
        "logistic": lambda: logistic(x, targets, kind),
        "knn": lambda: neighbors(x, targets, kind),
    }
    for name in heads:
        if name == "logistic" and kind == "regression":
            continue
        if name == "knn" and len(x) > MOST_KEYS:
            continue
        yield from made[name]()


def _measure(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale by which `standardized` features are measured."""
    x = x.double()
    zero, one = x.new_zeros(1, x.shape[1]), x.new_ones(1, x.shape[1])
    _, low, high = standardized(x, zero, one)
    scale = 1 / (high - low)[0]
    return -low[0] * scale, scale
