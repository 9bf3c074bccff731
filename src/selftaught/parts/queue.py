"""The newest embeddings of all processes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import dist
from selftaught.errors import UserError


class Queue(nn.Module):
    """First in, first out, of `size` unit vectors; alike in all processes and in checkpoints.

    items: [size, dim]; head: where the next embedding goes.
    """

    items: Tensor
    head: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        if size < 1:
            raise UserError(f"a queue of {size} holds nothing to compare with; use 1 or more")
        self.register_buffer("items", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("head", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, x: Tensor) -> None:
        """x: [B, dim] of this process; those of all replace the oldest, wrapping around."""
        x = dist.gather(x.detach())[-len(self.items) :]
        where = (self.head + torch.arange(len(x), device=x.device)) % len(self.items)
        self.items[where] = x.to(self.items.dtype)
        self.head.copy_((self.head + len(x)) % len(self.items))
