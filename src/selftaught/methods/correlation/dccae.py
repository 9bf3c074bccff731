"""DCCAE (Wang et al., 2015), https://proceedings.mlr.press/v37/wangb15.html."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment, dist
from selftaught.augment.pairs import Halves, Modalities
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.canonical import (
    canonical_correlations,
    reconstruction,
    total_correlation,
)
from selftaught.parts import mlp
from selftaught.roles import Blur, Count, Fraction, HeadWidth, Number, Positive, TermWeight
from selftaught.sides import Size


class DCCAE(Method):
    """DCCA whose outputs must also tell what each view looked like.

    The paper searches the weight of the reconstruction on held-out data; that of a published port,
    which averages over pixels, is the default of `weight`, and `element_mean` is that average.

    Args:
        backbone: image encoder of the first view, which is evaluated.
        dim: width of both outputs; a batch has more than twice as many images.
        weight: of the reconstruction, at least 0.
        pair: what the two views are: halves of a picture, two random crops with other colors, or
            crops of two pictures, the other one from the data of --second.
        second_net: timm name of the second network; by default as the first.

    Other Args:
        element_mean: whether the error is the mean over pixels, not their sum.
        hidden: width of the decoders' hidden layer.
        side: height in pixels of what is reconstructed, to which views are shrunk.
        second_channels: of a second modality; by default as many as the first has.
        regularize: added to the diagonals of both covariances, above 0.
        scale: area of the crops, as fractions of the image.
        blur: probability, of random crops; 0 for small images.
    """

    recipe = Recipe("adam", lr=1e-3, batch=800, scaling="none", weight_decay=1e-5)
    few = Few(dim=16, pair="crops", scale=(0.3, 1.0), batch=256)
    insight = Insight("head")

    def __init__(
        self,
        backbone: Image,
        dim: HeadWidth = 50,
        weight: TermWeight = 0.001,
        element_mean: bool = False,
        hidden: HeadWidth = 1024,
        side: Count = 16,
        pair: Literal["halves", "crops", "modalities"] = "halves",
        regularize: Positive = 1e-3,
        second_net: str = "",
        second_channels: Number = 0,
        scale: tuple[Fraction, Fraction] = (0.8, 1.0),
        blur: Blur = 0.5,
    ):
        super().__init__()
        if side < 2:
            raise UserError(f"side={side}: at least 2 pixels are needed")
        self.backbone, self.dim, self.hidden, self.side = backbone, dim, hidden, side
        self.weight, self.element_mean, self.pair = weight, element_mean, pair
        self.regularize, self.scale, self.blur = regularize, scale, blur
        self.second_net, self.second_channels = second_net, second_channels
        self.other = backbone.partner(second_net, second_channels)
        second = "other" if pair == "modalities" else ""
        if second:
            self.insight = self.insight._replace(other="other_head")
        self.needs = Needs(batch=2 * dim + 1, second=second)
        self.head, self.other_head = (nn.Linear(n.dim, dim) for n in (backbone, self.other))
        self.shape = (side, side // 2 if pair == "halves" else side)
        self.decoder, self.other_decoder = (
            mlp(dim, hidden, network.channels * self.shape[0] * self.shape[1], norm=False)
            for network in (backbone, self.other)
        )

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        why = f"{self.dim} correlations of 1: too few samples"
        return (ReferenceLoss(-float(self.dim), why, collapsed=True, term="correlation"),)

    def views(self, size: Size) -> Pipeline:
        if self.pair == "crops":
            return augment.simclr(size, 0.5, self.blur, self.scale)
        if self.pair == "modalities":
            crop = augment.crop(size, self.scale)
            return Modalities(crop, crop, self.other.mean, self.other.std)
        return Halves(augment.crop(size, self.scale, flip=0.0))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two [B, C, H, W]."""
        one, two = batch.views
        h1, h2 = self.head(self.backbone(one)), self.other_head(self.other(two))
        errors = [
            reconstruction(self.shrunk(x), decode(h), self.element_mean)
            for x, h, decode in ((one, h1, self.decoder), (two, h2, self.other_decoder))
        ]
        found = canonical_correlations(
            dist.gather(h1), dist.gather(h2), self.regularize, self.regularize
        )
        return {
            "correlation": -total_correlation(found),
            "reconstruction": self.weight * torch.stack(errors).sum(),
        }

    def shrunk(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, pixels] that a decoder is to tell."""
        return F.adaptive_avg_pool2d(x, self.shape).flatten(1)
