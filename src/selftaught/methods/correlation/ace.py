"""ACE (Breiman and Friedman, 1985), https://doi.org/10.1080/01621459.1985.10478157."""

from typing import Literal

import torch
from torch import Tensor, nn

from selftaught import augment, dist
from selftaught.augment.pairs import Halves, Modalities
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
from selftaught.objectives.whitening import cholesky_whiten
from selftaught.precision import full_precision
from selftaught.roles import Blur, Fraction, HeadWidth, Number
from selftaught.sides import Size


class ACE(Method):
    """Each network learns the conditional expectation of the other's standardized output.

    The classical algorithm finds the most correlated transforms of numbers, and is the function
    `selftaught.objectives.ace.ace`. For images its smoothers, whose fit is a conditional
    expectation, become networks under squared error: phi(x) approaches E[theta(y) | x], theta(y)
    approaches E[phi(x) | y], each with the other standardized and held fixed. With `dim`
    transforms, standardizing is whitening, and they are the pairs of largest correlation.

    Args:
        backbone: image encoder of the first view, which is evaluated.
        dim: number of transforms; a batch has more than twice as many images.
        pair: what the two views are: halves of a picture, two random crops with other colors, or
            one of each of two modalities, the other one from the data of --second.
        shared: whether one network serves both views, which modalities never do.

    Other Args:
        second_net: timm name of the second network; by default as the first.
        second_channels: of a second modality; by default as many as the first has.
        other: encoder of a second modality of another kind; the engine builds it for the data of
            --second.
        eps: weight of the identity in the covariance that is whitened, in (0, 1].
        scale: area of the crops, as fractions of the image.
        blur: probability, of random crops; 0 for small images.
    """

    recipe = Recipe("adam", lr=1e-3, batch=256, scaling="none", weight_decay=1e-5)
    few = Few(scale=(0.3, 1.0), batch=256)
    insight = Insight("head")

    def __init__(
        self,
        backbone: Image,
        dim: HeadWidth = 16,
        pair: Literal["halves", "crops", "modalities"] = "crops",
        shared: bool = True,
        eps: Fraction = 1e-3,
        second_net: str = "",
        second_channels: Number = 0,
        scale: tuple[Fraction, Fraction] = (0.2, 1.0),
        blur: Blur = 0.5,
        other: Encoder | None = None,
    ):
        super().__init__()
        self.backbone, self.dim, self.shared = backbone, dim, shared
        self.pair = pair = pair if other is None else "modalities"
        self.eps, self.scale, self.blur = eps, scale, blur
        self.head = nn.Linear(backbone.dim, dim)
        self.second_net, self.second_channels = second_net, second_channels
        one = shared and pair != "modalities"
        self.other = None if one else partner(backbone, other, second_net, second_channels)
        second = "other" if pair == "modalities" else ""
        if second:
            self.insight = self.insight._replace(other="other_head")
        self.needs = Needs(batch=2 * dim + 1, second=second)
        self.other_head = None if self.other is None else nn.Linear(self.other.dim, dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(1.0, "1, nothing of the other view is told"),)

    def views(self, size: Size) -> Pipeline:
        if self.pair == "crops":
            return augment.simclr(size, 0.5, self.blur, self.scale)
        if self.other is not None and self.pair == "modalities":
            crop = augment.crop(size, self.scale)
            return Modalities(crop, crop, self.other.mean, self.other.std)
        return Halves(augment.crop(size, self.scale, flip=0.0))

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W], or one of each modality."""
        one, two = batch.views
        phi = self.head(self.backbone(one))
        theta = (self.other_head or self.head)((self.other or self.backbone)(two))
        return self.alternate(phi, theta)

    @full_precision
    def alternate(self, phi: Tensor, theta: Tensor) -> Tensor:
        """Mean share of each other's variance that outputs [B, dim] leave unexplained."""
        phi, theta = dist.gather(phi), dist.gather(theta)
        with torch.no_grad():
            of_phi, of_theta = (cholesky_whiten(h, self.eps) for h in (phi, theta))
        both = (phi - of_theta).square().mean() + (theta - of_phi).square().mean()
        return both / 2
