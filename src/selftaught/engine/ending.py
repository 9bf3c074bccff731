"""How a run ends when something outside of it goes wrong: in words, resumable."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as torch_dist

from selftaught import dist
from selftaught.data.readers import Stuck, Unmade
from selftaught.engine.signals import StopSignals
from selftaught.errors import Interrupted, Lost, TrainingError, short_of

STARTED_BY = "SELFTAUGHT_STARTED_BY"
"""Variable of the environment that tells further processes which one started them."""


@contextmanager
def told(out: Path, signals: StopSignals) -> Iterator[None]:
    """A block whose ends are errors that say what to do: signals, a full disk, lost processes.

    Args:
        out: run folder.
        signals: that ask for an end.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; what is done is in {out}: repeat the command with --resume to go on",
            130 if signals.received is None else signals.exit_code,
        ) from None
    except (Stuck, Unmade) as error:  # before the training, or after it
        raise Interrupted(
            f"{error}. What is done is in {out}: repeat the command with --resume", error.exit_code
        ) from error
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError) or short_of(error):
            raise
        raise TrainingError(
            f"{error.filename or out} cannot be written ({error.strerror}); mend that, such as by "
            "freeing space, and repeat the command with --resume"
        ) from error
    except RuntimeError as error:
        if dist.world() == 1 or not _of_processes(error):
            raise
        reason = str(error).rpartition("] ")[2].partition(". ")[0]  # without a place in C++
        raise Lost(
            f"another of the {dist.world()} processes of this run has ended ({reason}); see what "
            "it said, and repeat the command with --resume"
        ) from error


def together(rank: int) -> None:
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
