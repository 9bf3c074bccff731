"""Objectives over the hidden part of an input."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import dist
from selftaught.precision import full_precision


def patchify(images: Tensor, patch: int) -> Tensor:
    """[B, C, H, W] -> [B, N, patch * patch * C], row by row; channels vary fastest in a patch."""
    cells = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # B C rows p cols p
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """[B, N, patch * patch * C] on a grid of (rows, columns) -> [B, C, H, W]."""
    cells = patches.unflatten(2, (patch, patch, -1)).unflatten(1, grid)  # B rows cols p p C
    return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def standardize(patches: Tensor) -> Tensor:
    """Each patch [..., D] with mean 0 and (unbiased) variance 1, as MAE's targets are."""
    var, mean = patches.var(-1, keepdim=True), patches.mean(-1, keepdim=True)
    return (patches - mean) / (var + 1e-6).sqrt()


def hidden_mean(values: Tensor, hidden: Tensor, eps: float = 0.0) -> Tensor:
    """Mean over all hidden positions of the batch: images that hide more count for more.

    Args:
        values: [B, ...], one for each position: a patch (MAE), a pixel (SimMIM), a token (BERT).
        hidden: [B, ...], True or 1 where hidden.
        eps: added to the number of hidden positions: 1e-5 in SimMIM and BERT, whose mean is then 0
            where nothing is hidden.
    """
    weight = hidden.to(values.dtype)
    return (values * weight).sum() / (weight.sum() + eps)


@full_precision
def token_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor, eps: float = 1e-5
) -> Tensor:
    """BERT's loss (Devlin et al., 2019): mean cross entropy over the tokens that are asked for.

    The mean is over those of all processes, of which each may have another number.

    Args:
        logits: [M, V] over the vocabulary.
        labels: [M] the tokens.
        weights: [M] 1, or 0 for places that only fill the batch up.
        eps: added to the number of tokens, as the authors' code does.
    """
    each = F.cross_entropy(logits, labels, reduction="none") * weights
    return each.sum() / (dist.mean(weights.to(each.dtype).sum()) + eps / dist.world())


def hidden_weight(hidden: Tensor) -> Tensor:
    """[M] for each hidden position of bool [B, N], row by row: 1 / number of them in its image."""
    each = 1 / hidden.sum(1, keepdim=True).clamp(min=1).double()
    return each.expand_as(hidden)[hidden]


def image_mean(values: Tensor, hidden: Tensor) -> Tensor:
    """Mean over images of the mean over an image's hidden positions (iBOT, DINOv2).

    Images that hide nothing count, with 0: all images that hide something weigh alike.

    Args:
        values: [M], one for each hidden position, row by row.
        hidden: bool [B, N].
    """
    return (values * hidden_weight(hidden).to(values.dtype)).sum() / len(hidden)


def latent_targets(local: Tensor, targets: Tensor) -> Tensor:
    """[T, B, L, D]: what the JEPAs predict, features [B, N, D] at places `targets` [T, B, L].

    Each feature is normalized over its channels, without scale and shift.
    """
    local = F.layer_norm(local, local.shape[-1:])
    return local[None].take_along_dim(targets[..., None], 2)


def latent_distance(
    predicted: Sequence[Tensor], true: Sequence[Tensor], power: float = 1.0
) -> Tensor:
    """V-JEPA's loss (Bardes et al., 2024, Eq. 1): mean of |z - h| ** power / power.

    Args:
        predicted, true: z and h, [B, L, D] of each set of masks, which weigh alike however many
            places they have.
        power: 1 in the paper.
    """
    each = [(z - h).abs().pow(power).mean() / power for z, h in zip(predicted, true, strict=True)]
    return torch.stack(each).mean()


def latent_narrowness(predicted: Sequence[Tensor]) -> Tensor:
    """How far features of places vary less than 1 within clips: V-JEPA's regularizer, which its
    code logs and gives no weight.

    Mean over clips and channels of relu(1 - standard deviation over places), the deviation that of
    the sets of masks on average.

    Args:
        predicted: [B, L, D] of each set of masks, at least two places in each.
    """
    deviations = torch.stack([(z.var(1) + 1e-4).sqrt() for z in predicted])
    return F.relu(1 - deviations.mean(0)).mean()
