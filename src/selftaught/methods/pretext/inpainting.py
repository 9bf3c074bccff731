"""Context encoders (Pathak et al., 2016), https://arxiv.org/abs/1604.07379."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.masks import Draws, Range
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe
from selftaught.precision import full_precision
from selftaught.roles import DecoderWidth, Number, PartialShare, TermWeight
from selftaught.sides import Size, both, short, told_size

MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet's colors, with which hidden pixels are filled."""
REFERENCE_FILL = (117 / 255, 104 / 255, 123 / 255)
"""The fill of the paper's code, whose channels are mixed up."""


class ContextEncoder(Method):
    """Paint what is missing in the middle of an image.

    The paper's network around any backbone: features on a coarse grid, a layer that mixes the
    places of each channel, a decoder. Generator and discriminator learn in the same step, at the
    same rate; in the paper's code one after the other, the generator at ten times the rate.

    Args:
        backbone: any.
        region: what is missing: the `center`, half of each side, or `random` blobs that cover
            between 20 and 30 % of the image.
        adversarial: weight of fooling a discriminator, in [0, 1), 0 for none; 0.001 where the paper
            paints. Its features for other tasks were learned without.
        width: channels of the coarse features that are decoded.

    Other Args:
        overlap: pixels at the border of the missing center that are seen all the same, to be
            continued; below a quarter of the image.
        border: weight of the error in that border.
        fill: of missing pixels: the mean color, or the one of the paper's code.
    """

    recipe = Recipe(
        "adam", lr=2e-4, batch=64, scaling="none", schedule="constant", betas=(0.5, 0.999)
    )
    few = Few(width=64, overlap=1, lr=0.001)
    needs = Needs(backbone="resnet50", views="own")

    def __init__(
        self,
        backbone: Image,
        region: Literal["center", "random"] = "center",
        overlap: Number = 4,
        border: TermWeight = 10.0,
        adversarial: PartialShare = 0.0,
        width: DecoderWidth = 512,
        fill: Literal["mean", "reference"] = "mean",
    ):
        super().__init__()
        self.backbone, self.region, self.overlap, self.border = backbone, region, overlap, border
        self.adversarial, self.width, self.fill = adversarial, width, fill
        size = backbone.size
        if not 0 <= overlap < short(size) / 4 - 0.5:
            raise UserError(
                f"overlap={overlap} leaves nothing of the missing {short(size) // 2} px of images "
                f"of {told_size(size)} px; it must be in [0, {math.ceil(short(size) / 4 - 0.5)})"
            )
        painted = [side // 2 if region == "center" else side for side in both(size)]
        steps = max(0, math.floor(math.log2(min(painted) / 4)))
        rows, columns = (math.ceil(side / 2**steps) for side in painted)
        self.pool = nn.AdaptiveAvgPool2d((rows, columns))
        self.mixing = nn.Conv1d(
            rows * columns * backbone.local_dim,
            rows * columns * backbone.local_dim,
            1,
            groups=backbone.local_dim,
        )
        self.decoder = decoder(backbone.local_dim, width, steps, backbone.channels)
        self.discriminator = discriminator(backbone.channels, steps) if adversarial else None

    def views(self, size: Size) -> Pipeline:
        view = augment.crop(size, interpolation="bilinear")
        return view if self.region == "center" else Holed(view, size)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: images [B, C, H, W], and where regions are random which pixels miss [B, H, W].

        Of the terms, `border` is the additional weight that border has.
        """
        truth, missing = self.truth(batch)
        painted = self.paint(truth, missing)
        goal = center(truth) if self.region == "center" else truth
        if self.region == "center":
            weight = border_weight(both(goal.shape[-2:]), self.overlap, self.border).to(goal)
        else:
            painted = torch.where(missing[:, None], painted, goal)
            weight = torch.ones_like(goal[0, 0]) / dist.mean(missing.float().mean())
        share = 1 - self.adversarial
        plain, more = squared(painted, goal, weight)
        terms = {"squared": share * plain, "border": share * more}
        if self.discriminator is not None:
            # one backward pass for both sides: neither must move the other's weights
            frozen = {n: p.detach() for n, p in self.discriminator.named_parameters()}
            fooled = functional_call(self.discriminator, frozen, (painted,))
            real, fake = self.discriminator(goal), self.discriminator(painted.detach())
            terms["fooling"] = self.adversarial * fooling(fooled)
            terms["telling"] = telling(real, fake)
        return terms

    def truth(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images with colors in [-1, 1], and which of their pixels miss, [B, H, W]."""
        images, *missing = batch.views
        mean, std = self._colors(images)
        truth = 2 * (images * std + mean) - 1
        if missing:
            return truth, missing[0]
        hole = hidden_center(both(images.shape[-2:]), self.overlap).to(images.device)
        return truth, hole.expand(len(images), -1, -1)

    def paint(self, truth: Tensor, missing: Tensor) -> Tensor:
        """The center, or the whole, of images of which `missing` pixels are filled; see `truth`."""
        channels = truth.shape[1]
        color = REFERENCE_FILL if self.fill == "reference" else MEAN
        if channels != 3:
            color = (sum(color) / 3,) * channels
        mean, std = self._colors(truth)
        seen = (filled(truth, missing, color) + 1) / 2
        features = self.backbone.features((seen - mean) / std)
        coarse = self.pool(features.local.mT.unflatten(2, features.grid))
        mixed = self.mixing(coarse.flatten(1)[..., None]).view_as(coarse)
        rows, columns = (
            side // 2 if self.region == "center" else side for side in truth.shape[-2:]
        )
        return self.decoder(mixed)[..., :rows, :columns]

    def _colors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the channels, [C, 1, 1]."""
        mean, std = like.new_tensor([self.backbone.mean, self.backbone.std])[..., None, None]
        return mean, std

    def show(self, batch: Batch) -> Pictures:
        truth, missing = self.truth(batch)
        painted = self.paint(truth, missing).to(truth.dtype)
        if self.region == "center":
            whole = truth.clone()
            center(whole).copy_(painted)
            painted = whole
        mean, std = self._colors(truth)
        columns = {
            "seen": filled(truth, missing, (0.5,) * truth.shape[1]),
            "painted": torch.where(missing[:, None], painted, truth),
            "true": truth,
        }
        normalized = {name: ((x + 1) / 2 - mean) / std for name, x in columns.items()}
        return Pictures("Inpainting", "What was missing is painted; the rest is shown.", normalized)


def decoder(dim: int, width: int, steps: int, channels: int) -> nn.Sequential:
    """[B, dim, s, s] -> [B, channels, S, S] in [-1, 1], S = s * 2^steps, narrower as it grows."""
    widths = [width, *(max(16, width // 2 ** (i + 1)) for i in range(steps))]
    layers: list[nn.Module] = [nn.Conv2d(dim, width, 1), nn.BatchNorm2d(width), nn.ReLU(True)]
    for a, b in pairwise(widths):
        layers += [nn.ConvTranspose2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 3, 1, 1), nn.Tanh())


def discriminator(channels: int, steps: int, width: int = 64) -> nn.Sequential:
    """[B, channels, S, S] -> [B] logit that it is real."""
    layers: list[nn.Module] = []
    before = channels
    for i in range(max(1, steps)):
        now = min(512, width * 2**i)
        layers += [nn.Conv2d(before, now, 4, 2, 1)]
        layers += [nn.BatchNorm2d(now)] if i else []
        layers += [nn.LeakyReLU(0.2, True)]
        before = now
    return nn.Sequential(
        *layers, nn.Conv2d(before, 1, 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(0)
    )


def center(images: Tensor) -> Tensor:
    """The middle half of each side of [B, C, H, W], a view of it."""
    rows, columns = (slice(n // 4, n // 4 + n // 2) for n in images.shape[-2:])
    return images[..., rows, columns]


def hidden_center(size: Size, overlap: int) -> Tensor:
    """bool [H, W], True in the middle half of each side, but for `overlap` pixels at its border."""
    hidden = torch.zeros(both(size), dtype=torch.bool)
    rows, columns = (slice(n // 4 + overlap, n // 4 + n // 2 - overlap) for n in both(size))
    hidden[rows, columns] = True
    return hidden


def filled(images: Tensor, missing: Tensor, color: tuple[float, ...]) -> Tensor:
    """Images [B, C, H, W] in [-1, 1] with a color in [0, 1] where `missing` [B, H, W] is True."""
    fill = 2 * images.new_tensor(color)[:, None, None] - 1
    return torch.where(missing[:, None], fill, images)


def border_weight(size: Size, overlap: int, border: float) -> Tensor:
    """[H, W], 1 but for `border` in the outer `overlap` pixels."""
    weight = torch.full(both(size), float(border))
    rows, columns = (slice(overlap, n - overlap) for n in both(size))
    weight[rows, columns] = 1.0
    return weight


@full_precision
def squared(painted: Tensor, goal: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error, which the paper's code logs, and what `weight` [H, W] adds to it, with
    which that code trains.
    """
    error = (painted - goal).square()
    return error.mean(), ((weight - 1) * error).mean()


@full_precision
def fooling(fake: Tensor) -> Tensor:
    """The generator's loss from logits [B] of what it painted: -log D."""
    return F.softplus(-fake).mean()


@full_precision
def telling(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss from logits [B] of real and of painted ones."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


@dataclass(frozen=True)
class Holed:
    """One view and which of its pixels miss, by the sample's own generator."""

    view: Pipeline
    size: Size

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Any:
        (view,) = self.view(image, rng)
        rows, columns = both(self.size)
        pattern = blobs(rng, (3 * rows, 3 * columns), short(self.size) / 7.7)
        return view, holes(rng, pattern, self.size)


def blobs(draws: Draws, size: Size, scale: float) -> np.ndarray:
    """bool [rows, columns], True in blobs: a quarter of bicubically enlarged noise.

    Args:
        draws: source of randomness.
        size: in pixels.
        scale: pixels to a number of the noise; 1 / 0.06 for 128-px images in the paper's code.
    """
    cells = [max(2, math.ceil(side / scale)) for side in both(size)]
    noise = torch.from_numpy(draws.random((1, 1, *cells)))
    return (F.interpolate(noise, both(size), mode="bicubic") < 0.25)[0, 0].numpy()


def holes(
    draws: Draws, pattern: np.ndarray, size: Size, share: Range = (0.2, 0.3), tries: int = 50
) -> np.ndarray:
    """bool [rows, columns]: a cut-out of `pattern` of which a share strictly within bounds is True.

    After `tries` the one that comes nearest is taken, but one that hides nothing or everything
    never: then the center is hidden.
    """
    best, distance = np.asarray(hidden_center(size, 0)), 0.5 - share[1]
    for _ in range(tries):
        sides = zip(pattern.shape, both(size))
        top, left = (int(draws.integers(0, whole - side + 1)) for whole, side in sides)
        cut = pattern[top : top + both(size)[0], left : left + both(size)[1]]
        if accepted(cut, share):
            return cut
        off = abs(cut.mean() - sum(share) / 2)
        if off < distance:
            best, distance = cut, off
    return best


def accepted(cut: np.ndarray, share: Range = (0.2, 0.3)) -> bool:
    """Whether the share of `cut` that is True lies strictly within the bounds."""
    return bool(share[0] < cut.mean() < share[1])
