"""Who hears what the library says.

Messages are records of the logger `selftaught`. Whoever has set up logging gets them there, and
progress as a line now and then. Where nobody has, they are shown: on standard error, or below the
cell of a notebook, with a line that is written anew where one can be.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, Self

from selftaught import notebook
from selftaught.nouns import worded
from selftaught.printable import printable

if TYPE_CHECKING:
    from selftaught.terminal import Moving

log = logging.getLogger("selftaught")

SLOW = 1.0
"""Seconds in which nobody asks what is going on."""

LIVE, PLAIN, SPARSE = 0.2, 10.0, 0.05
"""Seconds between two states of a line, and between two messages at least; the latter come ever
more rarely, each after this share of the time that has passed."""

BESIDE = threading.Lock()
"""Held by a thread that speaks beside the main one: no process is forked meanwhile, which would
find the console taken for good."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=BESIDE.acquire, after_in_parent=BESIDE.release, after_in_child=BESIDE.release
    )


class Line(Protocol):
    """A line that is written anew, within a `with` block."""

    @property
    def width(self) -> int: ...
    def show(self, text: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class Voice(Protocol):
    """Shows messages, and a line that is written anew where there is room for one."""

    def say(self, text: str, warns: bool) -> None: ...
    def line(self, stays: bool) -> Line | None: ...


class OnStandardError:
    """A terminal, or a file of lines."""

    def __init__(self) -> None:
        from selftaught.terminal import standard_error

        self.console = standard_error()
        self.console.quiet = False  # whoever read an earlier command's messages

    def say(self, text: str, warns: bool) -> None:
        """Write a message, above the line that moves."""
        from rich.text import Text

        # a style of the text alone: one of `print` would be that of the line below it, too
        self.console.print(Text(text, "yellow" if warns else ""))

    def line(self, stays: bool) -> "Moving | None":
        """None where nothing can be written over, or another line is."""
        from selftaught.terminal import Moving

        moves = self.console.is_terminal and not self.console.is_dumb_terminal
        return Moving(stays) if moves and not Moving.alive else None


class Shown(logging.Handler):
    """Hands messages to a voice; nothing in them that came from outside passes for our own words.

    Args:
        voice: that shows them.
    """

    def __init__(self, voice: Voice):
        super().__init__()
        self.voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        """Show a message."""
        text, args = str(record.msg), record.args
        if isinstance(args, tuple) and args:
            text %= tuple(a if isinstance(a, int | float) else printable(str(a)) for a in args)
        warns = record.levelno >= logging.WARNING
        text = f"warning: {text}" if warns else text
        self.voice.say(printable(worded(text), "\n"), warns)


def first() -> bool:
    """Whether this is the process that speaks, where several train together."""
    several = os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"  # of srun
    numbers = ["LOCAL_RANK", "RANK"] + ["SLURM_PROCID"] * several
    return all(os.environ.get(name, "0") == "0" for name in numbers)


def command_speaks() -> None:
    """From now on messages are shown on standard error, and nowhere else: for the command line."""
    log.handlers = [Shown(OnStandardError())]
    log.setLevel(logging.INFO if first() else logging.ERROR)


@contextmanager
def heard() -> Iterator[None]:
    """A block whose messages are shown, unless somebody has set up logging.

    A level that the logger was given stays, so that `setLevel("WARNING")` makes it quiet.
    """
    if log.hasHandlers():
        yield
        return
    screen, level = notebook.running(), log.level
    handler = Shown(OnStandardError() if screen is None else notebook.Cell(screen))
    log.addHandler(handler)
    if level == logging.NOTSET:
        log.setLevel(logging.INFO if first() else logging.ERROR)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def line(stays: bool = True) -> Line | None:
    """Where progress can be shown on a line that is written anew; None where it is messages.

    Args:
        stays: whether its last state is kept.
    """
    shown = next((h for h in log.handlers if isinstance(h, Shown)), None)
    return shown.voice.line(stays) if shown and log.isEnabledFor(logging.INFO) else None


def pause(line: Line | None, passed: float) -> float:
    """Seconds to the next state of a line, or to the next message after `passed` seconds."""
    return LIVE if line else max(PLAIN, SPARSE * passed)


def duration(seconds: float) -> str:
    """Such as 0:42, 7:05:00 or 3 d 4 h."""
    s = round(seconds)
    if s >= 2 * 86400:
        return f"{s // 86400} d {s % 86400 // 3600} h"
    if s >= 3600:
        return f"{s // 3600}:{s % 3600 // 60:02}:{s % 60:02}"
    return f"{s // 60}:{s % 60:02}"


@contextmanager
def counted(task: str) -> Iterator[Callable[[int, int], None]]:
    """A block of work; called with what is done of all, what is yielded shows it now and then."""
    begun = time.perf_counter()
    shown = line(stays=False)
    due = begun + (SLOW if shown else PLAIN)

    def tell(done: int, total: int) -> None:
        nonlocal due
        now = time.perf_counter()
        if now < due:
            return
        due = now + pause(shown, now - begun)
        left = (now - begun) * (total - done) / max(done, 1)
        text = f"{task} {done:,}/{total:,} · {duration(left)} left"
        if shown:
            shown.show(text)
        else:
            log.info(text)

    with shown or nullcontext():
        yield tell


@contextmanager
def told_if_slow(message: str, *about: object) -> Iterator[None]:
    """A block that says what it does where that takes more than a second."""

    def tell() -> None:
        with BESIDE:
            log.info(message, *about)

    timer = threading.Timer(SLOW, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
