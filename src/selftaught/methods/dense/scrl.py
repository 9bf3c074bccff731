"""SCRL (Roh et al., 2021), https://arxiv.org/abs/2103.06122."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from selftaught import augment
from selftaught.augment.pipeline import Around, check_image
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.masks import Draws
from selftaught.method import Batch, Few, Insight, Method, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.parts import ema, frozen_copy, mlp
from selftaught.parts.drawing import MATCHES, answered, boxed
from selftaught.precision import full_precision
from selftaught.roles import Blur, Count, Fraction, HeadWidth, Momentum, PartialShare, Strength
from selftaught.schedule import cosine
from selftaught.sides import Size, both, short

TRIES = 50
"""For a box that does not overlap the others too much; then any is taken, as in the paper's code.
"""
REDRAWN = 10
"""Times that crops without room for a box in common are drawn again."""


class SCRL(Method):
    """BYOL between boxes: predict an EMA teacher's embedding of the same part of the other view.

    Boxes are drawn in what the two crops have in common. The paper's code leaves out images whose
    crops have too little in common; here such crops are drawn again, which gives the same
    distribution of boxes and as many of each image. The EMA teacher starts as a copy; in the
    paper's code it is drawn anew. The recipe is that of 200 epochs, of which 10 are warm-up.

    Args:
        backbone: image encoder with local features.
        boxes: number of boxes of each image.
        momentum: of the EMA teacher at the start, in [0, 1); it rises to 1.
        strength: of the color jitter; 0.5 for small images.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        least: smallest side of a box, at views of 224 px; in proportion at others.
        overlap: intersection over union, in (0, 1], that two boxes of an image stay below.
        placement: whether the place of a box is drawn in a cell of a `grid`, itself drawn, or
            `anywhere`.
        jitter: shift and stretch of a box in the second view, as a fraction of its sides; the
            paper's code can 0.1.
        hidden: width of the hidden layers of projector and predictor.
        dim: width of the embedding.
        scale: area of the crops, as fractions of the image.
    """

    recipe = Recipe("lars", lr=0.45, weight_decay=1e-6, warmup=0.05)
    few = Few(hidden=512, dim=128)
    insight = Insight(
        "projector", "predictor", (("target.0", "backbone"), ("target.1", "projector")), "half"
    )

    def __init__(
        self,
        backbone: Image,
        boxes: Count = 10,
        least: Count = 32,
        overlap: Fraction = 0.5,
        placement: Literal["grid", "anywhere"] = "grid",
        jitter: PartialShare = 0.0,
        momentum: Momentum = 0.97,
        hidden: HeadWidth = 4096,
        dim: HeadWidth = 256,
        scale: tuple[Fraction, Fraction] = (0.2, 1.0),
        strength: Strength = 1.0,
        blur: Blur = 0.5,
    ):
        super().__init__()
        if least >= 224:
            raise UserError(f"least={least} must be below 224, the side of the paper's views in px")
        self.backbone, self.boxes, self.least, self.overlap = backbone, boxes, least, overlap
        self.placement, self.jitter, self.momentum = placement, jitter, momentum
        self.hidden, self.dim, self.scale = hidden, dim, scale
        self.strength, self.blur = strength, blur
        self.projector = mlp(backbone.local_dim, hidden, dim)
        self.predictor = mlp(dim, hidden, dim)
        self.target = frozen_copy(self.online)

    @property
    def online(self) -> nn.ModuleList:
        """What the target follows."""
        return nn.ModuleList([self.backbone, self.projector])

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (
            ReferenceLoss(4.0, "2 for each view, directions that have nothing in common"),
            ReferenceLoss(0.0, "all directions are the same", collapsed=True),
        )

    def views(self, size: Size) -> Pipeline:
        least = min(short(size) - 1, max(1, round(self.least * short(size) / 224)))
        rule = Boxes(self.boxes, size, least, self.overlap, self.placement == "grid", self.jitter)
        return Boxed(augment.simclr(size, self.strength, self.blur, self.scale), rule)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, S, S]; boxes [B, 2, K, 4] in both, pixels."""
        views, boxes = batch.views
        x, rows = torch.cat(list(views)), listed(boxes)
        p = self.predictor(embed(self.online, x, rows))
        with torch.no_grad():
            z = embed(self.target, x, rows)
        return consistency(p, z)

    def show(self, batch: Batch) -> Pictures:
        (x1, x2), boxes = batch.views
        boxes, size = boxes[:, :, :MATCHES], len(x1)
        rows = listed(boxes)
        p = self.predictor(embed(self.online, torch.cat([x1, x2]), rows)).unflatten(
            0, (2, size, -1)
        )
        z = embed(self.target, torch.cat([x1, x2]), rows).unflatten(0, (2, size, -1))
        found = (F.normalize(p[0], dim=-1) @ F.normalize(z[1], dim=-1).mT).argmax(2)
        mean, std = self.backbone.mean, self.backbone.std
        other = boxes[:, 1].take_along_dim(found[..., None], 1)
        right = (found == torch.arange(found.shape[1], device=found.device)).sum(1).tolist()
        return Pictures(
            "Boxes found again",
            "Some boxes of one view, and in the same color the box of the other that their "
            "predictions are most like; below, how many are the same part of the image.",
            {
                "one view": boxed(x1, boxes[:, 0], mean, std),
                "the other": boxed(x2, other, mean, std),
            },
            {"the other": [answered(n, found.shape[1]) for n in right]},
        )

    def after_step(self) -> None:
        ema(self.target, self.online, cosine(self.momentum, 1.0, self.progress))


def embed(net: Iterable[Any], x: Tensor, boxes: Tensor) -> Tensor:
    """Images [M, C, S, S], boxes [K, 5] -> their projections [K, dim]."""
    backbone, projector = net
    found = backbone.features(x)
    maps = found.local.mT.unflatten(2, found.grid)
    return projector(pooled(maps, boxes.to(maps), found.grid[1] / x.shape[-1]))


@full_precision
def pooled(maps: Tensor, boxes: Tensor, scale: float) -> Tensor:
    """[M, D, h, w], [K, 5] (image, left, top, right, bottom in pixels) -> [K, D] by RoIAlign.

    As in the paper's code without the shift by half a cell, and with as many samples as a box has
    cells. `scale` is the number of cells to a pixel.
    """
    return roi_align(maps, boxes, 1, scale, sampling_ratio=-1, aligned=False).flatten(1)


@full_precision
def consistency(predicted: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos of each box and the same one in the other view, of both views, mean over boxes.

    Args:
        predicted, target: [2 * K, D], the boxes of the first view and then of the second.
    """
    half = len(target) // 2
    other = torch.cat([target[half:], target[:half]])
    return (2 - 2 * F.cosine_similarity(predicted, other, eps=1e-12)).sum() / half


def listed(boxes: Tensor) -> Tensor:
    """[B, 2, K, 4] -> [2 * B * K, 5] with the number of the image among views, view after view."""
    ordered = boxes.transpose(0, 1).flatten(0, 1)
    image = torch.arange(len(ordered), device=boxes.device, dtype=boxes.dtype)
    image = image[:, None, None].expand(-1, boxes.shape[2], 1)
    return torch.cat([image, ordered], 2).flatten(0, 1)


@dataclass(frozen=True)
class Boxes:
    """Boxes in the intersection of two crops, in the pixels of both views.

    Args:
        count: number of boxes.
        size: side of a view, in pixels, or (rows, columns).
        least: smallest side of a box, in pixels of the coarser view.
        overlap: intersection over union that two boxes stay below; 1 for any.
        grid: whether a box lies in one cell of a grid that is drawn for it.
        jitter: of the second box, as a fraction of its sides.
    """

    count: int
    size: Size
    least: int
    overlap: float
    grid: bool
    jitter: float

    def draw(self, draws: Draws, one: augment.Params, other: augment.Params) -> np.ndarray | None:
        """[2, count, 4] left, top, right, bottom; None if the crops have too little in common."""
        crops = one, other
        start = np.array([max(c.left for c in crops), max(c.top for c in crops)])
        end = [min(c.left + c.width for c in crops), min(c.top + c.height for c in crops)]
        whole = np.array(both(self.size)[::-1])  # (x, y)
        scales = [whole / np.array([c.width, c.height]) for c in crops]
        coarse = np.minimum(*scales)
        room = [round(float(n)) for n in (end - start) * coarse]
        if min(room) <= self.least:
            return None
        boxes = np.empty((2, self.count, 4))
        for i in range(self.count):
            for _ in range(TRIES):
                corner, side = self._place(draws, room)
                pair = []
                for crop, scale in zip(crops, scales):
                    first = corner / coarse * scale + (start - (crop.left, crop.top)) * scale
                    last = first + side / coarse * scale
                    for axis, mirrored in enumerate((crop.flip, crop.vertical)):
                        if mirrored:
                            swapped = whole[axis] - last[axis], whole[axis] - first[axis]
                            first[axis], last[axis] = swapped
                    if crop.transpose:
                        first, last = first[::-1], last[::-1]
                    pair.append(np.concatenate([first, last]))
                if self.jitter:
                    pair[1] = self._jittered(draws, pair[1])
                if not i or self.overlap == 1 or _overlap(pair[0], boxes[0, :i]) < self.overlap:
                    break
            boxes[:, i] = np.clip(pair, 0, np.tile(whole, 2))
        return boxes

    def _place(self, draws: Draws, room: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Upper left corner and sides of a box within `room`, (x, y) each."""
        if not self.grid:
            side = [int(draws.integers(self.least, n)) for n in room]
            corner = [int(draws.integers(0, n - k)) for n, k in zip(room, side)]
            return np.array(corner), np.array(side)
        parts = [int(draws.integers(1, int(n / self.least) + 1)) for n in room]
        cell = [n / k for n, k in zip(room, parts)]
        which = [int(draws.integers(0, k)) for k in parts]
        side = [int(draws.integers(self.least, int(n + 1))) for n in cell]
        inside = [int(draws.integers(0, int(n - k + 1))) for n, k in zip(cell, side)]
        corner = [at + int(k * n) for at, k, n in zip(inside, which, cell)]
        return np.array(corner), np.array(side)

    def _jittered(self, draws: Draws, box: np.ndarray) -> np.ndarray:
        shift = [self.jitter * (2 * draws.random() - 1) for _ in range(4)]
        side = box[2:] - box[:2]
        first = box[:2] + side * shift[:2]
        return np.concatenate([first, first + side * (1 + np.array(shift[2:]))])


@dataclass(frozen=True)
class Boxed(Around):
    """Two views of an image, and boxes [2, K, 4] of the same parts in both, in pixels."""

    views: augment.Views
    boxes: Boxes

    def replaced(self, make: Callable[[augment.Views], Any]) -> Self:
        """With other declared views."""
        return replace(self, views=augment.declared(make(self.views)))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
        """Make both from `image`, uint8 [H, W, C]; boxes as float32.

        Raises:
            UserError: `image` is not a uint8 array [H, W, C] with pixels.
        """
        check_image(image)
        for _ in range(REDRAWN):
            one, other = self.views.draw(rng, *image.shape[:2])
            if (boxes := self.boxes.draw(rng, one, other)) is not None:
                break
        else:  # two views of one crop
            one, other = self.views.draw(rng, *image.shape[:2])
            other = one._replace(order=other.order, factors=other.factors, sigma=other.sigma)
            boxes = self.boxes.draw(rng, one, other)
            assert boxes is not None
        return self.views.render(image, [one, other]), boxes.astype(np.float32)


def _overlap(box: np.ndarray, others: np.ndarray) -> float:
    """Largest intersection over union of a box [4] with others [K, 4]."""
    first, last = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = (last - first).clip(0).prod(1)
    areas = [np.abs(b[..., 2:] - b[..., :2]).prod(-1) for b in (box, others)]
    return float((common / (sum(areas) - common)).max())
