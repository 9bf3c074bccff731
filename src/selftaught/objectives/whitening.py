"""Whitening inside a loss: embeddings of identity covariance, with gradient through it."""

import torch
from torch import Tensor

from selftaught.errors import TrainingError, UserError


def cholesky_whiten(x: Tensor, eps: float = 0.0) -> Tensor:
    """L^-1 (x - mean) with L L^T = (1 - eps) Cov(x) + eps I (Ermolov et al., 2021, Eq. 4 and 5).

    Args:
        x: [N, D], N above D unless eps > 0.
        eps: weight of the identity, in [0, 1].

    Returns:
        [N, D] of mean 0; without eps of covariance I (over N - 1).

    Raises:
        UserError: no more samples than dimensions, and no eps.
        TrainingError: the covariance cannot be inverted.
    """
    if len(x) < 2 or (not eps and len(x) <= x.shape[1]):
        raise UserError(
            f"{len(x)} samples cannot be whitened in {x.shape[1]} dimensions: take more than "
            f"{x.shape[1]}, better twice as many, or embeddings of fewer dimensions"
        )
    centered = x - x.mean(0)
    cov = centered.mT @ centered / (len(x) - 1)
    if eps:
        cov = (1 - eps) * cov + eps * torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
    try:
        lower = torch.linalg.cholesky(cov)
    except torch.linalg.LinAlgError as error:
        raise TrainingError(
            f"{len(x)} embeddings of width {x.shape[1]} do not vary in every direction, so that "
            "they cannot be whitened; take a larger batch, a smaller dim, or eps above 0 such as "
            "0.001"
        ) from error
    return torch.linalg.solve_triangular(lower, centered.mT, upper=False).mT
