"""Spectral contrastive learning (HaoChen et al., 2021), https://arxiv.org/abs/2106.04156."""

import torch
from torch import Tensor

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.negatives import spectral
from selftaught.parts import mlp
from selftaught.roles import Blur, HeadWidth, Positive
from selftaught.sides import Size


class Spectral(Method):
    """Factorize the graph of which images share views: attract own views, repel squared products.

    No softmax and no temperature; the embeddings span the leading eigenvectors of the graph's
    adjacency. The defaults are the ImageNet run's; on CIFAR radius 1, hidden and dim 1000.

    Args:
        backbone: image encoder.
        radius: mu, squared length that embeddings are cut to, above 0.
        hidden: width of the projector's hidden layer.
        dim: width of the embedding.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.
    """

    needs = Needs(kinds="any")
    recipe = Recipe("sgd", lr=0.05, weight_decay=1e-4, warmup=0.1, decay_bias=True)
    few = Few(hidden=256, dim=64, radius=1.0)
    insight = Insight("projector", pairs="half")

    def __init__(
        self,
        backbone: Image,
        radius: Positive = 10.0,
        hidden: HeadWidth = 8192,
        dim: HeadWidth = 8192,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.radius = backbone, radius
        self.hidden, self.dim, self.blur = hidden, dim, blur
        self.projector = mlp(backbone.dim, hidden, dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(0.0, "0, all embeddings zero"),)

    def views(self, size: Size) -> Pipeline:
        return augment.simsiam(size, blur=self.blur)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two [B, C, H, W]."""
        z1, z2 = self.projector(self.backbone(torch.cat(batch.views))).chunk(2)
        attraction, repulsion = spectral(z1, z2, self.radius)
        return {"attraction": attraction, "repulsion": repulsion}
