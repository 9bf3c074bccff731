"""Triplet loss (Schroff et al., 2015), batch-hard (Hermans et al., 2017), https://arxiv.org/abs/1703.07737."""

import math
from typing import Literal

import torch
from torch import Tensor

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.metric import hardest, triplet_loss
from selftaught.parts import mlp
from selftaught.roles import Blur, HeadWidth, Margin, Strength
from selftaught.sides import Size


class Triplet(Method):
    """Be nearer to the other view of an image than to the nearest view of any other image.

    Mining is batch-hard: of all embeddings in the batch, each one's farthest positive (here the
    other view alone) and nearest negative make its triplet. FaceNet's loss is margin 0.2 with
    squared distances. The paper's rate falls exponentially in the last 40 %, this one linearly.

    Args:
        backbone: image encoder.
        margin: by how much nearer, above 0; none for the paper's soft margin.
        distance: between embeddings, Euclidean as in Hermans et al. or squared as in Schroff et al.
        hidden: width of the projector's hidden layer.
        dim: width of the embedding.
        strength: of the color jitter; 0.5 for CIFAR.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.
    """

    needs = Needs(kinds="any")
    recipe = Recipe("adam", lr=3e-4, scaling="none", schedule="constant", cooldown=0.4)
    # the nearest of 127 other views is too near: at 2e-3 everything fell into one point, and at the
    # paper's rate the soft margin stayed above ln 2, where it is when all embeddings are alike
    few = Few(hidden=256, dim=64, lr=0.0003, batch=16)
    insight = Insight("projector", pairs="half")

    def __init__(
        self,
        backbone: Image,
        margin: Margin | None = None,
        distance: Literal["euclidean", "squared"] = "euclidean",
        hidden: HeadWidth = 1024,
        dim: HeadWidth = 128,
        strength: Strength = 1.0,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.margin, self.distance = backbone, margin, distance
        self.hidden, self.dim = hidden, dim
        self.strength, self.blur = strength, blur
        self.projector = mlp(backbone.dim, hidden, dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        if self.margin is None:
            return (ReferenceLoss(math.log(2), "ln 2, all embeddings alike"),)
        return (ReferenceLoss(self.margin, "the margin, all embeddings alike"),)

    def views(self, size: Size) -> Pipeline:
        return augment.simclr(size, self.strength, self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]."""
        anchors = self.projector(self.backbone(torch.cat(batch.views)))
        z1, z2 = anchors.chunk(2)
        everyone = torch.cat([dist.gather(z1), dist.gather(z2)])
        image = torch.arange(len(everyone) // 2, device=anchors.device)
        own = (image[: len(z1)] + dist.rank() * len(z1)).repeat(2)
        positive, negative = hardest(anchors, everyone, own[:, None] == image.repeat(2))
        squared = self.distance == "squared"
        return triplet_loss(anchors, everyone[positive], everyone[negative], self.margin, squared)
