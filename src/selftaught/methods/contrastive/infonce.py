"""InfoNCE with the negatives of the batch (van den Oord et al., 2018), https://arxiv.org/abs/1807.03748."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.metric import match
from selftaught.parts import mlp
from selftaught.roles import Blur, HeadWidth, Strength, Temperature
from selftaught.sides import Size


class InfoNCE(Method):
    """Find the other view of an image among the other views of all images of the batch, by cosine.

    The bare objective, which CPC introduced: where SimCLR has both views of all other images as
    negatives, this has one. In both directions it is CLIP's loss with images on both sides.

    Args:
        backbone: image encoder.
        temperature: of the softmax over similarities, above 0.
        symmetric: whether second views look for the first ones, too; the mean of both is taken.
        dim: width of the embedding.
        strength: of the color jitter; 0.5 for CIFAR.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        hidden: width of the projector's hidden layer.
    """

    needs = Needs(kinds="any")
    recipe = Recipe("adam", lr=2e-4, scaling="none", schedule="constant")
    few = Few(hidden=256, dim=64, temperature=0.2)
    insight = Insight("projector", pairs="half")

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature = 0.1,
        symmetric: bool = True,
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 128,
        strength: Strength = 1.0,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.temperature, self.symmetric = backbone, temperature, symmetric
        self.hidden, self.dim = hidden, dim
        self.strength, self.blur = strength, blur
        self.projector = mlp(backbone.dim, hidden, dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(batch), f"ln {batch}, guessing in the batch"),)

    def views(self, size: Size) -> Pipeline:
        return augment.simclr(size, self.strength, self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]."""
        z = self.projector(self.backbone(torch.cat(batch.views)))
        z1, z2 = F.normalize(z, dim=1).chunk(2)
        loss = match(z1, z2, self.temperature)
        return (loss + match(z2, z1, self.temperature)) / 2 if self.symmetric else loss
