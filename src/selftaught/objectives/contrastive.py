"""Objectives that tell a sample's own embedding from those of others."""

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import dist


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Normalized temperature-scaled cross entropy (Chen et al., 2020, Eq. 1).

    Each embedding must find the other view's among the 2 * B - 1 others of all processes. As in
    the reference code, the result is the sum of the means over the two views: twice the paper's.

    Args:
        z1, z2: [B, D] embeddings of the two views; normalized here.
        temperature: of the softmax, above 0.
    """
    z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    all1, all2 = dist.gather(z1), dist.gather(z2)
    own = torch.arange(len(z1), device=z1.device) + dist.rank() * len(z1)
    loss = z1.new_zeros(())
    for a, same, other in ((z1, all1, all2), (z2, all2, all1)):
        within = (a @ same.mT / temperature).scatter(1, own[:, None], -torch.inf)
        across = a @ other.mT / temperature
        loss = loss + F.cross_entropy(torch.cat([across, within], 1), own)
    return loss


def info_nce(q: Tensor, k: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Cross entropy of each query finding its key among negatives (van den Oord et al., 2018).

    Args:
        q, k: [B, D] unit vectors, row i of both of the same sample.
        negatives: [K, D] unit vectors.
        temperature: of the softmax, above 0.
    """
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ negatives.mT], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))
