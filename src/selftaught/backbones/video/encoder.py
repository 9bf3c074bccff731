"""Encoders of clips: ViTs whose patches are tubelets, boxes of a few frames."""

from typing import Any, Literal

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from selftaught.backbones.encoder import Features
from selftaught.backbones.positions import ClipGrid, rotary, sincos_clip
from selftaught.backbones.predictor import rotary_blocks
from selftaught.errors import UserError
from selftaught.roles import Count, ImageSize, Positive
from selftaught.sides import both, one, told_size
from selftaught.signature import Checked

SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
"""Width, depth and heads, as everywhere."""


class ClipEncoder(Checked, nn.Module):
    """A ViT without class token (V-JEPA and V-JEPA 2). Clips: [B, channels, frames, H, W].

    Pooled features are the mean of those of its tubelets. `net` has the weights, under the names of
    the reference codes.

    dim, local_dim: width of pooled features, and of those of a tubelet. grid: of tubelets.

    Args:
        name: of the network; those in `_rope` have the rotary positions of V-JEPA 2.
        size: side of a frame in pixels, or (rows, columns); multiples of `patch_size`.
        frames: of a clip, a multiple of `tubelet`.

    Other Args:
        channels: of a frame.
        patch_size: side of a tubelet in pixels.
        tubelet: frames of a tubelet.
        width: of the tokens, a multiple of `heads`; the network's own unless given.
        depth: blocks; the network's own unless given.
        heads: of the attention; the network's own unless given.
        mlp_ratio: width of the MLPs, as a multiple of `width`.
        positions: fixed sines and cosines (V-JEPA), rotary ones, or `tiled` ones, which V-JEPA 2
            has in their place; the network's own unless given.
    """

    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    trained: bool = False
    has_local = True
    kind: Any = None

    def __init__(
        self,
        name: Literal[
            "vit_tiny",
            "vit_small",
            "vit_base",
            "vit_large",
            "vit_tiny_rope",
            "vit_small_rope",
            "vit_base_rope",
            "vit_large_rope",
        ] = "vit_small",
        size: ImageSize = 224,
        frames: Count = 16,
        channels: Count = 3,
        patch_size: Count = 16,
        tubelet: Count = 2,
        width: Count | None = None,
        depth: Count | None = None,
        heads: Count | None = None,
        mlp_ratio: Positive = 4.0,
        positions: Literal["sincos", "rotary", "tiled"] | None = None,
    ):
        super().__init__()
        usual = SIZES[name.split("_")[1]]
        self.name, self.size, self.frames, self.channels = name, one(size), frames, channels
        self.patch_size, self.tubelet, self.mlp_ratio = patch_size, tubelet, mlp_ratio
        self.width, self.depth, self.heads = width or usual[0], depth or usual[1], heads or usual[2]
        self.positions = positions or ("tiled" if name.endswith("_rope") else "sincos")
        self.dim = self.local_dim = self.width
        if self.channels != len(self.mean):
            self.mean, self.std = ((sum(x) / len(x),) for x in (self.mean, self.std))
        self.grid = self.grid_of((frames, *both(size)))
        self.net = _Tubelets(self)
        self.net.register_load_state_dict_post_hook(self._loaded)

    def _loaded(self, _: nn.Module, __: Any) -> None:
        self.trained = True

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build it again."""
        names = ("name", "size", "frames", "channels", "patch_size", "tubelet", "width", "depth")
        return {n: getattr(self, n) for n in (*names, "heads", "mlp_ratio", "positions")}

    def grid_of(self, sides: ClipGrid) -> ClipGrid:
        """Tubelets of clips of so many frames, rows and columns.

        Raises:
            UserError: they are no whole number.
        """
        part = (self.tubelet, self.patch_size, self.patch_size)
        frames, rows, columns = (n // p for n, p in zip(sides, part))
        if (frames * part[0], rows * part[1], columns * part[2]) != sides or not frames * rows:
            raise UserError(
                f"clips of {told_size(sides)} (frames, rows, columns) are no whole number of "
                f"tubelets of {told_size(part)}; use multiples of these, or another --tubelet or "
                "--patch-size"
            )
        return frames, rows, columns

    def fit(self, size: float) -> int:
        """The side of frames nearest to `size` that it can take."""
        return max(1, round(size / self.patch_size)) * self.patch_size

    def table(self, width: int, heads: int, grid: ClipGrid | None = None) -> Tensor:
        """Positions of tubelets for a ViT of any width and heads, as `Predictor` takes them."""
        grid = grid or self.grid
        if self.positions == "sincos":
            return sincos_clip(grid, width).float()
        table = rotary(grid, width // heads, self.positions == "tiled")
        return table.to(torch.get_default_dtype())

    def forward(self, clips: Tensor) -> Tensor:
        """[B, channels, frames, H, W] -> pooled [B, dim]."""
        return self.tokens(clips).mean(1)

    def features(self, clips: Tensor) -> Features:
        """Pooled and local features, those of the tubelets frame by frame; grid: all places of a
        frame are a row."""
        local = self.tokens(clips)
        frames, rows, columns = self.grid_of((*clips.shape[2:],))  # type: ignore[arg-type]
        return Features(local.mean(1), local, (frames, rows * columns))

    def tokens(self, clips: Tensor, keep: Tensor | None = None) -> Tensor:
        """[B, K, dim]; keep: [B, K] tubelets to encode, numbered frame by frame, or all."""
        if clips.ndim != 5 or clips.shape[1] != self.channels:
            raise UserError(
                f"{self.name} takes clips [B, {self.channels}, frames, H, W], got "
                f"{list(clips.shape)}; open the data with kind=selftaught.kinds.of(encoder)"
            )
        grid, table = self.grid_of((*clips.shape[2:],)), self.net.pos_embed  # type: ignore[arg-type]
        if grid != self.grid:
            table = self.table(self.width, self.heads, grid).to(table)
        return self.net(clips, table, keep)


class _Tubelets(nn.Module):
    pos_embed: Tensor

    def __init__(self, of: ClipEncoder):
        super().__init__()
        part = (of.tubelet, of.patch_size, of.patch_size)
        self.patch_embed = nn.Sequential()
        self.patch_embed.add_module("proj", nn.Conv3d(of.channels, of.width, part, part))
        self.blocks = rotary_blocks(of.width, of.depth, of.heads, of.mlp_ratio)
        self.norm = nn.LayerNorm(of.width, eps=1e-6)
        self.rotary = of.positions != "sincos"
        table = of.table(of.width, of.heads)
        self.register_buffer("pos_embed", table, persistent=not self.rotary)

    def forward(self, clips: Tensor, table: Tensor, keep: Tensor | None = None) -> Tensor:
        tokens = self.patch_embed(clips).flatten(2).mT
        rope = table if self.rotary else None
        if rope is None:
            tokens = tokens + table
        if keep is not None:
            tokens = tokens.take_along_dim(keep[..., None], 1)
            rope = rope[keep][:, None] if rope is not None else None
        for block in self.blocks:
            tokens = block(tokens, rope=rope)
        return self.norm(tokens)
