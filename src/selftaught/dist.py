"""Collectives over the processes of a run; identities when there is one."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
import torch.distributed as torch_dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

T = TypeVar("T")


def world() -> int:
    """Number of processes."""
    return torch_dist.get_world_size() if torch_dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return torch_dist.get_rank() if torch_dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        torch_dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        grad = grad.contiguous()
        torch_dist.all_reduce(grad)
        return grad.chunk(world())[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        torch_dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        grad = grad.clone(memory_format=torch.contiguous_format)
        torch_dist.all_reduce(grad)
        return grad


def gather(x: Tensor) -> Tensor:
    """[B, ...] of each process -> [W * B, ...] in rank order; its gradient is summed over all.

    With the mean of gradients that DDP takes, a loss on gathered rows has exactly the gradient of
    one process with the whole batch.
    """
    return x if world() == 1 else _Gather.apply(x)


def total(x: Tensor) -> Tensor:
    """Sum over processes; its gradient is the sum over processes too."""
    return x if world() == 1 else _Sum.apply(x)


def mean(x: Tensor) -> Tensor:
    """Mean over processes."""
    return total(x) / world()


@torch.no_grad()
def maximum(x: Tensor) -> Tensor:
    """Elementwise maximum over processes, without gradient."""
    if world() > 1:
        x = x.clone()
        torch_dist.all_reduce(x, torch_dist.ReduceOp.MAX)
    return x


def everywhere(own: T) -> list[T]:
    """What each process holds, any object, in all of them."""
    if world() == 1:
        return [own]
    every: list[Any] = [None] * world()
    torch_dist.all_gather_object(every, own)
    return every


@torch.no_grad()
def from_first(x: Tensor) -> Tensor:
    """What process 0 holds."""
    if world() > 1:
        x = x.clone(memory_format=torch.contiguous_format)
        torch_dist.broadcast(x, 0)
    return x


def local(x: Tensor) -> Tensor:
    """The part of a sharded tensor that this process keeps; of any other all of it."""
    return x.to_local() if _sharded(x) else x


def whole(x: Tensor) -> Tensor:
    """A sharded tensor, whole, in all processes, which call it together; any other as it is."""
    return x.full_tensor() if _sharded(x) else x


def sharded(weights: Iterable[Tensor]) -> bool:
    """Whether any of these is in parts, one in each process."""
    return any(map(_sharded, weights))


def _sharded(x: Tensor) -> TypeGuard["DTensor"]:
    if world() == 1:  # which spares the import
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(x, DTensor)
