"""Predictors that are computed instead of learned, and steps that are a predictor's alone."""

import torch
from torch import Tensor, nn

from selftaught import dist
from selftaught.precision import full_precision


class DirectPredictor(nn.Module):
    """A linear predictor set from the correlation of its input: DirectPred (Tian et al., 2021).

    W = U diag(sqrt(s / max s) + eps) U^T, with U diag(s) U^T the running mean of z z^T. Eigenvalues
    are taken relative to the largest, as in the authors' code, so that the scale of z is nothing to
    it. Here W follows from what came before and from the batch itself, in the code from what came
    before.

    Args:
        dim: width of the input and of the output.
        rho: weight of the old mean, from 0 to 1.
        eps: what small eigenvalues keep at least, relative to the largest.
        every: batches from one decomposition to the next, which takes a time like dim^3.
    """

    correlation: Tensor
    weight: Tensor
    seen: Tensor

    def __init__(self, dim: int, rho: float = 0.3, eps: float = 0.1, every: int = 1):
        super().__init__()
        self.rho, self.eps, self.every = rho, eps, every
        self.register_buffer("correlation", torch.zeros(dim, dim))
        self.register_buffer("weight", torch.eye(dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        return z @ self.weight.to(z.dtype)

    @torch.no_grad()
    def follow(self, z: Tensor) -> None:
        """See [B, D] inputs of all processes, then set the weight; nothing in evaluation mode."""
        if self.training:
            self._follow(z)

    @full_precision
    def _follow(self, z: Tensor) -> None:
        now = dist.mean(z.T @ z / len(z)).to(self.correlation)
        before = int(self.seen)
        self.correlation.copy_(torch.lerp(now, self.correlation, self.rho) if before else now)
        self.seen += 1
        if before % self.every:
            return
        values, vectors = torch.linalg.eigh(self.correlation)
        values = values.clamp(min=0)
        scales = (values / values[-1].clamp(min=torch.finfo(values.dtype).tiny)).sqrt() + self.eps
        self.weight.copy_(vectors * scales @ vectors.T)


class Turns(nn.Module):
    """Counts steps of which every `steps`-th alone is for all; in the others a part rests.

    Args:
        steps: from one to the next; with 1 nobody ever rests.
    """

    count: Tensor | None

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps
        count = torch.zeros((), dtype=torch.int64) if steps > 1 else None
        self.register_buffer("count", count)

    def rest(self, *modules: nn.Module) -> None:
        """Before the optimizer's step: drop the gradients of what rests, where it does."""
        if self.count is None:
            return
        self.count += 1
        if self.rested():
            for module in modules:
                for parameter in module.parameters():
                    parameter.grad = None

    def rested(self) -> bool:
        """Whether a part rests in this step, once `rest` was called."""
        return self.count is not None and bool((self.count - 1) % self.steps)
