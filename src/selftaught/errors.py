"""What can go wrong, by whose hand: each error is a sentence with the value, the need, the way out.

The command line turns an error into its message and `exit_code`; Python users catch the class.
"""

import errno


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


def short_of(error: BaseException) -> str | None:
    """What the limits of this process refused, in words; None where it was something else."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            f"this process may open no more files ({error.strerror}): raise `ulimit -n`, or lower "
            "--workers"
        )
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return f"this process may have no more threads ({error}): raise `ulimit -u`"
    return None
