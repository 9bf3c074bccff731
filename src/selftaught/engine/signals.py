"""Signals that ask a run to stop: it saves at the next step and says how to go on."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
if hasattr(signal, "SIGUSR1"):
    EXIT_CODES[signal.SIGUSR1] = 75  # what SLURM sends before the time is up
    EXIT_CODES[signal.SIGHUP] = 129  # the terminal is gone


class StopSignals:
    """While it is entered, the first signal is kept in `received`; a second ends the process.

    The first raises KeyboardInterrupt, except in a block of `deferred`, which looks at `received`
    where it can stop. Outside the main thread, where Python has no signals, nothing happens.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            asked = set(EXIT_CODES)
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
                asked.remove(signal.SIGHUP)  # by nohup: the run is to survive its terminal
            self._before = {s: signal.signal(s, self._handle) for s in asked}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(EXIT_CODES[signal.Signals(number)])
        self.received = number
        if self._at_once:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that asks for `received` itself; a signal that it missed counts after it."""
        self._at_once = False
        try:
            yield
        finally:
            self._at_once = True
        if self.received is not None:
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """Of a process that was stopped; without a signal it was another process that was."""
        return 75 if self.received is None else EXIT_CODES[signal.Signals(self.received)]
