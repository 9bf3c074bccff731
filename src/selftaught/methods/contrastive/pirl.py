"""PIRL (Misra & van der Maaten, 2020), https://arxiv.org/abs/1912.01991."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.augment import Tiles, View, Views
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Insight, Method, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.contrastive import noise_contrastive
from selftaught.parts import MemoryBank
from selftaught.precision import full_precision
from selftaught.roles import HeadWidth, QueueLength, SampleCount, Share, Temperature, TermWeight
from selftaught.sides import Size

TILES = 9


class PIRL(Method):
    """Find an image's memory by the image as it is, and by its nine tiles in any order.

    So its embedding says nothing of what was done to it. The recipe is that of the authors' code;
    the larger head of its better models is `--head mlp`.

    Args:
        backbone: image encoder; it sees the tiles one by one, 64 pixels each at size 225.
        negatives: rows of the memory that each embedding is compared with, drawn anew for each.
        temperature: of the similarities, above 0.
        dim: width of the embedding.

    Other Args:
        samples: images in the dataset.
        memory_momentum: weight of what is remembered of an image, in [0, 1).
        weights: of the two terms, the tiles' and the image's.
        objective: noise-contrastive estimation ("nce"), or the cross entropy of finding the
            image's own row among those drawn.
        head: whether image and tiles are embedded by one Linear or by two ("mlp").
        gray: probability that an image, and that a puzzle, is gray.
    """

    recipe = Recipe("sgd", lr=0.03, weight_decay=1e-4, end=0.001, by_epoch=True)
    few = Few(negatives=2048, dim=64, objective="cross_entropy")
    insight = Insight("projector", memory=("memory.items",))
    backbone: Image

    def __init__(
        self,
        backbone: Image,
        samples: SampleCount,
        negatives: QueueLength = 32000,
        temperature: Temperature = 0.07,
        dim: HeadWidth = 128,
        memory_momentum: Share = 0.5,
        weights: tuple[TermWeight, TermWeight] = (0.5, 0.5),
        objective: Literal["nce", "cross_entropy"] = "nce",
        head: Literal["linear", "mlp"] = "linear",
        gray: Share = 0.2,
    ):
        super().__init__()
        if not 1 <= negatives <= samples:
            raise UserError(
                f"pirl cannot compare with {negatives} of {samples} images; use "
                f"negatives={max(1, samples // 2)} or another number between 1 and all of them"
            )
        self.backbone, self.samples, self.negatives = backbone, samples, negatives
        self.temperature, self.dim, self.memory_momentum = temperature, dim, memory_momentum
        self.weights, self.objective, self.head, self.gray = weights, objective, head, gray
        self.projector = layers(head, backbone.dim, dim)
        self.tile_projector = nn.Linear(backbone.dim, dim)
        self.puzzle_projector = layers(head, TILES * dim, dim)
        self.memory = MemoryBank(samples, dim, memory_momentum)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        rows = self.negatives + 1
        if self.objective == "cross_entropy":
            guess = math.log(rows)
        else:  # all similarities alike: each P is 1 / n
            guess = math.log(rows) + self.negatives * math.log(rows / self.negatives)
        guess *= sum(self.weights)
        return (ReferenceLoss(guess, f"all of {rows} rows of the memory alike"),)

    def views(self, size: Size) -> Pipeline:
        colors = {"jitter": (0.4, 0.4, 0.4, 0.2), "jitter_p": 1.0, "gray": self.gray}
        tiles = augment.tiles(size)
        return Puzzle(
            Views((View(size, **colors),)),
            replace(
                tiles,
                view=replace(tiles.view, **colors),
                tile=self.backbone.fit(tiles.tile),
            ),
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: images [B, C, H, W] and their tiles [B, 9, C, S, S] in random order."""
        images, tiles = batch.views
        image = self.projector(self.backbone(images))
        tile = self.tile_projector(self.backbone(tiles.flatten(0, 1)))
        puzzle = self.puzzle_projector(side_by_side(tile, TILES))
        return self.discriminate(puzzle, image, batch.index)

    @full_precision
    def discriminate(self, puzzle: Tensor, image: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Terms of [B, dim] embeddings of samples [B]; then the memory takes in the images'."""
        puzzle, image = F.normalize(puzzle, dim=1), F.normalize(image, dim=1)
        terms = {
            "tiles": self.weights[0] * self.find(puzzle, index),
            "image": self.weights[1] * self.find(image, index),
        }
        self.memory.update(index, image)
        return terms

    def find(self, x: Tensor, index: Tensor) -> Tensor:
        """Loss of [B, dim] unit embeddings finding the rows [B], among others drawn for each."""
        rows = self.memory.draw(index, self.negatives)
        logits = self.memory.similarities(x, rows) / self.temperature
        if self.objective == "cross_entropy":
            return F.cross_entropy(logits, torch.zeros_like(index))
        scores = logits.exp()
        partition = self.memory.estimate(scores)
        # the authors' code adds float32's epsilon where that of instance discrimination adds 1e-7
        return noise_contrastive(scores, partition, self.samples, torch.finfo(torch.float32).eps)


@dataclass(frozen=True)
class Puzzle(augment.Pipeline):
    """An image -> a view of it, and its tiles in random order."""

    image: Views
    tiles: Tiles

    def replaced(self, make: Callable[[Views], Any]) -> Self:
        """With other declared views, the one that is cut into tiles among them."""
        *whole, cut = augment.declared(make(Views((*self.image.views, self.tiles.view)))).views
        return replace(self, image=Views(tuple(whole)), tiles=replace(self.tiles, view=cut))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Any:
        (view,) = self.image(image, rng)
        return view, rng.permutation(self.tiles(image, rng))


def layers(head: str, dim: int, out: int) -> nn.Module:
    """A Linear from `dim` to `out`, after another and a ReLU in the larger head."""
    last = nn.Linear(dim, out)
    if head == "linear":
        return last
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True), last)


def side_by_side(x: Tensor, parts: int) -> Tensor:
    """[B * parts, D], image by image -> [B, parts * D]."""
    return x.unflatten(0, (-1, parts)).flatten(1)
