"""Split-brain autoencoders (Zhang et al., 2017), https://arxiv.org/abs/1611.09842."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.parts.colors import lab, rgb
from selftaught.parts.decoder import as_map, decoder
from selftaught.parts.gamut import annealed_mean, bins, nearest
from selftaught.precision import full_precision
from selftaught.roles import Count, DecoderWidth
from selftaught.sides import Size


class SplitBrain(Method):
    """One half of the network tells colors from lightness, the other lightness from colors.

    The halves know nothing of each other: all convolutions have two groups, as in the paper's
    network, so that only convolutional networks with batch norms can be cut. Their features are
    the halves side by side. The training code is not public: the losses are the paper's, hard
    bins without rebalancing; the recipe is that of colorization.

    Args:
        backbone: image encoder of 3 channels, a ResNet.
        steps: number of bins of lightness.
        width: channels of the decoders.
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

    def __init__(self, backbone: Image, steps: Count = 100, width: DecoderWidth = 256):
        super().__init__()
        backbone.see("halves")
        self.backbone, self.steps, self.width = backbone, steps, width
        self.register_buffer("centers", bins(), persistent=False)
        half, reduction = backbone.local_dim // 2, backbone.reduction
        self.to_colour = decoder(half, width, reduction, 4, len(self.centers))
        self.to_lightness = decoder(half, width, reduction, 4, steps)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (
            ReferenceLoss(math.log(313), "ln 313, guessing the bin", term="colour"),
            ReferenceLoss(
                math.log(self.steps), f"ln {self.steps}, guessing the bin", term="lightness"
            ),
        )

    def views(self, size: Size) -> Pipeline:
        return augment.Colored(augment.crop(size, interpolation="bilinear"))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: [B, 3, S, S]."""
        x = batch.views
        color, light = self.predict(x)
        mean, std = self._colors(x)
        truth = lab(F.interpolate(x * std + mean, color.shape[2:], mode="nearest"))
        goals = color_bin(truth[:, 1:], self.centers), lightness_bin(truth[:, 0], self.steps)
        return {
            "colour": cross_entropy(color, goals[0]),
            "lightness": cross_entropy(light, goals[1]),
        }

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] -> [B, 313, H, W] logits of colors, [B, steps, H, W] of lightness."""
        found = self.backbone.features(x)
        one, other = as_map(found.local, found.grid).chunk(2, 1)
        return self.to_colour(one), self.to_lightness(other)

    def _colors(self, x: Tensor) -> Tensor:
        """What `x` was normalized with: mean and deviation, [2, 3, 1, 1]."""
        return x.new_tensor([self.backbone.mean, self.backbone.std])[..., None, None]

    def show(self, batch: Batch) -> Pictures:
        x = batch.views
        mean, std = self._colors(x)
        light, ab = lab(x * std + mean).split([1, 2], 1)
        color, bright = (logits.to(x.dtype) for logits in self.predict(x))
        levels = (torch.arange(self.steps, device=x.device) + 0.5) * (100 / self.steps)
        told_ab, told_light = (
            F.interpolate(told, x.shape[2:], mode="bilinear")
            for told in (
                annealed_mean(color, self.centers),
                torch.einsum("bshw,s->bhw", bright.softmax(1), levels.to(x))[:, None],
            )
        )
        columns = {
            "lightness": (light, torch.zeros_like(ab)),
            "colored": (light, told_ab),
            "colors": (torch.full_like(light, 60), ab),
            "lit": (told_light, ab),
            "true": (light, ab),
        }
        return Pictures(
            "Colors from lightness, lightness from colors",
            "One half of the network sees lightness and tells the colors, which gives “colored”; "
            "the other sees colors and tells the lightness, “lit”.",
            {name: (rgb(torch.cat(parts, 1)) - mean) / std for name, parts in columns.items()},
        )


def color_bin(ab: Tensor, centers: Tensor) -> Tensor:
    """[B, 2, H, W] colors -> [B, H, W] nearest of the bins."""
    return nearest(ab, centers)[1][:, 0]


def lightness_bin(light: Tensor, steps: int) -> Tensor:
    """[B, H, W] lightness in 0..100 -> its bin, one of `steps` alike."""
    return (light * (steps / 100)).floor().long().clamp(0, steps - 1)


@full_precision
def cross_entropy(logits: Tensor, which: Tensor) -> Tensor:
    """Mean over pixels of logits [B, K, H, W] and bins [B, H, W]."""
    return F.cross_entropy(logits, which)
