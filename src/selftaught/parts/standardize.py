"""Features of any network on one scale: numbers with mean 0, and variance 1 on average."""

import torch
from torch import Tensor, nn

from selftaught import dist


class Standardize(nn.Module):
    """Takes the mean from each number of features [..., D] and divides all by the same one.

    So they have variance 1 on average and keep their geometry; numbers that hardly change, which
    are mostly noise, are not blown up. Mean and variance are those of all features that were shown,
    until `memory` batches have been: then of about the last ones. They are alike in all processes.

    Args:
        dim: D.
        memory: batches.
    """

    mean: Tensor
    var: Tensor
    seen: Tensor
    """Batches; a whole number."""

    def __init__(self, dim: int, memory: int = 1000):
        super().__init__()
        self.memory = memory
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def show(self, x: Tensor) -> None:
        """Features [..., D] of this process, as many in each."""
        x = x.flatten(0, -2).to(self.mean)
        mean = dist.mean(x.mean(0))
        var = dist.mean((x - mean).square().mean(0))
        self.seen.add_(1)
        share = 1 / self.seen.clamp(max=self.memory)
        gap = mean - self.mean
        # of two groups together: what is within each, and what lies between them
        self.var.copy_(torch.lerp(self.var, var, share) + share * (1 - share) * gap.square())
        self.mean.add_(share * gap)

    def fit(self, x: Tensor) -> None:
        """To features [N, D] and no others; the same in each process."""
        self.seen.zero_()
        self.show(x)

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.mean) - self.mean) * self.var.mean().clamp(min=1e-12).rsqrt()
