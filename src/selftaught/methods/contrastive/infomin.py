"""InfoMin (Tian et al., 2020), https://arxiv.org/abs/2005.10243."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.augment import Views
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.contrastive import info_nce
from selftaught.parts import Queue, ema, frozen_copy, mlp
from selftaught.parts.shuffle import shuffled
from selftaught.roles import (
    Blur,
    HeadWidth,
    Momentum,
    QueueLength,
    Strength,
    Temperature,
    TermShare,
)
from selftaught.sides import Size

TILES = 9


class InfoMin(Method):
    """MoCo with views that share as little as they may, and a jigsaw of the image as a third.

    The queries, one of a view and one of nine tiles in random order, look for the same key.
    (The paper's strongest views also apply two random operations of RandAugment, left out here.)

    Args:
        backbone: image encoder; it sees the nine tiles one by one, 64 pixels each at size 224.
        temperature: of the softmax over similarities, above 0.
        beta: weight of the jigsaw's term, from 0 to 1; the view's has the rest.
        queue: number of earlier keys; fewer than there are images, or a key is its own negative.
        strength: of the color jitter; 0.5 for CIFAR.

    Other Args:
        dim: width of the embedding.
        momentum: of the momentum encoder (EMA), in [0, 1); lower for short trainings.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.
    """

    recipe = Recipe("sgd", lr=0.03, weight_decay=1e-4, decay_bias=True, by_epoch=True)
    few = Few(dim=64, queue=2048)
    needs = Needs(batchnorm="own")
    insight = Insight(
        "projector",
        copies=(("target.0", "backbone"), ("target.1", "projector")),
        pairs="same",
        memory=("negatives.items",),
    )

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature = 0.15,
        beta: TermShare = 0.5,
        dim: HeadWidth = 128,
        queue: QueueLength = 65536,
        momentum: Momentum = 0.999,
        strength: Strength = 1.0,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.temperature, self.beta = backbone, temperature, beta
        self.dim, self.queue, self.momentum = dim, queue, momentum
        self.strength, self.blur = strength, blur
        self.projector = mlp(backbone.dim, backbone.dim, dim, norm=False)
        self.tiles = TileHead(backbone.dim, dim)
        self.target = frozen_copy(self.online)
        self.negatives = Queue(queue, dim)

    @property
    def online(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.projector)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        keys = self.queue + 1
        return (ReferenceLoss(math.log(keys), f"ln {keys}, guessing among the queue"),)

    def views(self, size: Size) -> Pipeline:
        pair = augment.simclr(size, self.strength, self.blur, scale=(0.2, 1.0))
        tiles = augment.tiles(size, gray=0.0)
        return Shuffled(pair, replace(tiles, tile=self.backbone.fit(tiles.tile)))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two [B, C, H, W], the query's and the key's; tiles [B, 9, C, S, S]."""
        x1, x2, tiles = batch.views
        query = F.normalize(self.online(x1), dim=1)
        puzzle = F.normalize(self.tiles(self.backbone(tiles.flatten(0, 1))), dim=1)
        key = F.normalize(shuffled(self.target, x2), dim=1)
        # a copy, as the gradient needs the queue that the loss saw
        negatives = self.negatives.items.clone()
        terms = {
            "view": (1 - self.beta) * info_nce(query, key, negatives, self.temperature),
            "jigsaw": self.beta * info_nce(puzzle, key, negatives, self.temperature),
        }
        self.negatives.push(key)
        return terms

    def after_step(self) -> None:
        ema(self.target, self.online, self.momentum)


class TileHead(nn.Module):
    """An embedding of nine tiles: an MLP on each, a Linear on all side by side."""

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.each = mlp(inputs, inputs, dim, norm=False)
        self.all = nn.Linear(TILES * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B * 9, D], tile by tile -> [B, dim]."""
        return self.all(self.each(x).unflatten(0, (-1, TILES)).flatten(1))


@dataclass(frozen=True)
class Shuffled(augment.Pipeline):
    """An image -> two views and its tiles in random order."""

    pair: augment.Views
    tiles: augment.Tiles

    def replaced(self, make: Callable[[Views], Any]) -> Self:
        """With other declared views, the one that is cut into tiles among them."""
        *whole, cut = augment.declared(make(Views((*self.pair.views, self.tiles.view)))).views
        return replace(self, pair=Views(tuple(whole)), tiles=replace(self.tiles, view=cut))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        views = self.pair(image, rng)
        return [*views, rng.permutation(self.tiles(image, rng))]
