"""Encoders of clips: ViTs whose patches are tubelets, boxes of a few frames."""

from typing import Literal

import torch
from torch import Tensor, nn

from selftaught.backbones.positions import ClipGrid, rotary, sincos_clip
from selftaught.backbones.predictor import rotary_blocks
from selftaught.errors import UserError


class ClipEncoder(nn.Module):
    """A ViT without class token (V-JEPA and V-JEPA 2). Clips: [B, channels, frames, H, W].

    The names of its weights are those of the reference codes. grid: of tubelets.

    Args:
        size: frames, height and width of the clips, multiples of `tubelet`.
        tubelet: frames, height and width of a patch.
        channels: of a frame.
        dim: width of the tokens, a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        mlp_ratio: width of the MLPs, as a multiple of `dim`.
        positions: fixed sines and cosines (V-JEPA), rotary ones, or `tiled` ones, which V-JEPA 2
            has in their place: see `rotary`.
    """

    pos_embed: Tensor

    def __init__(
        self,
        size: ClipGrid = (16, 224, 224),
        tubelet: ClipGrid = (2, 16, 16),
        channels: int = 3,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        positions: Literal["sincos", "rotary", "tiled"] = "sincos",
    ):
        super().__init__()
        if any(whole % part or whole < part for whole, part in zip(size, tubelet)):
            raise UserError(
                f"clips of {' x '.join(map(str, size))} (frames, height, width) are no whole "
                f"number of tubelets of {' x '.join(map(str, tubelet))}; use multiples of these"
            )
        self.grid = (size[0] // tubelet[0], size[1] // tubelet[1], size[2] // tubelet[2])
        self.dim, self.kind, self.rotary = dim, positions, positions != "sincos"
        self.patch_embed = nn.Sequential()
        self.patch_embed.add_module("proj", nn.Conv3d(channels, dim, tubelet, tubelet))
        self.blocks = rotary_blocks(dim, depth, heads, mlp_ratio)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.register_buffer("pos_embed", self.positions(dim, heads), persistent=not self.rotary)

    def positions(self, dim: int, heads: int) -> Tensor:
        """Those of its tubelets for a ViT of any width and heads, as `Predictor` takes them."""
        if self.rotary:
            table = rotary(self.grid, dim // heads, self.kind == "tiled")
            return table.to(torch.get_default_dtype())
        return sincos_clip(self.grid, dim).float()

    def forward(self, clips: Tensor, keep: Tensor | None = None) -> Tensor:
        """[B, K, dim] tokens; keep: [B, K] tubelets to encode, numbered frame by frame, or all."""
        tokens = self.patch_embed(clips).flatten(2).mT
        rope = self.pos_embed if self.rotary else None
        if rope is None:
            tokens = tokens + self.pos_embed
        if keep is not None:
            tokens = tokens.take_along_dim(keep[..., None], 1)
            rope = rope[keep][:, None] if rope is not None else None
        for block in self.blocks:
            tokens = block(tokens, rope=rope)
        return self.norm(tokens)
