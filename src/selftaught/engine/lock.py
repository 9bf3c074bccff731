"""One run folder, one writer: a second one is told who the first is."""

import logging
import os
import socket
from pathlib import Path

from selftaught.errors import UserError
from selftaught.export.lock import lock, unlock

log = logging.getLogger("selftaught")

FILE = ".lock"
"""In the run folder while a run writes there: number and machine of its first process."""

_claims: dict[Path, int] = {}
"""Folder -> handle of its file, of the runs of this process."""


def claim(out: Path) -> None:
    """Keep other runs out of the folder `out` until `release`, or until this process ends.

    The kernel holds the lock and takes it back from whoever is killed: a job that is queued again
    finds the folder free. Where a file system has no locks, that is said, and nothing is kept out.

    Raises:
        UserError: another run writes there.
    """
    path = out / FILE
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock(handle)
        except BlockingIOError:
            os.close(handle)
            raise UserError(_taken(out)) from None
        except OSError as error:
            os.close(handle)
            path.unlink(missing_ok=True)
            log.warning(
                "the file system of %s has no locks (%s): nothing keeps a second run from writing "
                "there, so start none",
                out,
                error.strerror,
            )
            return
        if _is(handle, path):
            break
        unlock(handle)  # the holder before us has just removed it
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
    _claims[out.absolute()] = handle


def release(out: Path) -> None:
    """Let others write to `out`; nothing happens where it is not ours."""
    handle = _claims.pop(out.absolute(), None)
    if handle is None:
        return
    if _is(handle, out / FILE):
        (out / FILE).unlink()
    unlock(handle)


def moved(before: Path, now: Path) -> None:
    """A folder that is ours has another name."""
    if before.absolute() in _claims:
        _claims[now.absolute()] = _claims.pop(before.absolute())


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _taken(out: Path) -> str:
    try:
        process, host = (out / FILE).read_text("utf-8", "replace").split()
    except (OSError, ValueError):
        who, stop = "another process", ""
    else:
        who, stop = f"process {process} on {host}", f", stop it (kill {process})"
    return (
        f"{out} is in use: {who} trains there; wait until it ends{stop}, or name another folder "
        "with --out"
    )
