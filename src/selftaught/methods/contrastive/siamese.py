"""Contrastive loss of a siamese network (Hadsell et al., 2006), https://doi.org/10.1109/CVPR.2006.100."""

import torch
from torch import Tensor

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.metric import pair_loss, squared_distances
from selftaught.parts import mlp
from selftaught.roles import Blur, HeadWidth, Margin, Strength
from selftaught.sides import Size


class Siamese(Method):
    """Pull two views of an image together and push views of others to a margin apart.

    The paper's pairs are neighbors by knowledge of the data; here two views of an image are
    similar, and a view is unlike the second views of all other images of the batch. Similar and
    other pairs weigh alike, however many there are. The paper gives no rates: those are MoCo's.

    Args:
        backbone: image encoder.
        margin: distance from which images that are unlike no longer repel each other, above 0.
        hidden: width of the projector's hidden layer.
        dim: width of the embedding.
        strength: of the color jitter; 0.5 for CIFAR.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.
    """

    recipe = Recipe("sgd", lr=0.03, weight_decay=1e-4)
    few = Few(hidden=256, dim=64)
    insight = Insight("projector", pairs="half", idle=("repulsion",))

    def __init__(
        self,
        backbone: Image,
        margin: Margin = 1.0,
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 128,
        strength: Strength = 1.0,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.margin = backbone, margin
        self.hidden, self.dim = hidden, dim
        self.strength, self.blur = strength, blur
        self.projector = mlp(backbone.dim, hidden, dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(self.margin**2 / 2, "margin² / 2, all embeddings alike"),)

    def views(self, size: Size) -> Pipeline:
        return augment.simclr(size, self.strength, self.blur)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two [B, C, H, W]."""
        z1, z2 = self.projector(self.backbone(torch.cat(batch.views))).chunk(2)
        squared = squared_distances(z1, dist.gather(z2))
        similar = torch.zeros_like(squared)
        rows = torch.arange(len(z1), device=z1.device)
        similar[rows, rows + dist.rank() * len(z1)] = 1
        loss = pair_loss(squared, similar, self.margin)
        others = max(1, squared.shape[1] - 1)
        return {
            "attraction": (similar * loss).sum() / len(z1),
            "repulsion": ((1 - similar) * loss).sum() / (len(z1) * others),
        }
