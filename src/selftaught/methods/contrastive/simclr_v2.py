"""SimCLRv2 (Chen et al., 2020), https://arxiv.org/abs/2006.10029."""

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


class SimCLRv2(Method):
    """SimCLR with a deeper head, whose first layer is kept: the first of three stages.

    `simclr_v2_finetune` goes on from that layer with a few labels, `distill` teaches a network
    with all images what came of it. The paper's networks are wide, with selective kernels
    (skresnet50 in timm); its optional memory of earlier embeddings is left out. The recipe is that
    of 800 epochs, of which 5 % are warm-up.

    Args:
        backbone: image encoder.
        temperature: of the softmax over similarities, above 0.
        dim: width of the embedding; hidden layers are as wide as the backbone's features.
        layers: Linear layers of the projector.
        strength: of the color jitter; 0.5 for CIFAR.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.
    """

    recipe = Recipe("lars_tf", lr=0.1, batch=1, scaling="sqrt", weight_decay=1e-4, warmup=0.05)
    few = Few(dim=64, temperature=0.2)
    insight = Insight("projector", pairs="half")
    needs = Needs(kinds=("image", "sound"))

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature = 0.1,
        dim: HeadWidth = 128,
        layers: Count = 3,
        strength: Strength = 1.0,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.temperature = backbone, temperature
        self.dim, self.layers = dim, layers
        self.strength, self.blur = strength, blur
        self.projector = simclr_head(*[backbone.dim] * layers, dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        others = 2 * batch - 1
        return (ReferenceLoss(2 * math.log(others), f"2 ln {others}, guessing in the batch"),)

    def views(self, size: Size) -> Pipeline:
        return augment.simclr(size, self.strength, self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]."""
        z1, z2 = self.projector(self.backbone(torch.cat(batch.views))).chunk(2)
        return nt_xent(z1, z2, self.temperature)
