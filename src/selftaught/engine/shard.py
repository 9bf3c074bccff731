"""A method in shards (FSDP2): each process keeps a part of each weight, its gradient, its state.

Each block of a transformer is gathered while it computes, all else once a step. What is seen from
outside stays whole: checkpoints are those of one process, the first process has a copy of the
method on the CPU that looks, exports and scores, and losses are those of unsharded processes.
"""

import copy
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MethodType
from typing import Any, NamedTuple, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from selftaught import dist, methods
from selftaught.backbones.blocks import blocks, plain
from selftaught.engine.settings import Settings
from selftaught.errors import UserError
from selftaught.method import Method

log = logging.getLogger("selftaught")

T = TypeVar("T")


class Layout(NamedTuple):
    """replicas: groups of processes that have the same shards. shards: processes of a group."""

    replicas: int
    shards: int


def layout(settings: Settings, world: int) -> Layout:
    """How weights are laid out over `world` processes.

    Raises:
        UserError: a mesh that is none, or of another number of processes.
    """
    if settings.mesh is None:
        return Layout(1, world if settings.shard else 1)
    first, _, second = settings.mesh.partition("x")
    if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
        raise UserError(
            "--mesh is the number of groups that have all weights and of the processes that "
            f"divide them among them, such as 2x8, got {settings.mesh!r}"
        )
    if not settings.shard:
        raise UserError(
            f"--mesh {settings.mesh} says how --shard lays weights out: add --shard, or drop --mesh"
        )
    found = Layout(int(first), int(second))
    if found.replicas * found.shards != world:
        raise UserError(
            f"--mesh {settings.mesh} is for {found.replicas * found.shards} processes, and this "
            f"training has {world}: use a mesh of as many, or another number of --devices"
        )
    return found


def check(method: Method, settings: Settings, precision: str) -> None:
    """Refuse what cannot be computed in shards, with what can be done instead."""
    name = methods.short(methods.reference(type(method)))
    if not method.needs.shards:
        can = [n for n in methods.files() if methods.find(n).needs.shards]
        raise UserError(
            f"{name} was not tried with a part of its weights in each process (--shard), as were "
            f"{', '.join(can)}; drop --shard, so that each device has all of them: --recompute "
            "saves memory, too"
        )
    unfit = {
        "--anchor": (settings.anchor, "compares all weights or features with those of the start"),
        "--unmix": (settings.unmix is not None, "watches all weights for changes"),
        "--lora": (settings.lora, "merges whole weights at the end, and has few to divide"),
        "--time": (settings.time, "measures steps before there are several processes"),
        "fp16": (precision == "fp16", "scales losses by all gradients: use --precision bf16"),
    }
    for option, (given, why) in unfit.items():
        if given:
            raise UserError(f"{option} {why}; drop it, or train without --shard")


class Sharded(DDPStrategy):
    """Fabric's processes as those of DDP, around a method that is in shards already."""

    def __init__(self) -> None:
        super().__init__()
        self._backward_sync_control = _EachPart()  # type: ignore[assignment]

    def setup_module(self, module: nn.Module) -> Any:
        return module

    def module_to_device(self, module: nn.Module) -> None:
        """Its shards are where they belong."""


class _EachPart:
    """Gradients of each part of a batch are divided at once: kept whole they would be as large as
    the weights."""

    def no_backward_sync(self, module: nn.Module, enabled: bool) -> AbstractContextManager[None]:
        return nullcontext()


ENCODED = "encoded_in_shards"
"""The forward method of a sharded method's own by which a `GradientCache` runs an encoder."""


def shard(method: Method, fabric: Fabric, how: Layout) -> None:
    """Leave of each weight of `method` the part of this process, block by block.

    Whatever device it is on, not more than one group is whole on that of `fabric` meanwhile.
    Parameters become others: optimizers are made afterwards.
    """
    with torch.no_grad():
        for x in [*method.parameters(), *method.buffers()]:
            # processes that were given unlike ones would train a mixture of them
            x.data = dist.from_first(x.to(fabric.device)).to(x.device)
    mesh = _mesh(fabric.device.type, how)
    for block in blocks(method):
        _divide(block, mesh)
    # whoever is called from outside gathers what is in no block
    setattr(method, ENCODED, MethodType(_encoded, method))
    _divide(method, mesh)
    for name in ("loss", ENCODED):
        register_fsdp_forward_method(method, name)


def _mesh(device: str, how: Layout) -> DeviceMesh:
    if how.replicas == 1:
        return init_device_mesh(device, (how.shards,), mesh_dim_names=("shards",))
    return init_device_mesh(device, how, mesh_dim_names=("replicas", "shards"))


def _divide(module: nn.Module, mesh: DeviceMesh) -> None:
    before = type(module)
    fully_shard(module, mesh=mesh)
    for name in ("__module__", "__name__", "__qualname__"):  # of a class that was made for it
        setattr(type(module), name, getattr(before, name))


def _encoded(_: Method, encoder: nn.Module, images: Tensor) -> Tensor:
    return encoder(images).clone()  # a view would lose what gathers weights in the backward pass


def encoded(method: Method) -> Callable[[nn.Module, Tensor], Tensor]:
    """Runs an encoder of `method` outside of its loss."""
    if isinstance(method, FSDPModule):
        return getattr(method, ENCODED)
    return lambda encoder, images: encoder(images)


# whole again ---------------------------------------------------------------------------------


def whole(node: T, keep: bool) -> T:
    """A nested state with whole tensors on the CPU, one after the other, where they are to be kept.

    All processes call it. Tensors that are in no shards stay as they are.
    """
    if isinstance(node, DTensor):
        found = node.full_tensor()
        return found.cpu() if keep else None  # type: ignore[return-value]
    if isinstance(node, dict):
        found = copy.copy(node)  # with what a state knows beside its tensors
        found.update({k: whole(v, keep) for k, v in node.items()})
        return found
    if isinstance(node, list):
        return [whole(v, keep) for v in node]  # type: ignore[return-value]
    return node


def copied(node: T) -> T:
    """A nested state with tensors of its own."""
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, node)


@torch.no_grad()
def restore(method: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take the parts of this process out of what `whole` gave.

    Raises:
        RuntimeError, ValueError, KeyError: it is of another method or optimizer.
    """
    given, own = state["method"], method.state_dict()
    if given.keys() != own.keys():
        other = sorted(given.keys() ^ own.keys())
        raise KeyError(f"{len(other)} names such as {other[0]} are in one of the two alone")
    for name, x in own.items():
        x.copy_(_part(given[name], x))
    params = [p for group in optimizer.param_groups for p in group["params"]]
    parts = {
        i: {k: _part(v, params[i]) if _is_like(v, params[i]) else v for k, v in values.items()}
        for i, values in state["optimizer"]["state"].items()
    }
    optimizer.load_state_dict({**state["optimizer"], "state": parts})


def _is_like(value: Any, weight: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == weight.shape


def _part(value: Tensor, own: Tensor) -> Tensor:
    if not isinstance(own, DTensor):
        return value
    if value.shape != own.shape:
        raise ValueError(f"a weight is {tuple(own.shape)} here and {tuple(value.shape)} there")
    value = value.to(own.device)
    # each process has all of it, and cuts its part out
    return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)


class Whole:
    """The whole of a sharded method, in the first process; the others have a hand in each call.

    Args:
        method: before it is sharded, on the CPU.
        device: of the training, where the copy's encoder is while it is looked at.

    Attributes:
        copy: of the method; None in other processes.
        examined, looked: numbers of the steps after which the doctor does, and who draws the
            curve; alike in all processes.
    """

    def __init__(self, method: Method, device: torch.device):
        self.sharded, self.device = method, device
        self.copy = None if dist.rank() else copy.deepcopy(method)
        if self.copy is not None:
            plain(self.copy)
        self.examined: Collection[int] = ()
        self.looked: Collection[int] = ()

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a checkpoint, in the first process alone."""
        if self.copy is not None:
            self.copy.load_state_dict(state)

    def gather(self) -> None:
        """Take all weights and buffers as they are now."""
        self._take(self.sharded, self.copy)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """A block in which the copy's encoder is that of now, on the device."""
        self._take(self.sharded.encoder, None if self.copy is None else self.copy.encoder)
        with self.there():
            yield

    @contextmanager
    def there(self) -> Iterator[None]:
        """A block with the copy's encoder on the device."""
        if self.copy is None:
            yield
            return
        self._move(self.copy.encoder)
        try:
            yield
        finally:
            self.copy.encoder.cpu()

    def finished(self) -> Method | None:
        """The whole method as it is now, on the device where it fits, in the first process."""
        self.gather()
        if self.copy is not None:
            self._move(self.copy)
        return self.copy

    def _move(self, part: nn.Module) -> None:
        """To the device, where it fits."""
        try:
            part.to(self.device)
        except torch.OutOfMemoryError:
            log.warning("the whole network does not fit on the device beside its shards")
            part.cpu()

    @staticmethod
    @torch.no_grad()
    def _take(sharded: nn.Module, into: nn.Module | None) -> None:
        own = {} if into is None else into.state_dict()
        for name, x in sharded.state_dict().items():
            x = dist.whole(x)
            if into is not None:
                own[name].copy_(x)
