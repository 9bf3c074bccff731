"""Discrete VAE (Ramesh et al., 2021), https://arxiv.org/abs/2102.12092: BEiT's tokenizer."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.backbones.image.tokenizer import Tokenizer, map_pixels, unmap_pixels
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe
from selftaught.precision import full_precision
from selftaught.roles import Count, DecoderWidth, Temperature, TermWeight
from selftaught.schedule import cosine
from selftaught.sides import Size


class DiscreteVAE(Method):
    """Write an image as few words of a learned vocabulary, and paint it from them.

    The first of BEiT's two stages: `beit --tokenizer RUN` predicts the words of this run. The
    encoder may be any backbone, whose places are the words'; the rest is as in BEiT's code, with
    the temperatures of DALL-E.

    Args:
        backbone: any that shrinks images by a power of 2.
        vocabulary: number of words.
        temperature: of the relaxed choice of words, at the start and at the end.
        kl_weight: of the divergence of the words' probabilities from uniform ones.

    Other Args:
        dim: width of the words' vectors.
        width: channels of the decoder.
        straight_through: whether one word is chosen at each place, and only the gradient relaxed.
        kl: its `mean` over places, or the sum over places and batch, as the paper's `reference` has
            it, whose weight then depends on both.
    """

    recipe = Recipe("adamw", lr=5e-4, batch=256, scaling="none", weight_decay=1e-4, end=0.0025)
    few = Few(vocabulary=512, dim=64, width=32, lr=0.001)
    needs = Needs(backbone="vit_small_patch16_224", batch=1, views="own")

    def __init__(
        self,
        backbone: Image,
        vocabulary: Count = 8192,
        dim: Count = 512,
        width: DecoderWidth = 256,
        temperature: tuple[Temperature, Temperature] = (1.0, 0.0625),
        straight_through: bool = False,
        kl_weight: TermWeight = 0.01,
        kl: Literal["mean", "reference"] = "mean",
    ):
        super().__init__()
        if vocabulary < 2:
            raise UserError(f"vocabulary={vocabulary} must be at least 2")
        self.vocabulary, self.dim, self.width = vocabulary, dim, width
        self.temperature, self.straight_through = temperature, straight_through
        self.kl_weight, self.kl = kl_weight, kl
        self.tokenizer = Tokenizer(backbone, vocabulary)
        self.codebook = nn.Embedding(vocabulary, dim)
        steps = round(math.log2(self.tokenizer.cell))
        if 2**steps != self.tokenizer.cell:
            raise UserError(
                f"{backbone.name} has a place for each {self.tokenizer.cell} px, which is no power "
                "of 2; use a backbone such as vit_small_patch16_224"
            )
        self.decoder = decoder(dim, width, steps, backbone.channels)

    @property
    def backbone(self) -> Image:  # type: ignore[override]
        return self.tokenizer.backbone

    def views(self, size: Size) -> Pipeline:
        return augment.crop(size)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: one [B, C, H, W]."""
        (images,) = batch.views
        logits = self.tokenizer.logits(images)
        noise = -torch.empty_like(logits).exponential_().log()
        _, error, divergence = self.terms(logits, noise, map_pixels(self.colors(images)))
        return {"squared": error, "divergence": self.kl_weight * divergence}

    def terms(self, logits: Tensor, noise: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is painted, its squared error, and the divergence.

        Args:
            logits: [B, V, rows, cols].
            noise: of a Gumbel distribution, of the same shape.
            goal: [B, C, H, W].
        """
        painted = self.decode(choose(logits, noise, self.now, self.straight_through))
        return painted, F.mse_loss(painted, goal), divergence(logits, self.kl)

    @property
    def now(self) -> float:
        """The temperature."""
        return cosine(*self.temperature, self.progress)

    def decode(self, words: Tensor) -> Tensor:
        """[B, C, H, W] from [B, V, rows, cols] weights of the words at each place."""
        return self.decoder(torch.einsum("bvhw,vd->bdhw", words, self.codebook.weight))

    def colors(self, images: Tensor) -> Tensor:
        """Normalized images as colors in [0, 1]."""
        backbone = self.tokenizer.backbone
        mean, std = images.new_tensor([backbone.mean, backbone.std])[..., None, None]
        return images * std + mean

    def show(self, batch: Batch) -> Pictures:
        (images,) = batch.views
        ids = self.tokenizer.logits(images).argmax(1)
        words = F.one_hot(ids, self.vocabulary).movedim(3, 1).to(self.codebook.weight.dtype)
        mean, std = images.new_tensor([self.tokenizer.backbone.mean, self.tokenizer.backbone.std])[
            ..., None, None
        ]
        painted = (unmap_pixels(self.decode(words).float()) - mean) / std
        return Pictures(
            "Images written in words",
            f"Each image as {ids[0].numel()} of {self.vocabulary:,} words, painted from them.",
            {"painted": painted, "true": images},
            {"painted": [f"{len(row.unique())} different words" for row in ids]},
        )


@full_precision
def choose(logits: Tensor, noise: Tensor, temperature: float, one: bool) -> Tensor:
    """Gumbel softmax over axis 1 with given noise; `one` picks a word, with the same gradient."""
    soft = ((logits + noise) / temperature).softmax(1)
    if not one:
        return soft
    hard = torch.zeros_like(soft).scatter(1, soft.argmax(1, keepdim=True), 1.0)
    return hard + soft - soft.detach()


@full_precision
def divergence(logits: Tensor, kl: str) -> Tensor:
    """Of the words' probabilities [B, V, rows, cols] from uniform ones; see `kl` of the method."""
    share = logits.softmax(1) + 1e-10
    each = (share * (share.log() + math.log(logits.shape[1]))).sum(1)
    return each.sum() if kl == "reference" else each.mean()


class Residual(nn.Module):
    """x + three convolutions with ReLUs between them."""

    def __init__(self, dim: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


def decoder(dim: int, width: int, steps: int, channels: int) -> nn.Sequential:
    """[B, dim, h, w] -> [B, channels, h * 2^steps, w * 2^steps]."""
    layers: list[nn.Module] = []
    for i in range(steps):
        up = nn.ConvTranspose2d(width if i else dim, width, 4, 2, 1)
        layers += [nn.Sequential(up, nn.ReLU()), Residual(width)]
    return nn.Sequential(*layers, nn.Conv2d(width if steps else dim, channels, 1))
