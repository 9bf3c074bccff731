"""Learning to count (Noroozi et al., 2017), https://arxiv.org/abs/1708.06734."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import (
    Batch,
    Few,
    Insight,
    Method,
    Needs,
    Pictures,
    Pipeline,
    Recipe,
    ReferenceLoss,
)
from selftaught.parts import mlp
from selftaught.precision import full_precision
from selftaught.roles import Count, HeadWidth, Margin, Share
from selftaught.sides import Size, both, one, part, short, told_size

QUARTERS = ("upper left", "lower left", "upper right", "lower right")


class Counting(Method):
    """What the four quarters of an image count adds up to what the whole, made smaller, counts.

    And it does not add up to what another image counts, else all counts could be 0. There is no
    public code of the authors: the loss is the paper's (Eq. 2 and 3); "port" is that of a public
    port to TensorFlow, which squares and bounds each count alone. How the whole is made smaller is
    drawn for each image, so that its traces do not give it away. The recipe is our own.

    Args:
        backbone: image encoder; it sees quarters, and wholes of their size: 114 px at size 228.
        counts: number of things that are counted.
        hidden: widths of the layers between features and counts.
        margin: squared distance that another image's counts should have; 20 in the port.
        form: whose loss.
        gray: probability that an image is gray, so that a quarter is not known by the lens's
            colors.
    """

    recipe = Recipe("adam", lr=1e-4, scaling="none", weight_decay=0.0)
    few = Few(counts=256, hidden=(256,), lr=0.001)
    needs = Needs(views="own")
    insight = Insight(idle=("other",))

    def __init__(
        self,
        backbone: Image,
        counts: Count = 1000,
        hidden: tuple[HeadWidth, ...] = (4096, 4096),
        margin: Margin = 10.0,
        form: Literal["paper", "port"] = "paper",
        gray: Share = 0.66,
    ):
        super().__init__()
        self.backbone, self.counts, self.hidden = backbone, counts, hidden
        self.margin, self.form, self.gray = margin, form, gray
        last = nn.ReLU(inplace=True) if form == "paper" else nn.Identity()
        self.counter = nn.Sequential(mlp(backbone.dim, *hidden, counts, norm=False), last)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(self.margin, f"{self.margin:g}, the margin, nothing is counted"),)

    def views(self, size: Size) -> Pipeline:
        quarter = self.backbone.fit(part(size, 1, 2))
        if short(quarter) < 2:
            raise UserError(
                f"images of {told_size(size)} px have quarters of {told_size(quarter)} px, in "
                "which nothing can be counted: use a larger --size, 228 in the paper"
            )
        whole = one([2 * side for side in both(quarter)])
        view = augment.View(whole, (0.2, 1.0), interpolation="bicubic", gray=self.gray)
        return Halved(augment.Views((view,)))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: images [B, C, 2 * S, 2 * S], and the same made smaller [B, C, S, S]."""
        parts, whole = self.counted(*batch.views)
        pair, other = count(whole, parts.sum(0), whole.roll(1, 0), self.margin, self.form)
        return {"pair": pair, "other": other}

    def counted(self, x: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
        """Images and the same made smaller -> counts of quarters [4, B, counts], of wholes."""
        found = self.counter(self.backbone(torch.cat([*quarters(x), small])))
        return found[: 4 * len(x)].unflatten(0, (4, -1)), found[4 * len(x) :]

    def show(self, batch: Batch) -> Pictures:
        x, small = batch.views
        parts, whole = self.counted(x, small)
        own, other = ((whole - y.sum(0)).norm(dim=1) for y in (parts, parts.roll(1, 1)))
        images = {"whole": small} | dict(zip(QUARTERS, quarters(x)))
        return Pictures(
            "What is counted",
            "Below each image the sum of its counts. One by one, the counts of the four quarters "
            "should add up to those of the whole: “off by” is how far they are from it, and those "
            f"of another image are {other.mean():.2g} away on average.",
            images,
            {name: [f"{c.sum():.2g}" for c in y] for name, y in zip(QUARTERS, parts)}
            | {"whole": [f"{c.sum():.2g}, off by {d:.2g}" for c, d in zip(whole, own)]},
        )


@dataclass(frozen=True)
class Halved(augment.Pipeline):
    """The one view of `views`, [C, 2 * S, 2 * S], and it at half the size by a drawn rule."""

    views: augment.Views

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        (view,) = self.views(image, rng)
        x, half = torch.from_numpy(view)[None], [side // 2 for side in view.shape[1:]]
        rule = ("area", "bilinear", "bicubic")[int(rng.integers(0, 3))]
        if rule == "area":
            small = F.avg_pool2d(x.float(), 2).round().byte()
        else:
            small = F.interpolate(x, half, mode=rule, antialias=True)
        return [view, small[0].numpy()]


def quarters(x: Tensor) -> Tensor:
    """[B, C, 2 * H, 2 * W] -> [4, B, C, H, W]: upper left, lower left, upper right, lower right."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    tops, lefts = (
        (slice(None, height), slice(height, None)),
        (slice(None, width), slice(width, None)),
    )
    return torch.stack([x[:, :, rows, columns] for columns in lefts for rows in tops])


@full_precision
def count(
    whole: Tensor, total: Tensor, other: Tensor, margin: float, form: str
) -> tuple[Tensor, Tensor]:
    """How far counts are from adding up, and how little another image's differ.

    Args:
        whole: [B, D] counts of images made smaller.
        total: [B, D] sums of the counts of their quarters.
        other: [B, D] counts of other images made smaller.
        margin: squared distance from which `other` is far enough.
        form: "paper", squared distances of vectors; "port", of each count, and their mean.
    """
    pair, apart = (whole - total).square(), (other - total).square()
    if form == "paper":
        pair, apart = pair.sum(1), apart.sum(1)
    return pair.mean(), (margin - apart).relu().mean()
