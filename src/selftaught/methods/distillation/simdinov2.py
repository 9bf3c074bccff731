"""SimDINOv2 (Wu et al., 2025), https://arxiv.org/abs/2502.10385."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.backbones.image.depth import with_subset_depth, without_drop_path
from selftaught.errors import UserError
from selftaught.masks import generator
from selftaught.masks.blocks import spread_ratios
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.coding_rate import balanced_rate, collapsed_rate, cross_distance
from selftaught.objectives.masked import image_mean
from selftaught.parts import bottleneck_head, ema, frozen_copy
from selftaught.precision import full_precision
from selftaught.roles import (
    Blur,
    Count,
    Fraction,
    HeadWidth,
    MaskRatio,
    Momentum,
    Positive,
    Share,
    SmallViews,
    TermWeight,
)
from selftaught.schedule import cosine
from selftaught.sides import Size, part


class SimDINOv2(Method):
    """SimDINO, in which hidden patches come to what the EMA teacher sees in them, too.

    DINOv2 without prototypes, centers, temperatures and KoLeo: images and patches share a head. The
    coding rate is that of images, of all processes. Settings are those of the code's configuration,
    a ViT-L with registers trained for 100 epochs, with AdamW as in the paper (the code's default is
    SOAP); the student has its `drop_path` of 0.2 if the command line makes it.

    Args:
        backbone: a ViT, summed up by its class token.
        rate_weight: of the coding rate, on the scale of the distance of views.
        eps: squared distortion up to which embeddings are told apart; smaller is steadier.
        momentum: of the EMA teacher, at the start and the end of training, along a cosine.
        local_crops: number of small views beside the two global ones.

    Other Args:
        patch_weight: of the distance of hidden patches.
        hidden: width of the head's two hidden layers.
        bottleneck: width of the embedding.
        smoothed: whether the rate is that of the mean of student and teacher, as in the code.
        mask_share: share of the global views that hide patches, in [0, 1].
        mask_ratio: smallest and largest ratio of hidden patches in these.
        local_size: side of small views in pixels, in whole patches; none for 3/7 of the global.
        global_scale, local_scale: area of the crops, as fractions of the image.
        blur: probabilities in the first, the second and the local views; 0,0,0 for small images.
        solarize: probability in the second view; 0 for small images.
    """

    recipe = Recipe(
        "adamw",
        lr=4e-3,
        batch=1024,
        scaling="sqrt",
        weight_decay=(0.04, 0.4),
        warmup=0.1,
        warmup_full=True,
        end=2.5e-4,
        layer_decay=0.9,
        patch_lr=0.2,
        clip=3.0,
        clip_by="module",
    )
    few = Few(
        global_scale=(0.3, 1.0),
        local_scale=(0.1, 0.4),
        local_crops=2,
        hidden=256,
        bottleneck=64,
        weight_decay=0.04,
    )
    needs = Needs(
        backbone="vit_small_patch16_224", drop_path=0.2, kinds=("image", "sound"), shards=True
    )
    insight = Insight(copies=(("teacher", "backbone"), ("teacher_head", "head")))

    def __init__(
        self,
        backbone: Image,
        rate_weight: TermWeight = 1.0,
        eps: Positive = 0.05,
        patch_weight: TermWeight = 1.0,
        hidden: HeadWidth = 2048,
        bottleneck: HeadWidth = 256,
        smoothed: bool = True,
        mask_share: Share = 0.5,
        mask_ratio: tuple[MaskRatio, MaskRatio] = (0.1, 0.5),
        momentum: tuple[Momentum, Momentum] = (0.9, 1.0),
        local_crops: SmallViews = 10,
        local_size: Count | None = None,
        global_scale: tuple[Fraction, Fraction] = (0.4, 1.0),
        local_scale: tuple[Fraction, Fraction] = (0.05, 0.4),
        blur: tuple[Blur, Blur, Blur] = (1.0, 0.1, 0.5),
        solarize: Blur = 0.2,
    ):
        super().__init__()
        if mask_ratio[0] > mask_ratio[1]:
            raise UserError(f"mask_ratio={mask_ratio} must be the smallest and the largest")
        backbone.arrange("class")
        backbone.resample = backbone.resample or "offset"
        self.backbone = with_subset_depth(backbone)
        self.rate_weight, self.eps, self.patch_weight = rate_weight, eps, patch_weight
        self.hidden, self.bottleneck, self.smoothed = hidden, bottleneck, smoothed
        self.mask_share, self.mask_ratio, self.momentum = mask_share, mask_ratio, momentum
        self.local_crops, self.local_size = local_crops, local_size
        self.global_scale, self.local_scale = global_scale, local_scale
        self.blur, self.solarize = blur, solarize
        self.mask_token = nn.Parameter(torch.zeros(1, backbone.dim))
        self.head = bottleneck_head(backbone.dim, hidden, bottleneck)
        self.teacher = without_drop_path(frozen_copy(backbone))
        self.teacher_head = frozen_copy(self.head)

    @property
    def encoder(self) -> nn.Module:
        return self.teacher

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        none = -self.rate_weight * collapsed_rate(batch, self.bottleneck, self.eps)
        return (ReferenceLoss(none, "one place for all images", collapsed=True, term="rate"),)

    def views(self, size: Size) -> Pipeline:
        local_size = self.backbone.fit(part(size, 3, 7, self.local_size))
        scales = self.global_scale, self.local_scale
        return augment.multicrop(
            size, local_size, self.local_crops, *scales, "dino", self.blur, self.solarize
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two global [B, C, H, W], then `local_crops` local [B, C, h, w]. Masks are drawn
        here: their ratios are spread over the batch."""
        both = torch.cat(list(batch.views[:2]))
        grid = self.backbone.grid((both.shape[-2], both.shape[-1]))
        drawn = spread_ratios(generator(), len(both), grid, self.mask_share, self.mask_ratio)
        hidden = drawn.to(both.device)
        with torch.no_grad():
            seen = self.teacher.features(both)
            teacher = self.teacher_head(seen.pooled).unflatten(0, (2, -1))
            teacher_patches = self.teacher_head(seen.local[hidden])
        local = batch.views[2:]
        sizes = [both, torch.cat(list(local))] if local else [both]
        own, *others = self.backbone.features_together(sizes, (hidden, self.mask_token))
        pooled = torch.cat([own.pooled, *(o.pooled for o in others)])
        student = self.head(pooled).unflatten(0, (len(batch.views), -1))
        return self.distill(student, teacher, self.head(own.local[hidden]), teacher_patches, hidden)

    @full_precision
    def distill(
        self,
        student: Tensor,
        teacher: Tensor,
        student_patches: Tensor,
        teacher_patches: Tensor,
        hidden: Tensor,
    ) -> dict[str, Tensor]:
        """The terms.

        Args:
            student: [V, B, bottleneck] outputs of all views, the two global ones first.
            teacher: [2, B, bottleneck], of the global ones.
            student_patches, teacher_patches: [M, bottleneck], of the hidden patches.
            hidden: bool [2 * B, N], True M times.
        """
        student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
        patches = 1 - F.cosine_similarity(student_patches, teacher_patches, dim=-1)
        spread = (student[:2] + teacher) / 2 if self.smoothed else student[:2]
        return {
            "alike": cross_distance(teacher, student),
            "patch": self.patch_weight * image_mean(patches, hidden),
            "rate": -self.rate_weight * balanced_rate(spread, self.eps).mean(),
        }

    def after_step(self) -> None:
        momentum = cosine(*self.momentum, self.progress)
        ema(self.teacher, self.backbone, momentum)
        ema(self.teacher_head, self.head, momentum)
