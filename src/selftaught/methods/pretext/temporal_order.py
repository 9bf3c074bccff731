"""Shuffle and Learn (Misra et al., 2016), https://arxiv.org/abs/1603.08561."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.augment.clip import ClipViews, rendered, stretch
from selftaught.augment.image.view import DRAWS
from selftaught.augment.pipeline import Around, Pipeline
from selftaught.backbones.video.encoder import ClipEncoder
from selftaught.data.image.decode import BadSample
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Method, Needs, Pictures, Recipe, ReferenceLoss
from selftaught.roles import PartialShare, Several
from selftaught.sides import Size


class TemporalOrder(Method):
    """Tell whether three moments of a clip are in their order, or which way time goes.

    Of five moments a < b < c < d < e the order is b, c, d; it is not b, a, d or b, e, d. Either is
    played backward half of the time. The three are cropped and colored alike, and encoded apart.
    The paper's moments are single frames (`--frames 1 --tubelet 1`), which it takes from where
    optical flow is strong; here a clip's moments are drawn evenly. `direction` asks of one stretch
    whether it is played backward (the arrow of time, Wei et al., 2018).

    Args:
        backbone: of clips; a moment is a clip as short as it takes.
        ask: whether moments are in order, or which way time goes.
        window: frames within which the five moments lie.
        ordered: share of the questions about three moments that are in order.
    """

    recipe = Recipe(
        "sgd", lr=1e-3, batch=128, weight_decay=5e-4, schedule="step", milestones=(0.7,)
    )
    few = Few(lr=1e-3, optimizer="adamw", batch=32, warmup=0.1)
    needs = Needs(backbone="vit_small", kinds=("clip",), batch=1, views="own")
    backbone: ClipEncoder  # pyrefly: ignore[bad-override]

    def __init__(
        self,
        backbone: ClipEncoder,
        ask: Literal["order", "direction"] = "order",
        window: Several = 90,
        ordered: PartialShare = 0.25,
    ):
        super().__init__()
        if ask == "direction" and backbone.frames < 2:
            raise UserError("one frame has no direction: use --frames 2 at least, or --ask order")
        if not ordered:
            raise UserError("ordered=0 leaves nothing in order to be told from: use 0.25")
        self.backbone, self.ask, self.window, self.ordered = backbone, ask, window, ordered
        self.classifier = nn.Linear(backbone.dim * (3 if ask == "order" else 1), 2)

    @property
    def shares(self) -> tuple[float, float]:
        """Of each answer: not in order, in order; forward, backward."""
        return (1 - self.ordered, self.ordered) if self.ask == "order" else (0.5, 0.5)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        value = -sum(p * math.log(p) for p in self.shares)
        return (ReferenceLoss(value, f"always answering {self.shares[1]:.0%} yes"),)

    def views(self, size: Size) -> Pipeline:
        views = augment.crop(size, scale=(0.3, 1.0), interpolation="bilinear")
        return Moments(views, self.ask, self.window, self.ordered)

    def loss(self, batch: Batch) -> Tensor:
        """views: moments, each [B, C, frames, H, W], and answers [B]."""
        moments, answers = batch.views
        return F.cross_entropy(self._answer(moments), answers)

    def _answer(self, moments: list[Tensor]) -> Tensor:
        features = self.backbone(torch.cat(moments)).chunk(len(moments))
        return self.classifier(torch.cat(features, 1))

    def show(self, batch: Batch) -> Pictures:
        moments, answers = batch.views
        words = ["not in order", "in order"]
        shown = [x[:, :, x.shape[2] // 2] for x in moments]
        if self.ask == "direction":
            words = ["forward", "backward"]
            shown = [x[:, :, t] for x in moments for t in (0, x.shape[2] // 2, -1)]
        said = self._answer(moments).argmax(1).tolist()
        below = [f"“{words[s]}”{' ✓' if s == a else ''}" for s, a in zip(said, answers.tolist())]
        names = ["first shown", "second", "third"]
        return Pictures(
            "Moments and the answers",
            "Three frames as they were shown, and below the last what the network says of them.",
            dict(zip(names, shown)),
            {names[2]: below},
        )


@dataclass(frozen=True)
class Moments(Around):
    """Moments of a clip in or out of order, or one forward or backward, and which it is."""

    views: Any
    ask: str
    window: int
    ordered: float

    def __call__(self, take: Any, rng: np.random.Generator) -> tuple[list[np.ndarray], int]:
        """uint8 [frames, C, rows, columns] of each moment, and the answer, 0 or 1."""
        clips: ClipViews = self.views
        row, chance, place = rng.random(DRAWS).tolist(), rng.random(4).tolist(), rng.random(5)
        backward = chance[0] < 0.5
        if self.ask == "direction":
            numbers = list(stretch(take.count, clips.frames, clips.stride, chance[1]))
            parts, answer = [numbers], int(backward)
        else:
            a, b, c, d, e = self._starts(take.count, clips.frames, chance[1], place)
            answer = int(chance[2] < self.ordered)
            odd = a if chance[3] < 0.5 else e
            parts, answer = [b, c if answer else odd, d], answer
        if backward:
            parts = [part[::-1] for part in parts[::-1]]
        (view,) = clips.views
        return [rendered(take, part, view, row)[0] for part in parts], answer

    def _starts(self, count: int, frames: int, where: float, place: np.ndarray) -> list[list[int]]:
        """Numbers of the frames of five moments, one after the other."""
        stride = max(1, min(self.views.stride, (count // 5 - 1) // max(1, frames - 1)))
        room = count - (frames - 1) * stride
        if room < 5:
            raise BadSample(
                f"has {count} frames, too few for five moments of {frames}: give fewer --frames"
            )
        window = max(5, min(self.window, room))
        first = int(where * (room - window + 1))
        gap = max(1, window // 10)
        free = np.sort(place * (window - 4 * gap)).astype(int)
        starts = first + free + gap * np.arange(5)
        return [[start + i * stride for i in range(frames)] for start in starts.tolist()]
