"""What a place in the network can be asked for, and what becomes of its faults."""

import logging
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from selftaught.data.ranges import Facts
from selftaught.errors import Unreachable, UserError

log = logging.getLogger("selftaught")

CONNECT, READ = 10.0, 30.0
"""Seconds to reach a server, and for which it may say nothing."""
PATIENCE = 30.0
"""Seconds that are waited in all for a network to recover, where `SELFTAUGHT_PATIENCE` names no
others: twice as long before each further try, from half a second on."""
_LONGEST = 60.0

Keep = Callable[[int, bytes], None]
"""Is handed, with its place, what else of a file came along."""

_Result = TypeVar("_Result")


class Fault(Exception):
    """Something in the network went wrong that another try may not meet.

    Args:
        reason: in words.
        after: seconds that the server asks to be left alone.
    """

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after


class Store(ABC):
    """Files behind addresses of one kind."""

    @abstractmethod
    def facts(self, address: str) -> Facts:
        """Of a file.

        Raises:
            UserError: it does not exist, or may not be read.
            Unreachable: the way there is broken.
        """

    @abstractmethod
    def fetch(self, address: str, offset: int, size: int, facts: Facts, keep: Keep) -> bytes:
        """So many bytes of a file, all of them.

        Args:
            facts: of the file, as it was.
            keep: for what came along.

        Raises:
            UserError: it has changed since, is gone, or may not be read.
            Unreachable: the way there is broken.
        """

    @abstractmethod
    def inside(self, address: str) -> list[str]:
        """Addresses of all files below another one, sorted.

        Raises:
            UserError: none can be listed there.
        """


def patiently(address: str, attempt: Callable[[], _Result]) -> _Result:
    """What an attempt gives, which is made again, ever later, where the network has a fault.

    Raises:
        Unreachable: it failed each time.
    """
    begun, failed, tries = time.monotonic(), "", 0
    for wait in (*_waits(), None):
        tries += 1
        try:
            return attempt()
        except Fault as fault:
            failed = str(fault)
            if wait is None:
                break
            log.debug("%s: %s; trying again", address, fault)
            # not all processes at once
            time.sleep(max(min(fault.after, _LONGEST), wait * random.uniform(0.5, 1)))
    raise Unreachable(
        f"{address} cannot be reached ({failed}; {tries} tries in "
        f"{time.monotonic() - begun:.0f} s): look at the network and at the server"
    )


def _waits() -> list[float]:
    """Seconds before each further try, at most."""
    text = os.environ.get("SELFTAUGHT_PATIENCE", "")
    try:
        left = float(text or PATIENCE)
    except ValueError as error:
        raise UserError(f"SELFTAUGHT_PATIENCE={text} must be seconds, such as 600") from error
    wait, found = min(0.5, left / 60), []
    while left > 0 and wait > 0:
        found.append(min(wait, left, _LONGEST))
        left, wait = left - found[-1], 2 * wait
    return found


def changed(address: str, how: str) -> UserError:
    """The error for a file that is no longer what it was."""
    return UserError(f"{address} has changed while it was in use, or since it was listed ({how})")
