"""Objectives that tell a sample's own embedding from those of others."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from selftaught import dist
from selftaught.precision import full_precision


@full_precision
def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Normalized temperature-scaled cross entropy (Chen et al., 2020, Eq. 1).

    Each embedding must find the other view's among the 2 * B - 1 others of all processes. As in
    the reference code, the result is the sum of the means over the two views: twice the paper's.

    Args:
        z1, z2: [B, D] embeddings of the two views; normalized here.
        temperature: of the softmax, above 0.
    """
    return pair_cross_entropy(F.normalize(z1, dim=1), F.normalize(z2, dim=1), temperature)


@full_precision
def pair_cross_entropy(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """`nt_xent` of embeddings that are compared as they are, by their dot products."""
    everyone = torch.cat([dist.gather(z1), dist.gather(z2)])
    own = torch.arange(len(z1), device=z1.device) + dist.rank() * len(z1)
    own = torch.cat([own, own + len(everyone) // 2])
    anchors = torch.cat([z1, z2]) / temperature
    return _PairCrossEntropy.apply(anchors, everyone, own, own.roll(len(z1))) / len(z1)


class _PairCrossEntropy(torch.autograd.Function):
    """Sum over anchors of the cross entropy of finding row `positive`, row `own` left out.

    Gradients are made along with the value, block by block of anchors, so that the logits of all
    pairs (1 GB for a batch of 8192) never exist at once.
    """

    BLOCK = 2**22
    """Logits that exist at a time."""

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, everyone: Tensor, own: Tensor, positive: Tensor
    ) -> Tensor:
        loss = anchors.new_zeros(())
        of_anchors, of_everyone = torch.empty_like(anchors), torch.zeros_like(everyone)
        rows = max(1, _PairCrossEntropy.BLOCK // len(everyone))
        for start in range(0, len(anchors), rows):
            block = slice(start, start + rows)
            logits = anchors[block] @ everyone.mT
            logits.scatter_(1, own[block, None], -torch.inf)
            logits = logits.log_softmax(1)
            loss -= logits.gather(1, positive[block, None]).sum()
            slope = logits.exp_()
            slope.scatter_add_(1, positive[block, None], -torch.ones_like(slope[:, :1]))
            of_anchors[block] = slope @ everyone
            of_everyone.addmm_(slope.mT, anchors[block])
        ctx.save_for_backward(of_anchors, of_everyone)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        of_anchors, of_everyone = ctx.saved_tensors
        return grad * of_anchors, grad * of_everyone, None, None


@full_precision
def info_nce(q: Tensor, k: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Cross entropy of each query finding its key among negatives (van den Oord et al., 2018).

    Args:
        q, k: [B, D] unit vectors, row i of both of the same sample.
        negatives: [K, D] unit vectors, or [B, K, D] for negatives of each query's own.
        temperature: of the softmax, above 0.
    """
    own = negatives.ndim == 3
    others = (negatives @ q[:, :, None]).squeeze(2) if own else q @ negatives.mT
    logits = torch.cat([(q * k).sum(1, keepdim=True), others], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


@full_precision
def noise_contrastive(
    scores: Tensor, partition: Tensor, samples: int, epsilon: float = 1e-7
) -> Tensor:
    """Noise-contrastive estimation of the instance that an embedding is of (Wu et al., 2018).

    Each score becomes the probability that its row is the sample's own and no noise, which is drawn
    uniformly from all images: P / (P + K / n), P = score / partition (Eq. 4 to 7).

    Args:
        scores: [B, 1 + K] exponentiated similarities, first the sample's own, then K noise ones.
        partition: scalar, of the scores over all images; a constant.
        samples: number n of images.
        epsilon: added to the denominators, as in the papers' code.
    """
    noise = (scores.shape[1] - 1) / samples
    p = scores / partition
    own = (p[:, 0] / (p[:, 0] + noise + epsilon)).log()
    others = (noise / (p[:, 1:] + noise + epsilon)).log()
    return -(own.sum() + others.sum()) / len(scores)


def products(queries: Tensor, candidates: Tensor, rows: Tensor) -> Tensor:
    """[M, R] dot products of [M, D] queries with those of [N, D] candidates that `rows` names."""
    return torch.einsum("md,mrd->mr", queries, candidates[rows])


@full_precision
def find_first(scores: Tensor, floor: float = 0.0) -> Tensor:
    """Mean of -log(p + floor), p being the softmax of [M, R] scores at the first of each row.

    A floor above 0 bounds the loss by its own -log (the code of Greedy InfoMax, Löwe et al., 2019).
    """
    if not floor:
        return F.cross_entropy(scores, torch.zeros_like(scores[:, 0], dtype=torch.long))
    return -(scores.softmax(1)[:, 0] + floor).log().mean()
