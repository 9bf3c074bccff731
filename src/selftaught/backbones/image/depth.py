"""Stochastic depth: a paper's own, none in a teacher, and without work for what is left out."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from selftaught.backbones.image.create import beit, plain_vit
from selftaught.backbones.image.packed import (
    Branch,
    PackedBlock,
    Shapes,
    apart,
    each,
    joined,
    with_packing,
)

M = TypeVar("M", bound=nn.Module)

WORTHWHILE = 0.1
"""Rates up to this one drop branches image by image, as the reference does."""


def with_drop_path(image: Any, rate: float) -> None:
    """Give an `Image` the stochastic depth that it was not asked to have, if it is a ViT or a BEiT.

    As timm does: from none in the first block to `rate` in the last. Weights stay as they are.
    """
    net: Any = plain_vit(image.net) or beit(image.net)
    if net is None or not rate:
        return
    for block, own in zip(net.blocks, torch.linspace(0, rate, len(net.blocks)).tolist()):
        if own:
            block.drop_path1, block.drop_path2 = DropPath(own), DropPath(own)
    image.drop_path = rate


def without_drop_path(module: M) -> M:
    """`module` itself, from now on with all of its residual branches in each forward pass."""
    for layer in module.modules():
        if isinstance(layer, DropPath):
            layer.drop_prob = 0.0
    return module


def with_subset_depth(module: M) -> M:
    """`module` itself, whose ViT blocks from now on run a branch on the images that keep it alone.

    Rates, names and weights stay; only rates above `WORTHWHILE` are affected (DINOv2, Oquab et al.,
    2024, Section 5, "efficient stochastic depth").
    """
    for layer in with_packing(module).modules():
        if isinstance(layer, PackedBlock):
            layer.__class__ = SubsetBlock
    return module


class SubsetBlock(PackedBlock):
    """A block with `subset_residual` in training."""

    def forward(self, x: Tensor, *args: Any, shapes: Shapes | None = None, **kwargs: Any) -> Tensor:
        if shapes is not None or self.rate(self.drop_path1) <= WORTHWHILE:
            return super().forward(x, *args, shapes=shapes, **kwargs)
        rate = self.rate(self.drop_path1)

        def attention(some: list[Tensor]) -> list[Tensor]:
            return [self.ls1(self.attn(self.norm1(s), *args, **kwargs)) for s in some]

        def layers(some: list[Tensor]) -> list[Tensor]:
            return [self.ls2(self.mlp(self.norm2(s))) for s in some]

        return subset_residual(subset_residual([x], attention, rate), layers, rate)[0]

    def residual(self, drop: nn.Module, x: Tensor, shapes: Shapes, branch: Branch) -> Tensor:
        rate = self.rate(drop)
        if rate <= WORTHWHILE:
            return super().residual(drop, x, shapes, branch)
        return joined(subset_residual(apart(x, shapes), each(branch), rate))


def subset_residual(
    batches: Sequence[Tensor], branch: Callable[[list[Tensor]], Sequence[Tensor]], rate: float
) -> list[Tensor]:
    """x + branch(x) for max(int(B * (1 - rate)), 1) images at random, scaled by B / their number.

    Args:
        batches: x, [B, N, D] of any B and N each.
        branch: [B', N, D] each -> as many of these shapes, each image alone.
        rate: share of the images of a batch that go without the branch, in [0, 1).
    """
    kept = [permutation(len(x), x.device)[: max(int(len(x) * (1 - rate)), 1)] for x in batches]
    added = branch([x[k] for x, k in zip(batches, kept)])
    return [
        x.index_add(0, k, a.to(x.dtype), alpha=len(x) / len(k))
        for x, k, a in zip(batches, kept, added)
    ]


def permutation(count: int, device: torch.device) -> Tensor:
    """A random order of `count` images."""
    return torch.randperm(count, device=device)
