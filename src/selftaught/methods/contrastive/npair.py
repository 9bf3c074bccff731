"""N-pair loss (Sohn, 2016), https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective."""

import math

import torch
from torch import Tensor

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.metric import n_pair
from selftaught.parts import mlp
from selftaught.roles import Blur, HeadWidth, Strength, Weight
from selftaught.sides import Size


class NPair(Method):
    """Tell the other view of an image from those of all other images, by plain dot products.

    Embeddings are not normalized, nor is there a temperature: their lengths are learned, and kept
    small by a decay. Each image is a class of its own. The paper's rates are for networks of its
    time; those here are MoCo's.

    Args:
        backbone: image encoder.
        decay: of the embeddings' squared lengths, from 0.
        dim: width of the embedding.
        strength: of the color jitter; 0.5 for CIFAR.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        symmetric: whether second views look for the first ones, too.
        hidden: width of the projector's hidden layer.
    """

    needs = Needs(kinds="any")
    recipe = Recipe("sgd", lr=0.03, weight_decay=1e-4)
    few = Few(hidden=256, dim=64)
    insight = Insight("projector", pairs="half")

    def __init__(
        self,
        backbone: Image,
        decay: Weight = 0.02,
        symmetric: bool = False,
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 128,
        strength: Strength = 1.0,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.decay, self.symmetric = backbone, decay, symmetric
        self.hidden, self.dim = hidden, dim
        self.strength, self.blur = strength, blur
        self.projector = mlp(backbone.dim, hidden, dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(batch), f"ln {batch}, guessing in the batch"),)

    def views(self, size: Size) -> Pipeline:
        return augment.simclr(size, self.strength, self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]."""
        z1, z2 = self.projector(self.backbone(torch.cat(batch.views))).chunk(2)
        return n_pair(z1, z2, self.decay, self.symmetric)
