"""SimMIM (Xie et al., 2022), https://arxiv.org/abs/2111.09886."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.masks import Draws, average_distance, enlarge, hidden_units
from selftaught.method import Batch, Few, Insight, Method, Needs, Pictures, Pipeline, Recipe
from selftaught.objectives.masked import hidden_mean
from selftaught.precision import full_precision
from selftaught.roles import Count, HiddenShare
from selftaught.sides import Size, as_option, both, one, short, told_size


class SimMIM(Method):
    """Hide large squares behind a learned token, and paint them by one linear layer.

    The encoder sees every place, so that it may be a Swin as well as a ViT. The paper's ViT has
    position biases that all blocks share, a `beit` backbone, and a `drop_path` of 0.1, which ViTs
    have here too if the command line makes them; its Swins have none. The schedule is that of 100
    epochs; for 800 the paper halves the rate and drops it to a tenth after 700.

    Args:
        backbone: a Swin, a BEiT or a ViT. From scratch a BEiT's blocks share one position bias.
        ratio: fraction of the image that is hidden, in (0, 1).
        unit: side of a hidden square in pixels, a multiple of the backbone's first patches that
            divides the image; if none, the largest that leaves 6 squares a side: 32 of 192 pixels,
            as in the paper.

    Other Args:
        distance: of painted pixels from true ones; the paper finds all three alike.
        predict_visible: whether pixels that are seen are painted and compared, too, which the paper
            finds to harm: what is learned is spent on copying.
    """

    recipe = Recipe(
        "adamw",
        lr=2e-4,
        batch=512,
        weight_decay=0.05,
        warmup=0.1,
        warmup_from=0.005,
        end=0.05,
        no_decay=("mask_token",),
        decay_tokens=False,
        clip=5.0,
    )
    few = Few(weight_decay=0.05)
    needs = Needs(
        backbone="swin_tiny_patch4_window7_224",
        drop_path=0.1,
        batch=1,
        views="own",
        kinds=("image", "sound"),
        shards=True,
    )
    insight = Insight(hides="drawn")

    def __init__(
        self,
        backbone: Image,
        ratio: HiddenShare = 0.6,
        unit: Count | None = None,
        distance: Literal["l1", "smooth_l1", "l2"] = "l1",
        predict_visible: bool = False,
    ):
        super().__init__()
        self.backbone, self.ratio, self.unit = backbone, ratio, unit
        self.distance, self.predict_visible = distance, predict_visible
        self.stem, self.reduction = backbone.stem, backbone.reduction
        self.mask_token = nn.Parameter(torch.empty(1, 1, backbone.stem_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        if not backbone.is_hierarchical:
            scratch = backbone.is_beit and not backbone.trained
            backbone.arrange("mean", positions="shared" if scratch else "timm")
        scale = self.reduction
        self.decoder = nn.Sequential(
            nn.Conv2d(backbone.local_dim, scale**2 * backbone.channels, 1), nn.PixelShuffle(scale)
        )
        self.units(backbone.size)

    def units(self, size: Size) -> tuple[int, int]:
        """Rows and columns of squares of an image of `size` pixels."""
        stem, (height, width) = self.stem, both(size)
        whole, side = math.gcd(height, width), short(size)
        fitting = [n for n in range(stem, side + 1, stem) if whole % n == 0]
        if not fitting:
            fits = one([max(1, round(n / stem)) * stem for n in (height, width)])
            raise UserError(
                f"{self.backbone.name} cuts images into {stem}-px patches, which {told_size(size)} "
                f"px is no multiple of; use size {as_option(fits)}"
            )
        if whole % self.reduction:
            raise UserError(
                f"{self.backbone.name} makes one feature of {self.reduction} px, which "
                f"{told_size(size)} px is no multiple of; use a size that is a multiple of 32"
            )
        largest = max((n for n in fitting if side // n >= 6), default=fitting[0])
        side = largest if self.unit is None else self.unit
        if side not in fitting:
            raise UserError(
                f"unit={side} must be a multiple of the {stem}-px patches of {self.backbone.name} "
                f"and divide {told_size(size)} px; use one of {', '.join(map(str, fitting))}, or "
                "none"
            )
        count = (height // side) * (width // side)
        hidden = max(0, math.ceil(count * self.ratio))
        if not 0 < hidden < count:
            raise UserError(
                f"ratio={self.ratio} hides {hidden} of {count} squares of {side} px; at least 1 "
                "must be seen and 1 hidden: change ratio, or use a smaller unit"
            )
        return height // side, width // side

    def views(self, size: Size) -> Pipeline:
        view = augment.crop(size, (0.67, 1.0), interpolation="bilinear")
        return Hidden(view, self.units(size), self.ratio)

    def loss(self, batch: Batch) -> Tensor:
        """views: images [B, C, H, W] and hidden [B, h, w], on any grid that divides the image."""
        images, hidden = batch.views
        error = distances(self.reconstruct(images, hidden), images, self.distance).mean(1)
        if self.predict_visible:
            return error.mean()
        return hidden_mean(error, enlarge(hidden, images.shape[-2:]), eps=1e-5)

    def reconstruct(self, images: Tensor, hidden: Tensor) -> Tensor:
        """[B, C, H, W] of an encoder that does not see what is hidden; see `loss`."""
        height, width = images.shape[-2:]
        mask = enlarge(hidden, (height // self.stem, width // self.stem)).flatten(1).bool()
        seen = self.backbone.features(images, replace=(mask, self.mask_token[0, 0]))
        return self.decoder(seen.local.mT.unflatten(2, seen.grid))

    def show(self, batch: Batch) -> Pictures:
        images, hidden = batch.views
        mask = enlarge(hidden, images.shape[-2:])[:, None]
        painted = self.reconstruct(images, hidden).to(images.dtype)
        far = self.average_distance((images.shape[-2], images.shape[-1]), hidden)
        return Pictures(
            "Reconstructions",
            f"{self.ratio:.0%} of the squares are hidden; the seen ones are shown as they are. A "
            f"hidden pixel is {far:.1f} px from the nearest seen one on average (AvgDist), "
            f"{far / min(images.shape[-2:]):.1%} of the side; the paper's best are from 5 to 10 %.",
            {
                "seen": torch.where(mask, 0, images),
                "painted": torch.where(mask, painted, images),
                "true": images,
            },
        )

    def drawn(self, draws: Draws) -> np.ndarray:
        """Which squares of an image are hidden."""
        return hidden_units(draws, self.units(self.backbone.size), self.ratio)

    def average_distance(self, size: Size, hidden: Tensor) -> float:
        """Pixels from hidden ones to the nearest seen one, on average; hidden: [B, h, w]."""
        cell = both(size)[0] // hidden.shape[1], both(size)[1] // hidden.shape[2]
        return average_distance(hidden.cpu().numpy(), cell)


@full_precision
def distances(painted: Tensor, true: Tensor, distance: str) -> Tensor:
    """Of each number of [B, C, H, W]."""
    compare = {"l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss, "l2": F.mse_loss}[distance]
    return compare(painted, true, reduction="none")


@dataclass(frozen=True)
class Hidden:
    """One view and which of its squares are hidden, drawn by the sample's own generator."""

    view: Pipeline
    units: tuple[int, int]
    ratio: float

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Any:
        (view,) = self.view(image, rng)
        return view, hidden_units(rng, self.units, self.ratio)
