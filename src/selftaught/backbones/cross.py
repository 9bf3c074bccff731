"""A network that tells of places that were not seen by looking at those that were, alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError


class CrossBlock(nn.Module):
    """Tokens look at others, and then each passes an MLP alone.

    Args:
        dim: width of both, a multiple of `heads`.
        heads: of the attention.
        mlp_ratio: width of the MLP, as a multiple of `dim`.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        wide = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, wide), nn.GELU(), nn.Linear(wide, dim))

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """tokens: [B, L, dim]; seen: [B, K, dim], what they look at."""
        q = self.q(self.norm1(tokens)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(seen).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.proj(found)
        return tokens + self.mlp(self.norm2(tokens))


class CrossPredictor(nn.Module):
    """Places that are asked for, each by itself: mask tokens with positions look at what is seen.

    What is told of a place does not depend on which others are asked for.

    Args:
        dim: width of the features that are seen.
        width: of the predictor, a multiple of `heads` and of 4.
        depth: number of blocks.
        heads: of the attention.
        mlp_ratio: width of the MLPs, as a multiple of `width`.
        positions: [1, N, width] of all places.
    """

    positions: Tensor

    def __init__(
        self, dim: int, width: int, depth: int, heads: int, mlp_ratio: float, positions: Tensor
    ):
        super().__init__()
        if heads < 1 or width % heads:
            raise UserError(f"dim={width} must be a multiple of heads={heads}, 1 at least")
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", positions)
        self.blocks = nn.ModuleList(CrossBlock(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(
        self, seen: Tensor, context: Tensor, asked: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        """[B, L, width].

        Args:
            seen: [B, K, dim] features.
            context: [B, K] where they are.
            asked: [B, L] places that are asked for.
            positions: those of another grid, in place of the predictor's own.
        """
        table = (self.positions if positions is None else positions)[0]
        seen = self.embed(seen) + table[context]
        tokens = self.mask_token + table[asked]
        for block in self.blocks:
            tokens = block(tokens, seen)
        return self.norm(tokens)
