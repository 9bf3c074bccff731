"""AIM (El-Nouby et al., 2024), https://arxiv.org/abs/2401.08541."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import augment
from selftaught.backbones import Image, interpolate, sincos
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.masked import image_mean, patchify, standardize, unpatchify
from selftaught.roles import DecoderWidth, Number
from selftaught.sides import Size


class AIM(Method):
    """Tell each patch of an image from those before it, row by row.

    A language model of images (iGPT, Chen et al., 2020, with patches in place of colors). Patches
    look at those before them alone, but those of a prefix of random length, which look at each
    other and are not told: so that the encoder may look everywhere once it is trained. Features
    come late and grow with the network: for many images and large ViTs; `mae` needs less of both.

    The paper's networks have no biases; here the backbone is timm's.

    Args:
        backbone: a plain ViT; it loses its class token, and gets fixed positions from scratch.
        prefix: whether a prefix of random length is seen as a whole; else there is none.
        normalize: whether each patch of the target is standardized.
        dim: width of the head that tells the next patch, place by place.
        depth: number of its layers, each a residual MLP.
    """

    recipe = Recipe(
        "adamw", lr=1e-3, batch=4096, weight_decay=0.05, warmup=0.0625, betas=(0.9, 0.95), clip=1.0
    )
    few = Few(dim=128, depth=2, weight_decay=0.05)
    needs = Needs(backbone="vit_small_patch16_224", batch=1, views="own", kinds=("image", "sound"))

    positions: Tensor

    def __init__(
        self,
        backbone: Image,
        prefix: bool = True,
        normalize: bool = True,
        dim: DecoderWidth = 2048,
        depth: Number = 12,
    ):
        super().__init__()
        self.backbone, self.prefix, self.normalize = backbone, prefix, normalize
        self.dim, self.depth = dim, depth
        self.patch, self.grid = backbone.patch, backbone.grid(backbone.size)
        if math.prod(self.grid) < 2:
            raise UserError(
                f"images of one patch of {self.patch} px have no next one: use larger images, or a "
                "smaller patch_size"
            )
        backbone.arrange("mean", False, positions="timm" if backbone.trained else "sincos")
        self.head_embed = nn.Linear(backbone.dim, dim, bias=False)
        self.register_buffer("positions", sincos(self.grid, dim, 0).float(), persistent=False)
        self.head_blocks = nn.ModuleList(Residual(dim) for _ in range(depth))
        self.head_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head_pred = nn.Linear(dim, self.patch**2 * backbone.channels, bias=False)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        numbers = self.head_pred.out_features
        mean = ReferenceLoss(1 - 1 / numbers, "each patch painted in its mean color")
        return (mean,) if self.normalize else ()

    def views(self, size: Size) -> Pipeline:
        patches = math.prod(self.backbone.grid(size))
        return Prefixed(augment.crop(size, (0.4, 1.0)), patches if self.prefix else 1)

    def loss(self, batch: Batch) -> Tensor:
        """views: images [B, C, H, W] and [B] lengths of the prefix, at least 1."""
        images, prefix = batch.views
        target = patchify(images, self.patch)[:, 1:]
        if self.normalize:
            target = standardize(target)
        told = torch.arange(1, target.shape[1] + 1, device=images.device) >= prefix[:, None]
        return image_mean((self.tell(images, prefix) - target).square().mean(2)[told], told)

    def tell(self, images: Tensor, prefix: Tensor) -> Tensor:
        """[B, N - 1, p * p * C]: each patch but the first, from those before it."""
        count = math.prod(self.backbone.grid((images.shape[-2], images.shape[-1])))
        tokens, grid = self.backbone.tokens(images, looks=looking(count, prefix))
        x = self.head_embed(tokens[:, self.backbone.prefix :][:, :-1])
        x = x + interpolate(self.positions, self.grid, grid, 0)[:, :-1]
        for block in self.head_blocks:
            x = block(x)
        return self.head_pred(self.head_norm(x))

    def show(self, batch: Batch) -> Pictures:
        images, prefix = batch.views
        patches = patchify(images, self.patch)
        told = self.tell(images, prefix).float()
        note = "Each patch from the true ones before it, row by row; the prefix is shown as it is."
        if self.normalize:
            deviation, mean = torch.std_mean(patches[:, 1:], -1, keepdim=True)
            told = told * deviation + mean
            note += " Brightness and contrast are those of the true patch."
        places = torch.arange(patches.shape[1], device=images.device)
        given = (places < prefix[:, None])[..., None]
        painted = torch.cat([patches[:, :1], told], 1)
        columns = {
            "prefix": torch.where(given, patches, 0),
            "told": torch.where(given, patches, painted),
            "true": patches,
        }
        grid = self.backbone.grid((images.shape[-2], images.shape[-1]))
        columns = {name: unpatchify(x, self.patch, grid) for name, x in columns.items()}
        return Pictures("The next patch", note, columns)


class Residual(nn.Module):
    """x + MLP(norm(x)), place by place."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        hidden = nn.Linear(dim, 4 * dim, bias=False)
        self.mlp = nn.Sequential(hidden, nn.GELU(), nn.Linear(4 * dim, dim, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


def looking(count: int, prefix: Tensor) -> Tensor:
    """bool [B, count, count]: whether place i (row) looks at place j, with [B] lengths of prefixes.

    At those before it, at itself, and at the prefix, whose places look at all of it.
    """
    places = torch.arange(count, device=prefix.device)
    return (places <= places[:, None]) | (places < prefix[:, None, None])


@dataclass(frozen=True)
class Prefixed(augment.Pipeline):
    """The one view of `view`, and a length from 1 to `count` - 1 (1 at least), each as likely."""

    view: Pipeline
    count: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Any:
        (view,) = self.view(image, rng)
        return view, np.array(rng.integers(1, max(2, self.count)))
