"""DINOv2 (Oquab et al., 2024), https://arxiv.org/abs/2304.07193."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment, dist
from selftaught.augment import Views
from selftaught.backbones import Image
from selftaught.backbones.image.depth import with_subset_depth, without_drop_path
from selftaught.backbones.image.rotary import rescale
from selftaught.errors import UserError
from selftaught.masks import generator
from selftaught.masks.blocks import spread_ratios
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.anchors import gram
from selftaught.objectives.assignment import cross_prediction, sinkhorn, soft_cross_entropy
from selftaught.objectives.koleo import koleo
from selftaught.objectives.masked import image_mean
from selftaught.parts import Frozen, ema, frozen_copy, prototype_head
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
    ScaleFactor,
    Share,
    SmallViews,
    TeacherTemperature,
    Temperature,
    TermWeight,
)
from selftaught.schedule import cosine, ramp
from selftaught.sides import Size, part, told_size


class DINOv2(Method):
    """DINO and iBOT at once, with targets that may be balanced, and images kept apart.

    Settings are those of the code's default configuration, a ViT-L trained for 100 epochs of 1250
    steps. Its configurations for the largest models have targets="sinkhorn", separate_head=True,
    prototypes=131072, bottleneck=384, patch_bottleneck=256 and momentum=0.994; they are trained
    with lr=2e-4, weight_decay=0.04,0.2, layer_decay=1 and a `drop_path` of 0.4. The student has the
    paper's 0.3 if the command line makes it (it grows with depth, as timm's; in the code all blocks
    have the same). The paper's ViTs have layer scales, as timm's `..._dinov2`. While they are
    frozen the code trains the prototypes at rate 0; here they get no gradient.

    With `teacher` this is the distillation by which the paper makes its smaller models: a larger
    network and its heads, which stay as they are, take the place of the EMA teacher; no patch is
    hidden, the patches of both global views are told, no path is dropped, and the EMA of the
    student is its result.

    `gram_weight` is DINOv3's Gram anchoring (Siméoni et al., 2025, arXiv 2508.10104, Section 4):
    late in a long training, how alike the student's patches are to each other is held to what an
    earlier EMA teacher, the Gram teacher, sees in the same crops at twice the resolution; it is
    renewed from time to time. The paper has a weight of 2 from 1,000,000 of 1,200,000 steps on, and
    renewals every 10,000. Crops are made at both sizes from the first step: it is cheaper to train
    without it, and to go on with --start, gram_weight=2 and gram_start=0.

    Args:
        backbone: a ViT, summed up by its class token.
        network: a trained DINOv2 to learn from, whose EMA teacher and heads are taken; none for
            the student's own EMA teacher.
        teacher: run of `dinov2` that the network comes from.
        prototypes: width of the output softmax.
        momentum: of the EMA teacher, at the start and the end of training, along a cosine.
        teacher_temp: of the teacher's softmax, at the start and after its warm-up.
        local_crops: number of small views beside the two global ones.

    Other Args:
        dino_weight, patch_weight, koleo_weight: of the terms.
        patch_prototypes: width of that of patches, where heads are separate; as many if none.
        separate_head: whether patches have a head of their own.
        hidden: width of the heads' two hidden layers.
        bottleneck: width of the prototypes.
        patch_bottleneck: width of those of patches, where heads are separate; the same if none.
        targets: how the teacher's outputs become targets: centered, or balanced by Sinkhorn.
        iterations: of Sinkhorn's normalizations.
        mask_share: share of the global views that hide patches, in [0, 1].
        mask_ratio: smallest and largest ratio of hidden patches in these.
        student_temp: of the student's softmax, above 0.
        temp_warmup: fraction of training after which `teacher_temp` has reached its end.
        center_momentum: of the running means of the teacher's outputs.
        freeze_prototypes: fraction of training in which the prototypes stay as they are.
        gram_weight: of Gram anchoring; 0 for none.
        gram_start: fraction of training after which it counts, from the EMA teacher of then.
        gram_every: fraction of training after which the Gram teacher is renewed.
        gram_scale: how many times as large as the student's the Gram teacher's crops are.
        rope_scale: largest factor by which positions of a rotary ViT, such as timm's `..._dinov3`,
            are scaled at random; 2 in DINOv3, 1 for none.
        local_size: side of small views in pixels, in whole patches; none for 3/7 of the global.
        global_scale, local_scale: area of the crops, as fractions of the image.
        blur: probabilities in the first, the second and the local views; 0,0,0 for small images.
        solarize: probability in the second view; 0 for small images.
        reference_blur: whether to blur as the released code really does, which takes the
            probabilities `blur` for those of not blurring: 0, 0.9 and 0.5 in place of 1, 0.1, 0.5.
        reference_center: whether the mean of hidden patches is that of the processes' own means, as
            in the released code, and not of all patches alike.
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
        prototypes=512,
        hidden=256,
        bottleneck=64,
        weight_decay=0.04,
    )
    needs = Needs(
        backbone="vit_small_patch14_dinov2", drop_path=0.3, kinds=("image", "sound"), shards=True
    )
    insight = Insight(
        copies=(("ema", "backbone"), ("ema_head", "head")), logits="ema_head", shares="centered"
    )

    def __init__(
        self,
        backbone: Image,
        prototypes: PrototypeCount = 65536,
        patch_prototypes: Count | None = None,
        separate_head: bool = False,
        hidden: HeadWidth = 2048,
        bottleneck: HeadWidth = 256,
        patch_bottleneck: HeadWidth | None = None,
        targets: Literal["center", "sinkhorn"] = "center",
        iterations: Count = 3,
        dino_weight: TermWeight = 1.0,
        patch_weight: TermWeight = 1.0,
        koleo_weight: TermWeight = 0.1,
        mask_share: Share = 0.5,
        mask_ratio: tuple[MaskRatio, MaskRatio] = (0.1, 0.5),
        momentum: tuple[Momentum, Momentum] = (0.992, 1.0),
        student_temp: Temperature = 0.1,
        teacher_temp: tuple[TeacherTemperature, TeacherTemperature] = (0.04, 0.07),
        temp_warmup: Share = 0.3,
        center_momentum: CenterMomentum = 0.9,
        freeze_prototypes: Share = 0.01,
        local_crops: SmallViews = 8,
        local_size: Count | None = None,
        global_scale: tuple[Fraction, Fraction] = (0.32, 1.0),
        local_scale: tuple[Fraction, Fraction] = (0.05, 0.32),
        blur: tuple[Blur, Blur, Blur] = (1.0, 0.1, 0.5),
        solarize: Blur = 0.2,
        reference_blur: bool = False,
        reference_center: bool = False,
        gram_weight: TermWeight = 0.0,
        gram_start: Share = 0.83,
        gram_every: Fraction = 0.01,
        gram_scale: Count = 2,
        rope_scale: ScaleFactor = 1.0,
        network: Any = None,
        teacher: Path = Path("."),
    ):
        super().__init__()
        self.teacher = teacher
        self.prototypes, self.patch_prototypes = prototypes, patch_prototypes
        self.separate_head, self.hidden = separate_head, hidden
        self.bottleneck, self.patch_bottleneck = bottleneck, patch_bottleneck
        self.targets, self.iterations = targets, iterations
        self.dino_weight, self.patch_weight = dino_weight, patch_weight
        self.koleo_weight, self.momentum = koleo_weight, momentum
        self.mask_share, self.mask_ratio = mask_share, mask_ratio
        self.student_temp, self.teacher_temp = student_temp, teacher_temp
        self.temp_warmup, self.center_momentum = temp_warmup, center_momentum
        self.freeze_prototypes = freeze_prototypes
        self.local_crops, self.local_size = local_crops, local_size
        self.global_scale, self.local_scale = global_scale, local_scale
        self.blur, self.solarize = blur, solarize
        self.reference_blur, self.reference_center = reference_blur, reference_center
        if mask_ratio[0] > mask_ratio[1]:
            raise UserError(f"mask_ratio={mask_ratio} must be the smallest and the largest")
        width = patch_prototypes or prototypes
        depth = patch_bottleneck or bottleneck
        if not separate_head and (width, depth) != (prototypes, bottleneck):
            raise UserError(
                f"patches cannot have {width} prototypes of width {depth} in a head that is shared "
                f"with images and has {prototypes} of width {bottleneck}: set separate_head to "
                "true, or leave patch_prototypes and patch_bottleneck out"
            )
        backbone.arrange("class")
        backbone.resample = backbone.resample or "offset"
        self.backbone = with_subset_depth(backbone)
        self.mask_token = nn.Parameter(torch.zeros(1, backbone.dim))
        self.head = prototype_head(backbone.dim, hidden, bottleneck, prototypes, scale=True)
        self.patch_head = (
            prototype_head(backbone.dim, hidden, depth, width, scale=True)
            if separate_head
            else None
        )
        self.ema = without_drop_path(frozen_copy(backbone))
        self.ema_head = frozen_copy(self.head)
        self.ema_patch_head = frozen_copy(self.patch_head) if self.patch_head else None
        self.register_buffer("center", torch.zeros(prototypes))
        self.register_buffer("patch_center", torch.zeros(width))
        self.network = None if network is None else self._taught_by(network)
        self.mask_token.requires_grad_(network is None)
        self.gram_weight, self.gram_start = gram_weight, gram_start
        self.gram_every, self.gram_scale, self.rope_scale = gram_every, gram_scale, rope_scale
        self.gram = None
        if gram_weight:
            self.gram = frozen_copy(self.ema)
            self.register_buffer("gram_renewals", torch.zeros((), dtype=torch.int64))
            self.insight = self.insight._replace(idle=("gram",))
        if rope_scale > 1 and not rescale(backbone.net, rope_scale):  # the student's alone
            raise UserError(
                f"rope_scale={rope_scale} scales axial rotary positions, and {backbone.name} has "
                "none: take one such as vit_small_patch16_dinov3, or leave rope_scale out"
            )
        self.register_load_state_dict_pre_hook(_renamed)

    center: Tensor
    """[prototypes] running mean of the teacher's outputs for class tokens; zero with Sinkhorn."""
    patch_center: Tensor
    """The same for hidden patches."""
    gram_renewals: Tensor
    """Number of times that the Gram teacher was made anew."""

    def _taught_by(self, network: Any) -> Frozen:
        """Backbone, head and head of patches of a trained DINOv2, whose centers are taken over."""
        if not isinstance(network, DINOv2):
            raise UserError(
                f"dinov2 learns from the prototypes of another dinov2, and its teacher is a "
                f"{type(network).__name__}: give a run of dinov2, or let distill_features learn "
                "from the features of any network"
            )
        for name in ("center", "patch_center"):
            own, theirs = getattr(self, name), getattr(network, name)
            if len(own) != len(theirs):
                which = name.replace("center", "prototypes")
                raise UserError(
                    f"the teacher has {len(theirs)} {which} and this dinov2 {len(own)}, of which "
                    f"each is to tell the same: set {which} to {len(theirs)}"
                )
            own.copy_(theirs)
        if network.backbone.channels != self.backbone.channels:
            raise UserError(
                f"the teacher takes images of {network.backbone.channels} channels and the student "
                f"those of {self.backbone.channels}: train with --channels "
                f"{network.backbone.channels}, or take another teacher"
            )
        heads = {"head": network.ema_head, "patch_head": network.ema_patch_head or network.ema_head}
        return Frozen(nn.ModuleDict({"backbone": network.ema, **heads}))

    @property
    def encoder(self) -> nn.Module:
        return self.ema

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        guess = math.log(self.prototypes)
        return (ReferenceLoss(guess, f"ln {self.prototypes}, all prototypes alike", term="patch"),)

    def views(self, size: Size) -> Pipeline:
        teacher = self.network.held["backbone"] if self.network else self.backbone
        if teacher.grid(size) != self.backbone.grid(size):
            raise UserError(
                f"the teacher cuts images of {told_size(size)} px into patches of {teacher.patch} "
                f"px and the student into those of {self.backbone.patch} px, and each patch is to "
                "be told: give both the same, by another backbone or patch_size"
            )
        local_size = self.backbone.fit(part(size, 3, 7, self.local_size))
        scales = self.global_scale, self.local_scale
        first, second, local = self.blur
        blur = (1 - first, 1 - second, 1 - local) if self.reference_blur else self.blur
        views = augment.multicrop(
            size, local_size, self.local_crops, *scales, "dino", blur, self.solarize
        )
        if not self.gram_weight:
            return views
        large = self.backbone.fit(part(size, self.gram_scale, 1))
        return augment.Alike((views, Views(tuple(replace(v, size=large) for v in views.views[:2]))))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two global [B, C, H, W], then `local_crops` local [B, C, h, w]; with Gram
        anchoring, a list of these and one of the global ones, `gram_scale` times as large. Masks
        are drawn here: their ratios are spread over the batch."""
        views, large = batch.views if self.gram else (batch.views, None)
        both = torch.cat(list(views[:2]))
        grid = self.backbone.grid((both.shape[-2], both.shape[-1]))
        if self.network:  # all patches are told, and none is hidden
            hidden, swap = torch.ones(len(both), grid[0] * grid[1], dtype=torch.bool), None
        else:
            hidden = spread_ratios(generator(), len(both), grid, self.mask_share, self.mask_ratio)
            swap = hidden.to(both.device), self.mask_token
        hidden = hidden.to(both.device)
        with torch.no_grad():
            teacher, teacher_patches = self._asked(both, hidden)
        local = views[2:]
        sizes = [both, torch.cat(list(local))] if local else [both]
        own, *others = self.backbone.features_together(sizes, swap)
        pooled = torch.cat([own.pooled, *(o.pooled for o in others)])
        pooled = pooled.unflatten(0, (len(views), -1))
        patches = (self.patch_head or self.head)(own.local[hidden])
        student = self.head(pooled)
        terms = self.distill(student, teacher, patches, teacher_patches, hidden, pooled[:2])
        if large is not None:
            terms["gram"] = self._anchored(own.local, torch.cat(list(large)), grid)
        return terms

    def _anchored(self, local: Tensor, large: Tensor, grid: tuple[int, int]) -> Tensor:
        """How far patches [2 * B, N, D] have gone from what the Gram teacher sees; 0 before."""
        if self.gram is None or self.progress < self.gram_start:
            return local.new_zeros(())
        with torch.no_grad():
            seen = self.gram.features(large)
            maps = F.interpolate(seen.local.mT.unflatten(2, seen.grid), grid, mode="bicubic")
        return self.gram_weight * gram(local, maps.flatten(2).mT)

    def _asked(self, both: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's outputs for the global views [2 * B, C, H, W] and their patches."""
        if self.network:
            net, head, patch_head = self.network.held.values()
            own = self.backbone
            both = augment.renormalize(both, (own.mean, own.std), (net.mean, net.std))
        else:
            net, head, patch_head = self.ema, self.ema_head, self.ema_patch_head or self.ema_head
        seen = net.features(both)
        return head(seen.pooled).unflatten(0, (2, -1)), patch_head(seen.local[hidden])

    @full_precision
    def distill(
        self,
        student: Tensor,
        teacher: Tensor,
        student_patches: Tensor,
        teacher_patches: Tensor,
        hidden: Tensor,
        pooled: Tensor,
    ) -> dict[str, Tensor]:
        """The terms; the student's mean over all pairs of a view and another, global one is `local`
        and `global` together.

        Args:
            student: [V, B, prototypes] logits of all views, the two global ones first.
            teacher: [2, B, prototypes], of the global ones.
            student_patches, teacher_patches: [M, patch_prototypes], of the hidden patches.
            hidden: bool [2 * B, N], True M times.
            pooled: [2, B, D] features of the student before the head.
        """
        goals = self.goals(teacher.flatten(0, 1), self.center).view_as(teacher)
        patch_goals = self.goals(teacher_patches, self.patch_center)
        if self.targets == "center":
            self._follow(self.center, teacher.flatten(0, 1), unweighted=False)
            self._follow(self.patch_center, teacher_patches, self.reference_center)
        student, others = student / self.student_temp, len(student) - 1
        patches = soft_cross_entropy(patch_goals, student_patches / self.student_temp)
        terms = {"global": self.dino_weight * cross_prediction(goals, student[:2]) / others}
        if others > 1:
            of_local = -(goals.sum(0) * student[2:].log_softmax(-1).sum(0)).sum(-1).mean()
            terms["local"] = self.dino_weight * of_local / (2 * others)
        terms["patch"] = self.patch_weight * image_mean(patches, hidden)
        if self.koleo_weight:
            terms["koleo"] = self.koleo_weight * (koleo(pooled[0]) + koleo(pooled[1]))
        return terms

    def goals(self, logits: Tensor, center: Tensor) -> Tensor:
        """[M, K] targets of the teacher's outputs."""
        if self.targets == "sinkhorn":
            return sinkhorn(logits, self.temperature, self.iterations)
        return ((logits - center) / self.temperature).softmax(-1)

    @torch.no_grad()
    def _follow(self, center: Tensor, outputs: Tensor, unweighted: bool) -> None:
        """Move `center` towards the mean of the outputs [M, K] of all processes."""
        total, count = outputs.sum(0), outputs.new_tensor(float(len(outputs)))
        everyone = dist.total(count)
        if unweighted:
            mean = dist.mean(total / count.clamp(min=1))
        else:
            mean = dist.total(total) / everyone.clamp(min=1)
        # where no patch is hidden it stays; asking whether would make the device wait
        center.lerp_(mean, (1 - self.center_momentum) * (everyone > 0).to(center))

    def centered(self, logits: Tensor) -> Tensor:
        """The teacher's of class tokens, centered and sharpened."""
        return ((logits - self.center) / self.temperature).softmax(-1)

    def assign(self, images: Tensor) -> Tensor:
        return self.ema_head(self.ema(images)) - self.center

    @property
    def temperature(self) -> float:
        """Of the teacher's softmax, now."""
        return ramp(*self.teacher_temp, self.temp_warmup, self.progress)

    def before_step(self) -> None:
        if self.progress < self.freeze_prototypes:
            for head in (self.head, self.patch_head):
                for parameter in head[-1].parameters() if head else ():
                    parameter.grad = None

    def after_step(self) -> None:
        momentum = cosine(*self.momentum, self.progress)
        ema(self.ema, self.backbone, momentum)
        ema(self.ema_head, self.head, momentum)
        if self.patch_head and self.ema_patch_head:
            ema(self.ema_patch_head, self.patch_head, momentum)
        if self.gram is not None:
            self._renew_gram(self.gram)

    def _renew_gram(self, teacher: nn.Module) -> None:
        """Make the Gram teacher the EMA teacher: until it counts always, then when it is time."""
        late = self.progress - self.gram_start
        due = 0 if late < 0 else 1 + int(late / self.gram_every)
        if due == 0 or due > int(self.gram_renewals):
            ema(teacher, self.ema, 0.0)
            self.gram_renewals.fill_(due)


def _renamed(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Give the EMA teacher of an older checkpoint the name that it has now."""
    for name in [n for n in state if n.startswith(f"{prefix}teacher")]:
        state[f"{prefix}ema{name.removeprefix(f'{prefix}teacher')}"] = state.pop(name)
