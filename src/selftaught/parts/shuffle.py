"""ShuffleBN (He et al., 2020, section 3.3): batch norms must not give the positive pair away."""

from collections.abc import Callable

import torch
from torch import Tensor

from selftaught import dist


def permutation(count: int, device: torch.device) -> Tensor:
    """A random order of `count` samples, alike in all processes."""
    return dist.from_first(torch.randperm(count, device=device))


@torch.no_grad()
def shuffled(encode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """encode(x) without gradient, on batches that are mixed between the processes.

    A query and its key would otherwise share their batches' statistics, by which the encoder can
    tell them. In one process there is nothing to mix.

    Args:
        encode: [B, ...] -> [B, D], with batch norms of its own process.
        x: [B, ...] of this process, B alike in all.
    """
    if dist.world() == 1:
        return encode(x)
    everyone = dist.gather(x)
    order = permutation(len(everyone), x.device)
    here = slice(dist.rank() * len(x), (dist.rank() + 1) * len(x))
    encoded = dist.gather(encode(everyone[order[here]]))
    return encoded[order.argsort()[here]]
