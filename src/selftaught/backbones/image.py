"""Image encoders: any timm model by name, fitted to the size and channels of the images."""

import logging
from typing import Any, NamedTuple, cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.signature import closest

log = logging.getLogger("selftaught")

SMALL = 64
"""Images with fewer pixels a side get an adapted stem: ImageNet's throws most of them away."""


class Features(NamedTuple):
    """pooled: [B, D]; local: [B, N, D] with N = prod(grid), or K where `keep` was given."""

    pooled: Tensor
    local: Tensor
    grid: tuple[int, int]


class Image(nn.Module):
    """A timm model without its classifier. Images: [B, channels, H, W], normalized floats.

    Args:
        name: of a timm model, convolutional or transformer.
        size: side of the images in pixels; below 64 the stem is adapted.
        channels: of the images.
        pretrained: whether to start from timm's weights, which needs a network or a filled cache.
        drop_path: rate of stochastic depth.
    """

    net: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self,
        name: str = "resnet50",
        size: int = 224,
        channels: int = 3,
        pretrained: bool = False,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.name, self.size, self.channels = name, size, channels
        self.pretrained, self.drop_path = pretrained, drop_path
        if not timm.is_model(name):
            raise UserError(
                f"no backbone is called {name!r}{closest(name, timm.list_models())[:400]}"
            )
        if channels < 1 or size < 1:
            raise UserError(
                f"a backbone needs size and channels of at least 1, got {size}, {channels}"
            )
        self.net = _create(name, size, channels, pretrained, drop_path)
        self.dim: int = cast(Any, self.net).num_features
        config = cast(Any, self.net).pretrained_cfg
        self.mean = tuple(config["mean"]) if channels == 3 else (0.5,) * channels
        self.std = tuple(config["std"]) if channels == 3 else (0.25,) * channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> pooled [B, dim]."""
        return self.net(x)

    @property
    def patch(self) -> int:
        """Side of a token's patch in pixels; transformers only."""
        return self._vit("Patches").patch_embed.patch_size[0]

    def grid(self, size: int) -> tuple[int, int]:
        """Rows and columns of tokens of an image of `size` pixels; transformers only."""
        if size < self.patch:
            raise UserError(
                f"images of {size} px are smaller than the {self.patch}-px patches of {self.name}; "
                f"use a size that is a multiple of {self.patch}, or a backbone of smaller patches"
            )
        if size % self.patch:
            near = round(size / self.patch) * self.patch
            raise UserError(
                f"{self.name} cuts images into {self.patch}-px patches, which {size} px is no "
                f"multiple of; use size {near}"
            )
        return size // self.patch, size // self.patch

    def features(
        self, x: Tensor, keep: Tensor | None = None, replace: tuple[Tensor, Tensor] | None = None
    ) -> Features:
        """Pooled and local features.

        Args:
            x: [B, channels, H, W].
            keep: [B, K] indices of the patches to encode, the others are never seen; ViT only.
            replace: (mask [B, N], token [D]): patches whose embedding the token replaces; ViT only.
        """
        if isinstance(self.net, VisionTransformer):
            return self._tokens(self.net, x, keep, replace)
        if keep is not None or replace is not None:
            self._vit("Masking")
        net = cast(Any, self.net)
        maps = net.forward_features(x)
        pooled = net.forward_head(maps, pre_logits=True)
        if maps.dim() == 3:  # tokens of a transformer that is not a plain ViT
            local = maps[:, getattr(net, "num_prefix_tokens", 0) :]
            side = round(local.shape[1] ** 0.5)
            return Features(pooled, local, (side, local.shape[1] // side))
        if maps.shape[1] != self.dim:  # channels last (Swin)
            maps = maps.permute(0, 3, 1, 2)
        return Features(pooled, maps.flatten(2).mT, (maps.shape[2], maps.shape[3]))

    def _tokens(
        self,
        net: VisionTransformer,
        x: Tensor,
        keep: Tensor | None,
        replace: tuple[Tensor, Tensor] | None,
    ) -> Features:
        grid = (x.shape[-2] // self.patch, x.shape[-1] // self.patch)
        tokens = net.patch_embed(x)
        if replace is not None:
            mask, token = replace
            mask = mask.reshape(tokens.shape[:-1])[..., None]
            tokens = torch.where(mask, token.to(tokens.dtype), tokens)
        tokens = net._pos_embed(tokens)
        prefix = net.num_prefix_tokens
        if keep is not None:
            kept = tokens[:, prefix:].take_along_dim(keep[..., None], 1)
            tokens = torch.cat([tokens[:, :prefix], kept], 1)
        tokens = net.norm(net.blocks(net.norm_pre(tokens)))
        return Features(net.forward_head(tokens, pre_logits=True), tokens[:, prefix:], grid)

    def _vit(self, what: str) -> VisionTransformer:
        if not isinstance(self.net, VisionTransformer):
            raise UserError(
                f"{what} needs a plain ViT backbone such as vit_small_patch16_224; {self.name} is "
                f"a {type(self.net).__name__}, which cannot leave patches out"
            )
        return self.net


def backbone(
    name: str = "resnet50",
    size: int = 224,
    channels: int = 3,
    pretrained: bool = False,
    drop_path: float = 0.0,
) -> Image:
    """An image encoder by its timm name; see `Image`."""
    return Image(name, size, channels, pretrained, drop_path)


def _create(name: str, size: int, channels: int, pretrained: bool, drop_path: float) -> nn.Module:
    options: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    if drop_path:
        options["drop_path_rate"] = drop_path
    if "vit" in name or "deit" in name:
        options |= {"img_size": size, "dynamic_img_size": True}
        if size < SMALL:
            options["patch_size"] = max(2, size // 8)
    try:
        net = timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise UserError(
            f"the weights of {name} could not be had ({type(error).__name__}: {error}); they come "
            "from a network: connect once so that they are cached, or train without pretrained"
        ) from error
    if size < SMALL and "img_size" not in options:
        _adapt_stem(net, name, size)
    return net


def _adapt_stem(net: nn.Module, name: str, size: int) -> None:
    """Let a small image through: the first convolution keeps its resolution, no pooling follows."""
    where = cast(Any, net).pretrained_cfg.get("first_conv")
    if not isinstance(where, str):
        log.warning("the stem of %s cannot be adapted to %d px; expect weak features", name, size)
        return
    parent = net.get_submodule(where.rpartition(".")[0])
    old = cast(nn.Conv2d, net.get_submodule(where))
    new = nn.Conv2d(old.in_channels, old.out_channels, 3, 1, 1, bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    setattr(parent, where.rpartition(".")[2], new)
    if isinstance(getattr(net, "maxpool", None), nn.MaxPool2d):
        net.maxpool = nn.Identity()
