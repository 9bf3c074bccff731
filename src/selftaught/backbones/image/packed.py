"""Tokens of images of several sizes through a ViT's blocks in one sequence (DINOv2, Section 5)."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from timm.layers import Attention, DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)

Shapes = list[tuple[int, int]]
"""Of each batch in a sequence, in order: its number of images, and of the tokens of each."""

Branch = Callable[[Tensor, Shapes], Tensor]
"""A residual branch: [T, D] of these shapes -> [T, D], each image alone."""


class PackedBlock(Block):
    """timm's block, which also takes several batches in one sequence.

    It is a call of the block, so that whatever stands around one (recomputation, compiled code, the
    gathering of its weights) stands around that, too.
    """

    def forward(self, x: Tensor, *args: Any, shapes: Shapes | None = None, **kwargs: Any) -> Tensor:
        """[B, N, D], or with `shapes` a sequence [T, D] of batches -> the same."""
        if shapes is None:
            return super().forward(x, *args, **kwargs)
        layer = self.attn
        assert isinstance(layer, Attention)

        def attention(part: Tensor, shapes: Shapes) -> Tensor:
            return self.ls1(attend(layer, self.norm1(part), shapes))

        def layers(part: Tensor, _: Shapes) -> Tensor:
            return self.ls2(self.mlp(self.norm2(part)))

        x = self.residual(self.drop_path1, x, shapes, attention)
        return self.residual(self.drop_path2, x, shapes, layers)

    def residual(self, drop: nn.Module, x: Tensor, shapes: Shapes, branch: Branch) -> Tensor:
        """x + branch(x), with the stochastic depth of `drop` for each image of each batch."""
        if not self.rate(drop):
            return x + branch(x, shapes)
        parts = apart(x, shapes)
        return joined([p + drop(a) for p, a in zip(parts, each(branch)(parts))])

    def rate(self, drop: nn.Module) -> float:
        """At which it leaves branches out now."""
        drops = self.training and isinstance(drop, DropPath)
        return float(drop.drop_prob or 0) if drops else 0.0


def with_packing(module: M) -> M:
    """`module` itself, whose plain ViT blocks from now on are packed ones, of the same weights."""
    for layer in module.modules():
        if type(layer) is Block:
            layer.__class__ = PackedBlock
    return module


def packable(blocks: nn.Module) -> bool:
    """Whether all of `blocks` are of timm's plain kind, which `run_packed` knows."""
    return all(isinstance(b, PackedBlock) and type(b.attn) is Attention for b in blocks.children())


def run_packed(blocks: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """What `packable` blocks make of each of `batches`, [B, N, D] of any B and N, image by image.

    Norms and linear layers see one sequence [T, D] of all tokens; attention is block-diagonal, from
    the tokens of an image to those of the same. Equal to one batch after the other, but for the
    order in which stochastic depth draws: by branch, then by batch.
    """
    shapes = [(x.shape[0], x.shape[1]) for x in batches]
    x = joined(batches)
    for block in blocks.children():
        x = block(x, shapes=shapes)
    return apart(x, shapes)


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


def each(branch: Branch) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """`branch` as a function of batches [B, N, D]."""

    def of_batches(parts: Sequence[Tensor]) -> list[Tensor]:
        shapes = [(p.shape[0], p.shape[1]) for p in parts]
        return apart(branch(joined(parts), shapes), shapes)

    return of_batches


def joined(batches: Sequence[Tensor]) -> Tensor:
    """One sequence [T, ...] of the tokens in batches [B, N, ...]."""
    return torch.cat([x.flatten(0, 1) for x in batches])


def apart(x: Tensor, shapes: Shapes) -> list[Tensor]:
    """The batches [B, N, ...] in a sequence [T, ...]."""
    parts = x.split([count * size for count, size in shapes])
    return [part.unflatten(0, shape) for part, shape in zip(parts, shapes)]
