"""DCCA (Andrew et al., 2013), https://proceedings.mlr.press/v28/andrew13.html."""

from typing import Literal

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
from selftaught.objectives.canonical import canonical_correlations, total_correlation
from selftaught.roles import Blur, Fraction, HeadWidth, Number, Positive
from selftaught.sides import Size


class DCCA(Method):
    """Two networks, one for each view, whose outputs are as correlated as can be.

    The paper's views are the left and the right halves of digits; its networks of three sigmoid
    layers and its L-BFGS, RMSprop in ports of its code, are a backbone and Adam here. Published
    ports maximize other numbers than the sum of the correlations: see `form`.

    Args:
        backbone: image encoder of the first view, which is evaluated.
        dim: width of both outputs; a batch has more than twice as many images.
        pair: what the two views are: halves of a picture, two random crops with other colors, or
            one of each of two modalities, the other one from the data of --second.
        shared: whether one network serves both views, which modalities never do.
        form: of the correlations: their sum, or what other libraries maximize.

    Other Args:
        second_net: timm name of the second network; by default as the first.
        second_channels: of a second modality; by default as many as the first has.
        other: encoder of a second modality of another kind; the engine builds it for the data of
            --second.
        regularize: added to the diagonals of both covariances, above 0.
        scale: area of the crops, as fractions of the image.
        blur: probability, of random crops; 0 for small images.
    """

    recipe = Recipe("adam", lr=1e-3, batch=800, scaling="none", weight_decay=1e-5)
    # correlations of 64 samples in 16 dimensions are mostly chance: nothing was learned from them
    few = Few(dim=16, pair="crops", shared=True, scale=(0.3, 1.0), batch=256)
    insight = Insight("head")

    def __init__(
        self,
        backbone: Image,
        dim: HeadWidth = 50,
        pair: Literal["halves", "crops", "modalities"] = "halves",
        shared: bool = False,
        form: Literal["sum", "frobenius", "squares", "largest"] = "sum",
        regularize: Positive = 1e-3,
        second_net: str = "",
        second_channels: Number = 0,
        scale: tuple[Fraction, Fraction] = (0.8, 1.0),
        blur: Blur = 0.5,
        other: Encoder | None = None,
    ):
        super().__init__()
        self.backbone, self.dim, self.shared = backbone, dim, shared
        self.pair = pair = pair if other is None else "modalities"
        self.form, self.regularize, self.scale, self.blur = form, regularize, scale, blur
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
        if self.form != "sum":
            return ()
        why = f"{self.dim} correlations of 1: too few samples"
        return (ReferenceLoss(-float(self.dim), why, collapsed=True),)

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
        h1 = self.head(self.backbone(one))
        h2 = (self.other_head or self.head)((self.other or self.backbone)(two))
        found = canonical_correlations(
            dist.gather(h1), dist.gather(h2), self.regularize, self.regularize
        )
        return -total_correlation(found, self.form)
