"""Contrastive objectives that treat positives and negatives in ways of their own."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import dist
from selftaught.errors import UserError
from selftaught.precision import full_precision


def similarities(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of the first views with their own second views, and with all of other samples.

    Args:
        z1, z2: [B, D] embeddings of two views; normalized here.

    Returns:
        [B] of the positives; [B, 2 * (N - 1)] of the negatives, N samples in all processes.

    Raises:
        UserError: there is one sample, which has no negatives.
    """
    z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    all1, all2 = dist.gather(z1), dist.gather(z2)
    if len(all1) < 2:
        raise UserError("the negatives are other images of the batch: 1 image has none; take 2")
    others = torch.ones(len(z1), len(all1), dtype=torch.bool, device=z1.device)
    own = torch.arange(len(z1), device=z1.device)
    others[own, own + dist.rank() * len(z1)] = False
    negatives = [(z1 @ z.mT)[others].unflatten(0, (len(z1), -1)) for z in (all1, all2)]
    return (z1 * z2).sum(1), torch.cat(negatives, 1)


@full_precision
def decoupled(
    z1: Tensor,
    z2: Tensor,
    temperature: float,
    sigma: float | None = None,
    through_weights: bool = False,
) -> Tensor:
    """Contrastive loss without the positive in the denominator (Yeh et al., 2022, Eq. 6).

    One direction: the first views look for the second ones.

    Args:
        z1, z2: [B, D] embeddings of two views; normalized here.
        temperature: of similarities, above 0.
        sigma: temperature of the weights, which give distant positives more; None for no weights.
        through_weights: whether gradient flows through them, of which the paper says nothing.
    """
    positive, negatives = similarities(z1, z2)
    pull = positive
    if sigma is not None:
        everyone = dist.gather(positive) / sigma
        weight = 2 - len(everyone) * (positive / sigma - everyone.logsumexp(0)).exp()
        pull = positive * (weight if through_weights else weight.detach())
    return ((negatives / temperature).logsumexp(1) - pull / temperature).mean()


@full_precision
def hard_negatives(
    positive: Tensor,
    negatives: Tensor,
    temperature: float,
    hardness: float = 0.0,
    prior: float = 0.0,
) -> Tensor:
    """Cross entropy of the positive among negatives that are weighted by how near they are.

    Robinson et al. (2021, Eq. 4) weigh a negative by exp(hardness * similarity / temperature);
    Chuang et al. (2020, Eq. 8) subtract what negatives of the anchor's own class add. As in the
    papers' code, gradient flows through the weights. With hardness and prior 0 it is `info_nce`.

    Args:
        positive: [B] cosines of the anchors with their positives.
        negatives: [B, K] cosines with their negatives.
        temperature: of similarities, above 0.
        hardness: beta, from 0 for equal weights.
        prior: tau+, the chance that a negative is of the anchor's class, in [0, 1).
    """
    count = negatives.shape[1]
    positive, negatives = positive / temperature, negatives / temperature
    # in logarithms, and relative to the positive's exp: no overflow
    mass = math.log(count)
    if hardness:
        mass = mass - (hardness * negatives).logsumexp(1)
    else:
        mass = mass - math.log(count)
    mass = mass + ((hardness + 1) * negatives).logsumexp(1)
    mass = ((mass - positive).exp() - prior * count) / (1 - prior)
    least = count * (-1 / temperature - positive).exp()
    return torch.maximum(mass, least).log1p().mean()


@full_precision
def spectral(z1: Tensor, z2: Tensor, radius: float = 1.0) -> tuple[Tensor, Tensor]:
    """Spectral contrastive loss (HaoChen et al., 2021, Eq. 6), as in the paper's code.

    Args:
        z1, z2: [B, D] embeddings of two views; those longer than sqrt(radius) are cut to it.
        radius: mu, the squared radius of the ball; above 0.

    Returns:
        Attraction, -2 mean(z1 . z2) / mu, and repulsion, the mean of (z1_i . z2_j)^2 / mu over
        all i != j of all processes; the loss is their sum.
    """
    z1, z2 = (_inside(z, math.sqrt(radius)) for z in (z1, z2))
    everyone = dist.gather(z2)
    own = (z1 * z2).sum(1)
    products = (z1 @ everyone.mT).square().sum() - own.square().sum()
    pairs = len(z1) * max(1, len(everyone) - 1)
    return -2 * own.mean() / radius, products / pairs / radius


def _inside(z: Tensor, radius: float) -> Tensor:
    """[B, D] with what lies outside of the ball moved onto its surface."""
    return torch.where(z.norm(dim=1, keepdim=True) < radius, z, radius * F.normalize(z, dim=1))


@full_precision
def supervised(
    views: Tensor,
    label: Tensor,
    temperature: float,
    base_temperature: float | None = None,
    one: bool = False,
) -> Tensor:
    """Supervised contrastive loss (Khosla et al., 2020, Eq. 2): positives are of the same class.

    Args:
        views: [B, V, D] embeddings of V views of each sample; normalized here.
        label: [B] class of each sample.
        temperature: of the softmax, above 0.
        base_temperature: the loss is multiplied by temperature / base_temperature, as in the
            paper's code; by default they are equal.
        one: whether only the first views are anchors.
    """
    views = F.normalize(views, dim=2)
    everyone, classes = dist.gather(views), dist.gather(label)
    anchors = views[:, :1] if one else views
    first = dist.rank() * len(views)
    samples = torch.arange(first, first + len(views), device=views.device)
    shape = (*anchors.shape[:2], *everyone.shape[:2])
    logits = torch.einsum("ivd,jwd->ivjw", anchors, everyone) / temperature
    slots = torch.arange(shape[1], device=views.device)
    itself = torch.zeros(shape, dtype=torch.bool, device=views.device)
    itself[torch.arange(shape[0], device=views.device)[:, None], slots, samples[:, None], slots] = (
        True
    )
    logits = logits.masked_fill(itself, -torch.inf).flatten(0, 1).flatten(1)
    alike = (label[:, None] == classes)[:, None, :, None].expand(shape) & ~itself
    alike = alike.flatten(0, 1).flatten(1)
    chances = logits.log_softmax(1).masked_fill(~alike, 0.0)
    loss = -(chances.sum(1) / alike.sum(1).clamp(min=1)).mean()
    return loss if base_temperature is None else loss * temperature / base_temperature
