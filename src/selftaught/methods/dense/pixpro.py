"""PixPro (Xie et al., 2021), https://arxiv.org/abs/2011.10043."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import augment
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Insight, Method, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.cells import near
from selftaught.parts import each_cell, ema, frozen_copy, mlp, projected_cells
from selftaught.parts.drawing import matches, verdicts
from selftaught.precision import full_precision
from selftaught.roles import Blur, Fraction, HeadWidth, Momentum, Number, Positive
from selftaught.schedule import cosine
from selftaught.sides import Size


class PixPro(Method):
    """Predict, for each cell, a momentum encoder's embedding of the same place in the other view.

    A cell's prediction is gathered from all cells of its view that are like it, so that it is
    smooth where the image is. The defaults are those of 100 epochs.

    Args:
        backbone: image encoder with local features.
        ratio: distance below which two cells show the same place, in diagonals of a cell.
        power: of the similarity by which cells are gathered; larger is sharper.
        momentum: of the momentum encoder (EMA) at the start, in [0, 1); it rises to 1.
        blur, solarize: probabilities in the first and the second view; 0,0 for small images.

    Other Args:
        clamp: least similarity.
        layers: of the transformation of what is gathered: 0, 1 or 2.
        hidden: width of the projector's hidden layer.
        dim: width of the embedding.
        scale: area of the crops, as fractions of the image.
    """

    recipe = Recipe("lars", lr=1.0, batch=256, weight_decay=1e-5, warmup=0.05)
    few = Few(hidden=512, dim=128)
    # no predictor, as cells go beside `value` too; no pairs: cells of the same number show others
    insight = Insight("projector", copies=(("target.0", "backbone"), ("target.1", "projector")))

    def __init__(
        self,
        backbone: Image,
        ratio: Positive = 0.7,
        power: Positive = 2.0,
        clamp: float = 0.0,
        layers: Number = 1,
        momentum: Momentum = 0.99,
        hidden: HeadWidth = 4096,
        dim: HeadWidth = 256,
        scale: tuple[Fraction, Fraction] = (0.08, 1.0),
        blur: tuple[Blur, Blur] = (1.0, 0.1),
        solarize: tuple[Blur, Blur] = (0.0, 0.2),
    ):
        super().__init__()
        if layers not in (0, 1, 2):
            raise UserError(f"layers={layers}: what is gathered goes through 0, 1 or 2 layers")
        self.backbone, self.ratio, self.power, self.clamp = backbone, ratio, power, clamp
        self.layers, self.momentum, self.hidden, self.dim = layers, momentum, hidden, dim
        self.scale, self.blur, self.solarize = scale, blur, solarize
        self.projector = mlp(backbone.local_dim, hidden, dim)
        self.value = mlp(*[dim] * (layers + 1)) if layers else nn.Identity()
        self.target = frozen_copy(self.online)

    @property
    def online(self) -> nn.ModuleList:
        """What the target follows."""
        return nn.ModuleList([self.backbone, self.projector])

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (
            ReferenceLoss(0.0, "cells have nothing in common"),
            ReferenceLoss(-4.0, "-2 for each view, all cells are the same", collapsed=True),
        )

    def views(self, size: Size) -> Pipeline:
        views = augment.byol(size, self.scale, "bilinear", self.blur, self.solarize)
        return augment.Cornered(views)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]; their corners [B, 2, 4]."""
        (x1, x2), corners = batch.views
        p1, p2 = (self.predict(x) for x in (x1, x2))
        with torch.no_grad():
            (z1, grid), (z2, _) = (projected_cells(self.target, x) for x in (x1, x2))
        same = near(corners[:, 0], corners[:, 1], grid, self.ratio)
        return regression(p1, z2, same) + regression(p2, z1, same.mT)

    def predict(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, N, dim]."""
        z, _ = projected_cells(self.online, x)
        return propagate(z, each_cell(self.value, z), self.power, self.clamp)

    def show(self, batch: Batch) -> Pictures:
        (x1, x2), corners = batch.views
        p1, (z2, grid) = self.predict(x1), projected_cells(self.target, x2)
        mean, std = self.backbone.mean, self.backbone.std
        found = matches((x1, x2), (p1, z2), grid, mean, std)
        same = near(corners[:, 0], corners[:, 1], grid, self.ratio)
        return Pictures(
            "Matching cells",
            f"The {found.cells.shape[1]} cells of one view whose prediction fits best, and what "
            "they fit in the other, framed in the same color; below, how many of these are the "
            "same place.",
            found.columns,
            {"the other": verdicts(found, same)},
        )

    def after_step(self) -> None:
        ema(self.target, self.online, cosine(self.momentum, 1.0, self.progress))


@full_precision
def propagate(cells: Tensor, values: Tensor, power: float, clamp: float) -> Tensor:
    """Each cell as the sum of all cells' values, weighted by its similarity to them (Eq. 3 and 4).

    As in the paper's code, values have unit length, and the weights' sum is not divided by.

    Args:
        cells, values: [B, N, D].
        power: of the cosine, above 0.
        clamp: least cosine.
    """
    unit = normalize(cells, dim=-1)
    similarity = (unit @ unit.mT).clamp_min(clamp)
    if power < 1:
        similarity = similarity + 1e-6  # the slope at 0 is infinite
    return similarity**power @ normalize(values, dim=-1)


@full_precision
def regression(predicted: Tensor, target: Tensor, same: Tensor) -> Tensor:
    """-2 cos of cells that show the same place: their mean in each image, then of the images.

    Images of which the two views have nothing in common count as 0.

    Args:
        predicted, target: [B, N, D].
        same: bool [B, N, N].
    """
    cosine = normalize(predicted, dim=-1) @ normalize(target, dim=-1).mT
    mean = (cosine * same).sum((1, 2)) / (same.to(cosine).sum((1, 2)) + 1e-6)
    return -2 * mean.mean()
