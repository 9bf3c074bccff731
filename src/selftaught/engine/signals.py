"""Signals that ask a run to stop: it saves at the next step and says how to go on."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

log = logging.getLogger("selftaught")

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
if hasattr(signal, "SIGUSR1"):
    EXIT_CODES[signal.SIGUSR1] = 75  # what SLURM sends before the time is up
    EXIT_CODES[signal.SIGHUP] = 129  # the terminal is gone

ECHO = 0.005
"""Seconds in which the same signal again is the same request: `timeout` and some launchers send it
to the process, and to the group that it is in."""


class StopSignals:
    """While it is entered, the first signal is kept in `received`; a second ends the process.

    The first raises KeyboardInterrupt, except in a block of `deferred`, which looks at `received`
    where it can stop. It is answered in words at once, and the second ends at once, by a thread:
    Python's own handlers wait for the operation that runs, such as a long backward pass. Outside
    the main thread, where Python has no signals, nothing happens.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = True
        self._before: dict[int, Any] = {}
        self._ends: tuple[socket.socket, ...] = ()
        self._others = -1
        self._handled: list[tuple[int, float]] = []
        self._heard: list[tuple[int, float]] = []

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            asked = set(EXIT_CODES)
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
                asked.remove(signal.SIGHUP)  # by nohup: the run is to survive its terminal
            with suppress(OSError, RuntimeError):  # no descriptor or thread left: handlers remain
                self._listen()
            self._before = {s: signal.signal(s, self._handle) for s in asked}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._ends:
            signal.set_wakeup_fd(self._others)
            self._ends[1].close()  # and the thread ends

    def _handle(self, number: int, frame: FrameType | None) -> None:
        _note(self._handled, number)
        if self.received is None:
            self.received = number
            if self._at_once:
                raise KeyboardInterrupt

    def _listen(self) -> None:
        ends = socket.socketpair()
        ends[1].setblocking(False)
        threading.Thread(target=self._answer, args=(ends[0],), daemon=True).start()
        self._others = signal.set_wakeup_fd(ends[1].fileno(), warn_on_full_buffer=False)
        self._ends = ends

    def _answer(self, end: socket.socket) -> None:
        with end:
            while numbers := end.recv(64):
                for number in numbers:
                    if number in self._before:
                        _note(self._heard, number)
                        if len(self._heard) == 1:
                            when = "" if self._at_once else " after this step"
                            log.info("stopping%s; once more ends at once, unsaved", when)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that asks for `received` itself; a signal that it missed counts after it."""
        with self._mode(False):
            yield
        if self.received is not None:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A part of such a block that a signal ends, as it does elsewhere."""
        with self._mode(True):
            if self.received is not None:
                raise KeyboardInterrupt
            yield

    @contextmanager
    def _mode(self, at_once: bool) -> Iterator[None]:
        before, self._at_once = self._at_once, at_once
        try:
            yield
        finally:
            self._at_once = before

    @property
    def exit_code(self) -> int:
        """Of a process that was stopped; without a signal it was another process that was."""
        return 75 if self.received is None else EXIT_CODES[signal.Signals(self.received)]


def _note(seen: list[tuple[int, float]], number: int) -> None:
    """Remember a signal, and end the process if it is a second one."""
    now = time.monotonic()
    if seen and (seen[0][0] != number or now - seen[0][1] > ECHO):
        os._exit(EXIT_CODES[signal.Signals(number)])
    seen.append((number, now))
