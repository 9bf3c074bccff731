"""Locks that the kernel takes back when their holder dies, however it dies."""

import errno
import os

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_held: set[int] = set()


def lock(handle: int) -> None:
    """Lock an open file or folder for this process, until `unlock`.

    Raises:
        BlockingIOError: somebody else holds it.
        OSError: this file system, or this system, has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _held.add(handle)


def unlock(handle: int) -> None:
    """Give it back, and close the handle."""
    _held.discard(handle)
    os.close(handle)


def _let_go() -> None:
    """A process that was forked, such as one that reads images, must not outlive us with a lock."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
