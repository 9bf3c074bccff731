"""Tokens of images of several sizes through a ViT's blocks in one sequence (DINOv2, Section 5)."""

from collections.abc import Callable, Sequence

import torch
from timm.layers import Attention, DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.backbones.image.depth import SubsetBlock, subset_residual

Shapes = list[tuple[int, int]]
"""Of each batch in a sequence, in order: its number of images, and of the tokens of each."""

Branch = Callable[[Tensor, Shapes], Tensor]
"""A residual branch: [T, D] of these shapes -> [T, D], each image alone."""


def packable(blocks: nn.Module) -> bool:
    """Whether all of `blocks` are of timm's plain kind, which `run_packed` knows."""
    return all(
        type(b) in (Block, SubsetBlock) and type(b.attn) is Attention for b in blocks.children()
    )


def run_packed(blocks: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """What `packable` blocks make of each of `batches`, [B, N, D] of any B and N, image by image.

    Norms and linear layers see one sequence [T, D] of all tokens; attention is block-diagonal, from
    the tokens of an image to those of the same. Equal to one batch after the other, but for the
    order in which stochastic depth draws: by branch, then by batch.
    """
    shapes = [(x.shape[0], x.shape[1]) for x in batches]
    x = joined(batches)
    for block in blocks.children():
        assert isinstance(block, Block)
        x = through(block, x, shapes)
    return apart(x, shapes)


def through(block: Block, x: Tensor, shapes: Shapes) -> Tensor:
    """One block: [T, D] -> [T, D]."""
    layer = block.attn
    assert isinstance(layer, Attention)

    def attention(part: Tensor, shapes: Shapes) -> Tensor:
        return block.ls1(attend(layer, block.norm1(part), shapes))

    def layers(part: Tensor, _: Shapes) -> Tensor:
        return block.ls2(block.mlp(block.norm2(part)))

    x = _residual(block, block.drop_path1, x, shapes, attention)
    return _residual(block, block.drop_path2, x, shapes, layers)


def attend(layer: Attention, x: Tensor, shapes: Shapes) -> Tensor:
    """timm's attention, within each image alone: [T, D] -> [T, D].

    One call of PyTorch's attention for each batch, whose images have one length: there is no mask
    of T x T, and no padding.
    """
    mixed = layer.qkv(x).unflatten(-1, (3, layer.num_heads, layer.head_dim))
    found = []
    for part in apart(mixed, shapes):
        q, k, v = part.permute(2, 0, 3, 1, 4)  # each [B, heads, N, width]
        dropout = layer.attn_drop.p if layer.training else 0.0
        out = F.scaled_dot_product_attention(layer.q_norm(q), layer.k_norm(k), v, dropout_p=dropout)
        found.append(out.transpose(1, 2).flatten(2).flatten(0, 1))
    out = layer.norm(torch.cat(found))
    if layer.gate is not None:
        out = out * layer.gate(x).sigmoid()
    return layer.proj_drop(layer.proj(out))


def _residual(block: Block, drop: nn.Module, x: Tensor, shapes: Shapes, branch: Branch) -> Tensor:
    """x + branch(x), with the stochastic depth of `block` for each image of each batch."""

    def added(parts: list[Tensor]) -> list[Tensor]:
        some = [(p.shape[0], p.shape[1]) for p in parts]
        return apart(branch(joined(parts), some), some)

    rate = float(drop.drop_prob or 0) if isinstance(drop, DropPath) and block.training else 0.0
    if not rate:
        return x + branch(x, shapes)
    parts = apart(x, shapes)
    if isinstance(block, SubsetBlock) and block.subsets(rate):
        return joined(subset_residual(parts, added, rate))
    return joined([p + drop(a) for p, a in zip(parts, added(parts))])


def joined(batches: Sequence[Tensor]) -> Tensor:
    """One sequence [T, ...] of the tokens in batches [B, N, ...]."""
    return torch.cat([x.flatten(0, 1) for x in batches])


def apart(x: Tensor, shapes: Shapes) -> list[Tensor]:
    """The batches [B, N, ...] in a sequence [T, ...]."""
    parts = x.split([count * size for count, size in shapes])
    return [part.unflatten(0, shape) for part, shape in zip(parts, shapes)]
