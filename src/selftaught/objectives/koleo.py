"""Objectives that keep embeddings apart from each other."""

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.precision import full_precision


@full_precision
def koleo(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Kozachenko-Leonenko estimator of the (negative) entropy, as DINOv2 has it.

    Minus the mean logarithm of each embedding's distance to its nearest neighbor (Sablayrolles et
    al., 2019, Eq. 5; Oquab et al., 2024). Which one that is has no gradient, where it lies has.

    Args:
        x: [B, D], at least two; normalized here.
        eps: keeps the loss of equal embeddings finite.
    """
    x = F.normalize(x, dim=1, eps=eps)
    with torch.no_grad():
        nearest = (x @ x.mT).fill_diagonal_(-1).argmax(1)
    return -(F.pairwise_distance(x, x[nearest], eps=eps) + eps).log().mean()
