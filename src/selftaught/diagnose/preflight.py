"""What is known of a training before its first step."""

from collections.abc import Callable

import numpy as np

from selftaught.data import BadSample, Samples
from selftaught.diagnose.before import Before
from selftaught.method import Method
from selftaught.signature import values_by_role

PROBED, FEWEST = 200, 50
"""Images that are read: a hundredth of those that the training reads, from the second of these
numbers to the first. It depends on no clock, so that the same data gives the same findings."""

RATES = 1000
"""Steps whose learning rate is looked at."""


def preflight(
    method: Method,
    samples: Samples,
    *,
    size: int,
    batch: int,
    steps: int,
    rate: Callable[[int], float],
    optimizer: str,
    paper_lr: tuple[float, float] | None,
) -> Before:
    """Gather what the rules before the first step look at.

    Args:
        method: that will be trained.
        samples: the dataset; at most `PROBED` images are read.
        size: of the views in pixels.
        batch: samples that are compared at once.
        steps: of the training.
        rate: learning rate of a step.
        optimizer: its name.
        paper_lr: the paper's peak rate, its own and for this batch; None for another optimizer.
    """
    at = np.linspace(0, steps - 1, min(steps, RATES)).astype(int)
    rates = [rate(int(step)) for step in at]
    side, constant, repeated = probe(samples, min(PROBED, max(FEWEST, steps * batch // 100)))
    half = sum(p.numel() for p in method.parameters() if p.element_size() < 4)
    return Before(
        method=type(method).__name__,
        values=values_by_role(method),
        images=len(samples),
        batch=batch,
        compares=method.needs.batch > 1,
        steps=steps,
        optimizer=optimizer,
        lr=max(rates),
        paper_lr=paper_lr,
        top=float(at[int(np.argmax(rates))]) / steps,
        copy=bool(method.insight.copies),
        size=size,
        side=side or size,
        half=half / max(1, sum(p.numel() for p in method.parameters())),
        constant=constant,
        repeated=repeated,
    )


def probe(samples: Samples, most: int = PROBED) -> tuple[int, float, float]:
    """Look at images all over a dataset.

    Args:
        samples: the dataset.
        most: images that are read.

    Returns:
        The middle of their shorter sides (0 when none can be read), the share with one color, the
        share that are exact copies of another.
    """
    sides, constant, seen = [], 0, set()
    count = min(most, len(samples))
    order = np.random.default_rng(0).permutation(count) * len(samples) // count
    for i in order:
        try:
            image = samples.read(int(i))
        except BadSample:
            continue
        sides.append(min(image.shape[:2]))
        constant += int(np.ptp(image, axis=(0, 1)).max() <= 1)
        seen.add(hash(image.tobytes()))
    if not sides:
        return 0, 0.0, 0.0
    return sorted(sides)[len(sides) // 2], constant / len(sides), 1 - len(seen) / len(sides)
