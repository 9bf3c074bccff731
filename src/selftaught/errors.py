"""What can go wrong, by whose hand: each error is a sentence with the value, the need, the way out.

The command line turns an error into its message and `exit_code`; Python users catch the class.
"""

import errno
import traceback


class SelftaughtError(Exception):
    """Base of everything that selftaught raises on purpose."""

    exit_code = 1


class UserError(SelftaughtError, ValueError):
    """An argument, a configuration or an input that cannot work."""

    exit_code = 2


class DataError(SelftaughtError):
    """A dataset that is too broken to train on."""

    exit_code = 3


class TrainingError(SelftaughtError):
    """A run that failed on its way: a loss that is not finite, a checkpoint that cannot be read."""

    exit_code = 1


class Interrupted(SelftaughtError):
    """A run that was stopped from outside, saved, and can be resumed."""

    def __init__(self, message: str, exit_code: int = 75):
        super().__init__(message)
        self.exit_code = exit_code


class Lost(Interrupted):
    """One of the processes of a run failed, so that the others cannot go on."""


class Unreachable(Interrupted):
    """Data that lies elsewhere, to which the way is broken: no fault of the data. What is done is
    kept, and can be gone on with."""


class Unwritable(UserError):
    """A file that cannot be written; a disk that was full too late to be an argument's fault
    exits with 1."""

    @classmethod
    def of(cls, place: object, error: Exception) -> "Unwritable":
        """`place` cannot be written, for the reason that `error` gives."""
        reason = getattr(error, "strerror", None) or error
        made = cls(f"{place} cannot be written ({reason}); choose another place or make room there")
        made.exit_code = 1 if full(error) else 2
        return made


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Numbers of errors of a disk, and not of a name that was given."""

_FULL = ("No space left", "File too large", "os error 28", "os error 27", "quota exceeded")
_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "Cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)
_HINTS = {
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower --workers",
    errno.ENFILE: "close other programs, or lower --workers",
    errno.EAGAIN: "no further process can be started: raise the limit (ulimit -u), or lower "
    "--workers",
}


def full(error: Exception) -> bool:
    """Whether a disk is full or broken: by number or, where libraries hide that, by text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return any(sign in str(error) for sign in _FULL)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a device; torch has no class for the first."""
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    ):
        return True
    known = isinstance(error, RuntimeError)  # of which torch.OutOfMemoryError is one
    return known and any(sign in str(error) for sign in _MEMORY)


def of_system(error: Exception, otherwise: object, writing: bool) -> str | None:
    """An error of the system as words that end with what to do; None for others.

    Args:
        error: any.
        otherwise: what it is about where it names no file.
        writing: whether files were being written, else read, where it does not say.
    """
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return f"this process may have no more threads ({error}): raise `ulimit -u`"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    place = error.filename or otherwise
    through = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    if not error.filename and any("multiprocessing" in name for name in through):
        place = "what processes share (/dev/shm)"
    if hint := _HINTS.get(error.errno):
        return f"{error.strerror}: {hint}"
    what = "written" if writing or error.errno in FULL else "opened"
    hint = "free some space there" if error.errno in FULL else "mend that"
    return f"{place} cannot be {what} ({error.strerror}); {hint}"
