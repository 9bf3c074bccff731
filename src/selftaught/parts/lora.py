"""Low-rank adaptation (LoRA, Hu et al., 2022), https://arxiv.org/abs/2106.09685.

A weight W [out, in] stays as it is, and s B A is learned beside it, with A [rank, in],
B [out, rank] and s = alpha / rank. It is added to the weight, not to the layer's output: the layer
that is trained computes what the merged one will, to the last bit, and code that reads
`layer.weight` sees the sum.
"""

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_INSIDE = ".parametrizations.weight."
BEGINS_AT_ZERO = f"{_INSIDE}0.up"
"""End of the names of the matrices B, whose steps are as long as they are."""


class LowRank(nn.Module):
    """What is added to a weight: nothing at first, as B begins with zeros.

    Args:
        weight: [out, in], or [out, in, 1, 1] of a convolution.
        rank: of what is added.
        alpha: its scale, as a multiple of 1 / rank.
        random: draws A, of which each row has a length of about 1.
    """

    scale: Tensor

    def __init__(self, weight: Tensor, rank: int, alpha: float, random: torch.Generator):
        super().__init__()
        rows, columns = weight.shape[:2]
        down = torch.randn(rank, columns, generator=random) / columns**0.5
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        self.register_buffer("scale", weight.new_tensor(alpha / rank))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return added(weight, self.up, self.down, self.scale)


def added(weight: Tensor, up: Tensor, down: Tensor, scale: Tensor) -> Tensor:
    """W + s B A, of the shape of `weight`."""
    return weight + (scale * (up @ down)).view(weight.shape)


def adaptable(module: nn.Module, rank: int) -> Iterator[tuple[str, Any]]:
    """Linear layers and 1 x 1 convolutions in which `rank` leaves fewer numbers to learn."""
    for name, layer in module.named_modules():
        pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
        if not isinstance(layer, nn.Linear) and not (pointwise and layer.groups == 1):
            continue
        rows, columns = layer.weight.shape[:2]
        if rank * (rows + columns) < rows * columns and not parametrize.is_parametrized(layer):
            yield name, layer


def adapt(module: nn.Module, names: Collection[str], rank: int, alpha: float, seed: int) -> None:
    """Add a `LowRank` to the layers of these names; copies of a module get the same from a seed."""
    random = torch.Generator().manual_seed(seed)
    for name, layer in list(adaptable(module, rank)):
        if name in names:
            parametrize.register_parametrization(
                layer, "weight", LowRank(layer.weight, rank, alpha, random)
            )


def merge(module: nn.Module) -> None:
    """Make plain layers again of those that were adapted, with the sum as their weight."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            (first, *_) = layer.parametrizations["weight"]  # type: ignore[index, misc]
            if isinstance(first, LowRank):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def plain(state: dict[str, Any]) -> dict[str, Any]:
    """A state with adapted layers as it is once they are merged."""
    found = {}
    for name, x in state.items():
        layer, inside, rest = name.partition(_INSIDE)
        parts = [f"{layer}{_INSIDE}0.{part}" for part in ("up", "down", "scale")]
        if not inside or parts[0] not in state:
            found[name] = x
        elif rest == "original":
            found[f"{layer}.weight"] = added(x, *(state[part] for part in parts))
    return found
