"""What a running training shows: a live line on a terminal, a plain one now and then elsewhere."""

import logging
import time
from collections import deque

from rich.live import Live
from rich.text import Text

from selftaught import dist
from selftaught.terminal import standard_error

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
        self.console = standard_error()
        moves = self.console.is_terminal and not self.console.is_dumb_terminal
        alive = moves and dist.rank() == 0
        self.live = Live(console=self.console, auto_refresh=False) if alive else None

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

    def leave_out(self, seconds: float) -> None:
        """Take time that went into something else than training out of the speed."""
        self.ends = deque((end + seconds for end in self.ends), maxlen=self.ends.maxlen)

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
        if self.live:
            line = Text(
                self.line(done, loss, self.console.width), no_wrap=True, overflow="ellipsis"
            )
            self.live.update(line, refresh=True)
        else:
            log.info(self.line(done, loss))

    def line(self, done: int, loss: float, width: int = 1000) -> str:
        """What there is to say after `done` steps, as much of it as has room in `width` columns."""
        speed = self.images_per_second
        epoch = min(done // self.per_epoch + 1, self.total // self.per_epoch)
        needed, peak = self.flops
        parts = {  # with what goes first where there is little room
            f"epoch {epoch}/{self.total // self.per_epoch}": 2,
            f"step {done}/{self.total}": 5,
            f"loss {loss:.4f}": 6,
            f"{speed:.0f} images/s" if speed >= 10 else f"{speed:.2f} images/s": 3,
            f"{self.data_wait:.0%} waiting for data": 1,
            f"{duration((self.total - done) * self.batch / speed)} left": 4,
        }
        if peak:
            parts[f"{needed * speed / self.batch / peak:.0%} of the device's FLOP/s"] = 0
        while len(" · ".join(parts)) > width and len(parts) > 1:
            del parts[min(parts, key=lambda part: parts[part])]
        return " · ".join(parts)
