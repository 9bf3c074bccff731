"""Supervised contrastive learning (Khosla et al., 2020), https://arxiv.org/abs/2004.11362."""

import math

import torch
from torch import Tensor

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.negatives import supervised
from selftaught.parts import mlp
from selftaught.roles import Blur, HeadWidth, Temperature
from selftaught.sides import Size


class SupCon(Method):
    """Find the views of all images of the same class among those of the batch; needs labels.

    The recipe is that of the paper's code, whose rate falls after 700, 800 and 900 of 1000 epochs.

    Args:
        backbone: image encoder.
        temperature: of the softmax over similarities, above 0.
        dim: width of the embedding.
        blur: probability of Gaussian blur; 0 in the paper's code.
    """

    recipe = Recipe(
        "sgd",
        lr=0.05,
        weight_decay=1e-4,
        schedule="step",
        milestones=(0.7, 0.8, 0.9),
        by_epoch=True,
        decay_bias=True,
    )
    few = Few(dim=64, temperature=0.2)
    needs = Needs(labels=True, kinds="any")
    insight = Insight("projector", pairs="half")

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature = 0.07,
        dim: HeadWidth = 128,
        blur: Blur = 0.0,
    ):
        super().__init__()
        self.backbone, self.temperature = backbone, temperature
        self.dim, self.blur = dim, blur
        self.projector = mlp(backbone.dim, backbone.dim, dim, norm=False)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        others = 2 * batch - 1
        return (ReferenceLoss(math.log(others), f"ln {others}, guessing in the batch"),)

    def views(self, size: Size) -> Pipeline:
        return augment.moco(size, blur=self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]; label: [B]."""
        assert batch.label is not None
        z1, z2 = self.projector(self.backbone(torch.cat(batch.views))).chunk(2)
        return supervised(torch.stack([z1, z2], 1), batch.label, self.temperature)
