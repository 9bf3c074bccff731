"""VICReg (Bardes et al., 2022), https://arxiv.org/abs/2105.04906."""

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.method import Anatomy, Batch, Method, Pipeline, Recipe, Trivial
from selftaught.objectives.precision import full_precision
from selftaught.parts import mlp


class VICReg(Method):
    """Keep two views' embeddings alike, each dimension spread out, and dimensions uncorrelated.

    As in the reference code, the variance term is the mean of the two views' (the paper's
    Algorithm 1 has their sum, which is variance = 50).

    Args:
        backbone: image encoder.
        invariance, variance, covariance: weights of the three terms.
        hidden: width of the expander's hidden layers.
        dim: width of the embedding.
        layers: Linear layers of the expander.
        blur, solarize: probabilities in the first and the second view; 0,0 for small images.
    """

    recipe = Recipe("lars", lr=0.2, weight_decay=1e-6, warmup=0.01, end=0.001)
    anatomy = Anatomy("projector")

    def __init__(
        self,
        backbone: Image,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        hidden: int = 8192,
        dim: int = 8192,
        layers: int = 3,
        blur: tuple[float, float] = (1.0, 0.1),
        solarize: tuple[float, float] = (0.0, 0.2),
    ):
        super().__init__()
        self.backbone, self.hidden, self.dim, self.layers = backbone, hidden, dim, layers
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.blur, self.solarize = blur, solarize
        self.projector = mlp(backbone.dim, *[hidden] * (layers - 1), dim, last_bias=False)

    def trivial(self, batch: int) -> tuple[Trivial, ...]:
        none = self.variance * narrowness(torch.zeros(2, 1)).item()
        return (Trivial(none, "no dimension varies", collapsed=True, term="variance"),)

    def views(self, size: int) -> Pipeline:
        return augment.byol(size, blur=self.blur, solarize=self.solarize)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two [B, C, H, W]; each goes through the batch norms alone."""
        z1, z2 = (self.projector(self.backbone(x)) for x in batch.views)
        return self.compare(z1, z2)

    @full_precision
    def compare(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """The three terms of embeddings [B, dim]."""
        alike = F.mse_loss(z1, z2)
        z1, z2 = dist.gather(z1), dist.gather(z2)
        return {
            "invariance": self.invariance * alike,
            "variance": self.variance * (narrowness(z1) + narrowness(z2)) / 2,
            "covariance": self.covariance * (correlation(z1) + correlation(z2)),
        }


def narrowness(z: Tensor, eps: float = 1e-4) -> Tensor:
    """How far the standard deviations of [B, D] stay below 1, on average (Eq. 1)."""
    return F.relu(1 - (z.var(0) + eps).sqrt()).mean()


def correlation(z: Tensor) -> Tensor:
    """Sum of the squared covariances of different dimensions of [B, D], over D (Eq. 4).

    With more dimensions than samples, that of all is taken from the B x B Gram matrix, which has
    the same norm, and nothing of size D x D is made.
    """
    count, dim = z.shape
    z = z - z.mean(0)
    product = z @ z.mT if count < dim else z.mT @ z
    every = product.square().sum() - z.square().sum(0).square().sum()
    return every / (count - 1) ** 2 / dim
