"""Hard negative contrastive learning (Robinson et al., 2021), https://arxiv.org/abs/2010.04592."""

import math

import torch
from torch import Tensor

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.negatives import hard_negatives, similarities
from selftaught.parts import mlp
from selftaught.roles import Blur, HeadWidth, PartialShare, Strength, Temperature, Weight
from selftaught.sides import Size


class HCL(Method):
    """SimCLR in which the nearest negatives weigh most, and false ones are reckoned with.

    With hardness 0 it is the debiased contrastive loss of Chuang et al. (2020), with prior 0 as
    well SimCLR. Defaults are those of the paper's code for images of 32 and 96 pixels.

    Args:
        backbone: image encoder.
        temperature: of similarities, above 0.
        hardness: beta, how much nearer negatives weigh more; 0 for alike.
        dim: width of the embedding.
        strength: of the color jitter; 1 for large images.
        blur: probability of Gaussian blur; 0.5 for large images.

    Other Args:
        prior: tau+, the chance that another image is of the same class, in [0, 1).
        hidden: width of the projector's hidden layer.
    """

    needs = Needs(kinds="any")
    recipe = Recipe(
        "adam", lr=1e-3, scaling="none", weight_decay=1e-6, schedule="constant", decay_bias=True
    )
    few = Few(hidden=256, dim=64)
    insight = Insight("projector", pairs="half")

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature = 0.5,
        hardness: Weight = 1.0,
        prior: PartialShare = 0.1,
        hidden: HeadWidth = 512,
        dim: HeadWidth = 128,
        strength: Strength = 0.5,
        blur: Blur = 0.0,
    ):
        super().__init__()
        self.backbone, self.temperature = backbone, temperature
        self.hardness, self.prior = hardness, prior
        self.hidden, self.dim = hidden, dim
        self.strength, self.blur = strength, blur
        self.projector = mlp(backbone.dim, hidden, dim, bias=False)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        others = 2 * batch - 1
        return (ReferenceLoss(math.log(others), f"ln {others}, guessing in the batch"),)

    def views(self, size: Size) -> Pipeline:
        return augment.simclr(size, self.strength, self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]."""
        z1, z2 = self.projector(self.backbone(torch.cat(batch.views))).chunk(2)
        how = (self.temperature, self.hardness, self.prior)
        first, second = similarities(z1, z2), similarities(z2, z1)
        return (hard_negatives(*first, *how) + hard_negatives(*second, *how)) / 2
