"""Networks that are shown images normalized, and less than their colors where a method asks it."""

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from selftaught.backbones.image.create import whole
from selftaught.backbones.image.edges import sobel
from selftaught.backbones.image.lightness import halves, lightness
from selftaught.errors import UserError
from selftaught.sides import Size, both, one, told_size


def statistics(
    name: str, values: tuple[float, ...] | None, usual: tuple[float, ...], channels: int
) -> tuple[float, ...]:
    """The mean or the standard deviation of each channel.

    Args:
        name: mean or std.
        values: one for each channel, or one for all; `usual` unless given.
        usual: of 3 channels, whose mean other numbers of channels get.
        channels: of the images.
    """
    if values is None:
        return tuple(usual) if len(usual) == channels else (sum(usual) / len(usual),) * channels
    if len(values) not in (1, channels):
        raise UserError(
            f"{name} has {len(values)} values for {channels} channels; give one of each, or one "
            "for all"
        )
    if name == "std" and not all(v > 0 for v in values):
        raise UserError(f"std must be above 0, got {tuple(values)}; images are divided by it")
    return tuple(values) * (channels // len(values))


class Shown(nn.Module):
    """An encoder whose network may be shown less than the colors.

    sobel: whether it sees edges. input: colors, their lightness, or both apart.
    """

    net: nn.Module
    sobel: bool
    name: str
    size: Size
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    trained: bool
    kind: Any = None
    """What its inputs are, where they are no images; see `selftaught.kinds`."""

    def __init__(self) -> None:
        super().__init__()
        self.sobel, self.input = False, "colors"

    def own(self, net: nn.Module) -> None:
        """Take `net` as the network; weights that are loaded from now on count as trained."""
        self.net = net
        net.register_load_state_dict_post_hook(self._loaded)

    def _loaded(self, _: nn.Module, __: Any) -> None:
        self.trained = True

    def normalized(
        self,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        given: dict[str, Any],
    ) -> None:
        """Set mean and std: as asked for, as in timm's entry of the weights, or ImageNet's."""
        usual = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD} | given
        self.mean = statistics("mean", mean, usual["mean"], self.channels)
        self.std = statistics("std", std, usual["std"], self.channels)

    def see_edges(self) -> None:
        """Show the network Sobel edges in place of colors, as DeepCluster does."""
        if self.channels < 2:
            raise UserError(
                f"edges need 2 channels and this {self.name} takes {self.channels}; leave sobel out"
            )
        self.sobel = True

    def see(self, what: str) -> None:
        """Show the network a part of the colors, or its halves a part each; see `input`."""
        if self.channels != 3 or self.sobel:
            shown = "edges" if self.sobel else f"images of {self.channels} channels"
            raise UserError(
                f"lightness is told from color in images of 3 channels, and this {self.name} sees "
                f"{shown}; gray images have no color to learn from"
            )
        if what == "halves" and self.input != "halves":
            self._halve()
        self.input = what

    def _halve(self) -> None:
        """Cut the network into two of half the width."""
        raise UserError(
            f"{self.name} is a module of one's own, which is not cut into halves; use a ResNet, "
            "such as resnet50"
        )

    def fit(self, size: float | tuple[float, float]) -> Size:
        """The size of images nearest to `size` that is whole in the patches of the first layer."""
        step = whole(self.net)
        sides = size if isinstance(size, tuple) else (size, size)
        return one([max(1, round(side / step)) * step for side in sides])

    def _seen(self, x: Tensor) -> Tensor:
        """What the first layer is shown of images x."""
        if self.input == "lightness":
            return lightness(x, self.mean, self.std)
        if self.input == "halves":
            return halves(x, self.mean, self.std)
        return sobel(x) if self.sobel else x

    def _run(self, network: Any, x: Tensor) -> Any:
        """What a network makes of images x; UserError where it cannot take their size."""
        try:
            return network(self._seen(x))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            height, width = x.shape[-2:]
            if (height, width) == both(self.size):
                raise
            raise UserError(
                f"{self.name}, made for images of {told_size(self.size)} px, cannot take parts of "
                f"{height} x {width} px ({error}): use another --size, or a backbone such as "
                "resnet18"
            ) from error
