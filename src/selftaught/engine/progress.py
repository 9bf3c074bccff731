"""What a running training shows: a live line on a terminal, a plain one now and then elsewhere."""

import logging
import time
from collections import deque

from rich.console import Console
from rich.live import Live
from rich.text import Text

from selftaught import dist

log = logging.getLogger("selftaught")

LIVE, PLAIN = 0.2, 10.0
"""Seconds between two refreshes, on a terminal and elsewhere."""


def duration(seconds: float) -> str:
    """Such as 0:42, 7:05:00 or 3 d 4 h."""
    s = round(seconds)
    if s >= 2 * 86400:
        return f"{s // 86400} d {s % 86400 // 3600} h"
    if s >= 3600:
        return f"{s // 3600}:{s % 3600 // 60:02}:{s % 60:02}"
    return f"{s // 60}:{s % 60:02}"


class Progress:
    """Speed over the last steps, share of time spent waiting for data, time left.

    Args:
        total, per_epoch: steps of the training and of an epoch.
        batch: images a step.
        flops: floating-point operations a step and the device's peak a second; 0 when unknown.
    """

    def __init__(
        self, total: int, per_epoch: int, batch: int, flops: tuple[float, float] = (0.0, 0.0)
    ):
        self.total, self.per_epoch, self.batch, self.flops = total, per_epoch, batch, flops
        self.ends: deque[float] = deque([time.perf_counter()], maxlen=50)
        self.waits: deque[float] = deque(maxlen=49)
        self.next = 0.0
        # that of messages, if there is one: what is said appears above the live line, not in it
        known = (getattr(handler, "console", None) for handler in log.handlers)
        console = next((c for c in known if isinstance(c, Console)), Console(stderr=True))
        alive = console.is_terminal and dist.rank() == 0
        self.live = Live(console=console, auto_refresh=False) if alive else None

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def advance(self, waited: float) -> bool:
        """Count a step that waited so many seconds for its data; True when a line is due."""
        now = time.perf_counter()
        self.ends.append(now)
        self.waits.append(waited)
        return now >= self.next

    @property
    def images_per_second(self) -> float:
        return self.batch * (len(self.ends) - 1) / max(self.ends[-1] - self.ends[0], 1e-9)

    @property
    def data_wait(self) -> float:
        """Share of the time of the last steps that was spent waiting for data, in [0, 1]."""
        return min(1.0, sum(self.waits) / max(self.ends[-1] - self.ends[0], 1e-9))

    def show(self, done: int, loss: float) -> None:
        """Show the line for `done` steps."""
        self.next = time.perf_counter() + (LIVE if self.live else PLAIN)
        line = self.line(done, loss)
        if self.live:
            self.live.update(Text(line, no_wrap=False, overflow="fold"), refresh=True)
        else:
            log.info(line)

    def line(self, done: int, loss: float) -> str:
        speed = self.images_per_second
        epoch = min(done // self.per_epoch + 1, self.total // self.per_epoch)
        parts = [
            f"epoch {epoch}/{self.total // self.per_epoch}",
            f"step {done}/{self.total}",
            f"loss {loss:.4f}",
            f"{speed:.0f} images/s" if speed >= 10 else f"{speed:.2f} images/s",
            f"{self.data_wait:.0%} waiting for data",
            f"{duration((self.total - done) * self.batch / speed)} left",
        ]
        needed, peak = self.flops
        if peak:
            parts.append(f"{needed * speed / self.batch / peak:.0%} of the device's FLOP/s")
        return " · ".join(parts)
