"""MoCo v1 (He et al., 2020), https://arxiv.org/abs/1911.05722."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.contrastive import info_nce
from selftaught.parts import Queue, ema, frozen_copy
from selftaught.parts.shuffle import shuffled
from selftaught.roles import HeadWidth, Momentum, QueueLength, Temperature
from selftaught.sides import Size


class MoCoV1(Method):
    """Find the key of an image among a queue of earlier ones; one Linear layer is the projector.

    Beside v2, whose projector has two layers: a sharper softmax, views that are always jittered
    and never blurred, and a rate that falls in steps, after 120 and 160 of 200 epochs.

    Args:
        backbone: image encoder.
        temperature: of the softmax over similarities, above 0.
        dim: width of the embedding.
        queue: number of earlier keys; fewer than there are images, or a key is its own negative.
        momentum: of the momentum encoder (EMA), in [0, 1); lower for short trainings.
    """

    recipe = Recipe(
        "sgd",
        lr=0.03,
        weight_decay=1e-4,
        decay_bias=True,
        by_epoch=True,
        schedule="step",
        milestones=(0.6, 0.8),
    )
    few = Few(dim=64, queue=2048)
    needs = Needs(batchnorm="own", kinds="any")
    insight = Insight(
        "projector",
        copies=(("target.0", "backbone"), ("target.1", "projector")),
        pairs="same",
        memory=("negatives.items",),
    )

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature = 0.07,
        dim: HeadWidth = 128,
        queue: QueueLength = 65536,
        momentum: Momentum = 0.999,
    ):
        super().__init__()
        self.backbone, self.temperature, self.dim = backbone, temperature, dim
        self.queue, self.momentum = queue, momentum
        self.projector = nn.Linear(backbone.dim, dim)
        self.target = frozen_copy(self.online)
        self.negatives = Queue(queue, dim)

    @property
    def online(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.projector)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        keys = self.queue + 1
        return (ReferenceLoss(math.log(keys), f"ln {keys}, guessing among the queue"),)

    def views(self, size: Size) -> Pipeline:
        return augment.moco_v1(size)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W], the query's and the key's."""
        x1, x2 = batch.views
        query = F.normalize(self.online(x1), dim=1)
        key = F.normalize(shuffled(self.target, x2), dim=1)
        # a copy, as the gradient needs the queue that the loss saw
        loss = info_nce(query, key, self.negatives.items.clone(), self.temperature)
        self.negatives.push(key)
        return loss

    def after_step(self) -> None:
        # the reference does this at the start of the next step, which is the same
        ema(self.target, self.online, self.momentum)
