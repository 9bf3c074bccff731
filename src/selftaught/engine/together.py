"""How the processes of a run find each other, and what they agree on before they train."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as torch_dist
from lightning_fabric import Fabric

from selftaught import dist
from selftaught.errors import UserError

STEP, DATA = "the step to go on from", "the data"
WAYS = {
    STEP: "give all of them one --out, in a folder that all of them see",
    DATA: "give all of them the same files",
}
PLACE = "selftaught/port"
"""Key in torchrun's store."""
LONGEST = 600.0
"""Seconds for the first process to be there."""
OTHERWISE = "start all of them with one command, on one version of the library"


def alike(facts: Mapping[str, Any]) -> None:
    """Refuse to go on where this process is about to do something else than the others.

    Nothing would tell later: gradients of unlike trainings are averaged without complaint.

    Args:
        facts: by what they are, in words.

    Raises:
        UserError: they differ; raised in all processes.
    """
    every = dist.everywhere({name: str(value) for name, value in facts.items()})
    for what in facts:
        found = [one[what] for one in every]
        if len(set(found)) > 1:
            shown = ", ".join(f"{value:.60}" for value in found[:4]) + ", ..." * (len(found) > 4)
            raise UserError(
                f"the {len(found)} processes of this run do not agree on {what} ({shown}): "
                f"{WAYS.get(what, OTHERWISE)}"
            )


def meet(fabric: Fabric) -> None:
    """Let processes that torchrun may start again find each other, before `fabric` is launched.

    torchrun's store outlives its processes, and torch looks up in it where the others are: once
    restarted, it finds those that are gone (pytorch/pytorch#135712). Here the first process opens a
    store of its own, and whoever finds a place where nobody listens asks again.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not shared or not int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)):
        return
    host, rank, world = os.environ["MASTER_ADDR"], fabric.global_rank, fabric.world_size
    agents = torch_dist.TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False)
    store = _opened(agents, host, world) if rank == 0 else _found(agents, host)
    device = fabric.strategy.root_device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch_dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world,
        device_id=device if device.type == "cuda" else None,
    )


def _opened(agents: torch_dist.Store, host: str, world: int) -> torch_dist.Store:
    """A store of this process, whose place is told in that of torchrun."""
    store = torch_dist.TCPStore(host, 0, world, is_master=True, wait_for_workers=False)
    agents.set(PLACE, str(store.port))
    return store


def _found(agents: torch_dist.Store, host: str) -> torch_dist.Store:
    """The store that the first process has opened."""
    end = time.monotonic() + LONGEST
    while True:
        port = int(agents.get(PLACE))
        try:
            socket.create_connection((host, port), 5).close()
        except OSError:  # of a process that is gone
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return torch_dist.TCPStore(host, port, is_master=False, wait_for_workers=False)
