"""Colorful image colorization (Zhang et al., 2016), https://arxiv.org/abs/1603.08511."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import augment
from selftaught.augment.image.colored import LEAST
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.parts.colors import lab, rgb
from selftaught.parts.decoder import as_map, decoder
from selftaught.parts.gamut import annealed_mean, bins, nearest, prior
from selftaught.precision import full_precision
from selftaught.roles import Count, DecoderWidth, Positive, Share, Temperature
from selftaught.sides import Size

HUES = 32
"""Bins of hue and of chroma (Larsson et al., 2016)."""
HUE = 5.0
"""Weight of the hue (Larsson et al., 2016)."""


class Colorization(Method):
    """Tell the colors of an image from its lightness.

    Colors are predicted at every fourth pixel, as a distribution over 313 bins of (a, b); rare
    ones count more. The encoder sees lightness alone, also when it is evaluated. The other losses
    are those of "Colorization as a proxy task" (Larsson et al., 2017): squared differences of
    (a, b), and hue and chroma in 32 bins each, the hue as important as the pixel is colorful.
    The loss is the mean over pixels; in the paper's code the sum over those of an image.

    Args:
        backbone: image encoder of 3 channels with local features.
        form: `rebalanced` bins, `plain` bins, `regression`, or the `hybrid` of hue and chroma.
        temperature: of the softmax whose mean color is shown, in (0, 1].
        width: channels of the decoder.

    Other Args:
        neighbors: bins among which a color is divided.
        sigma: of the Gaussian by which it is.
        gamma: share of the uniform distribution in the prior that colors are rebalanced by.
    """

    recipe = Recipe(
        "adam",
        lr=3e-5,
        batch=40,
        scaling="none",
        weight_decay=1e-3,
        schedule="step",
        milestones=(0.5,),
        drop=0.316,
        betas=(0.9, 0.99),
        decay_bias=True,
    )
    few = Few(width=64, lr=0.001)
    needs = Needs(batch=1, views="own")
    centers: Tensor
    factors: Tensor

    def __init__(
        self,
        backbone: Image,
        form: Literal["rebalanced", "plain", "regression", "hybrid"] = "rebalanced",
        neighbors: Count = 10,
        sigma: Positive = 5.0,
        gamma: Share = 0.5,
        temperature: Temperature = 0.38,
        width: DecoderWidth = 256,
    ):
        super().__init__()
        if neighbors > 313:
            raise UserError(f"neighbors={neighbors}: there are 313 bins in all")
        backbone.see("lightness")
        self.backbone, self.form, self.neighbors, self.sigma = backbone, form, neighbors, sigma
        self.gamma, self.temperature, self.width = gamma, temperature, width
        self.register_buffer("centers", bins(), persistent=False)
        self.register_buffer("factors", rebalancing(prior(), gamma), persistent=False)
        outputs = {"regression": 2, "hybrid": 2 * HUES}.get(form, len(self.centers))
        self.decoder = decoder(backbone.local_dim, width, backbone.reduction, 4, outputs)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        if self.form == "regression":
            return ()
        if self.form == "hybrid":
            return (
                ReferenceLoss(math.log(HUES), f"ln {HUES}, guessing the chroma", term="chroma"),
            )
        return (ReferenceLoss(math.log(313), "ln 313, guessing the bin", term="plain"),)

    def views(self, size: Size) -> Pipeline:
        return augment.Colored(augment.crop(size, interpolation="bilinear"))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: [B, 3, S, S].

        Of the terms, `rebalancing` is what the weights of rare colors add to the plain loss,
        which the paper's code logs.
        """
        found = self.predict(batch.views)
        truth = F.interpolate(self.colors(batch.views), found.shape[2:], mode="nearest")
        if self.form == "hybrid":
            hue, chroma = hue_and_chroma(found, truth)
            return {"hue": HUE * hue, "chroma": chroma}
        return self.compare(found, lab(truth)[:, 1:])

    def compare(self, found: Tensor, ab: Tensor) -> dict[str, Tensor]:
        """The terms of outputs [B, outputs, H, W] against (a, b) [B, 2, H, W], but for hybrids."""
        if self.form == "regression":
            return {"squared": squared(found, ab)}
        which, weights = encode(ab, self.centers, self.neighbors, self.sigma)
        error = cross_entropy(found, which, weights)
        if self.form == "plain":
            return {"plain": error.mean()}
        more = (boost(ab, which, self.factors) - 1) * error
        return {"plain": error.mean(), "rebalancing": more.mean()}

    def predict(self, x: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, outputs, H, W]."""
        found = self.backbone.features(x)
        return self.decoder(as_map(found.local, found.grid))

    def colors(self, x: Tensor) -> Tensor:
        """Normalized images -> [0, 1], not in half precision."""
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mean, std = x.new_tensor([self.backbone.mean, self.backbone.std])[..., None, None]
        return x * std + mean

    def show(self, batch: Batch) -> Pictures:
        truth = self.colors(batch.views)
        light, found = lab(truth)[:, :1], self.predict(batch.views).to(truth.dtype)
        if self.form == "regression":
            ab = 110 * found
        elif self.form == "hybrid":
            small = F.interpolate(truth, found.shape[2:], mode="bilinear", antialias=True)
            ab = lab(painted(found, small.mean(1)))[:, 1:]
        else:
            ab = annealed_mean(found, self.centers, self.temperature)
        ab = F.interpolate(ab, truth.shape[2:], mode="bilinear")
        mean, std = truth.new_tensor([self.backbone.mean, self.backbone.std])[..., None, None]
        columns = {
            "seen": rgb(torch.cat([light, torch.zeros_like(ab)], 1)),
            "colored": rgb(torch.cat([light, ab], 1)),
            "true": truth,
        }
        normalized = {name: (x - mean) / std for name, x in columns.items()}
        return Pictures("Colorings", "The network saw lightness alone.", normalized)


def rebalancing(prior: Tensor, gamma: float, alpha: float = 1.0) -> Tensor:
    """[Q] weights of colors from their shares [Q]: 1 on average, more for rare ones (Eq. 4).

    Args:
        prior: shares that sum to 1.
        gamma: share of the uniform distribution over colors that occur.
        alpha: power, 0 for equal weights.
    """
    occurring = (prior > 0).to(prior)
    factors = ((1 - gamma) * prior + gamma * occurring / occurring.sum()) ** -alpha
    return factors / (prior * factors).sum()


def encode(ab: Tensor, centers: Tensor, count: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Divide each color among the bins next to it, by a Gaussian of their distance.

    Args:
        ab: [B, 2, H, W].
        centers: [Q, 2] of the bins.
        count: number of bins.
        sigma: of the Gaussian.

    Returns:
        Which bins, nearest first, and their weights, which sum to 1; both [B, count, H, W].
    """
    distance, which = nearest(ab, centers, count)
    return which, (-(distance**2) / (2 * sigma**2)).softmax(1)


@full_precision
def cross_entropy(logits: Tensor, which: Tensor, weights: Tensor) -> Tensor:
    """[B, 1, H, W] cross entropy of logits [B, Q, H, W] with what `encode` gave (Eq. 2)."""
    return -(weights * logits.log_softmax(1).gather(1, which)).sum(1, keepdim=True)


def boost(ab: Tensor, which: Tensor, factors: Tensor) -> Tensor:
    """[B, 1, H, W] weight of each pixel: that of its nearest bin, 0 in images without color."""
    colored = (ab.abs() > LEAST).flatten(1).any(1)
    return factors.to(ab)[which[:, :1]] * colored[:, None, None, None]


@full_precision
def squared(found: Tensor, ab: Tensor) -> Tensor:
    """Mean squared difference of (a, b) in units of 110, [B, 2, H, W]."""
    return (found - ab / 110).square().mean()


@full_precision
def hue_and_chroma(logits: Tensor, colors: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropies of hue, weighted by chroma, and of chroma (Larsson et al., 2016, Eq. 4).

    Hue is the angle in the hexagon of colors, chroma the difference of the largest and the
    smallest channel. Each pixel has one bin of both.

    Args:
        logits: [B, 64, H, W], hue and then chroma.
        colors: [B, 3, H, W] in [0, 1].
    """
    red, green, blue = colors.clamp(0, 1).unbind(1)
    chroma = colors.amax(1).clamp(0, 1) - colors.amin(1).clamp(0, 1)
    angle = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi) % 1
    hue, strength = ((x * HUES).long().clamp(0, HUES - 1) for x in (angle, chroma))
    of_hue, of_chroma = logits.unflatten(1, (2, HUES)).unbind(1)
    weighted = chroma * F.cross_entropy(of_hue, hue, reduction="none")
    return weighted.mean(), F.cross_entropy(of_chroma, strength)


@full_precision
def painted(logits: Tensor, light: Tensor) -> Tensor:
    """The circular mean of the hue and the median of the chroma (Larsson et al., 2016) as colors.

    Args:
        logits: [B, 64, H, W], as of `hue_and_chroma`.
        light: [B, H, W] mean of the three channels, in [0, 1].

    Returns:
        [B, 3, H, W] in [0, 1].
    """
    of_hue, of_chroma = logits.unflatten(1, (2, HUES)).softmax(2).unbind(1)
    middles = (torch.arange(HUES, device=logits.device) + 0.5)[:, None, None] / HUES
    across, up = ((f(2 * torch.pi * middles) * of_hue).sum(1) for f in (torch.cos, torch.sin))
    median = (of_chroma.cumsum(1) < 0.5).sum(1).clamp(max=HUES - 1)
    turned = torch.stack([2 * across, 3**0.5 * up - across, -(3**0.5) * up - across], 1)
    spread = (turned.amax(1) - turned.amin(1)).clamp(min=1e-6)
    chroma = (median + 0.5) / HUES
    return (light[:, None] + turned * (chroma / spread)[:, None]).clamp(0, 1)
