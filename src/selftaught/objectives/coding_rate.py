"""Objectives of unit embeddings: those of one image together, and all with room between them."""

import math

import torch
from torch import Tensor

from selftaught import dist


def balanced_rate(z: Tensor, eps: float) -> Tensor:
    """Coding rate of each view's embeddings, on the scale of a cosine: large where they spread.

    (D + N) / (D N) times R = 1/2 log det(I + D / (N eps) Z^T Z), in nats: the bits that it takes
    to tell the rows Z of all processes apart (Wu et al., 2025, Section 3); the factor is that of
    the paper's code.

    Args:
        z: [V, B, D] of this process; all processes have as many rows.
        eps: squared distortion that is allowed, above 0.

    Returns:
        [V].
    """
    rows, dim = z.shape[-2] * dist.world(), z.shape[-1]
    spread = dist.total(z.mT @ z) * (dim / (rows * eps))
    whole = spread + torch.eye(dim, dtype=z.dtype, device=z.device)
    rate = torch.linalg.cholesky(whole).diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return rate * (dim + rows) / (dim * rows)


def collapsed_rate(rows: int, dim: int, eps: float) -> float:
    """The same of `rows` unit vectors that are all one."""
    return math.log1p(dim / eps) / 2 * (dim + rows) / (dim * rows)


def cross_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """Half the mean squared distance of each view's embeddings from those of each *other* view.

    Args:
        teacher: [T, B, D] unit vectors of the first T views.
        student: [V, B, D] unit vectors of all.
    """
    others = student.sum(0) - student[: len(teacher)]
    return 1 - (teacher * others).sum(-1).mean() / (len(student) - 1)
