"""What a running training shows: a line that is written anew, or a message now and then."""

import logging
import threading
import time
from collections import deque
from contextlib import ExitStack

from selftaught import dist, voice
from selftaught.nouns import worded
from selftaught.voice import duration

log = logging.getLogger("selftaught")


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
        self.begun = self.ends[0]
        self.moving = threading.Event()
        self.live = voice.line() if dist.rank() == 0 else None
        self.ending = ExitStack()

    def __enter__(self) -> "Progress":
        self.begun = time.perf_counter()
        if self.live:
            self.ending.enter_context(self.live)
        if dist.rank() == 0:
            threading.Thread(target=self._wait, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.moving.set()
        self.ending.close()

    def _wait(self) -> None:
        """Until a step is done, say that it goes on: the first one may take longer than others."""
        text = "reading images, and the first step"
        while not self.moving.wait(voice.SLOW):
            with voice.BESIDE:
                if self.moving.is_set():
                    return
                if self.live is None:
                    log.info(text)
                    return
                self.live.show(f"{text}: {duration(time.perf_counter() - self.begun)}")

    def advance(self, waited: float) -> bool:
        """Count a step that waited so many seconds for its data; True when a line is due."""
        if not self.moving.is_set():
            with voice.BESIDE:
                self.moving.set()
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
        now = time.perf_counter()
        self.next = now + voice.pause(self.live, now - self.begun)
        if self.live:
            self.live.show(self.line(done, loss, self.live.width))
        else:
            log.info(self.line(done, loss))

    def line(self, done: int, loss: float, width: int = 1000) -> str:
        """What there is to say after `done` steps, as much of it as has room in `width` columns."""
        speed = self.images_per_second
        epochs = -(-self.total // self.per_epoch)
        epoch = min(done // self.per_epoch + 1, epochs)
        needed, peak = self.flops
        many = worded("images")
        parts = {  # with what goes first where there is little room
            f"epoch {epoch}/{epochs}": 2,
            f"step {done}/{self.total}": 5,
            f"loss {loss:.4f}": 6,
            f"{speed:.0f} {many}/s" if speed >= 10 else f"{speed:.2f} {many}/s": 3,
            f"{self.data_wait:.0%} waiting for data": 1,
            f"{duration((self.total - done) * self.batch / speed)} left": 4,
        }
        if peak:
            parts[f"{needed * speed / self.batch / peak:.0%} of the device's FLOP/s"] = 0
        while len(" · ".join(parts)) > width and len(parts) > 1:
            del parts[min(parts, key=lambda part: parts[part])]
        return " · ".join(parts)
