"""data2vec (Baevski et al., 2022), https://arxiv.org/abs/2202.03555."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.masks import Grid
from selftaught.masks.blocks import blocks, inverse_block
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.masked import hidden_mean
from selftaught.parts import ema, frozen_copy
from selftaught.precision import full_precision
from selftaught.roles import Count, HiddenShare, Momentum, Positive
from selftaught.schedule import linear
from selftaught.sides import Size, as_option, both, one, told_size


class Data2Vec(Method):
    """Hide blocks of patches; predict what an EMA teacher, who sees all, makes of them.

    The goal of a patch is the mean of what the teacher's last blocks give, each normalized over its
    numbers: all of the image is in it, not the patch alone.

    With `decoder="conv"` this is data2vec 2.0 (Baevski et al., 2023, arXiv 2212.07525), which takes
    less time: the student sees the patches of one block and no others, a small
    convolutional decoder fills in the hidden ones, where it is given noise, and several masks of an
    image share what the teacher makes of it. The error is squared. The code's ViT-B has copies=16,
    ratio=0.8, layers=10 and momentum=0.9998,0.99999; its term of the class token, of weight 0.01,
    is left out, and goals are normalized as in the first paper.

    Args:
        backbone: a ViT or a BEiT. From scratch a BEiT's blocks share one position bias.
        layers: blocks whose outputs are averaged; if none, half of them: 6 of 12, as in the paper.
        ratio: fraction of the patches that are hidden, in (0, 1).
        momentum: of the EMA teacher, at the start and at the end.
        decoder: `linear`, of a student that sees mask tokens, or `conv`, of one that sees none.
        copies: masked versions of an image in a step, for `conv`.

    Other Args:
        beta: distance below which the loss of `linear` is a square, above it the distance itself.
        decoder_layers: convolutions of `conv`.
        decoder_dim: their width; the backbone's if none.
    """

    recipe = Recipe(
        "adamw",
        lr=2e-3,
        batch=2048,
        weight_decay=0.05,
        warmup=10 / 800,
        decay_tokens=False,
        clip=3.0,
    )
    few = Few(weight_decay=0.05)
    needs = Needs(
        backbone="vit_small_patch16_224",
        drop_path=0.2,
        batch=1,
        views="own",
        kinds=("image", "sound"),
    )
    insight = Insight(copies=(("target", "backbone"),))

    def __init__(
        self,
        backbone: Image,
        layers: Count | None = None,
        ratio: HiddenShare = 0.6,
        momentum: tuple[Momentum, Momentum] = (0.999, 0.9998),
        beta: Positive = 2.0,
        decoder: Literal["linear", "conv"] = "linear",
        copies: Count = 1,
        decoder_layers: Count = 6,
        decoder_dim: Count | None = None,
    ):
        super().__init__()
        scratch = backbone.is_beit and not backbone.trained
        depth = len(_blocks(backbone))
        backbone.arrange("mean", positions="shared" if scratch else "timm")
        self.backbone, self.layers, self.ratio = backbone, layers, ratio
        self.momentum, self.beta = momentum, beta
        self.patch = backbone.stem
        self.count(self.grid(backbone.size))
        self.last = layers or max(1, depth // 2)
        if self.last > depth:
            raise UserError(f"layers={layers}: {backbone.name} has {depth} blocks")
        self.decoder, self.copies = decoder, copies
        self.decoder_layers, self.decoder_dim = decoder_layers, decoder_dim
        if copies > 1 and decoder == "linear":
            raise UserError(
                f"copies={copies} of an image share its goals where the student leaves out hidden "
                "patches: set decoder to conv, or leave copies out"
            )
        self.fill = None
        width = backbone.dim
        if decoder == "conv":
            width = decoder_dim or backbone.dim
            self.fill = ConvDecoder(backbone.dim, width, decoder_layers)
        else:
            self.mask_token = nn.Parameter(torch.empty(backbone.dim))  # flat: it is not decayed
            nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.head = nn.Linear(width, backbone.dim)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.target = frozen_copy(backbone).eval()

    def train(self, mode: bool = True) -> "Data2Vec":
        super().train(mode)
        self.target.eval()  # who drops no path
        return self

    def grid(self, size: Size) -> Grid:
        """Rows and columns of patches of an image of `size` pixels."""
        if any(side % self.patch for side in both(size)):
            fits = one([max(1, round(side / self.patch)) * self.patch for side in both(size)])
            raise UserError(
                f"{self.backbone.name} cuts images into {self.patch}-px patches, which "
                f"{told_size(size)} px is no multiple of; use size {as_option(fits)}"
            )
        height, width = both(size)
        return height // self.patch, width // self.patch

    def count(self, grid: Grid) -> int:
        """Patches to hide."""
        patches = math.prod(grid)
        hidden = round(self.ratio * patches)
        if not 0 < hidden < patches:
            raise UserError(
                f"ratio={self.ratio} hides {hidden} of {patches} patches: at least 1 must be hidden"
                " and 1 seen; change ratio, or use larger images or a smaller patch_size"
            )
        return hidden

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(0.0, "all features are the same", collapsed=True),)

    def views(self, size: Size) -> Pipeline:
        grid = self.grid(size)
        if self.fill is not None:
            return Kept(augment.crop(size), grid, self.count(grid), self.copies)
        smallest = min(max(1, round(math.prod(grid) * 16 / 196)), self.count(grid))
        return Hidden(augment.crop(size), grid, self.count(grid), smallest)

    def loss(self, batch: Batch) -> Tensor:
        """views: images [B, C, H, W] and hidden [B, rows, cols], True where patches are; for `conv`
        keep [B, copies, K] instead, places of what is seen."""
        images, hidden = batch.views
        if self.fill is not None:
            return self.filled(self.fill, images, hidden)
        mask = hidden.flatten(1)
        seen = self.backbone.features(images, replace=(mask, self.mask_token))
        return self.distance(self.head(seen.local), self.goals(images), mask)

    def filled(self, decoder: "ConvDecoder", images: Tensor, keep: Tensor) -> Tensor:
        """Mean squared error of hidden patches, for each of the copies [B, copies, K]."""
        several, keep = images.repeat_interleave(self.copies, 0), keep.flatten(0, 1)
        seen = self.backbone.features(several, keep)
        goals = self.goals(images)
        noise = DECODED_NOISE * torch.randn(len(several), *goals.shape[1:]).to(seen.local)
        places = keep[..., None].expand_as(seen.local)
        told = self.head(decoder(noise.scatter(1, places, seen.local), seen.grid))
        hidden = torch.ones_like(noise[..., 0]).scatter(1, keep, 0.0)
        return self.squared(told, goals.repeat_interleave(self.copies, 0), hidden)

    @full_precision
    def squared(self, predicted: Tensor, goals: Tensor, hidden: Tensor) -> Tensor:
        """Squared error of [B, N, D], mean over the hidden patches of the batch."""
        return hidden_mean((predicted - goals).square().mean(2), hidden)

    @full_precision
    def distance(self, predicted: Tensor, goals: Tensor, hidden: Tensor) -> Tensor:
        """Smooth L1 of [B, N, D], mean over the hidden patches of the batch."""
        each = F.smooth_l1_loss(predicted, goals, reduction="none", beta=self.beta)
        return hidden_mean(each.mean(2), hidden)

    @torch.no_grad()
    def goals(self, images: Tensor) -> Tensor:
        """[B, N, D]: of each patch, the mean of the last blocks' normalized outputs."""
        given: list[Tensor] = []

        def note(_: nn.Module, __: Any, tokens: Tensor) -> None:
            given.append(tokens)

        last = list(_blocks(self.target))[-self.last :]
        hooks = [block.register_forward_hook(note) for block in last]
        try:
            count = self.target.features(images).local.shape[1]
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack([_normalized(tokens[:, -count:]) for tokens in given]).mean(0)

    def after_step(self) -> None:
        ema(self.target, self.backbone, linear(*self.momentum, self.progress))


DECODED_NOISE = 0.01
"""Deviation of the noise that stands where patches are hidden, as in the code."""


class ConvDecoder(nn.Module):
    """Convolutions of 3 x 3 over the grid of patches, each added to what it is given.

    Args:
        dim: width of the patches.
        width: of the convolutions.
        layers: number of them.
    """

    def __init__(self, dim: int, width: int, layers: int):
        super().__init__()
        widths = [dim] + [width] * layers
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, groups=math.gcd(16, a, b)) for a, b in pairwise(widths)
        )

    def forward(self, patches: Tensor, grid: Grid) -> Tensor:
        """[B, N, dim] -> [B, N, width]."""
        maps = patches.mT.unflatten(2, grid)
        for conv in self.convs:
            made = conv(maps).movedim(1, 3)
            made = F.gelu(F.layer_norm(made, made.shape[3:])).movedim(3, 1)
            maps = maps + made if maps.shape == made.shape else made
        return maps.flatten(2).mT


@full_precision
def _normalized(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:])


def _blocks(backbone: Image) -> Any:
    """The blocks of a ViT or BEiT; UserError of others."""
    net: Any = backbone.net
    if backbone.is_hierarchical or not hasattr(net, "blocks"):
        raise UserError(
            f"{backbone.name} has no blocks of which each describes the same patches; use a ViT or "
            "a BEiT, such as vit_small_patch16_224"
        )
    return net.blocks


@dataclass(frozen=True)
class Kept(augment.Pipeline):
    """One view, and which of its patches are seen with each mask, by the sample's own generator."""

    view: Pipeline
    grid: Grid
    hidden: int
    copies: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
        (view,) = self.view(image, rng)
        drawn = [inverse_block(rng, self.grid, self.hidden) for _ in range(self.copies)]
        return view, np.stack([np.flatnonzero(~hidden) for hidden in drawn])


@dataclass(frozen=True)
class Hidden(augment.Pipeline):
    """One view and which of its patches are hidden, by the sample's own generator."""

    view: Pipeline
    grid: Grid
    hidden: int
    smallest: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
        (view,) = self.view(image, rng)
        mask = blocks(rng, self.grid, self.hidden, self.smallest)
        if not mask.any():  # no block fits on a few patches: the loss needs one
            mask[tuple(rng.integers(0, n) for n in self.grid)] = True
        return view, mask
