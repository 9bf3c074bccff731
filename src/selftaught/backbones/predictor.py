"""Networks that tell the features of places that were not seen from those that were (JEPAs)."""

import torch
from timm.models.eva import EvaBlock
from torch import Tensor, nn

from selftaught.errors import UserError


def rotary_blocks(dim: int, depth: int, heads: int, mlp_ratio: float) -> nn.ModuleList:
    """timm's transformer blocks, whose attention takes rotary positions as an argument, or none."""
    if heads < 1 or dim % heads:
        raise UserError(f"dim={dim} must be a multiple of heads={heads}, 1 at least")
    return nn.ModuleList(
        EvaBlock(dim, heads, mlp_ratio=mlp_ratio, attn_type="rope", num_prefix_tokens=0)
        for _ in range(depth)
    )


class Predictor(nn.Module):
    """A narrow ViT from features of seen places to those of others, told by their positions.

    The order of places does not matter. The names of its weights are those of the reference codes,
    but for `mask_token`, of which V-JEPA's have a list.

    Args:
        dim: width of the features.
        width: of the predictor, a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        mlp_ratio: width of the MLPs, as a multiple of `width`.
        positions: of all places: [1, N, width], which are added to the tokens; or [N, 2 * width /
            heads] rotary ones, which every block uses.
        tokens: number of mask tokens, one for each kind of mask that is told apart.
    """

    predictor_pos_embed: Tensor

    def __init__(
        self,
        dim: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        positions: Tensor,
        tokens: int = 1,
    ):
        super().__init__()
        self.rotary = positions.dim() == 2
        self.predictor_embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(tokens, 1, width))
        self.register_buffer("predictor_pos_embed", positions, persistent=not self.rotary)
        self.predictor_blocks = rotary_blocks(width, depth, heads, mlp_ratio)
        self.predictor_norm = nn.LayerNorm(width, eps=1e-6)
        self.predictor_proj = nn.Linear(width, dim)

    def forward(
        self,
        seen: Tensor,
        context: Tensor,
        targets: Tensor,
        positions: Tensor | None = None,
        token: int = 0,
    ) -> Tensor:
        """[T * B, L, dim] features of places.

        Args:
            seen: [B, K, dim] features.
            context: [B, K] where they are.
            targets: [T * B, L] where features are asked for: T sets of places for each of B.
            positions: those of another grid, in place of the predictor's own.
            token: which of the mask tokens stands for them.
        """
        times = len(targets) // len(seen)
        tokens = self.mask_token[token].expand(*targets.shape, -1)
        table = self.predictor_pos_embed if positions is None else positions
        if self.rotary:
            tokens = torch.cat([self.predictor_embed(seen).repeat(times, 1, 1), tokens], 1)
            rope = table[torch.cat([context.repeat(times, 1), targets], 1)][:, None]
        else:
            seen = self.predictor_embed(seen) + table[0][context]
            tokens = torch.cat([seen.repeat(times, 1, 1), tokens + table[0][targets]], 1)
            rope = None
        for block in self.predictor_blocks:
            tokens = block(tokens, rope=rope)
        return self.predictor_proj(self.predictor_norm(tokens)[:, context.shape[1] :])
