"""Who does the blocks of a pass: this process, or actors of a Ray cluster."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from selftaught.data.memory import cores
from selftaught.errors import UserError

if TYPE_CHECKING:
    from selftaught.curate.stage import Block, Stage


class Named(NamedTuple):
    """Where a class is, which is imported when it is asked for."""

    module: str
    label: str

    def load(self) -> Any:
        """The class."""
        return getattr(import_module(f"selftaught.curate.{self.module}"), self.label)


ACTOR = Named("actor", "Actor")
STAGES = {
    "scan": Named("scan", "Scan"),
    "filter": Named("filter", "Filter"),
    "embed": Named("embed", "Embed"),
    "dedup": Named("dedup", "Dedup"),
    "retrieve": Named("retrieve", "Retrieve"),
    "balance": Named("balance", "Balance"),
}


def do(
    stage: "Stage", step: str, blocks: "Sequence[Block]", told: Callable[[int, int], None]
) -> None:
    """Do the blocks of a pass, each whole or not at all."""
    if stage.asked.engine == "ray" and blocks:
        _by_ray(stage, step, blocks, told)
        return
    done, total = 0, sum(block.count for block in blocks)
    for block in blocks:
        stage.do(step, block)
        done += block.count
        told(done, total)


def threads(asked: int | None) -> int:
    """That work side by side."""
    return asked or cores()


def _by_ray(
    stage: "Stage", step: str, blocks: "Sequence[Block]", told: Callable[[int, int], None]
) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise UserError(
            "--engine ray needs Ray, which is not installed: pip install 'selftaught[ray]'"
        ) from error
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, logging_level="error")
    count = min(len(blocks), stage.asked.workers or int(ray.cluster_resources().get("CPU", 1)))
    # an actor that dies is begun anew, and does again what it had not finished
    kind = ray.remote(max_restarts=-1, max_task_retries=-1)(ACTOR.load())
    alone = replace(stage.asked, engine="local", part=None, workers=None)
    given = str(stage.pool.folder.absolute()), stage.name, alone
    actors = [kind.remote(*given) for _ in range(count)]
    waiting = {actor.do.remote(step, b): b for b, actor in zip(blocks, actors)}
    by = dict(zip(waiting, actors))
    rest, done, total = list(blocks[count:]), 0, sum(block.count for block in blocks)
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        ray.get(ready)
        done += waiting.pop(ready).count
        told(done, total)
        actor = by.pop(ready)
        if rest:
            block = rest.pop(0)
            again = actor.do.remote(step, block)
            waiting[again], by[again] = block, actor
    for actor in actors:
        ray.kill(actor)
