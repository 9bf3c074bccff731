"""What everything here asks of an encoder, whoever made it."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Self, TypeGuard, runtime_checkable

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from selftaught.errors import UserError

from .create import whole
from .edges import sobel
from .lightness import halves, lightness
from .positions import Grid


class Features(NamedTuple):
    """pooled: [B, D]; local: [B, N, L] with N = prod(grid), or K where `keep` was given."""

    pooled: Tensor
    local: Tensor
    grid: Grid


@runtime_checkable
class Encoder(Protocol):
    """A torch module that turns normalized images [B, channels, H, W] into features.

    name: what it is called in a sentence. dim: width of pooled features. local_dim: width of local
    ones; UserError where `has_local` is false. size: side of its images in pixels. channels: of
    them. mean, std: of each channel, what images in 0..1 are normalized with. trained: whether it
    carries weights that a method must not draw anew. config: plain values that build it again.
    """

    name: str
    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    trained: bool
    training: bool

    @property
    def dim(self) -> int: ...

    @property
    def has_local(self) -> bool: ...

    @property
    def config(self) -> dict[str, Any]: ...

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> pooled [B, dim]."""
        ...

    def features(self, x: Tensor) -> Features:
        """Pooled and local features; UserError where there are no local ones."""
        ...

    # what is used of any module

    def __call__(self, x: Tensor) -> Tensor: ...
    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def get_submodule(self, target: str) -> nn.Module: ...
    def train(self, mode: bool = True) -> Self: ...
    def eval(self) -> Self: ...
    def cpu(self) -> Self: ...
    def float(self) -> Self: ...
    def to(self, *args: Any, **kwargs: Any) -> Self: ...


def is_encoder(thing: Any) -> TypeGuard[Encoder]:
    """Whether it has all that is asked of an encoder."""
    return isinstance(thing, Encoder)


def outputs(encoder: Encoder, x: Tensor) -> dict[str, Tensor]:
    """pooled: [B, D], and, where there are local features, local: [B, N, L]."""
    if not encoder.has_local:
        return {"pooled": encoder(x)}
    pooled, local, _ = encoder.features(x)
    return {"pooled": pooled, "local": local}


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

    edges: whether it sees edges. sees: colors, their lightness, or both apart.
    """

    net: nn.Module
    name: str
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    trained: bool

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

    def fit(self, size: float) -> int:
        """The side of images nearest to `size` that is whole in the patches of the first layer."""
        step = whole(self.net)
        return max(1, round(size / step)) * step

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
            if height == width == self.size:
                raise
            raise UserError(
                f"{self.name}, made for images of {self.size} px, cannot take parts of {height} x "
                f"{width} px ({error}): use another --size, or a backbone such as resnet18"
            ) from error
