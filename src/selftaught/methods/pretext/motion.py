"""Watching objects move (Pathak et al., 2017), https://arxiv.org/abs/1612.06370."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.parts.decoder import as_map, decoder
from selftaught.precision import full_precision
from selftaught.roles import DecoderWidth, Fraction, Share
from selftaught.sides import Size


class Motion(Method):
    """Tell in a single frame which pixels belong to what moves in the clip.

    What moves together is an object. Frames and their masks, 0 where nothing moves to 255 where
    something surely does, are made of clips by `selftaught frames`; pixels that are neither are
    left out of the loss. A mask has one value for every four pixels of the view.

    The training code is not public: the loss is the paper's, the thresholds are those of the
    golden values, the recipe is our own. The paper segments clips by appearance too, crops around
    what moves, and predicts 56 x 56 values by a linear layer; here flow alone says what moves,
    crops are random, and the layers are convolutions.

    Args:
        backbone: image encoder with local features.
        low: motion below which a pixel is still, in [0, 1].
        high: motion above which a pixel moves, in [0, 1].
        scale: area of the crops, as fractions of the frame.
        width: channels of the decoder.
    """

    recipe = Recipe("adam", lr=1e-4, scaling="none", weight_decay=0.0)
    few = Few(width=64, lr=0.001)
    needs = Needs(batch=1, beside="masks", views="own")

    def __init__(
        self,
        backbone: Image,
        low: Share = 0.4,
        high: Share = 0.7,
        scale: tuple[Fraction, Fraction] = (0.2, 1.0),
        width: DecoderWidth = 256,
    ):
        super().__init__()
        if not 0 < low <= high < 1:
            raise UserError(
                f"low={low} and high={high}: a pixel is still below the one and moves above the "
                "other, so 0 < low <= high < 1"
            )
        self.backbone, self.low, self.high = backbone, low, high
        self.scale, self.width = scale, width
        self.decoder = decoder(backbone.local_dim, width, backbone.reduction, 4, 1)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(2), "ln 2, any pixel may move or not"),)

    def views(self, size: Size) -> Pipeline:
        return Watched(augment.crop(size, self.scale, interpolation="bilinear"))

    def loss(self, batch: Batch) -> Tensor:
        """views: frames [B, C, S, S], and their masks [B, S, S] in [0, 1]."""
        logits = self.predict(batch.views[0])
        moving = cells(batch.views[1], logits)
        return cross_entropy(logits, trimap(moving, self.low, self.high))

    def predict(self, x: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, h, w] logits."""
        found = self.backbone.features(x)
        return self.decoder(as_map(found.local, found.grid)).squeeze(1)

    def show(self, batch: Batch) -> Pictures:
        frames, masks = batch.views
        logits = self.predict(frames)
        mean, std = frames.new_tensor([self.backbone.mean, self.backbone.std])[..., None, None]
        columns = {"moves": cells(masks, logits), "thought to move": logits.sigmoid()}
        drawn = {name: (x.to(frames)[:, None] - mean) / std for name, x in columns.items()}
        return Pictures(
            "What moves",
            "The network sees the frame alone. White moves; gray is left out of the loss.",
            {"frame": frames, **drawn},
        )


@dataclass(frozen=True)
class Watched(augment.Pipeline):
    """A frame [H, W, C + 1] whose last channel is its mask -> the same crop of both."""

    views: augment.Views

    def __call__(
        self, image: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The frame, uint8 [C, size, size], and its mask, float32 [size, size] in [0, 1]."""
        (view,) = self.views(image, rng)
        return view[:-1], view[-1].astype(np.float32) / 255


def cells(masks: Tensor, like: Tensor) -> Tensor:
    """Masks [B, S, S] -> their means in the cells of `like` [B, h, w]."""
    return F.adaptive_avg_pool2d(masks.to(like.dtype), (like.shape[1], like.shape[2]))


def trimap(moving: Tensor, low: float, high: float) -> Tensor:
    """0 where something is still, 1 where it moves, -1 where neither is sure; of any shape."""
    sure = torch.where(moving > high, 1, -1)
    return torch.where(moving < low, 0, sure)


@full_precision
def cross_entropy(logits: Tensor, goal: Tensor) -> Tensor:
    """Logistic loss, the mean over the pixels of all processes whose goal is 0 or 1, not -1."""
    sure = goal >= 0
    error = F.binary_cross_entropy_with_logits(logits, goal.to(logits.dtype), reduction="none")
    return (error * sure).sum() / dist.mean(sure.sum().to(logits.dtype)).clamp(min=1e-9)
