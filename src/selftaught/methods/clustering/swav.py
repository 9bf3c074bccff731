"""SwAV (Caron et al., 2020), https://arxiv.org/abs/2006.09882."""

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment, dist
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
    Role,
    Share,
    SmallViews,
    TeacherTemperature,
    Temperature,
)
from selftaught.sides import Size, part


class SwAV(Method):
    """Predict the balanced assignment of one view to prototypes from every other view.

    The defaults are those of the paper's batches of 256, of 200 and 400 epochs: these are too small
    to balance over thousands of prototypes without a queue. Its batches of 4096 have none
    (`--queue 0`), learning rate 4.8, and 10 epochs of warm-up: 0.1 of 100.

    Args:
        backbone: image encoder that takes several image sizes.
        prototypes: number of clusters.
        temperature: of the predictions' softmax, above 0.
        queue: earlier embeddings, over all processes, that help to balance; 0 for none.
        local_crops: number of small views beside the two global ones.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        hidden: width of the projector's hidden layer.
        dim: width of the embedding.
        epsilon: weight of the entropy of the assignments, above 0.
        iterations: of Sinkhorn's normalizations.
        freeze_prototypes: fraction of training in which the prototypes stay as they are.
        queue_start: fraction of training after which the queue is filled, and used once full; 15
            epochs in the paper.
        local_size: side of small views in pixels, in whole patches; none for 3/7 of the global.
        global_scale, local_scale: area of the crops, as fractions of the image.
    """

    needs = Needs(kinds="any")
    recipe = Recipe(
        "larc",
        lr=0.6,
        weight_decay=1e-6,
        warmup_from=0.0625,
        warmup_full=True,
        end=0.001,
        decay_bias=True,
    )
    # the assignments of a fresh small network are uniform at the paper's epsilon, and stay so
    few = Few(
        hidden=256,
        dim=64,
        global_scale=(0.3, 1.0),
        local_scale=(0.1, 0.4),
        local_crops=2,
        prototypes=128,
        epsilon=0.01,
        freeze_prototypes=0.02,
        queue=0,
    )
    insight = Insight("projector", logits="scores", shares="predicted")
    backbone: Image

    def __init__(
        self,
        backbone: Image,
        prototypes: PrototypeCount = 3000,
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 128,
        temperature: Temperature = 0.1,
        epsilon: TeacherTemperature = 0.05,
        iterations: Count = 3,
        freeze_prototypes: Share = 0.01,
        queue: Annotated[int, Role("queue", least=0)] = 3840,
        queue_start: Share = 0.15,
        local_crops: SmallViews = 6,
        local_size: Count | None = None,
        global_scale: tuple[Fraction, Fraction] = (0.14, 1.0),
        local_scale: tuple[Fraction, Fraction] = (0.05, 0.14),
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.prototypes, self.hidden, self.dim = backbone, prototypes, hidden, dim
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.freeze_prototypes, self.queue, self.queue_start = freeze_prototypes, queue, queue_start
        self.local_crops, self.local_size = local_crops, local_size
        self.global_scale, self.local_scale, self.blur = global_scale, local_scale, blur
        self.projector = mlp(backbone.dim, hidden, dim)
        self.scores = nn.Linear(dim, prototypes, bias=False)
        self.register_buffer("earlier", torch.zeros(2, queue, dim))

    earlier: Tensor
    """[2, queue, dim] embeddings of the two global views, the newest first; zeros until filled."""

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (
            ReferenceLoss(math.log(self.prototypes), f"ln {self.prototypes}, guessing prototypes"),
        )

    def views(self, size: Size) -> Pipeline:
        local_size = self.backbone.fit(part(size, 3, 7, self.local_size))
        scales = self.global_scale, self.local_scale
        blur = (self.blur,) * 3
        return augment.multicrop(size, local_size, self.local_crops, *scales, "swav", blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two global [B, C, H, W], then `local_crops` local [B, C, h, w]."""
        self.normalize_prototypes()
        pooled = each_size(self.backbone, batch.views)
        z = self.projector(pooled.flatten(0, 1)).unflatten(0, pooled.shape[:2])
        return self.swap(F.normalize(z, dim=-1))

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Prototypes are unit vectors, put back by hand before each forward pass: the gradient is
        that of unconstrained ones, as in the paper's code."""
        self.scores.weight.copy_(F.normalize(self.scores.weight, dim=1))

    @full_precision
    def swap(self, z: Tensor) -> Tensor:
        """z: [V, B, dim] unit embeddings, those of the two global views first (Eq. 2 and 6)."""
        scores = self.scores(z)
        targets = torch.stack([self.goals(i, z[i], scores[i]) for i in range(2)])
        return cross_prediction(targets, scores / self.temperature)

    @torch.no_grad()
    def goals(self, view: int, z: Tensor, scores: Tensor) -> Tensor:
        """[B, prototypes] balanced assignment of global view `view`, with the help of the queue."""
        batch = len(scores)
        if self.queue and self.progress >= self.queue_start:
            earlier = self.earlier[view]
            if earlier[-1].any():  # no embedding is zero: the queue is full
                share = earlier.tensor_split(dist.world())[dist.rank()]
                scores = torch.cat([self.scores(share), scores])
            newest = dist.gather(z.detach()).to(earlier.dtype)
            self.earlier[view] = torch.cat([newest, earlier])[: self.queue]
        return sinkhorn(scores, self.epsilon, self.iterations)[-batch:]

    def assign(self, images: Tensor) -> Tensor:
        return self.scores(F.normalize(self.projector(self.backbone(images)), dim=-1))

    def predicted(self, logits: Tensor) -> Tensor:
        """The predictions'."""
        return (logits / self.temperature).softmax(-1)

    def before_step(self) -> None:
        if self.progress < self.freeze_prototypes:
            self.scores.weight.grad = None
