"""VISReg (Wu et al., 2026), https://arxiv.org/abs/2606.02572."""

from torch import Tensor

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.sketched import directions, wasserstein
from selftaught.parts import each_size, mlp
from selftaught.precision import full_precision
from selftaught.roles import (
    Blur,
    Count,
    Fraction,
    HeadWidth,
    Several,
    SmallViews,
    TermShare,
    TermWeight,
)
from selftaught.sides import Size, part

TINY = 1e-8
"""Added to variances, whose roots are to have a slope where nothing varies."""


class VISReg(Method):
    """Bring views to their mean, and give embeddings the scale and the shape of a normal cloud.

    As `lejepa`, with three terms in place of its statistic, which has no slope where all embeddings
    are one: the mean of each dimension is to be 0, its deviation 1, and what is left when both are
    divided out (without gradient through the deviation) is to be normal on random lines, by the
    distance of sorted values from quantiles. All are of each view's batch in all processes; in the
    paper's code each process has its own batch and lines. The paper's results are of `weight=0.9`;
    it takes 0.6 for small data sets. Rate, warm-up and views are those of its code, the decay is
    that of LeJEPA.

    Args:
        backbone: image encoder that takes several image sizes.
        weight: of the three terms together; the views have the rest.
        dim: width of the embedding.
        slices: number of random lines.
        global_crops: number of large views.
        local_crops: number of small views beside them.

    Other Args:
        scale, shape, center: weights of the three terms within `weight`.
        hidden: width of the projector's hidden layers.
        layers: Linear layers of the projector.
        local_size: side of small views in pixels, in whole patches; none for 3/7 of the global.
        global_scale, local_scale: area of the crops, as fractions of the image.
        blur: probabilities in the odd, the even and the local views; 0,0,0 for small images.
        solarize: probability in the even views; 0 for small images.
    """

    needs = Needs(backbone="vit_small_patch16_224", kinds="any", shards=True)
    recipe = Recipe(
        "adamw",
        lr=9e-4,
        scaling="none",
        weight_decay=0.05,
        warmup=0.05,
        end=0.001,
        clip=1.0,
    )
    few = Few(
        weight=0.6,
        global_crops=2,
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
        weight: TermShare = 0.9,
        scale: TermWeight = 1.0,
        shape: TermWeight = 1.0,
        center: TermWeight = 1.0,
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 256,
        layers: Count = 3,
        slices: Count = 4096,
        global_crops: Several = 4,
        local_crops: SmallViews = 6,
        local_size: Count | None = None,
        global_scale: tuple[Fraction, Fraction] = (0.3, 1.0),
        local_scale: tuple[Fraction, Fraction] = (0.05, 0.3),
        blur: tuple[Blur, Blur, Blur] = (1.0, 0.1, 0.5),
        solarize: Blur = 0.2,
    ):
        super().__init__()
        self.backbone, self.weight = backbone, weight
        self.scale, self.shape, self.center = scale, shape, center
        self.hidden, self.dim, self.layers, self.slices = hidden, dim, layers, slices
        self.global_crops, self.local_crops = global_crops, local_crops
        self.local_size, self.global_scale, self.local_scale = local_size, global_scale, local_scale
        self.blur, self.solarize = blur, solarize
        self.projector = mlp(backbone.dim, *[hidden] * (layers - 1), dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        none = self.weight * self.scale
        return (ReferenceLoss(none, "no dimension varies", collapsed=True, term="scale"),)

    def views(self, size: Size) -> Pipeline:
        local_size = self.backbone.fit(part(size, 3, 7, self.local_size))
        scales = self.global_scale, self.local_scale
        made = augment.multicrop(
            size, local_size, self.local_crops, *scales, "dino", self.blur, self.solarize
        ).views
        large = [made[i % 2] for i in range(self.global_crops)]
        return augment.Views((*large, *made[2:]))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: `global_crops` of [B, C, H, W], then `local_crops` local [B, C, h, w]."""
        pooled = each_size(self.backbone, batch.views)
        return self.compare(self.projector(pooled.flatten(0, 1)).view(*pooled.shape[:2], -1))

    @full_precision
    def compare(self, z: Tensor) -> dict[str, Tensor]:
        """The four terms of embeddings [V, B, dim], those of the large views first."""
        alike = (z - z[: self.global_crops].mean(0)).square().mean()
        every = dist.gather(z.transpose(0, 1)).transpose(0, 1)
        mean = every.mean(1, keepdim=True)
        deviation = (every.var(1, correction=0, keepdim=True) + TINY).sqrt()
        apart = (every - mean) / deviation.detach() @ directions(z, self.slices)
        return {
            "alike": (1 - self.weight) * alike,
            "center": self.weight * self.center * mean.square().mean(),  # Eq. 6
            "scale": self.weight * self.scale * (1 - deviation).square().mean(),  # Eq. 1
            "shape": self.weight * self.shape * wasserstein(apart).mean(),  # Eq. 2 and 5
        }
