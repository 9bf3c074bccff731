"""NNCLR (Dwibedi et al., 2021), https://arxiv.org/abs/2104.14548."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.metric import match
from selftaught.parts import Queue, mlp
from selftaught.precision import full_precision
from selftaught.roles import Blur, HeadWidth, QueueLength, Strength, Temperature
from selftaught.sides import Size


class NNCLR(Method):
    """Find the other view of an image by that which its nearest earlier image looks like.

    There is no public code of the authors: the loss is the paper's Algorithm 1. Its warm-up has 10
    epochs always: 0.1 of 100 epochs, 0.01 of its 1000.

    Args:
        backbone: image encoder.
        temperature: of the softmax over similarities, above 0.
        queue: number of earlier embeddings to be nearest, the paper's support set; at most as many
            as there are images.
        strength: of the color jitter; 0.5 for CIFAR.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        hidden: width of the projector's two hidden layers.
        dim: width of the embedding.
        predictor_hidden: width of the predictor's hidden layer.
        both_ways: whether each prediction must find its neighbor too, beside each neighbor its
            prediction; the loss is then the mean of the two.
    """

    needs = Needs(kinds="any")
    recipe = Recipe("lars", lr=0.3, weight_decay=1e-6, warmup=0.1)
    few = Few(hidden=256, dim=64, predictor_hidden=256, queue=2048, temperature=0.2)
    insight = Insight("projector", "predictor", pairs="other", memory=("support.items",))

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature = 0.1,
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 256,
        predictor_hidden: HeadWidth = 4096,
        queue: QueueLength = 98304,
        both_ways: bool = False,
        strength: Strength = 1.0,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.temperature = backbone, temperature
        self.hidden, self.dim, self.predictor_hidden = hidden, dim, predictor_hidden
        self.queue, self.both_ways, self.strength, self.blur = queue, both_ways, strength, blur
        layers = mlp(backbone.dim, hidden, hidden, dim, bias=False, last_bias=False)
        self.projector = nn.Sequential(*layers, nn.BatchNorm1d(dim))
        self.predictor = mlp(dim, predictor_hidden, dim)
        self.support = Queue(queue, dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(batch), f"ln {batch}, guessing in the batch"),)

    def views(self, size: Size) -> Pipeline:
        return augment.simclr(size, self.strength, self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]; each goes through the batch norms alone."""
        z1, z2 = (self.projector(self.backbone(x)) for x in batch.views)
        return self.contrast(z1, z2, self.predictor(z1), self.predictor(z2))

    def contrast(self, z1: Tensor, z2: Tensor, p1: Tensor, p2: Tensor) -> Tensor:
        """Algorithm 1 of [B, dim] projections and predictions; then z1 joins the support set."""
        loss = (self.find(self.nearest(z1), p2) + self.find(self.nearest(z2), p1)) / 2
        self.support.push(F.normalize(z1.detach(), dim=1))
        return loss

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """[B, dim] nearest embedding of the support set to each of z, by cosine; a constant."""
        items = self.support.items
        return items[(F.normalize(z, dim=1).to(items.dtype) @ items.mT).argmax(1)]

    @full_precision
    def find(self, neighbors: Tensor, p: Tensor) -> Tensor:
        """Cross entropy of each neighbor finding its prediction, perhaps the reverse as well."""
        neighbors, p = F.normalize(neighbors, dim=1), F.normalize(p, dim=1)
        forth = match(neighbors, p, self.temperature)
        return (forth + match(p, neighbors, self.temperature)) / 2 if self.both_ways else forth
