"""How a run ends when something outside of it goes wrong: in words, resumable."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as torch_dist

from selftaught import dist
from selftaught.engine.launchers import STARTED_BY
from selftaught.engine.lock import release
from selftaught.engine.memory import ran_out
from selftaught.engine.signals import StopSignals
from selftaught.errors import (
    Interrupted,
    Lost,
    TrainingError,
    Unreachable,
    Unwritable,
    UserError,
    of_system,
    out_of_memory,
)
from selftaught.feed.readers import Stuck, Unmade


@dataclass
class Course:
    """How far a run has come: begun once there are steps behind it, and minutes spent on them."""

    begun: Callable[[], bool] = lambda: False


@contextmanager
def as_run_errors(out: Path, signals: StopSignals) -> Iterator[Course]:
    """A block whose ends are errors that say what to do: signals, a full disk, lost processes.

    After it the run folder is free for other runs.

    Args:
        out: run folder.
        signals: that ask for an end.

    Raises:
        Interrupted: what can be resumed: a signal, memory that ran out, lost processes.
        TrainingError: something that the system refused, or an input that fails after the first
            step: no fault of the arguments alone any more.
    """
    course = Course()
    again = "repeat the command with --resume"
    try:
        yield course
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; what is done is in {out}: {again} to go on",
            130 if signals.received is None else signals.exit_code,
        ) from None
    except (Stuck, Unmade, Unreachable) as error:  # before the training, or after it
        raise Interrupted(f"{error}. What is done is in {out}: {again}", error.exit_code) from error
    except UserError as error:
        if not (course.begun() or (isinstance(error, Unwritable) and error.exit_code == 1)):
            raise
        raise TrainingError(f"{error}; then {again}: what is done is in {out}") from error
    except (OSError, MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise Interrupted(
                f"{ran_out(error, course.begun())}; what is done is in {out}: {again}, and start a "
                "changed training with --overwrite"
            ) from error
        if dist.world() > 1 and isinstance(error, RuntimeError) and _of_processes(error):
            reason = str(error).rpartition("] ")[2].partition(". ")[0]  # without a place in C++
            raise Lost(
                f"another of the {dist.world()} processes of this run has ended ({reason}); see "
                f"what it said, and {again}"
            ) from error
        said = None if isinstance(error, ConnectionError) else of_system(error, out, writing=True)
        if said is None:
            raise
        raise TrainingError(f"{said}, and {again}") from error
    finally:
        release(out)


def end_with_parent(rank: int) -> None:
    """End this process when the one that started it has ended; call it before they meet.

    Otherwise it would wait half an hour for a first process that died while this one started.

    Args:
        rank: of this process; the first one makes itself known to those that it will start.
    """
    if rank == 0:
        os.environ[STARTED_BY] = str(os.getpid())
    elif STARTED_BY in os.environ:
        threading.Thread(target=_watch, args=(int(os.environ[STARTED_BY]),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(75)


def _of_processes(error: RuntimeError) -> bool:
    """Whether it is the connection between processes that failed; gloo has no class for that."""
    return isinstance(error, torch_dist.DistError) or "gloo" in str(error).lower()
