"""Contrast of series at all scales of time (TS2Vec, arXiv 2106.10466)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def hierarchical(one: Tensor, other: Tensor, instances: float = 0.5) -> Tensor:
    """Mean over scales of the dual contrastive loss (section 3.3, Algorithm 1).

    At each scale every step is to be told from other steps of its series (equation 1), and every
    series from others at the same step (equation 2), by dot products; then time is halved by
    maxima. Of the last scale, a single step, the second is left.

    Args:
        one, other: features [B, T, D] of the same steps in two contexts.
        instances: weight of the contrast between series, in [0, 1]; that of steps has the rest.
    """
    total, scales = one.new_zeros(()), 0
    while one.shape[1] > 1:
        total = total + instances * _contrast(one.transpose(0, 1), other.transpose(0, 1))
        total = total + (1 - instances) * _contrast(one, other)
        one, other = (F.max_pool1d(x.mT, 2).mT for x in (one, other))
        scales += 1
    total = total + instances * _contrast(one.transpose(0, 1), other.transpose(0, 1))
    return total / (scales + 1)


def _contrast(one: Tensor, other: Tensor) -> Tensor:
    """Of [G, N, D]: each of N items is to find its partner among all others of its group, of both.

    A group of a single item has nothing to tell apart: 0.
    """
    count = one.shape[1]
    if count == 1:
        return one.new_zeros(())
    both = torch.cat([one, other], 1)
    itself = torch.eye(2 * count, dtype=torch.bool, device=both.device)
    scores = (both @ both.mT).masked_fill(itself, -torch.inf).log_softmax(2)
    item = torch.arange(count, device=both.device)
    return -(scores[:, item, item + count].mean() + scores[:, item + count, item].mean()) / 2
