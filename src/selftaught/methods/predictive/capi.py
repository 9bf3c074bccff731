"""CAPI (Darcet et al., 2025), https://arxiv.org/abs/2502.08769."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image, interpolate, sincos
from selftaught.backbones.cross import CrossPredictor
from selftaught.errors import UserError
from selftaught.masks import Grid
from selftaught.masks.blocks import inverse_block
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.assignment import sinkhorn, soft_cross_entropy
from selftaught.parts import ema, frozen_copy
from selftaught.precision import full_precision
from selftaught.roles import (
    Count,
    DecoderWidth,
    Fraction,
    HiddenShare,
    Momentum,
    Number,
    Positive,
    PrototypeCount,
    TeacherTemperature,
    Temperature,
)
from selftaught.schedule import cosine
from selftaught.sides import Size


class CAPI(Method):
    """Tell to which cluster of patches each of those hidden belongs, from one block that is seen.

    An EMA teacher sees the whole image; its patches are sorted online into clusters that are
    balanced, at each place of the grid alone, so that a cluster is no place. The clusters learn by
    predicting their own balanced assignment. A predictor that only looks at what the student saw
    tells the assignment of hidden patches, each by itself. Positions are fixed ones that are added,
    as in MAE; in the paper's code they are rotary, and there are registers.

    The recipe is that of 500,000 steps of a ViT-L, whose cosine is cut off at 80 %.

    Args:
        backbone: a ViT; it loses its class token and pools by the mean.
        clusters: number of clusters of patches.
        ratio: fraction of the patches that is hidden, in (0, 1).
        asked: patches that are asked for, as a fraction of all; those hidden at most.
        depth: number of the predictor's blocks.
        momentum: of the EMA teacher, at the start and the end of training, along a cosine.

    Other Args:
        dim: width of the predictor, a multiple of 4 and of `heads`; the backbone's if none.
        heads: of the predictor's attention; as many as the backbone's if none.
        mlp_ratio: width of the predictor's MLPs, as a multiple of `dim`.
        student_temp: of the softmax of the student and of the clusters' own prediction, above 0.
        target_temp: of the balanced assignments.
        iterations: of Sinkhorn's normalizations.
        scale: area of the crop, as fractions of the image.
    """

    recipe = Recipe(
        "adamw",
        lr=1e-3,
        batch=16384,
        scaling="sqrt",
        weight_decay=0.1,
        warmup=0.1,
        horizon=1.25,
        betas=(0.9, 0.95),
        patch_lr=0.2,
        rates=(("clustering", 0.5),),
    )
    few = Few(clusters=256, asked=0.65, dim=64, depth=2, heads=2, weight_decay=0.05)
    needs = Needs(
        backbone="vit_small_patch16_224",
        drop_path=0.2,
        views="own",
        kinds=("image", "sound"),
        shards=True,
    )
    insight = Insight(copies=(("teacher", "backbone"),))

    def __init__(
        self,
        backbone: Image,
        clusters: PrototypeCount = 16384,
        ratio: HiddenShare = 0.65,
        asked: Fraction = 0.05,
        dim: DecoderWidth | None = None,
        depth: Number = 12,
        heads: Count | None = None,
        mlp_ratio: Positive = 4.0,
        student_temp: Temperature = 0.12,
        target_temp: TeacherTemperature = 0.06,
        iterations: Count = 3,
        momentum: tuple[Momentum, Momentum] = (0.999, 1.0),
        scale: tuple[Fraction, Fraction] = (0.6, 1.0),
    ):
        super().__init__()
        self.clusters, self.ratio, self.asked = clusters, ratio, asked
        self.dim, self.depth, self.heads, self.mlp_ratio = dim, depth, heads, mlp_ratio
        self.student_temp, self.target_temp = student_temp, target_temp
        self.iterations, self.momentum, self.scale = iterations, momentum, scale
        scratch = not backbone.trained
        backbone.arrange("mean", class_token=False, positions="sincos" if scratch else "timm")
        self.backbone = backbone
        self.grid = backbone.grid(backbone.size)
        self.counts(self.grid)
        width = dim or backbone.dim
        places = sincos(self.grid, width).float()
        self.predictor = CrossPredictor(
            backbone.dim, width, depth, heads or backbone.heads, mlp_ratio, places
        )
        self.head = nn.Linear(width, clusters, bias=False)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        self.clustering = nn.Linear(backbone.dim, clusters)
        nn.init.normal_(self.clustering.weight)  # scores of unit vectors then vary by 1
        nn.init.zeros_(self.clustering.bias)
        self.teacher = frozen_copy(backbone).eval()

    def train(self, mode: bool = True) -> "CAPI":
        super().train(mode)
        self.teacher.eval()  # who drops no path
        return self

    @property
    def encoder(self) -> Image:
        return self.teacher

    def counts(self, grid: Grid) -> tuple[int, int]:
        """How many patches are hidden, and of how many of these is asked."""
        patches = math.prod(grid)
        hidden = int(self.ratio * patches)
        if not 0 < hidden < patches:
            raise UserError(
                f"ratio={self.ratio} hides {hidden} of {patches} patches: at least 1 must be hidden"
                " and 1 seen; change ratio, or use larger images or a smaller patch_size"
            )
        return hidden, min(hidden, max(1, round(self.asked * patches)))

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        guess = math.log(self.clusters)
        return (ReferenceLoss(guess, f"ln {self.clusters}, guessing clusters", term="predicted"),)

    def views(self, size: Size) -> Pipeline:
        grid = self.backbone.grid(size)
        return Asked(augment.crop(size, self.scale), grid, *self.counts(grid))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: images [B, C, H, W], keep [B, K] and asked [B, A], places of patches."""
        images, keep, asked = batch.views
        with torch.no_grad():
            whole = self.teacher.features(images).local
        scores = self.clustering(F.normalize(whole, dim=-1)).transpose(0, 1)
        seen = self.backbone.features(images, keep)
        places = interpolate(self.predictor.positions, self.grid, seen.grid)
        told = self.predictor(seen.local, keep, asked, places)
        return self.compare(self.head(F.normalize(told, dim=-1)), scores, asked)

    @full_precision
    def compare(self, told: Tensor, scores: Tensor, asked: Tensor) -> dict[str, Tensor]:
        """The terms.

        Args:
            told: [B, A, clusters] the student's logits.
            scores: [N, B, clusters] of the teacher's patches, place by place.
            asked: [B, A] places.
        """
        goals = sinkhorn(scores, self.target_temp, self.iterations)
        own = goals.transpose(0, 1).gather(1, asked[..., None].expand(-1, -1, goals.shape[-1]))
        return {
            "predicted": soft_cross_entropy(own, told / self.student_temp).mean(),
            "clusters": soft_cross_entropy(goals, scores / self.student_temp).mean(),
        }

    def assign(self, images: Tensor) -> Tensor:
        scores = self.clustering(F.normalize(self.teacher.features(images).local, dim=-1))
        return (scores / self.student_temp).softmax(-1).mean(1)

    def after_step(self) -> None:
        ema(self.teacher, self.backbone, cosine(*self.momentum, self.progress))


@dataclass(frozen=True)
class Asked(augment.Pipeline):
    """One view, the patches that are seen, and some of those hidden, by the sample's generator."""

    view: Pipeline
    grid: Grid
    hidden: int
    asked: int

    def __call__(
        self, image: np.ndarray, rng: np.random.Generator
    ) -> tuple[Any, np.ndarray, np.ndarray]:
        (view,) = self.view(image, rng)
        hidden = inverse_block(rng, self.grid, self.hidden).reshape(-1)
        asked = rng.permutation(np.flatnonzero(hidden))[: self.asked]
        return view, np.flatnonzero(~hidden), asked
