"""AET, auto-encoding transformations (Zhang et al., 2019), https://arxiv.org/abs/1901.04596."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.precision import full_precision
from selftaught.roles import Fraction, Positive, Weight
from selftaught.sides import Size

CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
"""(x, y) of an image's corners, in units of its side, clockwise."""
MEAN = np.array([0, 0, 112 / 224, 0, 0, 112 / 224, 6.4e-5 * 224, 6.4e-5 * 224])
DEVIATION = np.array([0.75, 0.75, 118 / 224, 0.75, 0.75, 118 / 224, 7.75e-4 * 224, 7.75e-4 * 224])
"""Of the coefficients, by which the paper's code scales them; there in pixels of 224."""
GRAY = 128 / 255
"""What lies beyond the edges."""


class Distortion(Method):
    """Tell by which distortion one image became another: the coefficients of a homography.

    The four corners of an image are scaled about its center, turned by a multiple of 90 degrees,
    and each moved a little. The network sees the image and the distorted image, each alone; one
    layer over both features gives the eight coefficients, scaled to about unit variance, and the
    loss is their mean squared error.

    The recipe is that of the paper's ImageNet run. (Corners move by any distance, there by whole
    pixels; and the center lies half a pixel off there.)

    Args:
        backbone: image encoder; it sees each image twice.
        shift: largest distance that a corner moves along x and y, as a fraction of the side.
        scale: smallest and largest factor about the center.
        crop: area of the crops, as fractions of the image.
    """

    recipe = Recipe(
        "sgd",
        lr=0.01,
        batch=768,
        weight_decay=5e-4,
        schedule="step",
        milestones=(0.5, 0.75),
        by_epoch=True,
        decay_bias=True,
        nesterov=True,
    )
    few = Few(lr=0.001)
    needs = Needs(batch=1, views="own", squares="turns them by quarters")

    def __init__(
        self,
        backbone: Image,
        shift: Weight = 0.125,
        scale: tuple[Positive, Positive] = (0.8, 1.2),
        crop: tuple[Fraction, Fraction] = (0.6, 1.0),
    ):
        super().__init__()
        if not 0 < scale[0] <= scale[1] or not 0 <= shift < scale[0] / 4:
            raise UserError(
                f"scale={scale} and shift={shift}: scale must be a pair 0 < low <= high, and shift "
                "below a quarter of its low, or corners could pass each other"
            )
        self.backbone, self.shift, self.scale, self.crop = backbone, shift, scale, crop
        self.regressor = nn.Linear(2 * backbone.dim, 8)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(1.0, "1, the variance: the same answer for every distortion"),)

    def views(self, size: Size) -> Pipeline:
        view = augment.View(size, self.crop, (1.0, 1.0), "bilinear")
        return Distorted(augment.Views((view,)), self.shift, self.scale)

    def loss(self, batch: Batch) -> Tensor:
        """views: images [B, C, S, S], and coefficients [B, 8] of their distortions."""
        x, true = batch.views
        return squared(self.answer(x, self.distorted(x, true)), true)

    def answer(self, x: Tensor, distorted: Tensor) -> Tensor:
        """[B, 8] scaled coefficients of the distortion from the one to the other."""
        features = self.backbone(torch.cat([x, distorted])).chunk(2)
        return self.regressor(torch.cat(features, 1))

    def distorted(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Normalized images [B, C, S, S] under scaled coefficients [B, 8], gray beyond the edges.

        Where a distortion takes a place from is `MEAN + DEVIATION * coefficients`.
        """
        mean, std = x.new_tensor([self.backbone.mean, self.backbone.std])[..., None, None]
        mean_of, deviation = torch.from_numpy(np.stack([MEAN, DEVIATION])).to(coefficients)
        return warp(x, mean_of + deviation * coefficients, (GRAY - mean) / std)

    def show(self, batch: Batch) -> Pictures:
        x, true = batch.views
        seen = self.distorted(x, true)
        found = self.answer(x, seen)
        return Pictures(
            "Distortions and the answers",
            "The image, how it was distorted, and the image distorted as the network thinks that "
            "it was.",
            {"image": x, "distorted": seen, "as answered": self.distorted(x, found.to(true))},
        )


@dataclass(frozen=True)
class Distorted(augment.Pipeline):
    """An image -> one view of it, and scaled coefficients [8] of a distortion to come."""

    views: augment.Views
    shift: float
    scale: tuple[float, float]

    def __call__(
        self, image: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The view, uint8 [C, size, size], and float32 [8]."""
        (view,) = self.views(image, rng)
        found = homography(corners(rng, self.shift, self.scale), CORNERS)
        return view, ((found - MEAN) / DEVIATION).astype(np.float32)


def corners(rng: np.random.Generator, shift: float, scale: tuple[float, float]) -> np.ndarray:
    """[4, 2] where the corners of an image go, in units of its side."""
    placed = (CORNERS - 0.5) * rng.uniform(*scale) + 0.5
    return np.roll(placed, -rng.integers(4), 0) + rng.uniform(-shift, shift, (4, 2))


def homography(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """[8] coefficients a to h of the homography that takes four places [4, 2] to four others.

    (x, y) goes to (a x + b y + c, d x + e y + f) / (g x + h y + 1).
    """
    (x, y), one, none = start.T, np.ones(4), np.zeros((4, 3))
    place = np.stack([x, y, one], 1)
    rows = [
        np.concatenate([*parts, -goal[:, None] * start], 1)
        for parts, goal in (((place, none), end[:, 0]), ((none, place), end[:, 1]))
    ]
    return np.linalg.solve(np.concatenate(rows), np.concatenate([end[:, 0], end[:, 1]]))


@full_precision
def warp(x: Tensor, coefficients: Tensor, beyond: Tensor) -> Tensor:
    """Images whose every place is taken from where the homography leads, bilinearly.

    Args:
        x: [B, C, S, S].
        coefficients: [B, 8] of places of the result, in units of the side; see `homography`.
        beyond: [C, 1, 1] color of what lies outside.
    """
    side = (torch.arange(x.shape[-1], device=x.device, dtype=x.dtype) + 0.5) / x.shape[-1]
    right, down = side[None, None, :], side[None, :, None]
    a, b, c, d, e, f, g, h = coefficients.to(x.dtype)[..., None, None].unbind(1)
    depth = g * right + h * down + 1
    places = torch.stack([a * right + b * down + c, d * right + e * down + f], 3) / depth[..., None]
    # what lies behind the eye is no part of the image
    places = torch.where(depth[..., None] > 0, 2 * places - 1, 2.0)
    inside = (places.abs() <= 1).all(3)[:, None]
    moved = F.grid_sample(x, places, padding_mode="border", align_corners=False)
    return torch.where(inside, moved, beyond)


@full_precision
def squared(found: Tensor, true: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(found, true.to(found.dtype))
