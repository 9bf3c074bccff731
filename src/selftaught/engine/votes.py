"""When the processes of a run ask each other whether to stop or to save.

Asking costs as much as a step of a small network, so that it is not done at each; and who was asked
to stop is killed when it takes too long: torchrun and SLURM wait for 30 seconds.
"""

import time

EVERY = 10
"""Steps from one vote to the next, at most."""
WITHIN = 5.0
"""Seconds from one vote to the next, at most, as far as steps are shorter."""


class Votes:
    """After which step the next vote is, alike in all processes.

    Args:
        step: that are done.
    """

    def __init__(self, step: int):
        self.last, self.next = step, step + 1
        self.time = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether all vote after `step`."""
        return step >= self.next

    def milliseconds(self, step: int) -> int:
        """That this process took for a step since the last vote; 0 where it did none."""
        taken = time.monotonic() - self.time
        return round(1000 * taken / (step - self.last)) if step > self.last else 0

    def held(self, step: int, slowest: int) -> None:
        """Lay down the next vote.

        Args:
            step: after which this one was.
            slowest: the most `milliseconds` of all processes.
        """
        if step > self.last:
            self.next = step + max(1, min(EVERY, int(1000 * WITHIN) // max(1, slowest)))
            self.last, self.time = step, time.monotonic()
