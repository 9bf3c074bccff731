"""Objectives of metric learning: on distances of pairs and triplets, on products of tuples."""

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import dist
from selftaught.precision import full_precision


@full_precision
def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """[N, D], [M, D] -> [N, M] squared Euclidean distances, never below 0."""
    sizes = a.square().sum(1)[:, None] + b.square().sum(1)
    return (sizes - 2 * a @ b.mT).clamp(min=0)


@full_precision
def pair_loss(squared: Tensor, similar: Tensor, margin: float, eps: float = 1e-9) -> Tensor:
    """Pull similar pairs together, push others to a distance (Hadsell et al., 2006, Eq. 4).

    Args:
        squared: [...] squared distances of the pairs.
        similar: [...] 1 for similar pairs, 0 for others; the paper's Y is the opposite.
        margin: distance from which a pair that is not similar costs nothing.
        eps: added under the root, whose slope at 0 is infinite; the paper has none.

    Returns:
        [...] the loss of each pair.
    """
    short = (margin - (squared + eps).sqrt()).relu()
    return 0.5 * (similar * squared + (1 - similar) * short.square())


@full_precision
def triplet_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float | None = None,
    squared: bool = False,
    swap: bool = False,
    eps: float = 0.0,
) -> Tensor:
    """Be nearer to the positive than to the negative (Schroff et al., 2015, Eq. 2).

    Args:
        anchor, positive, negative: [B, D].
        margin: by how much nearer; None for the soft margin, ln(1 + exp(difference)), of Hermans
            et al. (2017).
        squared: whether distances are squared, as the paper's are.
        swap: whether the negative's distance is that to the positive where this is smaller.
        eps: added to each coordinate of differences; 1e-6 in torch's `triplet_margin_loss`.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        difference = a - b + eps
        return difference.square().sum(1) if squared else difference.norm(dim=1)

    far = distance(anchor, negative)
    if swap:
        far = torch.minimum(far, distance(positive, negative))
    gap = distance(anchor, positive) - far
    return (F.softplus(gap) if margin is None else (gap + margin).relu()).mean()


@torch.no_grad()
def hardest(anchors: Tensor, everyone: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """The farthest positive and the nearest negative of each anchor (Hermans et al., 2017, Eq. 5).

    Args:
        anchors, everyone: [N, D], [M, D].
        same: [N, M] which of `everyone` are of an anchor's class; itself may be among them.

    Returns:
        [N], [N] rows of `everyone`.
    """
    squared = squared_distances(anchors, everyone)
    return squared.where(same, -1).argmax(1), squared.where(~same, torch.inf).argmin(1)


@full_precision
def semi_hard(z: Tensor, label: Tensor, margin: float, axis: int = 1) -> Tensor:
    """Triplet loss on squared distances, over all pairs of a class (Schroff et al., 2015).

    The negative of a pair is the nearest one that is farther than the positive; where there is
    none, the farthest.

    Args:
        z: [B, D] embeddings; normalized here.
        label: [B] their classes.
        margin: by how much negatives should be farther, above 0.
        axis: that is normalized over: 1, coordinates, or 0, the batch of all processes.
    """
    everyone, labels = F.normalize(dist.gather(z), dim=axis), dist.gather(label)
    own = torch.arange(len(z), device=z.device) + dist.rank() * len(z)
    squared = squared_distances(everyone[own], everyone)
    same = label[:, None] == labels
    negatives, _ = squared.masked_fill(same, torch.inf).sort(1)
    last = (~same).sum(1, keepdim=True) - 1
    # from the first that is farther than the positive, in each row's order
    beyond = torch.searchsorted(negatives.detach(), squared.detach(), right=True)
    far = negatives.gather(1, beyond.minimum(last).clamp(min=0))
    pairs = same.scatter(1, own[:, None], False)
    return (squared - far + margin).relu()[pairs].sum() / pairs.sum().clamp(min=1)


@full_precision
def match(queries: Tensor, keys: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Mean cross entropy of each query finding its key among those of all processes' batches.

    Args:
        queries, keys: [B, D], row i of both of the same sample; compared by their dot products.
        temperature: of the softmax, above 0.
    """
    logits = queries @ dist.gather(keys).mT / temperature
    own = torch.arange(len(queries), device=queries.device) + dist.rank() * len(queries)
    return F.cross_entropy(logits, own)


@full_precision
def n_pair(
    anchors: Tensor, positives: Tensor, decay: float = 0.0, symmetric: bool = False
) -> Tensor:
    """Multi-class N-pair loss (Sohn, 2016, Eq. 7): products, whose lengths are kept small.

    Args:
        anchors, positives: [B, D], one of each class, not normalized.
        decay: of the embeddings' squared lengths.
        symmetric: whether positives look for their anchors too; the mean of both is taken.
    """
    loss = match(anchors, positives)
    if symmetric:
        loss = (loss + match(positives, anchors)) / 2
    lengths = anchors.square().sum(1).mean() + positives.square().sum(1).mean()
    return loss + 0.25 * decay * lengths
