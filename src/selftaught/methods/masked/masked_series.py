"""Masked patches of series (PatchTST, Nie et al., 2023), https://arxiv.org/abs/2211.14730."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from selftaught.augment import Pipeline
from selftaught.augment.series import resized
from selftaught.backbones.series.encoder import Series
from selftaught.errors import UserError
from selftaught.method import Batch, Method, Needs, Recipe, ReferenceLoss
from selftaught.roles import HiddenShare


class MaskedSeries(Method):
    """Fill in patches of series that the encoder does not see (section 3.2 of the paper).

    Each channel is its own series, standardized by its mean and deviation; hidden patches are
    zeros, and the loss is the mean squared error over them. Where the paper has batch norms between
    its layers, these are layer norms in front, as in later transformers.

    Args:
        backbone: of series, `patches`.
        ratio: share of the patches that are hidden.
    """

    recipe = Recipe("adam", lr=1e-4, batch=64, scaling="sqrt", warmup=0.3, end=0.0)
    backbone: Series  # pyrefly: ignore[bad-override]
    needs = Needs(backbone="patches", kinds=("series",), views="own", batch=1)

    def __init__(self, backbone: Series, ratio: HiddenShare = 0.4):
        super().__init__()
        if backbone.name != "patches":
            raise UserError(
                f"masked_series hides patches, of which {backbone.name} has none: use --backbone "
                "patches"
            )
        self.backbone, self.ratio = backbone, ratio
        self.count = backbone.size // backbone.patch_size
        self.hide = round(self.count * ratio)
        if not 0 < self.hide < self.count:
            raise UserError(
                f"ratio={ratio} hides {self.hide} of {self.count} patches of {backbone.patch_size} "
                "steps; at least 1 must be seen and 1 hidden: change --ratio, or use a smaller "
                "--patch-size"
            )
        self.head = nn.Linear(backbone.local_dim, backbone.patch_size)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(1.0, "the variance of a series, of which nothing is known"),)

    def views(self, size: int) -> Pipeline:
        return Shuffled(size, self.backbone.channels, self.count)

    def loss(self, batch: Batch) -> Tensor:
        """views: series [B, C, T], and uniform numbers [B, 1, C, N] whose least are hidden."""
        x, order = batch.views
        x = (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True).clamp(min=1e-5)
        hidden = order[:, 0].argsort(2).argsort(2) < self.hide
        wanted = x.unflatten(2, (self.count, -1))
        found = self.head(self.backbone.features(x, hidden).local).view_as(wanted)
        error = (found - wanted).square().mean(3)
        return (error * hidden).sum() / hidden.sum()


@dataclass(frozen=True)
class Shuffled(Pipeline):
    """All of a series, and a number of its own for each patch."""

    size: int
    channels: int
    count: int

    def __call__(self, sample: np.ndarray, rng: np.random.Generator) -> Any:
        """[C, steps] -> float32 [C, size] and [1, C, N], which has no rank of series."""
        x = resized(sample, 0, sample.shape[1], self.size)
        return x, rng.random((1, self.channels, self.count), np.float32)
