"""Features of teachers, as in AM-RADIO (Ranzinger et al., 2024), https://arxiv.org/abs/2312.06709."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.augment.pipeline import Pipeline
from selftaught.backbones import Encoder, Features, Image, encoder_of, is_encoder
from selftaught.errors import UserError
from selftaught.method import Batch, Corpus, Method, Needs, Recipe, ReferenceLoss
from selftaught.parts import Frozen, Standardize, each_cell, fingerprint, mlp
from selftaught.precision import full_precision
from selftaught.roles import Blur, Fraction, HeadWidth, ImageSize, Strength, TermWeight
from selftaught.sides import Size, both


class DistillFeatures(Method):
    """Tell from a crop which features trained networks have of the image; no labels are needed.

    Each teacher has heads of its own on the student, and its features a scale of their own: mean 0
    and, on average, variance 1. With `teacher_view` plain it sees each image once, before training:
    whole, at its own size. With `same` it sees in every step what the student sees, as in the
    paper, which costs many times as much, and its features of places can be told, too.

    Args:
        backbone: image encoder of the student.
        network: the teacher or a list of several, encoders or modules of any kind; they are copied,
            and stay as they are.
        teacher: names of the teachers, separated by commas: folder of a run or of an encoder, an
            encoder.safetensors, a timm model whose weights are taken (also timm:NAME), NAME=FILE
            for weights of that model, or file.py:function.
        teacher_view: what a teacher sees: each image once, or each crop.
        teacher_size: side of its images in pixels; its own unless given.
        strength: of the color jitter of the student's two views.
        blur: probability of Gaussian blur.
        scale: smallest and largest area of the crops, as fractions of the image.

    Other Args:
        hidden: width of the heads' hidden layer.
        cosine: weight of 1 - cosine.
        smooth_l1: weight of the smooth L1 distance.
        local: weight of features of places; needs `teacher_view` same.
    """

    needs = Needs(teacher="timm:resnet50")
    recipe = Recipe("adamw", lr=3e-3, scaling="none", weight_decay=1e-4, warmup=0.05, clip=3.0)

    def __init__(
        self,
        backbone: Image,
        network: Any,
        teacher: tuple[str, ...] = (),
        teacher_view: Literal["plain", "same"] = "plain",
        teacher_size: ImageSize | None = None,
        strength: Strength = 0.5,
        blur: Blur = 0.1,
        scale: tuple[Fraction, Fraction] = (0.2, 1.0),
        hidden: HeadWidth = 512,
        cosine: TermWeight = 1.0,
        smooth_l1: TermWeight = 0.1,
        local: TermWeight = 0.0,
    ):
        super().__init__()
        self.backbone, self.teacher, self.teacher_view = backbone, teacher, teacher_view
        self.teacher_size, self.hidden = teacher_size, hidden
        self.strength, self.blur, self.scale = strength, blur, scale
        self.cosine, self.smooth_l1, self.local = cosine, smooth_l1, local
        found = list(network) if isinstance(network, list | tuple | nn.ModuleList) else [network]
        if not found:
            raise UserError("distill_features needs a teacher, and network is an empty list")
        if not cosine and not smooth_l1:
            raise UserError("cosine and smooth_l1 are both 0, so nothing would be learned")
        if local and teacher_view == "plain":
            raise UserError(
                f"local={local:g} compares places of a crop, and a teacher that sees the whole "
                "image has none of it: set teacher_view to same, or leave local out"
            )
        found = [self._fitting(encoder_of(each)) for each in found]
        self.frozen = nn.ModuleList(map(Frozen, found))
        for each in self.teachers:
            each.size = teacher_size or each.size
        self.heads = nn.ModuleList(mlp(backbone.dim, hidden, t.dim) for t in self.teachers)
        self.scales = nn.ModuleList(Standardize(t.dim) for t in self.teachers)
        self.local_heads, self.local_scales = nn.ModuleList(), nn.ModuleList()
        for each in self.teachers if local else ():
            self.local_heads.append(mlp(backbone.local_dim, hidden, each.local_dim))
            self.local_scales.append(Standardize(each.local_dim))
        self.goals: tuple[Tensor, ...] = ()

    goals: tuple[Tensor, ...]
    """[N, D] of each teacher, of whole images, on the CPU. No state: they come out alike again."""

    @property
    def teachers(self) -> list[Encoder]:
        return [cast(Frozen, each).held for each in self.frozen]

    def _fitting(self, teacher: Any) -> Any:
        """`teacher`; UserError where the student can learn nothing from it."""
        if not is_encoder(teacher):
            raise UserError(
                f"a teacher is an encoder or a torch module, got a {type(teacher).__name__}"
            )
        student = self.backbone
        if teacher.channels != student.channels:
            raise UserError(
                f"the teacher {teacher.name} takes images of {teacher.channels} channels and the "
                f"student those of {student.channels}: train with --channels {teacher.channels}, "
                "or take another teacher"
            )
        alike = [(n, x.shape) for n, x in teacher.state_dict().items()]
        same = alike == [(n, x.shape) for n, x in student.state_dict().items()]
        if same and fingerprint(cast(nn.Module, teacher)) == fingerprint(student):
            raise UserError(
                f"the student begins with the weights of its teacher {teacher.name}, so it has "
                "nothing to learn: leave --weights and --pretrained out, or take another teacher"
            )
        if self.local and not (teacher.has_local and student.has_local):
            lacking = student.name if teacher.has_local else teacher.name
            raise UserError(
                f"{lacking} gives no features of places, and local={self.local:g} compares them: "
                "leave local out, or take a network that returns maps [B, D, H, W]"
            )
        return teacher

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        if not self.cosine:
            return ()
        return (ReferenceLoss(self.cosine, "a direction by chance", term="cosine"),)

    def views(self, size: Size) -> Pipeline:
        made = [augment.simclr(s, self.strength, self.blur, self.scale) for s in self._sizes(size)]
        return made[0] if self.teacher_view == "plain" else augment.Alike(tuple(made))

    def _sizes(self, size: Size) -> list[Size]:
        """Of the views: that of the student, then, where they see the same, the teachers'."""
        theirs = [t.size for t in self.teachers] if self.teacher_view == "same" else []
        return list(dict.fromkeys([size, *theirs]))

    def on_start(self, corpus: Corpus) -> None:
        if self.teacher_view == "plain":
            frozen = [cast(Frozen, each) for each in self.frozen]
            self.goals = _Shared(corpus.embed(f.held, f.key) for f in frozen)
            for scale, goals in zip(self.scales, self.goals):
                cast(Standardize, scale).fit(goals)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two [B, C, S, S]; where teachers see the same, a list of these for each size."""
        plain = self.teacher_view == "plain"
        x, *others = [torch.cat(list(v)) for v in ([batch.views] if plain else batch.views)]
        shown = {both(views.shape[-2:]): views for views in (*others, x)}
        seen = self.backbone.features(x) if self.local else Features(self.backbone(x), x, (0, 0))
        terms: dict[str, list[Tensor]] = {}
        for i, (teacher, head, scale) in enumerate(zip(self.teachers, self.heads, self.scales)):
            if plain:
                goals = self._goals(i, batch.index).repeat(len(batch.views), 1)
            else:
                with torch.no_grad():
                    theirs = self._asked(teacher, shown[both(teacher.size)])
                goals = theirs.pooled
                self._follow(scale, goals)
            parts = self.compare(head(seen.pooled), scale(goals))
            if self.local:
                self._follow(self.local_scales[i], theirs.local)
                cells = self.local_scales[i](theirs.local)
                told = each_cell(self.local_heads[i], seen.local)
                local = self.compare(told, regrid(cells, theirs.grid, seen.grid))
                parts["local"] = self.local * torch.stack(list(local.values())).sum()
            for name, value in parts.items():
                terms.setdefault(name, []).append(value)
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    @full_precision
    def compare(self, told: Tensor, goals: Tensor) -> dict[str, Tensor]:
        """Terms of what a head tells of a teacher's features on their scale, [..., D] both."""
        terms = {}
        if self.cosine:
            terms["cosine"] = self.cosine * (1 - F.cosine_similarity(told, goals, dim=-1).mean())
        if self.smooth_l1:
            terms["smooth_l1"] = self.smooth_l1 * F.smooth_l1_loss(told, goals)
        return terms

    def _goals(self, which: int, index: Tensor) -> Tensor:
        """[B, D] features that a teacher has of whole images, by their places in the data."""
        if not self.goals:
            raise UserError(
                "the teacher has seen no images yet: before the first step call "
                "method.on_start(corpus), as pretrain does, or set teacher_view to same"
            )
        return self.goals[which][index.cpu()].to(index.device)

    def _asked(self, teacher: Encoder, x: Tensor) -> Features:
        """What a teacher makes of images that are normalized as the student's."""
        own = self.backbone
        images = augment.renormalize(x, (own.mean, own.std), (teacher.mean, teacher.std))
        return teacher.features(images) if self.local else Features(teacher(images), x, (0, 0))

    def _follow(self, scale: nn.Module, features: Tensor) -> None:
        if self.training:
            cast(Standardize, scale).show(features)


@full_precision
def regrid(cells: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Features [B, prod(grid), D] of places, averaged or interpolated to [B, prod(wanted), D]."""
    if grid == wanted:
        return cells
    maps = cells.mT.unflatten(2, grid)
    return F.interpolate(maps, wanted, mode="bilinear", antialias=True).flatten(2).mT


class _Shared(tuple[Tensor, ...]):
    """Tensors that nobody changes: copies of a method have the same ones."""

    __slots__ = ()

    def __deepcopy__(self, memo: Any) -> "_Shared":
        return self
