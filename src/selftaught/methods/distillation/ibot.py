"""iBOT (Zhou et al., 2022), https://arxiv.org/abs/2111.07832."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import augment, dist
from selftaught.augment.pipeline import Around
from selftaught.backbones import Image
from selftaught.backbones.image.depth import without_drop_path
from selftaught.errors import UserError
from selftaught.masks import Grid
from selftaught.masks.blocks import by_ratio
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.assignment import cross_prediction, soft_cross_entropy
from selftaught.objectives.masked import image_mean
from selftaught.parts import Prototypes, ema, frozen_copy, prototype_head
from selftaught.precision import full_precision
from selftaught.roles import (
    Blur,
    CenterMomentum,
    Count,
    Fraction,
    HeadWidth,
    MaskRatio,
    Momentum,
    PrototypeCount,
    Share,
    SmallViews,
    TeacherTemperature,
    Temperature,
    TermWeight,
)
from selftaught.schedule import cosine, ramp
from selftaught.sides import Size, part


class IBOT(Method):
    """DINO, and a student that tells what its EMA teacher sees in patches that are hidden from it.

    Settings are those of the paper's ViT-S and 800 epochs, of which 10 are warm-up; its code's own
    defaults differ (no small views, larger global ones, one ratio of hidden patches, constant
    temperatures, separate heads). The student has the paper's `drop_path` of 0.1 if the command
    line makes it, the teacher never has any.

    Args:
        backbone: a ViT, summed up by its class token.
        prototypes: width of the output softmax.
        mask_ratio: ratios of hidden patches in a global view, one of which is taken by chance.
        momentum: of the EMA teacher, at the start and the end of training, along a cosine.
        teacher_temp: of the teacher's softmax, at the start and after its warm-up.
        local_crops: number of small views beside the two global ones.

    Other Args:
        patch_prototypes: width of that of patches, where heads are not shared; as many if none.
        shared_head: whether class tokens and patches have the same prototypes.
        shared_teacher_head: whether the teacher tells patches by the class tokens' prototypes,
            although the student has its own for them, as in the code's defaults.
        hidden: width of the head's two hidden layers.
        bottleneck: width of the prototypes.
        norm_last_layer: whether prototypes are unit vectors.
        class_weight, patch_weight: of the two terms.
        mask_spread: how far each of them may be off.
        mask_shape: what is hidden: rectangles, or single patches.
        mask_start: fraction of training in which no patch is hidden yet and `patch_temp` stays at
            its start; 0 in the paper's ViTs, 1/6 in its Swins (epoch 50 of 300).
        student_temp: of the student's softmax, above 0.
        patch_temp: the same for patches.
        temp_warmup: fraction of training in which each of them goes to its end, that of patches
            from `mask_start` on.
        center_momentum: of the running means of the teacher's outputs, of class tokens and patches.
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
        warmup=10 / 800,
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
        freeze_prototypes=0.01,
        temp_warmup=0.3,
    )
    needs = Needs(
        backbone="vit_small_patch16_224", drop_path=0.1, kinds=("image", "sound"), shards=True
    )
    insight = Insight(
        copies=(("teacher", "backbone"), ("teacher_head", "head")),
        logits="teacher_head",
        shares="centered",
        memory=("center", "patch_center"),
    )

    def __init__(
        self,
        backbone: Image,
        prototypes: PrototypeCount = 8192,
        patch_prototypes: Count | None = None,
        shared_head: bool = True,
        shared_teacher_head: bool = True,
        hidden: HeadWidth = 2048,
        bottleneck: HeadWidth = 256,
        norm_last_layer: bool = False,
        class_weight: TermWeight = 1.0,
        patch_weight: TermWeight = 1.0,
        mask_ratio: tuple[MaskRatio, ...] = (0.0, 0.3),
        mask_spread: tuple[Share, ...] = (0.0, 0.2),
        mask_shape: Literal["block", "patch"] = "block",
        mask_start: Share = 0.0,
        momentum: tuple[Momentum, Momentum] = (0.996, 1.0),
        student_temp: Temperature = 0.1,
        teacher_temp: tuple[TeacherTemperature, TeacherTemperature] = (0.04, 0.07),
        patch_temp: tuple[TeacherTemperature, TeacherTemperature] = (0.04, 0.07),
        temp_warmup: Share = 0.0375,
        center_momentum: CenterMomentum = 0.9,
        freeze_prototypes: Share = 0.00125,
        local_crops: SmallViews = 10,
        local_size: Count | None = None,
        global_scale: tuple[Fraction, Fraction] = (0.25, 1.0),
        local_scale: tuple[Fraction, Fraction] = (0.05, 0.25),
        blur: tuple[Blur, Blur, Blur] = (1.0, 0.1, 0.5),
        solarize: Blur = 0.2,
    ):
        super().__init__()
        self.prototypes, self.patch_prototypes = prototypes, patch_prototypes
        self.shared_head, self.shared_teacher_head = shared_head, shared_teacher_head
        self.hidden, self.bottleneck, self.norm_last_layer = hidden, bottleneck, norm_last_layer
        self.class_weight, self.patch_weight = class_weight, patch_weight
        self.mask_ratio, self.mask_spread, self.mask_shape = mask_ratio, mask_spread, mask_shape
        self.mask_start = mask_start
        self.momentum, self.student_temp = momentum, student_temp
        self.teacher_temp, self.patch_temp = teacher_temp, patch_temp
        self.temp_warmup, self.center_momentum = temp_warmup, center_momentum
        self.freeze_prototypes = freeze_prototypes
        self.local_crops, self.local_size = local_crops, local_size
        self.global_scale, self.local_scale = global_scale, local_scale
        self.blur, self.solarize = blur, solarize
        ends = [end for r, s in zip(mask_ratio, mask_spread) for end in (r - s, r + s)]
        if not mask_ratio or len(mask_ratio) != len(mask_spread) or min(ends) < 0 or max(ends) > 1:
            raise UserError(
                f"mask_ratio={mask_ratio} with mask_spread={mask_spread} is no list of ratios: "
                "each ratio needs its spread, and ratio - spread and ratio + spread in [0, 1]"
            )
        width = patch_prototypes or prototypes
        if width != prototypes and (shared_head or shared_teacher_head):
            raise UserError(
                f"patch_prototypes={width} differs from prototypes={prototypes}, which a shared "
                "head cannot do: set shared_head and shared_teacher_head to false, or leave "
                "patch_prototypes out"
            )
        backbone.arrange("class")
        backbone.resample = backbone.resample or "offset"
        self.backbone = backbone
        self.mask_token = nn.Parameter(torch.zeros(1, backbone.dim))
        scale = not norm_last_layer
        self.head = prototype_head(backbone.dim, hidden, bottleneck, prototypes, scale)
        self.patch_last = None if shared_head else Prototypes(bottleneck, width, scale)
        self.teacher = without_drop_path(frozen_copy(backbone))
        self.teacher_head = frozen_copy(self.head)
        own = None if shared_teacher_head else self.patch_last
        self.teacher_patch_last = frozen_copy(own) if own else None
        self.register_buffer("center", torch.zeros(prototypes))
        self.register_buffer("patch_center", torch.zeros(width))

    center: Tensor
    """[prototypes] running mean of the teacher's outputs for class tokens."""
    patch_center: Tensor
    """The same for all patches, hidden from the student or not."""

    @property
    def encoder(self) -> nn.Module:
        return self.teacher

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        guess = math.log(self.prototypes)
        return (
            ReferenceLoss(guess, f"ln {self.prototypes}, all prototypes alike", term="class"),
            ReferenceLoss(0.0, "one prototype takes every image", collapsed=True, term="class"),
        )

    def views(self, size: Size) -> Pipeline:
        local_size = self.backbone.fit(part(size, 3, 7, self.local_size))
        scales = self.global_scale, self.local_scale
        crops = augment.multicrop(
            size, local_size, self.local_crops, *scales, "dino", self.blur, self.solarize
        )
        ratios = self.mask_ratio, self.mask_spread
        return Hiding(crops, self.backbone.grid(size), *ratios, self.mask_shape == "patch")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: (two global [B, C, H, W], then `local_crops` local [B, C, h, w]) and which patches
        of the global ones to hide, [B, 2, N]."""
        views, hidden = batch.views
        hidden = hidden.transpose(0, 1)
        if not self._masking:  # drawn all the same: draws do not depend on the step
            hidden = torch.zeros_like(hidden)
        both = torch.cat(views[:2])
        with torch.no_grad():
            seen = self.teacher.features(both)
            of_patches = patch_scores(self.teacher_head, self.teacher_patch_last, seen.local)
            teacher = self.teacher_head(seen.pooled), of_patches
        sizes = [both, torch.cat(views[2:])] if views[2:] else [both]
        replace = hidden.flatten(0, 1), self.mask_token
        guessed, *others = self.backbone.features_together(sizes, replace)
        pooled = torch.cat([guessed.pooled, *(o.pooled for o in others)])
        missing = guessed.local[hidden.flatten(0, 1)]
        return self.distill(
            self.head(pooled.unflatten(0, (len(views), -1))),
            teacher[0].unflatten(0, (2, -1)),
            patch_scores(self.head, self.patch_last, missing),
            teacher[1].unflatten(0, (2, -1)),
            hidden,
        )

    @full_precision
    def distill(
        self,
        student: Tensor,
        teacher: Tensor,
        student_patches: Tensor,
        teacher_patches: Tensor,
        hidden: Tensor,
    ) -> dict[str, Tensor]:
        """Both terms.

        Args:
            student: [V, B, prototypes] logits of all views.
            teacher: [2, B, prototypes], of the global ones.
            student_patches: [M, patch_prototypes], of the hidden patches alone.
            teacher_patches: [2, B, N, patch_prototypes], of all patches.
            hidden: bool [2, B, N], True M times.
        """
        goals = (teacher_patches[hidden] - self.patch_center) / self.patch_temperature
        patches = soft_cross_entropy(goals.softmax(-1), student_patches / self.student_temp)
        views = cross_prediction(self.centered(teacher), student / self.student_temp)
        for center, outputs in ((self.center, teacher), (self.patch_center, teacher_patches)):
            mean = dist.mean(outputs.flatten(0, -2).mean(0))
            center.lerp_(mean, 1 - self.center_momentum)
        return {
            "class": self.class_weight * views,
            "patch": self.patch_weight * image_mean(patches, hidden.flatten(0, 1)),
        }

    def centered(self, logits: Tensor) -> Tensor:
        """The teacher's of class tokens, centered and sharpened."""
        return ((logits - self.center) / self.temperature).softmax(-1)

    def assign(self, images: Tensor) -> Tensor:
        return self.teacher_head(self.teacher(images)) - self.center

    @property
    def temperature(self) -> float:
        """Of the teacher's softmax, now."""
        return ramp(*self.teacher_temp, self.temp_warmup, self.progress)

    @property
    def patch_temperature(self) -> float:
        """The same for patches."""
        if not self._masking:
            return self.patch_temp[0]
        return ramp(*self.patch_temp, self.temp_warmup, self.progress - self.mask_start)

    @property
    def _masking(self) -> bool:
        """Whether patches are hidden yet."""
        return self.progress >= self.mask_start

    def before_step(self) -> None:
        if self.progress < self.freeze_prototypes:
            for last in (self.head[-1], self.patch_last):
                for parameter in last.parameters() if last else ():
                    parameter.grad = None

    def after_step(self) -> None:
        momentum = cosine(*self.momentum, self.progress)
        ema(self.teacher, self.backbone, momentum)
        ema(self.teacher_head, self.head, momentum)
        if self.patch_last and self.teacher_patch_last:
            ema(self.teacher_patch_last, self.patch_last, momentum)


def patch_scores(head: nn.Sequential, last: Prototypes | None, tokens: Tensor) -> Tensor:
    """Logits [..., K] of patches [..., D]: by prototypes of their own behind the shared layers."""
    return head(tokens) if last is None else last(head[:-1](tokens))


@dataclass(frozen=True)
class Hiding(Around):
    """Views, and which patches of the two global ones the student must not see: bool [2, N].

    Drawn here, not in the loss, masks are alike for any number of workers and processes.
    """

    views: augment.Views
    grid: Grid
    ratios: tuple[float, ...]
    spreads: tuple[float, ...]
    single: bool

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Any:
        views = self.views(image, rng)
        draw = (by_ratio(rng, self.grid, self.ratios, self.spreads, self.single) for _ in range(2))
        return views, np.stack([hidden.reshape(-1) for hidden in draw])
