"""Jigsaw puzzles (Noroozi & Favaro, 2016), https://arxiv.org/abs/1603.09246."""

import dataclasses
import math
from functools import cache
from math import factorial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.parts import mlp
from selftaught.parts.drawing import answered
from selftaught.roles import Count, Number, Share
from selftaught.sides import Size

TILES = 9


class Jigsaw(Method):
    """Tell in which of `count` known orders the nine tiles of an image were laid.

    Head and recipe are those of the ResNet-50 of Goyal et al. (2019,
    https://arxiv.org/abs/1905.01235), of 105 epochs; the paper's AlexNet had 1000 orders, tile_dim
    1024 and hidden 4096. Every tile is standardized alone, so that it cannot be placed by its
    brightness.

    Args:
        backbone: image encoder; it sees the nine tiles one by one, 64 pixels each at size 225.
        count: number of orders, at most 9! = 362880.
        puzzles: orders to solve for each image and step; more cost almost nothing, since an image
            is encoded once. Kolesnikov et al. (2019) take 8.
        gray: probability that a whole puzzle is gray.

    Other Args:
        rule: how the orders are chosen, see `permutations`.
        tile_dim: width to which the features of each tile are reduced.
        hidden: widths of the hidden layers of the classifier over all nine tiles.
        channel_shift: largest shift of single color channels against each other, in pixels; it
            hides chromatic aberration, which would give a tile's place away.
    """

    recipe = Recipe(
        "sgd",
        lr=0.1,
        weight_decay=1e-4,
        warmup=5 / 105,
        warmup_from=0.25,
        schedule="step",
        milestones=(30 / 105, 60 / 105, 90 / 105, 100 / 105),
        by_epoch=True,
    )
    few = Few(count=100, tile_dim=64, hidden=(256,), puzzles=4)
    needs = Needs(views="own")
    orders: Tensor

    def __init__(
        self,
        backbone: Image,
        count: Count = 2000,
        rule: Literal["max_avg", "max_min"] = "max_avg",
        tile_dim: Count = 1000,
        hidden: tuple[Count, ...] = (),
        puzzles: Count = 1,
        gray: Share = 0.66,
        channel_shift: Number = 2,
    ):
        super().__init__()
        self.backbone, self.count, self.rule = backbone, count, rule
        self.tile_dim, self.hidden, self.puzzles = tile_dim, hidden, puzzles
        self.gray, self.channel_shift = gray, channel_shift
        self.register_buffer("orders", torch.from_numpy(permutations(count, TILES, rule).copy()))
        self.tower = nn.Sequential(
            nn.Linear(backbone.dim, tile_dim), nn.BatchNorm1d(tile_dim), nn.ReLU(inplace=True)
        )
        self.classifier = mlp(TILES * tile_dim, *hidden, count)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(self.count), f"ln {self.count}, guessing the order"),)

    def views(self, size: Size) -> Pipeline:
        tiles = augment.tiles(size, gray=self.gray, channel_shift=self.channel_shift)
        whole = dataclasses.replace(tiles, tile=self.backbone.fit(tiles.tile))
        return Puzzles(whole, self.count, self.puzzles)

    def loss(self, batch: Batch) -> Tensor:
        """views: tiles [B, 9, C, S, S] in reading order; which of the orders to lay, [B, P]."""
        tiles, which = batch.views
        return F.cross_entropy(self.answer(tiles, which), which.flatten())

    def answer(self, tiles: Tensor, which: Tensor) -> Tensor:
        """[B * P, count] logits over the orders, of tiles laid in each of the orders `which`."""
        features = self.backbone(standardize(tiles).flatten(0, 1))
        features = self.tower(features).unflatten(0, tiles.shape[:2])
        return self.classifier(lay(features, self.orders[which]))

    def show(self, batch: Batch) -> Pictures:
        tiles, which = batch.views[0], batch.views[1][:, :1]
        true = self.orders[which[:, 0]]
        said = self.orders[self.answer(tiles, which).argmax(1)]
        rows = torch.arange(len(tiles), device=tiles.device)[:, None]
        laid = tiles[rows, true]
        right = (said == true).sum(1).tolist()
        captions = [answered(n, TILES) for n in right]
        return Pictures(
            "Solved puzzles",
            "The tiles as they were laid, and put where the network thinks that they belong.",
            {"laid": whole(laid), "solved": whole(laid[rows, said.argsort(1)])},
            {"solved": captions},
        )


@dataclasses.dataclass(frozen=True)
class Puzzles(augment.Pipeline):
    """An image -> its tiles in reading order, and `puzzles` of the `count` orders, drawn."""

    tiles: augment.Tiles
    count: int
    puzzles: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        return self.tiles(image, rng), rng.integers(0, self.count, self.puzzles)


def whole(tiles: Tensor) -> Tensor:
    """[B, 9, C, S, S] in reading order -> [B, C, 3 * S, 3 * S]."""
    rows = tiles.unflatten(1, (3, 3)).permute(0, 3, 1, 4, 2, 5)  # B C rows S columns S
    return rows.flatten(4, 5).flatten(2, 3)


def standardize(tiles: Tensor) -> Tensor:
    """[..., H, W] with mean 0 and (unbiased) deviation 1; what is constant becomes about 0."""
    mean = tiles.mean((-2, -1), keepdim=True)
    std = tiles.std((-2, -1), keepdim=True)
    # Rounding leaves a constant tile with a deviation just above 0: no noise to be amplified.
    return (tiles - mean) / torch.where(std < 1e-5, 1, std)


def lay(features: Tensor, orders: Tensor) -> Tensor:
    """Lay the tiles in the given orders, side by side as the paper's context-free network.

    Args:
        features: [B, T, D] of the tiles in reading order.
        orders: [B, P, T], for each place the tile that lies there.

    Returns:
        [B * P, T * D], tile by tile.
    """
    rows = torch.arange(len(features), device=features.device)[:, None, None]
    return features[rows, orders].flatten(2).flatten(0, 1)


@cache
def permutations(count: int, tiles: int, rule: str, first: int = 0) -> np.ndarray:
    """Orders of tiles that are far from each other, chosen greedily.

    Each further order has the largest mean ("max_avg", the paper's) or the largest smallest
    ("max_min") Hamming distance from those already chosen. Distances are whole numbers, and of
    equals the first in lexicographic order wins, so the set is the same everywhere.

    Args:
        count: number of orders.
        tiles: number of tiles, at most 9.
        rule: "max_avg" or "max_min".
        first: lexicographic index of the order to start from.

    Returns:
        [count, tiles] int64, read-only.
    """
    if not 1 <= tiles <= TILES or not 1 <= count <= factorial(tiles):
        raise UserError(
            f"{tiles} tiles have no {count} orders to choose from: the tiles must be 1 to {TILES}, "
            f"and the orders between 1 and {factorial(min(max(tiles, 1), TILES))} for so many"
        )
    known = _lexicographic(tiles)
    if rule not in ("max_avg", "max_min"):
        raise UserError(f"orders are chosen by the rule max_avg or max_min, not by {rule!r}")
    # Places in common with the chosen ones: their sum or their maximum; the smallest comes next.
    alike = np.zeros(known.shape[1], np.int32 if rule == "max_avg" else np.uint8)
    merge, never = (np.add if rule == "max_avg" else np.maximum), np.iinfo(alike.dtype).max
    chosen, common, same = (
        [first],
        np.empty(known.shape[1], np.uint8),
        np.empty(known.shape[1], "?"),
    )
    while len(chosen) < count:
        common[:] = 0
        for row, tile in zip(known, known[:, chosen[-1]]):
            common += np.equal(row, tile, out=same)
        merge(alike, common, out=alike)
        alike[chosen] = never
        chosen.append(int(alike.argmin()))
    result = known[:, chosen].T.astype(np.int64)
    result.flags.writeable = False
    return result


def _lexicographic(tiles: int) -> np.ndarray:
    """[tiles, tiles!]: all orders in lexicographic order, one a column."""
    known = np.zeros((0, 1), np.uint8)
    for n in range(1, tiles + 1):
        heads = np.repeat(np.arange(n, dtype=np.uint8), known.shape[1])
        rest = np.tile(known, n)
        known = np.vstack([heads, rest + (rest >= heads)])
    return known
