"""The machine: which device and precision a run gets, and how many of its cores."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies import DDPStrategy

from selftaught.backbones import Encoder
from selftaught.data.memory import cores
from selftaught.engine import launchers
from selftaught.engine.launchers import launched
from selftaught.engine.precision import fastest
from selftaught.engine.shard import Sharded
from selftaught.errors import UserError


class _Autocast(MixedPrecision):
    """Half precision inside the forward pass alone: images and targets stay in float32."""

    def convert_input(self, data: Any) -> Any:
        return data

    def convert_output(self, data: Any) -> Any:
        return data


def fabric_for(
    accelerator: str, devices: int, precision: str, encoder: Encoder, sharded: bool = False
) -> Fabric:
    """The engine, on the device and in the precision that were asked for or are best.

    Args:
        accelerator, devices, precision: as of `Settings`.
        encoder: that is trained.
        sharded: whether each process is to have a part of the weights.

    Raises:
        UserError: this machine has no such device, or the device no such precision.
    """
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and torch.cuda.device_count() < devices:
        raise UserError(
            f"{devices} GPUs were asked for, this machine has {torch.cuda.device_count()}; use "
            "--devices or --accelerator cpu"
        )
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise UserError("this machine has no Apple GPU; use --accelerator cpu")
    if precision == "auto":
        precision = fastest(accelerator, encoder)
    if precision == "fp16" and accelerator == "cpu":
        raise UserError("fp16 needs a GPU; use --precision fp32 or bf16 on a CPU")
    plugins: list[Any] = []
    if precision != "fp32":
        kind: Any = {"bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
        plugins.append(_Autocast(kind, accelerator))
    nodes, there = 1, launched()
    if there is not None:  # who has the processes knows how many
        devices, nodes = there.here, there.nodes
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each process
    many = devices * nodes > 1
    # buffers are alike by construction; sending queues around at each step would cost more than
    # the step; gradients lie where they are sent from, not in memory of their own beside it
    how = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
    strategy = (Sharded() if sharded else DDPStrategy(**how)) if many else "auto"
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        plugins=plugins + launchers.plugins(),
    )


def precision_of(fabric: Fabric) -> str:
    """The precision as users call it: fp32, bf16 or fp16."""
    name = fabric.strategy.precision.precision
    return {"bf16-mixed": "bf16", "16-mixed": "fp16"}.get(str(name), "fp32")


def device_name(fabric: Fabric) -> str:
    """The device as users know it."""
    if fabric.device.type == "cuda":
        return torch.cuda.get_device_name(fabric.device)
    return "CPU" if fabric.device.type == "cpu" else "Apple GPU"


def _cores(fabric: Fabric) -> int:
    """Of this machine, for each process of the run."""
    there = launched()
    return max(1, cores() // (fabric.world_size if there is None else there.here))


def spare_cores(fabric: Fabric) -> int:
    """Processes that make views: all cores but one for a GPU; on a CPU the network needs them."""
    own = _cores(fabric)
    return max(1, min(16, own - 1) if fabric.device.type != "cpu" else own // 4)


@contextmanager
def without_denormals() -> Iterator[None]:
    """Take values next to zero for zero: they make CPUs many times slower."""
    least = torch.tensor(5e-324, dtype=torch.float64)
    before = not bool(least * 1 > 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def room_to_read(fabric: Fabric) -> Iterator[None]:
    """Leave cores to the processes that make views.

    Threads of one operation wait for each other: with one thread on a core that has other work all
    are as slow as that one, several times slower than without it. Their number depends on the
    machine alone, not on how many processes read, because the last digits of sums depend on it.
    """
    before = torch.get_num_threads()
    if fabric.device.type == "cpu":
        torch.set_num_threads(max(1, min(before, _cores(fabric) - spare_cores(fabric))))
    try:
        yield
    finally:
        torch.set_num_threads(before)
