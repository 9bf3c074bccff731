"""Where this machine keeps what can be had again, and how its processes take turns there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # there are no locks: several processes may do the same at once
    fcntl = None


def cache_folder() -> Path:
    """What `SELFTAUGHT_CACHE` names, or the user's usual place."""
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("SELFTAUGHT_CACHE") or os.path.join(usual, "selftaught"))


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """A block that one process of this machine runs at a time; it is left to the next one where
    this one is killed."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
