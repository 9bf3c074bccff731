"""Decoupled contrastive learning (Yeh et al., 2022), https://arxiv.org/abs/2110.06848."""

import math

import torch
from torch import Tensor

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.negatives import decoupled
from selftaught.parts import simclr_head
from selftaught.roles import Blur, Count, HeadWidth, Strength, Temperature
from selftaught.sides import Size


class DCL(Method):
    """SimCLR without the positive in its denominator, which learns from small batches as well.

    Weighted (DCLW), positives that are still far apart pull more.

    Args:
        backbone: image encoder.
        temperature: of similarities, above 0; 0.07 on CIFAR.
        dim: width of the embedding.
        strength: of the color jitter; 0.5 for CIFAR.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        weighted: whether positives are weighted.
        sigma: temperature of these weights, above 0.
        through_weights: whether gradient flows through the weights, as in one reimplementation;
            the paper does not say.
        hidden: width of the projector's hidden layers.
        layers: Linear layers of the projector.
    """

    needs = Needs(kinds="any")
    recipe = Recipe("sgd", lr=0.03, weight_decay=1e-4)
    few = Few(hidden=256, dim=64, temperature=0.2)
    insight = Insight("projector", pairs="half")

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature = 0.1,
        weighted: bool = False,
        sigma: Temperature = 0.5,
        through_weights: bool = False,
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 128,
        layers: Count = 2,
        strength: Strength = 1.0,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.temperature = backbone, temperature
        self.weighted, self.sigma, self.through_weights = weighted, sigma, through_weights
        self.hidden, self.dim, self.layers = hidden, dim, layers
        self.strength, self.blur = strength, blur
        self.projector = simclr_head(backbone.dim, *[hidden] * (layers - 1), dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        others = 2 * batch - 2
        return (ReferenceLoss(math.log(others), f"ln {others}, guessing in the batch"),)

    def views(self, size: Size) -> Pipeline:
        return augment.simclr(size, self.strength, self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]."""
        z1, z2 = self.projector(self.backbone(torch.cat(batch.views))).chunk(2)
        how = (self.temperature, self.sigma if self.weighted else None, self.through_weights)
        return (decoupled(z1, z2, *how) + decoupled(z2, z1, *how)) / 2
