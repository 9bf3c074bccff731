"""Networks that tell the features of places that were not seen from those that were (JEPAs)."""

from typing import Any

import torch
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
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


def initialize(network: nn.Module) -> None:
    """The JEPAs' initial weights; the last layers of block i are divided by sqrt(2 * i).

    Patches of fewer numbers than the references' (14 x 14 x 3, and 2 x 16 x 16 x 3 of clips) get
    larger weights, so that tokens vary as much: otherwise positions drown them, and are all that is
    predicted.
    """
    usual: dict[type[nn.Module], int] = {nn.Conv2d: 588, nn.Conv3d: 1536}
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            whole = usual.get(type(module))
            scale = max(1.0, whole / module.weight[0].numel()) if whole else 1.0
            nn.init.trunc_normal_(module.weight, std=0.02 * scale**0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Predictor):
            nn.init.trunc_normal_(module.mask_token, std=0.02)
    blocks: list[Any] = [m for m in network.modules() if isinstance(m, Block | EvaBlock)]
    with torch.no_grad():
        for i, block in enumerate(blocks, 1):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.div_((2 * i) ** 0.5)
