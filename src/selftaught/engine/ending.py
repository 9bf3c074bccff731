"""How a run ends when something outside of it goes wrong: in words, resumable."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as torch_dist

from selftaught import dist
from selftaught.engine.signals import StopSignals
from selftaught.errors import Interrupted, Lost, TrainingError


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
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError):
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


def _of_processes(error: RuntimeError) -> bool:
    """Whether it is the connection between processes that failed; gloo has no class for that."""
    return isinstance(error, torch_dist.DistError) or "gloo" in str(error).lower()
