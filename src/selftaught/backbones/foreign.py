"""Encoders that were made elsewhere: any timm or torch module, as it is."""

import copy
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from selftaught.errors import UserError

from .create import cells, channels_first
from .image import Features


class Foreign(nn.Module):
    """A module that turns images into features, with what its images are to be like.

    A timm model is asked for what comes before its classifier. Of any other module the output
    counts: features [B, D]; maps [B, D, H, W] or tokens [B, N, D], whose mean is taken.

    Args:
        net: the module, which is used and not copied.
        size: side of the images in pixels; by default timm's for the model, or 224.
        channels: of the images.
        mean, std: what each channel is normalized with; by default timm's for the model, or
            ImageNet's.
    """

    def __init__(
        self,
        net: nn.Module,
        size: int | None = None,
        channels: int = 3,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ):
        super().__init__()
        self.net, self.channels, self.name = net, channels, type(net).__name__
        self.from_timm = type(net).__module__.startswith("timm.models.")
        given: dict[str, Any] = {}
        if self.from_timm:
            about: Any = net
            given = about.pretrained_cfg
            self.name = given.get("architecture", self.name)
        self.size = size or given.get("input_size", (3, 224))[-1]
        self.mean = mean or _repeated(given.get("mean", IMAGENET_DEFAULT_MEAN), channels)
        self.std = std or _repeated(given.get("std", IMAGENET_DEFAULT_STD), channels)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise UserError(f"{name} has {len(values)} values for {channels} channels")

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> pooled [B, D]."""
        return self._pooled(self._output(x))

    def features(self, x: Tensor) -> Features:
        """Pooled and local features; UserError where the module gives pooled ones alone."""
        found = self._output(x)
        pooled = self._pooled(found)
        if found.dim() == 4:
            width: int = found.shape[1]
            if self.from_timm:
                net: Any = self.net
                width = net.num_features
            maps = channels_first(found, width)
            return Features(pooled, maps.flatten(2).mT, (maps.shape[2], maps.shape[3]))
        if found.dim() == 3:
            count = cells(self.net, found)
            rows = round((count * x.shape[-2] / x.shape[-1]) ** 0.5)
            if rows and count % rows == 0:
                return Features(pooled, found[:, -count:], (rows, count // rows))
        raise UserError(
            f"{self.name} gives {list(found.shape)} for images {list(x.shape)}, which are no "
            "features of places; give a module that returns maps [B, D, H, W]"
        )

    def _pooled(self, found: Tensor) -> Tensor:
        if self.from_timm:
            net: Any = self.net
            return net.forward_head(found, pre_logits=True).flatten(1)
        if found.dim() == 2:
            return found
        return found.mean(1) if found.dim() == 3 else found.mean((2, 3))

    def _output(self, x: Tensor) -> Tensor:
        net: Any = self.net
        found = net.forward_features(x) if self.from_timm else net(x)
        if not isinstance(found, Tensor) or found.dim() not in (2, 3, 4) or len(found) != len(x):
            what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"{self.name} gives {what} for images {list(x.shape)}; an encoder gives a tensor "
                "[B, D], [B, N, D] or [B, D, H, W]: wrap it in a module that returns one"
            )
        return found


@torch.no_grad()
def untrained(net: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of a module with fresh weights from `seed`; the global generator is left alone.

    Layers are reset as they were made. What no layer resets (tokens, positions) is shuffled:
    nothing learned is left of it but its size.
    """
    fresh = copy.deepcopy(net)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in fresh.modules():
            reset = getattr(layer, "reset_parameters", None)  # torch's name, of no common class
            if callable(reset):
                reset()
                continue
            for parameter in layer.parameters(recurse=False):
                order = torch.randperm(parameter.numel()).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return fresh


def _repeated(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if channels == len(values) else (sum(values) / len(values),) * channels
