"""SimCLR (Chen et al., 2020), https://arxiv.org/abs/2002.05709."""

import math

import torch
from torch import Tensor

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.contrastive import nt_xent
from selftaught.parts import simclr_head
from selftaught.roles import Blur, Count, HeadWidth, Strength, Temperature
from selftaught.sides import Size


class SimCLR(Method):
    """Find the other view of an image among all other images of the batch.

    Args:
        backbone: image encoder.
        temperature: of the softmax over similarities, above 0.
        dim: width of the embedding.
        strength: of the color jitter; 0.5 for CIFAR.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        hidden: width of the projector's hidden layers.
        layers: Linear layers of the projector; the paper has 2, its code and SimCLRv2 3.
    """

    needs = Needs(kinds="any", shards=True)
    recipe = Recipe("lars_tf", lr=0.3, weight_decay=1e-6, warmup=0.1)
    few = Few(hidden=256, dim=64, temperature=0.2)
    insight = Insight("projector", pairs="half")

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature = 0.1,
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 128,
        layers: Count = 3,
        strength: Strength = 1.0,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.temperature = backbone, temperature
        self.hidden, self.dim, self.layers = hidden, dim, layers
        self.strength, self.blur = strength, blur
        self.projector = simclr_head(backbone.dim, *[hidden] * (layers - 1), dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        others = 2 * batch - 1
        return (ReferenceLoss(2 * math.log(others), f"2 ln {others}, guessing in the batch"),)

    def views(self, size: Size) -> Pipeline:
        return augment.simclr(size, self.strength, self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]."""
        z1, z2 = self.projector(self.backbone(torch.cat(batch.views))).chunk(2)
        return nt_xent(z1, z2, self.temperature)
