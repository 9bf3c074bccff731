"""Exemplar CNN (Dosovitskiy et al., 2014), https://arxiv.org/abs/1406.6909."""

import math
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment, dist
from selftaught.augment.pipeline import check_image
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import (
    Batch,
    Corpus,
    Epoch,
    Few,
    Method,
    Needs,
    Pictures,
    Pipeline,
    Recipe,
    ReferenceLoss,
)
from selftaught.objectives.metric import semi_hard
from selftaught.roles import Count, DrawnImages, Fraction, Margin, SampleCount
from selftaught.sides import Size, short

COLORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
"""Principal components of the colors of ImageNet, one a column (Krizhevsky et al., 2012)."""


class ExemplarCNN(Method):
    """Classify patches into surrogate classes, each made of one seed patch by strong distortions.

    Seeds lie where an image changes most. The paper distorts each 150 times, once and for all;
    here it is distorted anew whenever it is shown. Kolesnikov et al. (2019,
    https://arxiv.org/abs/1901.09005) replace the classes, whose number grows with the data, by a
    semi-hard triplet loss over several copies of each image; their code normalizes embeddings
    over the batch instead of over their coordinates, which `triplet_reference` repeats. The
    paper lowers the rate by hand, here it is constant.

    Args:
        backbone: image encoder.
        surrogates: number of classes, images that a seed is taken from; for `classes` alone.
        objective: softmax over the classes, or triplets.
        copies: distorted patches of each image in a step; 8 for triplets, which need 2.
        patch: side of a seed as a fraction of the image's short side; 1 for images like CIFAR's.

    Other Args:
        samples: images in the dataset.
        dim: width of the embedding that triplets compare.
        margin: of the triplets, above 0.
    """

    recipe = Recipe(
        "sgd", lr=0.01, scaling="none", weight_decay=0.004, schedule="constant", decay_bias=True
    )
    few = Few(surrogates=2000, patch=1.0, lr=0.001)
    needs = Needs(views="own", squares="turns what it cuts out of them", order="own")
    chosen: Tensor
    """[surrogates] the image that each class was made of."""
    surrogate: Tensor
    """[samples] class of each image, -1 for images that no class was made of."""

    def __init__(
        self,
        backbone: Image,
        samples: SampleCount,
        surrogates: DrawnImages = 8000,
        objective: Literal["classes", "triplet", "triplet_reference"] = "classes",
        copies: Count = 1,
        dim: Count = 1000,
        margin: Margin = 0.5,
        patch: Fraction = 0.333,
    ):
        super().__init__()
        if objective == "classes" and not 2 <= surrogates <= samples:
            raise UserError(
                f"exemplar_cnn makes each of its {surrogates} surrogate classes of an image of its "
                f"own, and there are {samples} images: give surrogates between 2 and {samples}"
            )
        if objective != "classes" and copies < 2:
            raise UserError(
                f"a triplet needs 2 copies of an image at least, got copies={copies}; the paper's "
                "code has 8"
            )
        self.backbone, self.samples, self.surrogates = backbone, samples, surrogates
        self.objective, self.copies, self.dim = objective, copies, dim
        self.margin, self.patch = margin, patch
        count = surrogates if objective == "classes" else samples
        chosen = torch.randperm(samples)[:count].sort().values
        self.register_buffer("chosen", chosen)
        surrogate = torch.full((samples,), -1)
        surrogate[chosen] = torch.arange(count)
        self.register_buffer("surrogate", surrogate)
        self.classifier = nn.Linear(backbone.dim, surrogates if objective == "classes" else dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        if self.objective != "classes":
            return (ReferenceLoss(self.margin, "the margin, all embeddings alike"),)
        count = self.surrogates
        return (ReferenceLoss(math.log(count), f"ln {count}, guessing the surrogate class"),)

    def views(self, size: Size) -> Pipeline:
        return Distorted(short(size), self.patch, self.copies)

    def on_epoch(self, corpus: Corpus) -> Epoch:
        """The images with a class, as often as fills an epoch."""
        rounds = -(-len(corpus) // len(self.chosen))
        chosen = dist.from_first(
            torch.cat([self.chosen[torch.randperm(len(self.chosen))] for _ in range(rounds)])
        )
        return Epoch(chosen[: len(corpus)].cpu())

    def loss(self, batch: Batch) -> Tensor:
        """views: one [B, copies, C, S, S]."""
        (x,) = batch.views
        z = self.classifier(self.backbone(x.flatten(0, 1)))
        image = batch.index.repeat_interleave(x.shape[1])
        if self.objective == "classes":
            target = self.surrogate[image]  # -1 for what took the place of an unreadable image
            loss = F.cross_entropy(z, target, ignore_index=-1, reduction="sum")
            return loss / (target >= 0).sum().clamp(min=1)
        return semi_hard(z, image, self.margin, axis=0 if self.objective != "triplet" else 1)

    def show(self, batch: Batch) -> Pictures:
        (x,) = batch.views
        z = self.classifier(self.backbone(x.flatten(0, 1)))
        if self.objective == "classes":
            own = self.surrogate[batch.index.repeat_interleave(x.shape[1])]
            better = (z > z.gather(1, own.clamp(min=0)[:, None])).sum(1)
            place = [
                "has no class" if none else f"{n + 1} of {self.surrogates}{'' if n else ' ✓'}"
                for none, n in zip((own < 0).tolist(), better.tolist())
            ]
            note = "Below each, at which place the network has its own surrogate class."
        else:
            apart = torch.cdist(z, z).fill_diagonal_(torch.inf)
            image = torch.arange(len(z)) // x.shape[1]
            near = image[apart.argmin(1).cpu()] == image
            place = ["✓" if right else "✗" for right in near.tolist()]
            note = "A ✓ where the most similar of all patches shown is another of the same image."
        names = [f"copy {i + 1}" for i in range(x.shape[1])]
        return Pictures(
            "Distorted patches, and whether they were known",
            f"One patch of each image, distorted. {note}",
            dict(zip(names, x.unbind(1))),
            {name: place[i :: x.shape[1]] for i, name in enumerate(names)},
        )


@dataclass(frozen=True)
class Distorted(augment.Pipeline):
    """An image -> `copies` distorted versions of its seed patch, [copies, C, size, size].

    The ranges are those of the paper's code: scale 2^(+-0.5), shift +-0.25 of the patch, turn
    +-20 degrees; colors along their principal components times 2^N(0, 1) (the last 2^N(0, 0.5));
    saturation and value to the power of 2^(+-2), times 2^(+-0.5), plus +-0.1, like the hue.
    """

    size: int
    patch: float
    copies: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        check_image(image)
        seed = seed_patch(image, max(1, round(self.patch * min(image.shape[:2]))))
        return [np.stack([self._copy(image, seed, rng) for _ in range(self.copies)])]

    def _copy(
        self, image: np.ndarray, seed: tuple[float, float, float], rng: np.random.Generator
    ) -> np.ndarray:
        y, x, side = seed
        side *= rng.uniform(2**-0.5, 2**0.5)
        down, right = rng.uniform(-0.25, 0.25, 2) * side
        angle = math.radians(rng.uniform(-20, 20))
        factors = 2 ** (rng.standard_normal(3) * (1, 1, 0.5))
        powers, mults = 2 ** rng.uniform(-2, 2, 2), 2 ** rng.uniform(-0.5, 0.5, 2)
        shifts = rng.uniform(-0.1, 0.1, 3)
        out = cut(image, y + down, x + right, side, angle, self.size)[None]
        if out.shape[3] == 3:
            # a range of its own: their code has one of many patches, from black to white
            out = deform_colors(_stretched(out), COLORS, factors[None])
            out = change_tones(255 * out, powers[None], mults[None], shifts[None])
        else:  # other channels have brightness alone
            out = _toned(_stretched(out), powers[0], mults[0], shifts[0])
        return (255 * out[0]).round().astype(np.uint8).transpose(2, 0, 1)


def seed_patch(image: np.ndarray, side: int) -> tuple[float, float, float]:
    """Center and side of an image's seed, drawn by how much its pixels change; always the same.

    Args:
        image: uint8 [H, W, C].
        side: of the patch, in pixels, at most those of the image.

    Returns:
        y, x of the center and the side, in pixels.
    """
    gray = image.mean(2)
    down, right = np.gradient(np.pad(gray, 1, "edge"))
    change = (down**2 + right**2)[1:-1, 1:-1]
    area = np.pad(change, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    within = area[side:, side:] - area[:-side, side:] - area[side:, :-side] + area[:-side, :-side]
    chance = within.clip(min=0).ravel() + 1e-6
    rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(image).data))
    place = np.searchsorted(chance.cumsum(), rng.random() * chance.sum())
    top, left = np.unravel_index(min(int(place), chance.size - 1), within.shape)
    return float(top) + side / 2, float(left) + side / 2, float(side)


def cut(image: np.ndarray, y: float, x: float, side: float, angle: float, size: int) -> np.ndarray:
    """A turned square of an image, bilinearly, mirrored at the edges: float [size, size, C].

    Args:
        image: [H, W, C].
        y, x: center of the square, in pixels.
        side: of the square, in pixels.
        angle: that it is turned by, in radians.
        size: of the result, in pixels.
    """
    steps = ((np.arange(size) + 0.5) / size - 0.5) * side
    cos, sin = math.cos(angle), math.sin(angle)
    rows = y - 0.5 + steps[:, None] * cos + steps * sin
    columns = x - 0.5 - steps[:, None] * sin + steps * cos
    rows, columns = _mirrored(rows, image.shape[0]), _mirrored(columns, image.shape[1])
    top, left = rows.astype(int), columns.astype(int)
    below = np.minimum(top + 1, image.shape[0] - 1)
    right = np.minimum(left + 1, image.shape[1] - 1)
    v, u = (rows - top)[..., None], (columns - left)[..., None]
    upper = (1 - u) * image[top, left] + u * image[top, right]
    lower = (1 - u) * image[below, left] + u * image[below, right]
    return (1 - v) * upper + v * lower


def _mirrored(place: np.ndarray, length: int) -> np.ndarray:
    """Coordinates folded into [0, length - 1]."""
    last = max(length - 1, 1e-9)
    return np.minimum(last - np.abs(place % (2 * last) - last), length - 1).clip(min=0)


def deform_colors(patches: np.ndarray, basis: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Stretch the colors of patches along the axes of `basis`, within the range that they had.

    Args:
        patches: [N, h, w, 3], which are one batch: range and mean are taken over all.
        basis: [3, 3], one axis a column.
        factors: [N, 3].

    Returns:
        [N, h, w, 3] in [0, 1].
    """
    mean, low = patches.mean((0, 1, 2)), patches.min()
    span = max(patches.max() - low, 1e-9)
    centered = (patches - mean - low) / span
    moved = centered @ basis * factors[:, None, None] @ np.linalg.inv(basis)
    moved = moved.clip(centered.min(), centered.max())
    return (moved + (mean - low) / span).clip(0, 1)


def change_tones(
    patches: np.ndarray, powers: np.ndarray, mults: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """Change hue, saturation and value of patches, each stretched to its own range before.

    Args:
        patches: [N, h, w, 3].
        powers, mults: [N, 2] of value and saturation.
        shifts: [N, 3] of value, saturation and hue, which is a circle of length 1.

    Returns:
        [N, h, w, 3] in [0, 1].
    """
    hue, saturation, value = _to_hsv(_stretched(patches))
    p, m, s = (a.T[:, :, None, None] for a in (powers, mults, shifts))
    value, saturation = _toned(value, p[0], m[0], s[0]), _toned(saturation, p[1], m[1], s[1])
    return _to_rgb((hue + s[2]) % 1, saturation, value)


def _toned(x: np.ndarray, power: np.ndarray, mult: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return (x**power * mult + shift).clip(0, 1)


def _stretched(patches: np.ndarray) -> np.ndarray:
    """Each patch to [0, 1]."""
    low = patches.min((1, 2, 3), keepdims=True)
    return (patches - low) / np.maximum(patches.max((1, 2, 3), keepdims=True) - low, 1e-9)


def _to_hsv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[..., 3] in [0, 1] -> hue, saturation and value, each [...] in [0, 1]."""
    r, g, b = np.moveaxis(rgb, -1, 0)
    value = rgb.max(-1)
    span = value - rgb.min(-1)
    safe = np.where(span > 0, span, 1)
    sector = np.where(
        value == r, (g - b) / safe % 6, np.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)
    )
    hue = np.where(span > 0, sector / 6, 0)
    return hue, span / np.where(value > 0, value, 1), value


def _to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    sector = (np.array([5, 3, 1]) + 6 * hue[..., None]) % 6
    share = np.minimum(sector, 4 - sector).clip(0, 1)
    return value[..., None] * (1 - saturation[..., None] * share)
