"""How far a network has gone from another one that it is to stay near: by features, by weights."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.precision import full_precision

TERM = "anchor_"
"""What names of such terms of a loss begin with: they are no part of the method's own."""


@full_precision
def cosine(x: Tensor, start: Tensor) -> Tensor:
    """1 - cos of features [B, D] and those of the start, mean over images."""
    return (1 - F.cosine_similarity(x, start, dim=1)).mean()


@full_precision
def gram(x: Tensor, start: Tensor) -> Tensor:
    """Gram anchoring of DINOv3 (Siméoni et al., 2025), https://arxiv.org/abs/2508.10104.

    || X X^T - S S^T ||_F^2 of an image, where rows of X and S are local features of unit length:
    how alike its places are to each other is to stay, while features may turn. Here it is divided
    by the number of pairs of places, so that a weight holds for grids of any size.

    Args:
        x: [B, N, D] local features.
        start: [B, N, E] those of the start.
    """
    x, start = F.normalize(x, dim=2), F.normalize(start, dim=2)
    return (x @ x.mT - start @ start.mT).square().mean()


def l2sp(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """1/2 |w - w0|^2 of all weights together (L2-SP, Li et al., 2018).

    https://arxiv.org/abs/1802.01483, Eq. 2, whose second term, decay of what is new, is the
    optimizer's weight decay.

    Args:
        pairs: weights, each with what it was at the start.
    """
    return 0.5 * torch.stack([(w - start).square().sum() for w, start in pairs]).sum()
