"""Objectives in which views predict each other's assignment to prototypes or clusters."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import dist


@torch.no_grad()
def sinkhorn(
    scores: Tensor, epsilon: float, iterations: int = 3, log_shares: Tensor | None = None
) -> Tensor:
    """Balanced soft assignment: each sample has mass one, each prototype a given share of it.

    Sinkhorn-Knopp on exp(scores / epsilon) as SwAV has it (Caron et al., 2020, Eq. 5), over the
    samples of all processes, which may hold different numbers of them, or none. In log space,
    because the exponential itself overflows float32 beyond scores of 88 * epsilon.

    Args:
        scores: [..., B, K] similarities of this process's samples with the prototypes; finite.
            Those with other leading indices are balanced alone (CAPI's places of patches).
        epsilon: weight of the entropy, above 0; smaller is harder.
        iterations: how often prototypes and samples are normalized, in this order; SEER takes 10.
        log_shares: [K] logarithms of the prototypes' shares, alike in all processes; None for equal
            ones.

    Returns:
        [..., B, K], float32 or float64; each row sums to 1.
    """
    log_q = (scores if scores.dtype == torch.float64 else scores.float()) / epsilon
    for _ in range(iterations):
        # whatever is subtracted must be the same in all processes: with a maximum of its own,
        # each would weigh the prototypes' masses differently
        empty = log_q.new_full((*log_q.shape[:-2], 1, log_q.shape[-1]), -torch.inf)
        own = log_q.amax(-2, keepdim=True) if log_q.shape[-2] else empty
        top = dist.maximum(own)
        log_q = log_q - (top + dist.total((log_q - top).exp().sum(-2, keepdim=True)).log())
        if log_shares is not None:
            log_q = log_q + log_shares
        log_q = log_q - log_q.logsumexp(-1, keepdim=True)
    return log_q.exp()


def cross_prediction(targets: Tensor, logits: Tensor) -> Tensor:
    """Mean cross entropy of each view predicting the soft assignment of each *other* view.

    Args:
        targets: [T, B, K] distributions over prototypes, of the first T of the V views.
        logits: [V, B, K] predictions, already divided by their temperature.
    """
    log_p = logits.log_softmax(-1)
    others = log_p.sum(0) - log_p[: len(targets)]
    return -(targets * others).sum(-1).mean() / (len(logits) - 1)


def soft_cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """[...] cross entropy of distributions [..., K] with logits [..., K] over their temperature."""
    return -(targets * logits.log_softmax(-1)).sum(-1)


def cluster_cross_entropy(
    scores: Sequence[Tensor], labels: Tensor, temperature: float = 1.0
) -> Tensor:
    """Cross entropy with the clusters found before the epoch, averaged over clusterings.

    DeepCluster (Caron et al., 2018) has one clustering and one view, DeepCluster-v2 several.

    Args:
        scores: for each of H clusterings [V * B, K_h], view after view.
        labels: [H, B] clusters of the batch; -100 where a sample has none yet.
        temperature: of the softmax, above 0.
    """
    terms = [
        F.cross_entropy(s / temperature, own.repeat(len(s) // len(own)))
        for s, own in zip(scores, labels, strict=True)
    ]
    return torch.stack(terms).mean()


def power_law(count: int, exponent: float) -> tuple[float, ...]:
    """Numbers in proportion to which groups are large: k ** -exponent for the k-th of `count`.

    The prior of PMSN (Assran et al., 2022): 0 makes all alike, larger exponents fewer large groups.
    """
    return tuple(k**-exponent for k in range(1, count + 1))


@torch.no_grad()
def balanced_plan(
    log_p: Tensor, power: float = 25.0, tolerance: float = 0.1, every: int = 10, most: int = 10_000
) -> Tensor:
    """SeLa's transport of N samples onto K equally large clusters (Asano et al., 2020, Eq. 8).

    Sinkhorn-Knopp on the predictions to the power `power`, until between two iterations, at each
    `every`-th, the samples' factors change by less than `tolerance` in sum. In log space, where no
    power underflows; use float64, as the paper's code does.

    Args:
        log_p: [N, K] log-probabilities; K at most N.
        power: lambda; larger is harder.
        tolerance, every: see above.
        most: iterations after which to stop in any case.

    Returns:
        [N, K] logarithm of the plan, whose largest entry in each row is the sample's new label.
    """
    count, clusters = log_p.shape
    log_q = power * log_p
    of_samples = log_p.new_full((count, 1), -math.log(count))
    for step in range(most):
        of_clusters = -math.log(clusters) - (log_q + of_samples).logsumexp(0, keepdim=True)
        new = -math.log(count) - (log_q + of_clusters).logsumexp(1, keepdim=True)
        error = ((of_samples - new).exp() - 1).abs().sum() if step % every == 0 else math.inf
        of_samples = new
        if error < tolerance:
            break
    return of_clusters + log_q + of_samples
