"""MoCo v2 (Chen et al., 2020), https://arxiv.org/abs/2003.04297; v1: He et al., 2020."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.contrastive import info_nce
from selftaught.objectives.negatives import hard_negatives
from selftaught.parts import Queue, ema, frozen_copy, mlp
from selftaught.parts.shuffle import shuffled
from selftaught.roles import Blur, HeadWidth, Momentum, QueueLength, Temperature, Weight
from selftaught.sides import Size


class MoCoV2(Method):
    """Find the key of an image, by a momentum encoder, among a queue of earlier keys.

    Args:
        backbone: image encoder.
        temperature: of the softmax over similarities, above 0.
        queue: number of earlier keys; fewer than there are images, or a key is its own negative.
        momentum: of the momentum encoder (EMA), in [0, 1); lower for short trainings.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        dim: width of the embedding.
        symmetric: whether each view is a query, too, for twice the passes.
        hardness: how much nearer negatives weigh more (Robinson et al., 2021); 0 for alike.
    """

    recipe = Recipe("sgd", lr=0.03, weight_decay=1e-4, decay_bias=True, by_epoch=True)
    few = Few(dim=64, queue=2048)
    needs = Needs(batchnorm="own", kinds="any")
    insight = Insight(
        "projector",
        copies=(("target.0", "backbone"), ("target.1", "projector")),
        pairs="same",
        memory=("negatives.items",),
        mixed="mixed_loss",
    )

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature = 0.2,
        dim: HeadWidth = 128,
        queue: QueueLength = 65536,
        momentum: Momentum = 0.999,
        blur: Blur = 0.5,
        symmetric: bool = False,
        hardness: Weight = 0.0,
    ):
        super().__init__()
        self.backbone, self.temperature, self.dim = backbone, temperature, dim
        self.queue, self.momentum, self.blur = queue, momentum, blur
        self.symmetric, self.hardness = symmetric, hardness
        self.projector = mlp(backbone.dim, backbone.dim, dim, norm=False)
        self.target = frozen_copy(self.online)
        self.negatives = Queue(queue, dim)

    @property
    def online(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.projector)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        keys = self.queue + 1
        return (ReferenceLoss(math.log(keys), f"ln {keys}, guessing among the queue"),)

    def views(self, size: Size) -> Pipeline:
        return augment.moco(size, blur=self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W], the query's and the key's."""
        queries = [F.normalize(self.online(x), dim=1) for x in self._sides(batch)]
        keys = self._keys(batch)
        # a copy, as the gradient needs the queue that the loss saw
        negatives = self.negatives.items.clone()
        losses = [self._find(q, k, negatives) for q, k in zip(queries, keys)]
        self.negatives.push(torch.cat(keys[::-1]))
        return torch.stack(losses).sum()

    def mixed_loss(self, mixed: Tensor, share: float, batch: Batch) -> Tensor:
        """Mixtures are queries alone; the keys are those of plain images."""
        query = F.normalize(self.online(mixed), dim=1)
        negatives = self.negatives.items.clone()
        losses = [
            weight * self._find(q, key, negatives)
            for key in self._keys(batch)
            for q, weight in ((query, share), (query.flip(0), 1 - share))
        ]
        return torch.stack(losses).sum()

    def _find(self, query: Tensor, key: Tensor, negatives: Tensor) -> Tensor:
        if not self.hardness:
            return info_nce(query, key, negatives, self.temperature)
        alike = (query * key).sum(1), query @ negatives.mT
        return hard_negatives(*alike, self.temperature, self.hardness)

    def _sides(self, batch: Batch) -> Sequence[Tensor]:
        """The views that are queries."""
        return batch.views if self.symmetric else batch.views[:1]

    def _keys(self, batch: Batch) -> list[Tensor]:
        """The key of each query: of the other view."""
        others = batch.views[::-1][: len(self._sides(batch))]
        return [F.normalize(shuffled(self.target, x), dim=1) for x in others]

    def after_step(self) -> None:
        # the reference does this at the start of the next step, which is the same
        ema(self.target, self.online, self.momentum)
