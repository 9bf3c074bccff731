"""Denoising autoencoder (Vincent et al., 2008), https://www.cs.toronto.edu/~larocheh/publications/icml-2008-denoising-autoencoders.pdf."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.parts.decoder import as_map, decoder
from selftaught.precision import full_precision
from selftaught.roles import DecoderWidth, Share
from selftaught.sides import Size


class DenoisingAutoencoder(Method):
    """Paint an image as it was before pixels of it were lost.

    The start of all that hides and paints: what is lost has no place of its own and no token that
    says so. The paper stacks layers that learn one after the other; here the backbone learns as a
    whole, with a small decoder. Take it as a floor for `mae` and `simmim`, or with `gaussian` noise
    where images are textures.

    Args:
        backbone: any.
        noise: what becomes of pixels: lost (0), lost or white at equal chances (Vincent et al.,
            2010), or all of them moved by normal noise.
        amount: share of the pixels that are lost; of normal noise the standard deviation, white
            being 1.
        distance: cross entropy of colors as chances, as in the paper, or the square.
        width: channels of the decoder.
    """

    recipe = Recipe("sgd", lr=0.1, batch=64, scaling="none", schedule="constant")
    few = Few(width=64, lr=0.001)
    needs = Needs(batch=1, views="own")

    def __init__(
        self,
        backbone: Image,
        noise: Literal["masking", "salt_and_pepper", "gaussian"] = "masking",
        amount: Share = 0.25,
        distance: Literal["cross_entropy", "squared"] = "cross_entropy",
        width: DecoderWidth = 256,
    ):
        super().__init__()
        self.backbone, self.noise, self.amount = backbone, noise, amount
        self.distance, self.width = distance, width
        self.decoder = decoder(backbone.local_dim, width, backbone.reduction, 1, backbone.channels)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        if self.distance == "squared":
            return ()
        return (ReferenceLoss(math.log(2), "ln 2, all painted half gray"),)

    def views(self, size: Size) -> Pipeline:
        return Corrupted(augment.crop(size), self.noise, self.amount)

    def loss(self, batch: Batch) -> Tensor:
        """views: images and what was made of them, [B, C, H, W] each."""
        clean, corrupted = batch.views
        return compare(self.paint(corrupted), self.colors(clean), self.distance)

    def paint(self, corrupted: Tensor) -> Tensor:
        """[B, C, H, W] logits of colors, or colors themselves where their square is compared."""
        found = self.backbone.features(corrupted)
        painted = self.decoder(as_map(found.local, found.grid))
        size = corrupted.shape[-2:]
        if painted.shape[-2:] == size:
            return painted
        return F.interpolate(painted, size, mode="bilinear")  # patches of 14 px

    def colors(self, x: Tensor) -> Tensor:
        """Normalized images as colors in [0, 1]."""
        mean, std = x.new_tensor([self.backbone.mean, self.backbone.std])[..., None, None]
        return (x * std + mean).clamp(0, 1)

    def show(self, batch: Batch) -> Pictures:
        clean, corrupted = batch.views
        painted = self.paint(corrupted).to(clean.dtype)
        colors = painted.sigmoid() if self.distance == "cross_entropy" else painted.clamp(0, 1)
        mean, std = clean.new_tensor([self.backbone.mean, self.backbone.std])[..., None, None]
        return Pictures(
            "Reconstructions",
            "What the encoder sees, what it painted, and the image as it was.",
            {"seen": corrupted, "painted": (colors - mean) / std, "true": clean},
        )


@full_precision
def compare(painted: Tensor, colors: Tensor, distance: str) -> Tensor:
    """Mean over all numbers of [B, C, H, W] (Eq. 1 and 2); `painted` are logits or colors."""
    if distance == "squared":
        return F.mse_loss(painted, colors)
    return F.binary_cross_entropy_with_logits(painted, colors)


@dataclass(frozen=True)
class Corrupted(augment.Pipeline):
    """The one view of `view`, and the same with noise, drawn by the sample's own generator."""

    view: Pipeline
    noise: str
    amount: float

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Any:
        (clean,) = self.view(image, rng)
        if self.noise == "gaussian":
            moved = clean + 255 * self.amount * rng.standard_normal(clean.shape, np.float32)
            return [clean, moved.round().clip(0, 255).astype(np.uint8)]
        lost = rng.random(clean.shape[-2:]) < self.amount
        white = rng.random(clean.shape[-2:]) < 0.5
        value = np.uint8(255) * white if self.noise == "salt_and_pepper" else np.uint8(0)
        return [clean, np.where(lost, value, clean).astype(np.uint8)]
