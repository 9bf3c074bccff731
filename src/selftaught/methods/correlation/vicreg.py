"""VICReg (Bardes et al., 2022), https://arxiv.org/abs/2105.04906."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import augment, dist
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
from selftaught.parts import mlp
from selftaught.precision import full_precision
from selftaught.roles import Blur, Count, HeadWidth, Number, TermWeight
from selftaught.sides import Size


class VICReg(Method):
    """Keep two views' embeddings alike, each dimension spread out, and dimensions uncorrelated.

    As in the reference code, the variance term is the mean of the two views' (the paper's
    Algorithm 1 has their sum, which is variance = 50). The branches need neither share weights nor
    be alike: two modalities, each with a network and an expander of its own, are a pair too. The
    recipe is the reference's command for 100 epochs; that for 1000 has learning rate 0.2 and
    warm-up 0.01 (10 epochs always).

    Args:
        backbone: image encoder.
        invariance, variance, covariance: weights of the three terms.
        blur, solarize: probabilities in the first and the second view; 0,0 for small images.

    Other Args:
        hidden: width of the expander's hidden layers.
        dim: width of the embedding.
        layers: Linear layers of the expander.
        pair: two views of a sample, or one of each of two modalities, the other one from the data
            of --second.
        second_net: timm name of a second modality's network; by default as the first.
        second_channels: of a second modality; by default as many as the first has.
        other: encoder of a second modality of another kind; the engine builds it for the data of
            --second.
    """

    needs = Needs(kinds="any")
    recipe = Recipe("lars", lr=0.3, weight_decay=1e-6, warmup=0.1, end=0.001)
    few = Few(hidden=512, dim=512, lr=0.001)
    insight = Insight("projector", idle=("variance",))

    def __init__(
        self,
        backbone: Image,
        invariance: TermWeight = 25.0,
        variance: TermWeight = 25.0,
        covariance: TermWeight = 1.0,
        hidden: HeadWidth = 8192,
        dim: HeadWidth = 8192,
        layers: Count = 3,
        blur: tuple[Blur, Blur] = (1.0, 0.1),
        solarize: tuple[Blur, Blur] = (0.0, 0.2),
        pair: Literal["views", "modalities"] = "views",
        second_net: str = "",
        second_channels: Number = 0,
        other: Encoder | None = None,
    ):
        super().__init__()
        self.backbone, self.hidden, self.dim, self.layers = backbone, hidden, dim, layers
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.blur, self.solarize = blur, solarize
        self.pair = pair if other is None else "modalities"
        self.second_net, self.second_channels = second_net, second_channels
        widths = (*[hidden] * (layers - 1), dim)
        self.projector = mlp(backbone.dim, *widths, last_bias=False)
        self.other = self.other_projector = None
        if self.pair == "modalities":
            self.needs = replace(self.needs, second="other")
            self.insight = self.insight._replace(other="other_projector")
            self.other = partner(backbone, other, second_net, second_channels)
            self.other_projector = mlp(self.other.dim, *widths, last_bias=False)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        none = self.variance * variance_hinge(torch.zeros(2, 1)).item()
        return (ReferenceLoss(none, "no dimension varies", collapsed=True, term="variance"),)

    def views(self, size: Size) -> Pipeline:
        views = augment.byol(size, blur=self.blur, solarize=self.solarize)
        if self.other is None:
            return views
        first = augment.Views(views.views[:1])
        second = augment.crop(size, scale=(0.08, 1.0))  # it need not have colors
        return Modalities(first, second, self.other.mean, self.other.std)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two [B, C, H, W], or one of each modality; each has batch norms alone."""
        one, two = batch.views
        z1 = self.projector(self.backbone(one))
        z2 = (self.other_projector or self.projector)((self.other or self.backbone)(two))
        return self.compare(z1, z2)

    @full_precision
    def compare(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """The three terms of embeddings [B, dim]."""
        alike = F.mse_loss(z1, z2)
        z1, z2 = dist.gather(z1), dist.gather(z2)
        return {
            "invariance": self.invariance * alike,
            "variance": self.variance * (variance_hinge(z1) + variance_hinge(z2)) / 2,
            "covariance": self.covariance * (covariance(z1) + covariance(z2)),
        }


def variance_hinge(z: Tensor, eps: float = 1e-4) -> Tensor:
    """How far the standard deviations of [B, D] stay below 1, on average (Eq. 1)."""
    return F.relu(1 - (z.var(0) + eps).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """Sum of the squared covariances of different dimensions of [B, D], over D (Eq. 4).

    With more dimensions than samples, that of all is taken from the B x B Gram matrix, which has
    the same norm, and nothing of size D x D is made.
    """
    count, dim = z.shape
    z = z - z.mean(0)
    product = z @ z.mT if count < dim else z.mT @ z
    every = product.square().sum() - z.square().sum(0).square().sum()
    return every / (count - 1) ** 2 / dim
