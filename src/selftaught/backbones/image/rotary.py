"""timm's rotary ViTs (EVA-02, RoPE-ViT, DINOv3): blocks that are told where their tokens are."""

from typing import Any, cast

from timm.layers import RotaryEmbeddingDinoV3
from timm.models.eva import Eva
from torch import Tensor, nn

from selftaught.backbones.positions import Grid


def rescale(net: nn.Module, most: float) -> bool:
    """Let axial positions be scaled, in each pass of training, by a number from 1 / most to `most`.

    One number, whose logarithm is uniform, for a whole batch (DINOv3, Section 3.1). False where
    `net` has no such positions.
    """
    rope = getattr(net, "rope", None)
    if not isinstance(rope, RotaryEmbeddingDinoV3):
        return False
    rope.rescale_coords, rope.aug_active = most, most > 1
    return True


def through(net: Eva, tokens: Tensor, grid: Grid, keep: Tensor | None = None) -> Tensor:
    """What the blocks of `net` make of class token, registers and patches, [B, P + N, D].

    Args:
        grid: rows and columns of patches of the whole image.
        keep: [B, N] indices of the patches that are there, if some are left out.
    """
    for block, turns in zip(net.blocks, _turns(net, grid, keep)):
        tokens = block(tokens, rope=turns)
    return tokens


def _turns(net: Eva, grid: Grid, keep: Tensor | None) -> list[Tensor | None]:
    """For each block the sines and cosines that turn its queries and keys.

    [N, T], or [heads, N, T] where each head learned its own (RoPE-Mixed); with `keep` [B, 1, N, T]
    or [B, heads, N, T]. None where positions are in a table alone (EVA-01).
    """
    if net.rope is None:
        return [None] * len(net.blocks)
    found = cast(Any, net.rope).get_embed(list(grid))
    if keep is None:
        return list(found) if net.rope_mixed else [found] * len(net.blocks)
    if net.rope_mixed:
        return list(found[:, :, keep].transpose(1, 2))
    return [found[keep][:, None]] * len(net.blocks)
