"""SimDINO (Wu et al., 2025), https://arxiv.org/abs/2502.10385."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.backbones.image.depth import without_drop_path
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.coding_rate import balanced_rate, collapsed_rate, cross_distance
from selftaught.parts import bottleneck_head, each_size, ema, frozen_copy
from selftaught.precision import full_precision
from selftaught.roles import (
    Blur,
    Count,
    Fraction,
    HeadWidth,
    Momentum,
    Positive,
    SmallViews,
    TermWeight,
)
from selftaught.schedule import cosine
from selftaught.sides import Size, part


class SimDINO(Method):
    """DINO without prototypes: a student comes to its EMA teacher, and embeddings spread out.

    What keeps embeddings apart is their coding rate, the room that they take, in place of centers,
    temperatures and a softmax over prototypes. It is that of the global views of all processes; in
    the paper's code of each process. The recipe is that of 100 epochs, DINO's; the student has the
    paper's `drop_path` of 0.1 if it is a ViT and the command line makes it. The code has 10 local
    crops for ViT-B.

    Args:
        backbone: image encoder that takes several image sizes.
        rate_weight: of the coding rate, on the scale of the distance of views.
        eps: squared distortion up to which embeddings are told apart; smaller is steadier.
        momentum: of the EMA teacher, at the start and the end of training, along a cosine.
        local_crops: number of small views beside the two global ones.

    Other Args:
        hidden: width of the head's two hidden layers.
        bottleneck: width of the embedding.
        smoothed: whether the rate is that of the mean of student and teacher, as in the code, which
            is steadier than that of the student alone, as in the paper.
        local_size: side of small views in pixels, in whole patches; none for 3/7 of the global.
        global_scale, local_scale: area of the crops, as fractions of the image.
        blur: probabilities in the first, the second and the local views; 0,0,0 for small images.
        solarize: probability in the second view; 0 for small images.
    """

    recipe = Recipe(
        "adamw",
        lr=5e-4,
        weight_decay=(0.04, 0.4),
        warmup=0.1,
        warmup_full=True,
        end=0.002,
        clip=3.0,
        clip_by="parameter",
    )
    few = Few(
        global_scale=(0.3, 1.0),
        local_scale=(0.1, 0.4),
        local_crops=2,
        hidden=256,
        bottleneck=64,
    )
    needs = Needs(
        backbone="vit_small_patch16_224", drop_path=0.1, kinds=("image", "sound"), shards=True
    )
    insight = Insight(copies=(("teacher", "backbone"), ("teacher_head", "head")))

    def __init__(
        self,
        backbone: Image,
        rate_weight: TermWeight = 1.0,
        eps: Positive = 0.05,
        hidden: HeadWidth = 2048,
        bottleneck: HeadWidth = 256,
        smoothed: bool = True,
        momentum: tuple[Momentum, Momentum] = (0.996, 1.0),
        local_crops: SmallViews = 10,
        local_size: Count | None = None,
        global_scale: tuple[Fraction, Fraction] = (0.4, 1.0),
        local_scale: tuple[Fraction, Fraction] = (0.05, 0.4),
        blur: tuple[Blur, Blur, Blur] = (1.0, 0.1, 0.5),
        solarize: Blur = 0.2,
    ):
        super().__init__()
        backbone.resample = backbone.resample or "offset"
        self.backbone, self.rate_weight, self.eps = backbone, rate_weight, eps
        self.hidden, self.bottleneck, self.smoothed = hidden, bottleneck, smoothed
        self.momentum, self.local_crops, self.local_size = momentum, local_crops, local_size
        self.global_scale, self.local_scale = global_scale, local_scale
        self.blur, self.solarize = blur, solarize
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
        """views: two global [B, C, H, W], then `local_crops` local [B, C, h, w]."""
        with torch.no_grad():
            teacher = self.teacher_head(each_size(self.teacher, batch.views[:2]))
        return self.distill(self.head(each_size(self.backbone, batch.views)), teacher)

    @full_precision
    def distill(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """student: [V, B, bottleneck] outputs; teacher: [2, B, bottleneck], of global views."""
        student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
        spread = (student[:2] + teacher) / 2 if self.smoothed else student[:2]
        return {
            "alike": cross_distance(teacher, student),
            "rate": -self.rate_weight * balanced_rate(spread, self.eps).mean(),
        }

    def after_step(self) -> None:
        momentum = cosine(*self.momentum, self.progress)
        ema(self.teacher, self.backbone, momentum)
        ema(self.teacher_head, self.head, momentum)
