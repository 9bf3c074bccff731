"""What everything here asks of an encoder, whoever made it."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Self, TypeGuard, runtime_checkable

from torch import Tensor, nn

from selftaught.backbones.positions import Grid
from selftaught.sides import Size


class Features(NamedTuple):
    """pooled: [B, D]; local: [B, N, L] with N = prod(grid), or K where `keep` was given."""

    pooled: Tensor
    local: Tensor
    grid: Grid


@runtime_checkable
class _Known(Protocol):
    """What can be asked of any encoder: an `Encoder` is known by it."""

    name: str
    size: Size
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
    def requires_grad_(self, requires_grad: bool = True) -> Self: ...


class Encoder(_Known, Protocol):
    """A torch module that turns normalized images [B, channels, H, W] into features.

    name: what it is called in a sentence. dim: width of pooled features. local_dim: width of local
    ones; UserError where `has_local` is false. size: side of its images in pixels,
    or (rows, columns). channels: of
    them. mean, std: of each channel, what images in 0..1 are normalized with. trained: whether it
    carries weights that a method must not draw anew. config: plain values that build it again.
    """

    @property
    def local_dim(self) -> int: ...


def is_encoder(thing: Any) -> TypeGuard[Encoder]:
    """Whether it has all that is asked of an encoder."""
    return isinstance(thing, _Known)


def outputs(encoder: Encoder, x: Tensor) -> dict[str, Tensor]:
    """pooled: [B, D], and, where there are local features, local: [B, N, L]."""
    if not encoder.has_local:
        return {"pooled": encoder(x)}
    pooled, local, _ = encoder.features(x)
    return {"pooled": pooled, "local": local}
