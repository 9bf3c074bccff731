"""Networks that see the lightness of an image alone, or lightness and color in halves apart."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.parts.colors import lab

_SCALE = 25.0
"""By which L - 50, a and b are divided, so that they are about 1."""


@torch.no_grad()
def lightness(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalized colors [B, 3, H, W] -> (L - 50) / 25 in each of three channels."""
    return _lab(x, mean, std)[:, :1].expand_as(x).to(x.dtype)


@torch.no_grad()
def halves(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalized colors [B, 3, H, W] -> [B, 4, H, W]: (L - 50) / 25 twice, a / 25, b / 25."""
    found = _lab(x, mean, std)
    return torch.cat([found[:, :1], found], 1).to(x.dtype)


def _lab(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        full = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        colors = full * full.new_tensor(std)[:, None, None] + full.new_tensor(mean)[:, None, None]
        return (lab(colors) - full.new_tensor([50.0, 0, 0])[:, None, None]) / _SCALE


def halve(net: nn.Module, name: str) -> None:
    """Cut a convolutional network into two of half the width, side by side; it then takes `halves`.

    Each convolution gets two groups, and keeps of its weights those within a group.

    Raises:
        UserError: the network mixes its channels elsewhere too.
    """
    first = True
    for where, layer in list(net.named_modules()):
        if isinstance(layer, nn.Conv2d) and (first or layer.groups % 2):
            parent, _, leaf = where.rpartition(".")
            setattr(net.get_submodule(parent), leaf, _grouped(layer, first, name))
            first = False
    others = (nn.Linear, nn.LayerNorm, nn.GroupNorm)
    mixing = next((m for m in net.modules() if isinstance(m, others)), None)
    if first or mixing is not None or not _apart(net):
        where = f" in a {type(mixing).__name__}" if mixing else ""
        raise UserError(
            f"{name} cannot be cut into two halves that know nothing of each other, because it "
            f"mixes its channels{where}; use a ResNet, such as resnet50"
        )


def _grouped(conv: nn.Conv2d, first: bool, name: str) -> nn.Conv2d:
    if first:
        inputs, groups = 4, 2
    else:
        inputs, groups = conv.in_channels, 2 * conv.groups
    if inputs % groups or conv.out_channels % groups:
        raise UserError(
            f"{name} has a layer of {conv.in_channels} and {conv.out_channels} channels, which is "
            "not cut into halves; use a ResNet, such as resnet50"
        )
    with torch.device(conv.weight.device):
        names = ("kernel_size", "stride", "padding", "dilation")
        shape: dict[str, Any] = {name: getattr(conv, name) for name in names}
        bias = conv.bias is not None
        new = type(conv)(inputs, conv.out_channels, groups=groups, bias=bias, **shape)
    with torch.no_grad():
        if not first:
            taken, wide = torch.tensor_split(conv.weight, groups), new.weight.shape[1]
            at = [(g % 2) * wide for g in range(groups)]
            new.weight.copy_(torch.cat([w[:, k : k + wide] for w, k in zip(taken, at)]))
        if conv.bias is not None and new.bias is not None:
            new.bias.copy_(conv.bias)
    return new


@torch.no_grad()
def _apart(net: Any) -> bool:
    """Whether colors change the second half of what comes out alone, and lightness the first."""
    if next(net.parameters()).is_meta:
        return True
    training = net.training
    net.eval()
    with torch.random.fork_rng(devices=[]):
        x = torch.randn(3, 4, 64, 64)
        x[1, 2:], x[2, :2] = x[0, 2:] + 1, x[0, :2] + 1
        x[1, :2], x[2, 2:] = x[0, :2], x[0, 2:]
        found = net.forward_features(x)
    net.train(training)
    middle = found.shape[1] // 2
    same = torch.equal(found[0, :middle], found[1, :middle])
    return same and torch.equal(found[0, middle:], found[2, middle:])
