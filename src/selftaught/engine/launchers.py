"""Who has started the processes of a run: torchrun or srun; where neither has, the engine does."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from selftaught.errors import UserError

STARTED_BY = "SELFTAUGHT_STARTED_BY"
"""Variable of the environment that tells further processes which one started them."""
LENGTH = "SELFTAUGHT_LENGTH"
"""And how long to train."""


class Launched(NamedTuple):
    """here: processes on this machine. world: on all machines."""

    here: int
    world: int

    @property
    def nodes(self) -> int:
        """Machines.

        Raises:
            UserError: they have unlike numbers of processes.
        """
        if self.world % self.here:
            raise UserError(
                f"{self.world} processes, of which {self.here} are on this machine: all machines "
                "of a run have as many"
            )
        return self.world // self.here


def launched() -> Launched | None:
    """The processes that a launcher has started, of which this is one."""
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun
        return Launched(int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"]))
    world = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if world == 1:
        return None
    # such as 8(x4), or 8(x3),4
    counts = re.findall(r"(\d+)(?:\(x\d+\))?", os.environ["SLURM_STEP_TASKS_PER_NODE"])
    if len(set(counts)) > 1:
        raise UserError(
            f"srun has {', '.join(counts)} tasks on its nodes: all machines of a run have as many, "
            "as with --ntasks-per-node"
        )
    return Launched(int(counts[0]), world)


def hand_over(length: Mapping[str, Any]) -> None:
    """Tell processes that are started from here how long to train, where that was measured."""
    os.environ[LENGTH] = json.dumps(length)


def handed_over() -> dict[str, Any] | None:
    """What the process that started this one has measured.

    Raises:
        UserError: a launcher has started several, each of which would measure for itself.
    """
    if LENGTH in os.environ and os.environ.get(STARTED_BY) != str(os.getpid()):
        return json.loads(os.environ[LENGTH])
    there = launched()
    if there is not None and there.world > 1:
        raise UserError(
            f"--time is measured, and {there.world} processes would each find another length: give "
            "--epochs, such as a run with --devices 1 and this --time tells"
        )
    return None


def plugins() -> list[Any]:
    """How Fabric is to see that; nothing where it sees it by itself."""
    if "LOCAL_WORLD_SIZE" in os.environ or "SLURM_NTASKS" not in os.environ:
        return []
    from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment

    found = launched()
    if found is None:  # within a job, but not by srun: nobody else starts what it would wait for
        return [LightningEnvironment()]
    os.environ["SLURM_NTASKS_PER_NODE"] = str(found.here)  # of the step, which Fabric asks for
    os.environ["SLURM_NNODES"] = str(found.nodes)
    return [SLURMEnvironment(auto_requeue=False)]
