"""LeJEPA (Balestriero and LeCun, 2025), https://arxiv.org/abs/2511.08544."""

import torch
from torch import Tensor

from selftaught import augment
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.sketched import directions, epps_pulley, of_zeros
from selftaught.parts import each_size, mlp
from selftaught.precision import full_precision
from selftaught.roles import (
    Blur,
    Count,
    Fraction,
    HeadWidth,
    Positive,
    Several,
    SmallViews,
    TermShare,
)
from selftaught.sides import Size, part


class LeJEPA(Method):
    """Bring the views of an image to their mean, and all embeddings to a normal distribution.

    No teacher, no stop-gradient, no predictor, no negatives, and one weight. Each view's embeddings
    are projected on random lines (SIGReg), alike in all processes and new at each step, and the
    statistic that tells each projection from N(0, 1) is that of the batch of all processes. Both
    terms have the scales of the paper's listing: squared distances are means over the dimensions,
    the statistic is a mean over lines and views. The recipe is the paper's first choice for ViTs.

    Args:
        backbone: image encoder that takes several image sizes.
        weight: of the statistic; the views have the rest.
        dim: width of the embedding.
        slices: number of random lines.
        local_crops: number of small views beside the two global ones.

    Other Args:
        hidden: width of the projector's hidden layers.
        layers: Linear layers of the projector.
        points: frequencies at which characteristic functions are compared, odd.
        reach: the largest of them.
        local_size: side of small views in pixels, in whole patches; none for 3/7 of the global.
        global_scale, local_scale: area of the crops, as fractions of the image.
        blur: probabilities in the first, the second and the local views; 0,0,0 for small images.
        solarize: probability in the second view; 0 for small images.
    """

    needs = Needs(backbone="vit_small_patch16_224", kinds="any", shards=True)
    recipe = Recipe("adamw", lr=5e-4, scaling="none", weight_decay=0.05, warmup=0.1, end=0.001)
    few = Few(
        global_scale=(0.3, 1.0),
        local_scale=(0.1, 0.4),
        local_crops=2,
        hidden=512,
        dim=64,
        slices=256,
    )
    insight = Insight("projector")

    def __init__(
        self,
        backbone: Image,
        weight: TermShare = 0.05,
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 128,
        layers: Count = 3,
        slices: Count = 1024,
        points: Several = 17,
        reach: Positive = 5.0,
        local_crops: SmallViews = 6,
        local_size: Count | None = None,
        global_scale: tuple[Fraction, Fraction] = (0.3, 1.0),
        local_scale: tuple[Fraction, Fraction] = (0.05, 0.3),
        blur: tuple[Blur, Blur, Blur] = (1.0, 0.1, 0.5),
        solarize: Blur = 0.2,
    ):
        super().__init__()
        if points % 2 == 0:
            raise UserError(
                f"points={points} frequencies on both sides of 0 leave 0 itself out: set points to "
                f"{points + 1}"
            )
        self.backbone, self.weight = backbone, weight
        self.hidden, self.dim, self.layers = hidden, dim, layers
        self.slices, self.points, self.reach = slices, points, reach
        self.local_crops, self.local_size = local_crops, local_size
        self.global_scale, self.local_scale = global_scale, local_scale
        self.blur, self.solarize = blur, solarize
        self.projector = mlp(backbone.dim, *[hidden] * (layers - 1), dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        none = self.weight * of_zeros(batch, self.reach, self.points)
        return (ReferenceLoss(none, "all embeddings are 0", collapsed=True, term="gaussian"),)

    def views(self, size: Size) -> Pipeline:
        local_size = self.backbone.fit(part(size, 3, 7, self.local_size))
        scales = self.global_scale, self.local_scale
        return augment.multicrop(
            size, local_size, self.local_crops, *scales, "dino", self.blur, self.solarize
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two global [B, C, H, W], then `local_crops` local [B, C, h, w]."""
        pooled = each_size(self.backbone, batch.views)
        return self.compare(self.projector(pooled.flatten(0, 1)).view(*pooled.shape[:2], -1))

    @full_precision
    def compare(self, z: Tensor) -> dict[str, Tensor]:
        """The two terms of embeddings [V, B, dim], those of the two global views first."""
        lines = directions(z, self.slices)
        apart = torch.stack([epps_pulley(x @ lines, self.reach, self.points).mean() for x in z])
        return {
            "alike": (1 - self.weight) * (z - z[:2].mean(0)).square().mean(),
            "gaussian": self.weight * apart.mean(),
        }
