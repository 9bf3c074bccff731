"""DINO (Caron et al., 2021), https://arxiv.org/abs/2104.14294."""

import math

import torch
from torch import Tensor, nn

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.backbones.image.depth import without_drop_path
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.assignment import cross_prediction
from selftaught.parts import each_size, ema, frozen_copy, prototype_head
from selftaught.precision import full_precision
from selftaught.roles import (
    Blur,
    CenterMomentum,
    Count,
    Fraction,
    HeadWidth,
    Momentum,
    PrototypeCount,
    Share,
    SmallViews,
    TeacherTemperature,
    Temperature,
)
from selftaught.schedule import cosine, ramp
from selftaught.sides import Size, part


class DINO(Method):
    """A student that sees every crop predicts what its EMA teacher sees in the global ones.

    The recipe is that of 100 epochs. The student has the paper's `drop_path` of 0.1 if it is a ViT
    and the command line makes it, the teacher never has any. The rate ends at a fraction of its
    peak, which at a batch of 256 is the code's 1e-6.

    Args:
        backbone: image encoder that takes several image sizes.
        prototypes: width of the output softmax.
        norm_last_layer: whether prototypes are unit vectors; the paper learns their length for
            ViT-S, which scores a little higher and is less stable.
        momentum: of the EMA teacher, at the start and the end of training, along a cosine.
        teacher_temp: of the teacher's softmax, at the start and after its warm-up; the paper's long
            trainings end at 0.07.
        local_crops: number of small views beside the two global ones.

    Other Args:
        hidden: width of the head's two hidden layers.
        bottleneck: width of the prototypes.
        student_temp: of the student's softmax, above 0.
        temp_warmup: fraction of training after which `teacher_temp` has reached its end.
        center_momentum: of the running mean of the teacher's outputs.
        freeze_prototypes: fraction of training in which the prototypes stay as they are.
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
        prototypes=512,
        hidden=256,
        bottleneck=64,
    )
    needs = Needs(
        backbone="vit_small_patch16_224", drop_path=0.1, kinds=("image", "sound"), shards=True
    )
    insight = Insight(
        copies=(("teacher", "backbone"), ("teacher_head", "head")),
        logits="teacher_head",
        shares="centered",
        memory=("center",),
    )
    backbone: Image

    def __init__(
        self,
        backbone: Image,
        prototypes: PrototypeCount = 65536,
        hidden: HeadWidth = 2048,
        bottleneck: HeadWidth = 256,
        norm_last_layer: bool = True,
        momentum: tuple[Momentum, Momentum] = (0.996, 1.0),
        student_temp: Temperature = 0.1,
        teacher_temp: tuple[TeacherTemperature, TeacherTemperature] = (0.04, 0.04),
        temp_warmup: Share = 0.3,
        center_momentum: CenterMomentum = 0.9,
        freeze_prototypes: Share = 0.01,
        local_crops: SmallViews = 8,
        local_size: Count | None = None,
        global_scale: tuple[Fraction, Fraction] = (0.4, 1.0),
        local_scale: tuple[Fraction, Fraction] = (0.05, 0.4),
        blur: tuple[Blur, Blur, Blur] = (1.0, 0.1, 0.5),
        solarize: Blur = 0.2,
    ):
        super().__init__()
        backbone.resample = backbone.resample or "offset"
        self.backbone, self.prototypes, self.hidden = backbone, prototypes, hidden
        self.bottleneck, self.norm_last_layer = bottleneck, norm_last_layer
        self.momentum, self.student_temp = momentum, student_temp
        self.teacher_temp, self.temp_warmup = teacher_temp, temp_warmup
        self.center_momentum, self.freeze_prototypes = center_momentum, freeze_prototypes
        self.local_crops, self.local_size = local_crops, local_size
        self.global_scale, self.local_scale = global_scale, local_scale
        self.blur, self.solarize = blur, solarize
        self.head = prototype_head(
            backbone.dim, hidden, bottleneck, prototypes, scale=not norm_last_layer
        )
        self.teacher = without_drop_path(frozen_copy(backbone))
        self.teacher_head = frozen_copy(self.head)
        self.register_buffer("center", torch.zeros(prototypes))

    center: Tensor
    """[prototypes] running mean of the teacher's outputs."""

    @property
    def encoder(self) -> nn.Module:
        return self.teacher

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (
            ReferenceLoss(math.log(self.prototypes), f"ln {self.prototypes}, all prototypes alike"),
            ReferenceLoss(0.0, "one prototype takes every image", collapsed=True),
        )

    def views(self, size: Size) -> Pipeline:
        local_size = self.backbone.fit(part(size, 3, 7, self.local_size))
        scales = self.global_scale, self.local_scale
        return augment.multicrop(
            size, local_size, self.local_crops, *scales, "dino", self.blur, self.solarize
        )

    def loss(self, batch: Batch) -> Tensor:
        """views: two global [B, C, H, W], then `local_crops` local [B, C, h, w]."""
        with torch.no_grad():
            teacher = self.teacher_head(each_size(self.teacher, batch.views[:2]))
        return self.distill(self.head(each_size(self.backbone, batch.views)), teacher)

    @full_precision
    def distill(self, student: Tensor, teacher: Tensor) -> Tensor:
        """student: [V, B, prototypes] logits; teacher: [2, B, prototypes], of the global views."""
        loss = cross_prediction(self.centered(teacher), student / self.student_temp)
        self.center.lerp_(dist.mean(teacher.mean((0, 1))), 1 - self.center_momentum)
        return loss

    def centered(self, logits: Tensor) -> Tensor:
        """The teacher's, centered and sharpened."""
        return ((logits - self.center) / self.temperature).softmax(-1)

    def assign(self, images: Tensor) -> Tensor:
        return self.teacher_head(self.teacher(images)) - self.center

    @property
    def temperature(self) -> float:
        """Of the teacher's softmax, now."""
        return ramp(*self.teacher_temp, self.temp_warmup, self.progress)

    def before_step(self) -> None:
        if self.progress < self.freeze_prototypes:
            for parameter in self.head[-1].parameters():
                parameter.grad = None

    def after_step(self) -> None:
        momentum = cosine(*self.momentum, self.progress)
        ema(self.teacher, self.backbone, momentum)
        ema(self.teacher_head, self.head, momentum)
