"""SEER (Goyal et al., 2021), https://arxiv.org/abs/2103.01988."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.assignment import cross_prediction, sinkhorn
from selftaught.parts import each_size, mlp
from selftaught.precision import full_precision
from selftaught.roles import (
    Blur,
    Count,
    Fraction,
    HeadWidth,
    PrototypeCount,
    Share,
    SmallViews,
    TeacherTemperature,
    Temperature,
)
from selftaught.sides import Size, part


class SEER(Method):
    """SwAV at scale: a RegNet, one pass over many images, very large batches, no queue.

    Against SwAV: ten normalizations of sharper assignments over 16000 prototypes, a projector
    without batch norms, large views of 160 pixels, four small ones, and ten times the weight decay.
    Balancing happens in log space, which needs none of the reference's guards against numbers too
    small or too large. The paper's batches have 8192 images and its widths belong to a RegNetY-256;
    how long its rate rises is not in the released configuration: a fifteenth of training here.

    Args:
        backbone: image encoder that takes several image sizes.
        prototypes: number of clusters, over which the batch of all processes is balanced.
        temperature: of the predictions' softmax, above 0.
        local_crops: number of small views beside the two global ones.
        local_size: side of small views in pixels, in whole patches; none for 3/5 of the global.
        blur: probability; 0 for small images.

    Other Args:
        hidden: widths of the projector's hidden layers.
        dim: width of the embedding.
        epsilon: weight of the entropy of the assignments, above 0.
        iterations: of Sinkhorn's normalizations.
        hard: fraction of training in which an image is assigned to its likeliest prototype alone.
        freeze_prototypes: fraction of training in which the prototypes stay as they are.
        global_scale, local_scale: area of the crops, as fractions of the image.
    """

    recipe = Recipe(
        "larc",
        lr=9.6,
        batch=8192,
        weight_decay=1e-5,
        warmup=0.065,
        warmup_from=1 / 64,
        warmup_full=True,
        end=0.001,
        decay_bias=True,
    )
    few = Few(
        hidden=(256,),
        dim=64,
        global_scale=(0.3, 1.0),
        local_scale=(0.1, 0.4),
        local_crops=2,
        prototypes=128,
        epsilon=0.01,
    )
    needs = Needs(backbone="regnety_320", kinds=("image", "sound"))
    insight = Insight("projector", logits="scores", shares="predicted")

    def __init__(
        self,
        backbone: Image,
        prototypes: PrototypeCount = 16000,
        hidden: tuple[HeadWidth, ...] = (8192, 8192),
        dim: HeadWidth = 256,
        temperature: Temperature = 0.1,
        epsilon: TeacherTemperature = 0.03,
        iterations: Count = 10,
        hard: Share = 0.0,
        freeze_prototypes: Share = 0.0,
        local_crops: SmallViews = 4,
        local_size: Count | None = None,
        global_scale: tuple[Fraction, Fraction] = (0.14, 1.0),
        local_scale: tuple[Fraction, Fraction] = (0.05, 0.14),
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.prototypes, self.hidden, self.dim = backbone, prototypes, hidden, dim
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.hard, self.freeze_prototypes, self.blur = hard, freeze_prototypes, blur
        self.local_crops, self.local_size = local_crops, local_size
        self.global_scale, self.local_scale = global_scale, local_scale
        self.projector = mlp(backbone.dim, *hidden, dim, norm=False)
        self.scores = nn.Linear(dim, prototypes, bias=False)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (
            ReferenceLoss(math.log(self.prototypes), f"ln {self.prototypes}, guessing prototypes"),
        )

    def views(self, size: Size) -> Pipeline:
        local_size = self.backbone.fit(part(size, 3, 5, self.local_size))
        scales, blur = (self.global_scale, self.local_scale), (self.blur,) * 3
        return augment.multicrop(size, local_size, self.local_crops, *scales, "swav", blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two global [B, C, H, W], then `local_crops` local [B, C, h, w]."""
        with torch.no_grad():  # unit vectors, by hand, as in SwAV's code
            self.scores.weight.copy_(F.normalize(self.scores.weight, dim=1))
        z = F.normalize(self.projector(each_size(self.backbone, batch.views)), dim=-1)
        return self.swap(self.scores(z))

    @full_precision
    def swap(self, scores: Tensor) -> Tensor:
        """scores: [V, B, prototypes], of the two global views first."""
        targets = torch.stack([self.goals(scores[i]) for i in range(2)])
        return cross_prediction(targets, scores / self.temperature)

    @torch.no_grad()
    def goals(self, scores: Tensor) -> Tensor:
        """[B, prototypes] balanced assignment of one view."""
        q = sinkhorn(scores, self.epsilon, self.iterations)
        if self.progress < self.hard:
            return F.one_hot(q.argmax(1), self.prototypes).to(q.dtype)
        return q

    def predicted(self, logits: Tensor) -> Tensor:
        """The predictions'."""
        return (logits / self.temperature).softmax(-1)

    def assign(self, images: Tensor) -> Tensor:
        return self.scores(F.normalize(self.projector(self.backbone(images)), dim=-1))

    def before_step(self) -> None:
        if self.progress < self.freeze_prototypes:
            self.scores.weight.grad = None
