"""Two gloo processes that run functions for the tests, started once a session."""

import queue
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.children import POOL

WORLD = 2


def _serve(rank: int, folder: str, tasks: Any, results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=WORLD)
    while (task := tasks.get()) is not None:
        function, arguments = task
        try:
            torch.manual_seed(0)
            results.put((rank, function(rank, *arguments), None))
        except BaseException:
            results.put((rank, None, traceback.format_exc()))
    dist.destroy_process_group()


class Pool:
    """`run(f, *a)` calls `f(rank, *a)` in both processes at once and returns both results."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = mp.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory()
        self.tasks = [context.Queue() for _ in range(WORLD)]
        self.results = context.Queue()
        self.processes = [
            context.Process(
                name=f"{POOL}-{r}",
                target=_serve,
                args=(r, self.folder.name, q, self.results),
                daemon=True,
            )
            for r, q in enumerate(self.tasks)
        ]
        for process in self.processes:
            process.start()

    def run(self, function: Callable[..., Any], *arguments: Any, timeout: float = 300) -> list[Any]:
        for tasks in self.tasks:
            tasks.put((function, arguments))
        answers: dict[int, Any] = {}
        failed: list[str] = []
        while len(answers) + len(failed) < WORLD:
            try:  # a process whose partner failed waits for it in vain
                rank, value, error = self.results.get(timeout=5 if failed else timeout)
            except queue.Empty:
                failed.append(f"{WORLD - len(answers) - len(failed)} more gave no answer")
                for process in self.processes:
                    process.kill()
                self.folder.cleanup()
                self._start()
                break
            if error:
                failed.append(f"rank {rank}:\n{error}")
            else:
                answers[rank] = value
        assert not failed, "\n".join(failed)
        return [answers[rank] for rank in range(WORLD)]

    def close(self) -> None:
        for tasks in self.tasks:
            tasks.put(None)
        for process in self.processes:
            process.join(10)
        self.folder.cleanup()
