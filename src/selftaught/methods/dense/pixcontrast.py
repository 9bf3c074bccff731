"""PixContrast (Xie et al., 2021), https://arxiv.org/abs/2011.10043."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.cells import near
from selftaught.parts import ema, frozen_copy, mlp, projected_cells
from selftaught.parts.drawing import matches, verdicts
from selftaught.precision import full_precision
from selftaught.roles import Blur, Fraction, HeadWidth, Momentum, Positive, Temperature
from selftaught.schedule import cosine
from selftaught.sides import Size, both


class PixContrast(Method):
    """Tell, for each cell, the same place in the other view from all other places of that view.

    There is no public code: the loss is the paper's (Eq. 2), the views, their overlap, the
    momentum encoder, and that each view is shown to both networks, are PixPro's.

    Args:
        backbone: image encoder with local features.
        ratio: distance below which two cells show the same place, in diagonals of a cell.
        temperature: of the softmax over similarities, above 0.
        momentum: of the momentum encoder (EMA) at the start, in [0, 1); it rises to 1.
        blur, solarize: probabilities in the first and the second view; 0,0 for small images.

    Other Args:
        hidden: width of the projector's hidden layer.
        dim: width of the embedding.
        scale: area of the crops, as fractions of the image.
    """

    recipe = Recipe("lars", lr=1.0, batch=256, weight_decay=1e-5, warmup=0.05)
    few = Few(hidden=512, dim=128)
    # no pairs: cells of the same number show other places
    insight = Insight("projector", copies=(("target.0", "backbone"), ("target.1", "projector")))

    def __init__(
        self,
        backbone: Image,
        ratio: Positive = 0.7,
        temperature: Temperature = 0.3,
        momentum: Momentum = 0.99,
        hidden: HeadWidth = 4096,
        dim: HeadWidth = 256,
        scale: tuple[Fraction, Fraction] = (0.08, 1.0),
        blur: tuple[Blur, Blur] = (1.0, 0.1),
        solarize: tuple[Blur, Blur] = (0.0, 0.2),
    ):
        super().__init__()
        self.backbone, self.ratio, self.temperature = backbone, ratio, temperature
        self.momentum, self.hidden, self.dim = momentum, hidden, dim
        self.scale, self.blur, self.solarize = scale, blur, solarize
        self.cells = math.prod(math.ceil(side / backbone.reduction) for side in both(backbone.size))
        self.projector = mlp(backbone.local_dim, hidden, dim)
        self.target = frozen_copy(self.online)

    @property
    def online(self) -> nn.ModuleList:
        """What the target follows."""
        return nn.ModuleList([self.backbone, self.projector])

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(self.cells), f"ln {self.cells}, guessing the cell"),)

    def views(self, size: Size) -> Pipeline:
        views = augment.byol(size, self.scale, "bilinear", self.blur, self.solarize)
        return augment.Cornered(views)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]; their corners [B, 2, 4]."""
        (x1, x2), corners = batch.views
        q1, q2 = (projected_cells(self.online, x)[0] for x in (x1, x2))
        with torch.no_grad():
            (k1, grid), (k2, _) = (projected_cells(self.target, x) for x in (x1, x2))
        same = near(corners[:, 0], corners[:, 1], grid, self.ratio)
        one = contrast(q1, k2, same, self.temperature)
        other = contrast(q2, k1, same.mT, self.temperature)
        return (one + other) / 2

    def show(self, batch: Batch) -> Pictures:
        (x1, x2), corners = batch.views
        (q1, grid), (k2, _) = projected_cells(self.online, x1), projected_cells(self.target, x2)
        mean, std = self.backbone.mean, self.backbone.std
        found = matches((x1, x2), (q1, k2), grid, mean, std)
        same = near(corners[:, 0], corners[:, 1], grid, self.ratio)
        return Pictures(
            "Matching cells",
            f"The {found.cells.shape[1]} cells of one view that are most like one of the other, "
            "and that one, framed in the same color; below, how many are the same place.",
            found.columns,
            {"the other": verdicts(found, same)},
        )

    def after_step(self) -> None:
        ema(self.target, self.online, cosine(self.momentum, 1.0, self.progress))


@full_precision
def contrast(one: Tensor, other: Tensor, same: Tensor, temperature: float) -> Tensor:
    """Cross entropy of each cell finding the same place in the other view, in both directions.

    Over the cells that have such a place, then over the images, of all processes, that have such
    cells; 0 where there are none.

    Args:
        one, other: [B, N, D] cells of the two views; normalized here.
        same: bool [B, N, N], whether two cells show the same place.
        temperature: of the softmax, above 0.
    """
    logits = normalize(one, dim=-1) @ normalize(other, dim=-1).mT / temperature
    return (_one_way(logits, same) + _one_way(logits.mT, same.mT)) / 2


def _one_way(logits: Tensor, same: Tensor) -> Tensor:
    found = same.any(2)
    hits = logits.masked_fill(~same, -torch.inf)
    # rows without a hit have no finite logarithm, and their slope would not be a number
    hits = torch.where(found[..., None], hits, logits).logsumexp(2)
    loss = torch.where(found, logits.logsumexp(2) - hits, 0).sum(1) / found.sum(1).clamp_min(1)
    images = dist.total(found.any(1).sum().to(logits))
    return loss.sum() * dist.world() / images.clamp_min(1)
