"""An embedding of every image of the dataset."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import dist
from selftaught.errors import UserError


class MemoryBank(nn.Module):
    """A running mean of each image's embedding (Wu et al., 2018); alike in all processes.

    items: [samples, dim]. partition: the sum of exponentiated similarities over all images, as the
    first batch estimates it, which noise-contrastive estimation keeps ever after; 0 before.

    Args:
        samples: images in the dataset.
        dim: width of the embedding.
        momentum: weight of what is remembered, in [0, 1).
        unit: whether the first, random items are unit vectors, or uniform numbers that make them
            about as long.
    """

    items: Tensor
    partition: Tensor

    def __init__(self, samples: int, dim: int, momentum: float = 0.5, unit: bool = True):
        super().__init__()
        if samples < 2:
            raise UserError(
                f"a memory has a row for each image and needs 2 to tell apart, got {samples}; make "
                "the method with samples=len(data)"
            )
        if not 0 <= momentum < 1:
            raise UserError(
                f"a memory momentum of {momentum} is not in [0, 1): at 1 the memory never changes"
            )
        self.momentum = momentum
        bound = (3 / dim) ** 0.5
        items = torch.empty(samples, dim).uniform_(-bound, bound)
        self.register_buffer("items", F.normalize(items, dim=1) if unit else items)
        self.register_buffer("partition", torch.zeros(()))

    def draw(self, index: Tensor, count: int) -> Tensor:
        """[B, 1 + count] rows to compare with: each sample's own, then any, with replacement."""
        others = torch.randint(len(self.items), (len(index), count), device=index.device)
        return torch.cat([index[:, None], others], 1)

    def similarities(self, x: Tensor, rows: Tensor) -> Tensor:
        """[B, R] dot products of [B, dim] embeddings with the memory's [B, R] rows.

        The memory is a constant: gradient flows to the embeddings alone.
        """
        if len(self.items) < rows.shape[1] * self.items.shape[1]:  # all products are fewer numbers
            return self.compare(x).gather(1, rows)
        return torch.einsum("bd,brd->br", x, self.items[rows].to(x.dtype))

    def compare(self, x: Tensor) -> Tensor:
        """[B, samples] dot products with all rows, as they are now: the update comes later."""
        return x @ self.items.to(x.dtype, copy=True).mT

    @torch.no_grad()
    def estimate(self, scores: Tensor) -> Tensor:
        """The partition: from the first batch's [B, R] exponentiated similarities, then kept."""
        found = dist.mean(scores.mean()) * len(self.items)
        self.partition.copy_(torch.where(self.partition > 0, self.partition, found))
        return self.partition.clone()

    @torch.no_grad()
    def update(self, index: Tensor, x: Tensor) -> None:
        """Mix the [B, dim] unit embeddings of samples [B] of all processes into their rows."""
        index, x = dist.gather(index), dist.gather(x.detach()).to(self.items.dtype)
        # a sample that comes twice is written twice: with the same row, or processes would differ
        first = (index[:, None] == index).int().argmax(1)
        mixed = self.momentum * self.items[index] + (1 - self.momentum) * x[first]
        self.items[index] = F.normalize(mixed, dim=1)
