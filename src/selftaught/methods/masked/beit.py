"""BEiT (Bao et al., 2022), https://arxiv.org/abs/2106.08254."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.augment.image.view import View
from selftaught.augment.image.views import Views
from selftaught.backbones import Image
from selftaught.backbones.image.tokenizer import RandomTokenizer, load_tokenizer
from selftaught.errors import UserError
from selftaught.masks import Grid, enlarge
from selftaught.masks.blocks import blocks
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.parts import frozen_copy
from selftaught.precision import full_precision
from selftaught.roles import Count
from selftaught.sides import Size, as_option, both, one, told_size


class BEiT(Method):
    """Hide blocks of patches; tell which words a tokenizer writes there.

    The paper's tokenizer is DALL-E's, whose weights are not part of this package: name their file,
    or a run of `discrete_vae`, with `--tokenizer`; the default has learned nothing. It is shown the
    view, resized so that its places are the backbone's patches; the paper resizes the crop itself.
    The recipe is that of 800 epochs, of which 10 are warm-up, with the paper's `drop_path` of 0.1
    if the command line makes the backbone.

    Args:
        backbone: a BEiT, or a ViT. From scratch a BEiT's blocks share one position bias.
        tokenizer: run folder of `discrete_vae`, or a file with the weights of DALL-E's encoder; if
            none, an untrained one, by random projections of the patches. For others see `use`.
        vocabulary: number of words; if none, the tokenizer's, and 8192 of an untrained one.
        hidden: most patches that are hidden; if none, in proportion to the paper's 75 of 196.
        smallest: area of a block in patches; if none, in proportion to 16 of 196.
    """

    recipe = Recipe(
        "adamw",
        lr=1.5e-3,
        batch=2048,
        weight_decay=0.05,
        warmup=10 / 800,
        end=1e-5 / 1.5e-3,
        no_decay=("mask_token",),
        decay_tokens=False,
        clip=3.0,
    )
    few = Few(vocabulary=512, weight_decay=0.05)
    needs = Needs(backbone="beit_base_patch16_224", drop_path=0.1, batch=1, views="own")

    def __init__(
        self,
        backbone: Image,
        tokenizer: Path | None = None,
        vocabulary: Count | None = None,
        hidden: Count | None = None,
        smallest: Count | None = None,
    ):
        super().__init__()
        self.backbone, self.tokenizer, self.vocabulary = backbone, tokenizer, vocabulary
        self.hidden, self.smallest = hidden, smallest
        scratch = backbone.is_beit and not backbone.trained
        backbone.arrange("mean", positions="shared" if scratch else "timm")
        self.patch = backbone.stem
        self.counts(backbone.size)
        words: Any
        if tokenizer is None:
            words = RandomTokenizer(self.patch, backbone.channels, vocabulary or 8192)
        else:
            words = load_tokenizer(tokenizer)
            if words.channels != backbone.channels:
                raise UserError(
                    f"the tokenizer {tokenizer} reads images of {words.channels} channels, and "
                    f"{backbone.name} those of {backbone.channels}; make both with one --channels"
                )
        count = vocabulary or words.vocabulary
        if count < words.vocabulary:
            raise UserError(
                f"vocabulary={count} is less than the {words.vocabulary} words of the tokenizer; "
                "leave it out"
            )
        self.use(words, words.cell)
        self.lm_head = nn.Linear(backbone.dim, count)
        self.mask_token = nn.Parameter(torch.empty(1, 1, backbone.dim))
        for weight in (self.lm_head.weight, self.mask_token):
            nn.init.trunc_normal_(weight, std=0.02)
        nn.init.zeros_(self.lm_head.bias)

    def use(self, words: nn.Module, cell: int) -> "BEiT":
        """Let another tokenizer say what is hidden; this method itself.

        Args:
            words: from colors [B, C, H, W] in [0, 1] to ids [B, H / cell, W / cell], each below
                `vocabulary`.
            cell: pixels to a place, along a side.
        """
        self.words, self.cell = frozen_copy(words).eval(), cell
        return self

    def train(self, mode: bool = True) -> "BEiT":
        super().train(mode)
        self.words.eval()
        return self

    def counts(self, size: Size) -> tuple[int, int]:
        """Patches to hide in an image of `size` pixels, and the smallest area of a block."""
        if any(side % self.patch for side in both(size)):
            fits = one([max(1, round(side / self.patch)) * self.patch for side in both(size)])
            raise UserError(
                f"{self.backbone.name} cuts images into {self.patch}-px patches, which "
                f"{told_size(size)} px is no multiple of; use size {as_option(fits)}"
            )
        patches = math.prod(self.grid(size))
        most, least = (max(1, round(patches * n / 196)) for n in (75, 16))
        hidden = most if self.hidden is None else self.hidden
        smallest = min(least, hidden) if self.smallest is None else self.smallest
        if not 1 <= hidden < patches:
            raise UserError(
                f"hidden={hidden} of {patches} patches: at least 1 must be hidden and 1 seen; "
                "change hidden, or use larger images or a smaller patch_size"
            )
        if not 1 <= smallest <= hidden:
            raise UserError(f"smallest={smallest} must be from 1 to the {hidden} hidden patches")
        return hidden, smallest

    def grid(self, size: Size) -> Grid:
        """Rows and columns of patches."""
        height, width = both(size)
        return height // self.patch, width // self.patch

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        count = self.lm_head.out_features
        return (ReferenceLoss(math.log(count), f"ln {count}"),)

    def views(self, size: Size) -> Pipeline:
        view = View(size, interpolation="bicubic", jitter=(0.4, 0.4, 0.4, 0.0), jitter_p=1.0)
        return Hidden(Views((view,)), self.grid(size), *self.counts(size))

    def loss(self, batch: Batch) -> Tensor:
        """views: images [B, C, H, W] and hidden [B, rows, cols], True where patches are."""
        images, hidden = batch.views
        return told(self.predict(images, hidden)[hidden.flatten(1)], self.ids(images)[hidden])

    def predict(self, images: Tensor, hidden: Tensor) -> Tensor:
        """[B, N, V] logits of the words of all patches; hidden: bool [B, rows, cols]."""
        replace = (hidden.flatten(1), self.mask_token[0, 0])
        return self.lm_head(self.backbone.features(images, replace=replace).local)

    @torch.no_grad()
    def ids(self, images: Tensor) -> Tensor:
        """[B, rows, cols]: the words that the tokenizer writes in normalized images."""
        rows, cols = (side // self.patch for side in images.shape[-2:])
        mean, std = images.new_tensor([self.backbone.mean, self.backbone.std])[..., None, None]
        colors = images * std + mean
        if self.cell != self.patch:
            colors = F.interpolate(
                colors, (rows * self.cell, cols * self.cell), mode="bicubic", antialias=True
            )
        ids = self.words(colors.clamp(0, 1))
        if ids.shape != (len(images), rows, cols):
            raise UserError(
                f"the tokenizer makes {list(ids.shape)} words of images of {rows * self.cell} px, "
                f"where {self.backbone.name} has {rows} x {cols} patches; use a tokenizer of "
                f"{self.cell} px a word, or a backbone of as many patches"
            )
        if not ids.is_cuda and int(ids.max()) >= self.lm_head.out_features:
            raise UserError(
                f"the tokenizer says word {int(ids.max())} and vocabulary is "
                f"{self.lm_head.out_features}; make the method with a larger vocabulary"
            )
        return ids

    def show(self, batch: Batch) -> Pictures:
        images, hidden = batch.views
        right = self.predict(images, hidden).argmax(2).view(hidden.shape) == self.ids(images)
        seen, known = (
            enlarge(cells, images.shape[-2:])[:, None] for cells in (~hidden, ~hidden | right)
        )
        found = [f"{int((r & h).sum())} of {int(h.sum())} words" for r, h in zip(right, hidden)]
        return Pictures(
            "Hidden patches whose word was told",
            "Patches are hidden, and where the network tells the tokenizer's word the patch comes "
            f"back. There are {self.lm_head.out_features:,} words.",
            {
                "seen": torch.where(seen, images, 0),
                "told": torch.where(known, images, 0),
                "true": images,
            },
            {"told": found},
        )


@full_precision
def told(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross entropy of logits [M, V] of all hidden patches of the batch."""
    return F.cross_entropy(logits, ids)


@dataclass(frozen=True)
class Hidden:
    """One view and which of its patches are hidden, by the sample's own generator."""

    view: Pipeline
    grid: Grid
    hidden: int
    smallest: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Any:
        (view,) = self.view(image, rng)
        mask = blocks(rng, self.grid, self.hidden, self.smallest)
        if not mask.any():  # no block fits on a few patches: the loss needs one
            mask[tuple(rng.integers(0, n) for n in self.grid)] = True
        return view, mask
