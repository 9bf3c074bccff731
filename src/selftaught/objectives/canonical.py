"""Canonical correlation analysis of two views or modalities, for training through it."""

from typing import Literal

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.precision import full_precision

Form = Literal["sum", "frobenius", "squares", "largest"]


@full_precision
def canonical_correlations(h1: Tensor, h2: Tensor, r1: float = 1e-3, r2: float = 1e-3) -> Tensor:
    """[min(D1, D2)] correlations, the largest first (Andrew et al., 2013, Section 2).

    Args:
        h1: [N, D1] of the first view; N above D1 and D2, and far above for numbers that mean much.
        h2: [N, D2] of the second view, row i of both of the same sample.
        r1, r2: added to the diagonals of the covariances, above 0.

    Raises:
        UserError: unequal lengths, or no more samples than dimensions: all correlations are 1.
    """
    if len(h1) != len(h2):
        raise UserError(
            f"two modalities of {len(h1)} and {len(h2)} samples cannot be correlated: row i of "
            "both must be of the same sample; leave out samples that only one of them has"
        )
    if len(h1) <= max(h1.shape[1], h2.shape[1]):
        raise UserError(
            f"{len(h1)} samples in {h1.shape[1]} and {h2.shape[1]} dimensions are perfectly "
            "correlated whatever they are: take a larger batch, or fewer dimensions (dim)"
        )
    a, b = _scaled(h1, r1), _scaled(h2, r2)
    return torch.linalg.svdvals(a.mT @ b / (len(h1) - 1))


def _scaled(h: Tensor, r: float) -> Tensor:
    """Centered h L^-T, with L L^T its regularized covariance: its products are T of the paper up to
    rotations, which leave singular values alone."""
    h = h - h.mean(0)
    cov = h.mT @ h / (len(h) - 1) + r * torch.eye(h.shape[1], dtype=h.dtype, device=h.device)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(cov), h.mT, upper=False).mT


def total_correlation(correlations: Tensor, form: Form = "sum") -> Tensor:
    """What DCCA maximizes: the `sum` of the correlations in the paper.

    Published ports maximize other numbers under this name: the root of the sum of squares
    (`frobenius`), the sum of squares (`squares`), or the `largest` alone.
    """
    match form:
        case "sum":
            return correlations.sum()
        case "frobenius":
            return correlations.norm()
        case "squares":
            return correlations.square().sum()
        case "largest":
            return correlations[0]


def reconstruction(x: Tensor, decoded: Tensor, element_mean: bool = False) -> Tensor:
    """Squared distance of [N, ...] from what was decoded, mean over samples (Wang et al., 2015,
    Eq. 6), or over all numbers alike, as a published port has it."""
    error = (x - decoded).square()
    return error.mean() if element_mean else error.flatten(1).sum(1).mean()
