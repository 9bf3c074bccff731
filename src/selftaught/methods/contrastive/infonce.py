"""InfoNCE with the negatives of the batch (van den Oord et al., 2018), https://arxiv.org/abs/1807.03748."""

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.augment.pairs import Modalities
from selftaught.backbones import Encoder, Image
from selftaught.method import (
    Batch,
    Few,
    Insight,
    Method,
    Needs,
    Pipeline,
    Recipe,
    ReferenceLoss,
    partner,
)
from selftaught.objectives.metric import match
from selftaught.parts import mlp
from selftaught.precision import full_precision
from selftaught.roles import Blur, Fraction, HeadWidth, Number, Strength, Temperature
from selftaught.sides import Size

PAIRS = Recipe(
    "adamw",
    lr=5e-4,
    batch=32_768,
    scaling="none",
    weight_decay=0.2,
    warmup=0.005,
    betas=(0.9, 0.98),
)
"""CLIP's, of a ViT-B/32."""


class InfoNCE(Method):
    """Find the other view of an image among the other views of all images of the batch, by cosine.

    The bare objective, which CPC introduced: where SimCLR has both views of all other images as
    negatives, this has one.

    With a second modality it is CLIP (Radford et al., 2021, https://arxiv.org/abs/2103.00020, Fig.
    3): a photo and its words find each other among all of the batch. Each modality has an encoder
    and a linear projection of its own, the temperature is learned, and the views are large crops
    without other changes. Where CLIP has 32,768 pairs at once, each harder to tell apart, here are
    as many as fit.

    Args:
        backbone: image encoder.
        temperature: of the softmax over similarities of views, above 0.
        symmetric: whether second views look for the first ones, too; the mean of both is taken.
        dim: width of the embedding.
        strength: of the color jitter; 0.5 for CIFAR.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        hidden: width of the projector's hidden layer, which modalities have none of.
        pair: two views of a sample, or one of each of two modalities, the other one from the data
            of --second.
        second_net: timm name of a second modality's network; by default as the first.
        second_channels: of a second modality; by default as many as the first has.
        pair_temperature: of two modalities, at the beginning: it is learned, and stays above 0.01.
        crop: area of the crops of two modalities, as fractions of the image.
        other: encoder of a second modality of another kind; the engine builds it for the data of
            --second.
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
        pair: Literal["views", "modalities"] = "views",
        second_net: str = "",
        second_channels: Number = 0,
        pair_temperature: Temperature = 0.07,
        crop: tuple[Fraction, Fraction] = (0.5, 1.0),
        other: Encoder | None = None,
    ):
        super().__init__()
        self.backbone, self.temperature, self.symmetric = backbone, temperature, symmetric
        self.hidden, self.dim = hidden, dim
        self.strength, self.blur = strength, blur
        self.pair = pair if other is None else "modalities"
        self.second_net, self.second_channels = second_net, second_channels
        self.pair_temperature, self.crop = pair_temperature, crop
        self.other = self.log_scale = None
        if self.pair == "views":
            self.projector: nn.Module = mlp(backbone.dim, hidden, dim)
            return
        self.needs = replace(self.needs, second="other")
        self.insight = Insight("projector", other="other_projector")
        self.recipe = PAIRS
        self.other = partner(backbone, other, second_net, second_channels)
        self.projector = nn.Linear(backbone.dim, dim, bias=False)
        self.other_projector = nn.Linear(self.other.dim, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(pair_temperature)))

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(batch), f"ln {batch}, guessing in the batch"),)

    def views(self, size: Size) -> Pipeline:
        if self.other is None:
            return augment.simclr(size, self.strength, self.blur)
        crop = augment.crop(size, self.crop, flip=0.0)  # words may say which side
        return Modalities(crop, crop, self.other.mean, self.other.std)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W], or one of each modality."""
        if self.other is not None and self.log_scale is not None:
            with torch.no_grad():  # after the last step: the paper's bound on the scale
                self.log_scale.clamp_(max=math.log(100.0))
            one, two = batch.views
            z1 = self.projector(self.backbone(one))
            return self.compare(z1, self.other_projector(self.other(two)), self.log_scale)
        z = self.projector(self.backbone(torch.cat(batch.views)))
        z1, z2 = F.normalize(z, dim=1).chunk(2)
        loss = match(z1, z2, self.temperature)
        return (loss + match(z2, z1, self.temperature)) / 2 if self.symmetric else loss

    @full_precision
    def compare(self, z1: Tensor, z2: Tensor, log_scale: Tensor) -> Tensor:
        """The loss of embeddings [B, dim] of two modalities, by the cosines times a scale."""
        z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
        temperature = (-log_scale).exp()
        loss = match(z1, z2, temperature)
        return (loss + match(z2, z1, temperature)) / 2 if self.symmetric else loss
