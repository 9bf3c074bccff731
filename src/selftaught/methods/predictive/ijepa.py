"""I-JEPA (Assran et al., 2023), https://arxiv.org/abs/2301.08243."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import augment, masks
from selftaught.backbones import Image, Predictor, interpolate, sincos
from selftaught.backbones.predictor import initialize
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.masked import latent_targets
from selftaught.parts import ema, frozen_copy
from selftaught.roles import BlockArea, ContextArea, Count, DecoderWidth, Momentum, Number, Positive
from selftaught.schedule import linear
from selftaught.sides import Size


class IJEPA(Method):
    """From the features of one block of patches, predict those that an EMA teacher gives others.

    As in the reference code the distance is smooth L1, where the paper writes L2, between predicted
    and normalized features. The reference has no rule for how the learning rate follows the batch;
    here it follows its square root. The recipe is that of 300 epochs, of which 40 are warm-up.

    Args:
        backbone: a ViT; it loses its class token and pools by the mean. From scratch it gets the
            reference's fixed positions and initial weights.
        dim: width of the predictor, a multiple of 4 and of `heads`.
        depth: number of the predictor's blocks.
        momentum: of the target encoder (EMA teacher), at the start and at the end.
        targets: number of blocks to predict.
        target_scale, context_scale: smallest and largest area of a block, as fractions of 1.

    Other Args:
        heads: of the predictor's attention; as many as the backbone's if none.
        mlp_ratio: width of the predictor's MLPs, as a multiple of `dim`.
        contexts: number of blocks to predict them from.
        aspect: smallest and largest height / width of a block to predict.
        min_keep: a context has more patches than this, where the grid of patches allows.
        overlap: whether contexts may see what is to be predicted.
        masking: `multiblock` as the paper describes it; `reference` exactly as its code, which
            never hides the last row and column; `random` single patches, its ablation.
    """

    recipe = Recipe(
        "adamw",
        lr=1e-3,
        batch=2048,
        scaling="sqrt",
        weight_decay=(0.04, 0.4),
        warmup=40 / 300,
        warmup_from=0.2,
        end=1e-3,
        step_offset=1,
    )
    few = Few(dim=64, depth=2, heads=2)
    needs = Needs(
        backbone="vit_small_patch16_224",
        batch=1,
        views="own",
        kinds=("image", "sound"),
        shards=True,
    )
    insight = Insight(copies=(("target", "backbone"),))

    def __init__(
        self,
        backbone: Image,
        dim: DecoderWidth = 384,
        depth: Number = 12,
        heads: Count | None = None,
        mlp_ratio: Positive = 4.0,
        momentum: tuple[Momentum, Momentum] = (0.996, 1.0),
        targets: Count = 4,
        contexts: Count = 1,
        target_scale: tuple[BlockArea, BlockArea] = (0.15, 0.2),
        context_scale: tuple[ContextArea, ContextArea] = (0.85, 1.0),
        aspect: tuple[Positive, Positive] = (0.75, 1.5),
        min_keep: Number = 10,
        overlap: bool = False,
        masking: Literal["multiblock", "reference", "random"] = "multiblock",
    ):
        super().__init__()
        self.dim, self.depth, self.heads, self.mlp_ratio = dim, depth, heads, mlp_ratio
        self.momentum, self.masking = momentum, masking
        self.targets, self.contexts, self.aspect = targets, contexts, aspect
        self.target_scale, self.context_scale = target_scale, context_scale
        self.min_keep, self.overlap = min_keep, overlap
        for name, (low, high), most in (
            ("target_scale", target_scale, 1.0),
            ("context_scale", context_scale, 1.0),
            ("aspect", aspect, math.inf),
        ):
            if not 0 < low <= high <= most:
                raise UserError(
                    f"{name}={low:g},{high:g} must be the smallest and the largest, above 0"
                    + (" and at most 1" if most == 1 else "")
                )
        scratch = not backbone.trained
        backbone.arrange("mean", class_token=False, positions="sincos" if scratch else "timm")
        self.backbone = backbone
        self.grid = backbone.grid(backbone.size)
        positions = sincos(self.grid, dim).float()
        heads = backbone.heads if heads is None else heads
        self.predictor = Predictor(backbone.dim, dim, depth, heads, mlp_ratio, positions)
        for network in (backbone.net, self.predictor) if scratch else (self.predictor,):
            initialize(network)
        self.target = frozen_copy(backbone)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(0.0, "all features are the same", collapsed=True),)

    def views(self, size: Size) -> Pipeline:
        return augment.crop(size, scale=(0.3, 1.0), flip=0.0, interpolation="bilinear")

    def loss(self, batch: Batch) -> Tensor:
        """views: one [B, C, H, W]. Masks are drawn here: their sizes belong to the whole batch."""
        (images,) = batch.views
        grid = self.backbone.grid((images.shape[-2], images.shape[-1]))
        context, target = self.masks(len(images), grid)
        return self.distance(images, context.to(images.device), target.to(images.device))

    def masks(self, batch: int, grid: tuple[int, int]) -> masks.Blocks:
        """What is seen and what is predicted, drawn by torch's global generator on the CPU."""
        draws = masks.generator()
        if self.masking == "random":
            return masks.random_split(draws, batch, grid[0] * grid[1])
        return masks.multiblock(
            draws,
            batch,
            grid,
            self.targets,
            self.contexts,
            self.target_scale,
            self.context_scale,
            self.aspect,
            self.min_keep,
            self.overlap,
            reference=self.masking == "reference",
        )

    def distance(self, images: Tensor, context: Tensor, target: Tensor) -> Tensor:
        """Smooth L1 between predicted and true features; context, target: as in `masks.Blocks`."""
        true = self.truth(images, context, target)
        return F.smooth_l1_loss(self.predict(images, context, target), true)

    def predict(self, images: Tensor, context: Tensor, target: Tensor) -> Tensor:
        """[T * E * B, L, D]: each of T targets from each of E contexts of B images."""
        seen = self.backbone.features(images.repeat(len(context), 1, 1, 1), context.flatten(0, 1))
        asked = target[:, None].expand(-1, len(context), -1, -1).flatten(0, 2)
        positions = interpolate(self.predictor.predictor_pos_embed, self.grid, seen.grid)
        return self.predictor(seen.local, context.flatten(0, 1), asked, positions)

    @torch.no_grad()
    def truth(self, images: Tensor, context: Tensor, target: Tensor) -> Tensor:
        """[T * E * B, L, D]: normalized features of the target encoder, which sees whole images."""
        taken = latent_targets(self.target.features(images).local, target)
        return taken[:, None].expand(-1, len(context), -1, -1, -1).flatten(0, 2)

    def after_step(self) -> None:
        ema(self.target, self.backbone, linear(*self.momentum, self.progress))

    @property
    def encoder(self) -> Image:
        return self.target
