"""What is known of a training before its first step."""

import time
from collections.abc import Callable

import numpy as np

from selftaught.data import BadSample, Samples
from selftaught.diagnose.rules import Before
from selftaught.method import Method
from selftaught.signature import values_by_role

PROBED = 200
"""Images that are read, where that takes no longer than it may."""

RATES = 1000
"""Steps whose learning rate is looked at."""


def intake(
    method: Method,
    samples: Samples,
    *,
    size: int,
    batch: int,
    steps: int,
    rate: Callable[[int], float],
    optimizer: str,
    paper_lr: tuple[float, float] | None,
    seconds: float,
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
        seconds: that reading images may take.
    """
    at = np.linspace(0, steps - 1, min(steps, RATES)).astype(int)
    rates = [rate(int(step)) for step in at]
    side, constant, repeated = probe(samples, seconds)
    half = sum(p.numel() for p in method.parameters() if p.element_size() < 4)
    return Before(
        method=type(method).__name__,
        values=values_by_role(method),
        images=len(samples),
        batch=batch,
        compares=method.min_batch > 1,
        steps=steps,
        optimizer=optimizer,
        lr=max(rates),
        paper_lr=paper_lr,
        top=float(at[int(np.argmax(rates))]) / steps,
        copy=bool(method.anatomy.copies),
        size=size,
        side=side or size,
        half=half / max(1, sum(p.numel() for p in method.parameters())),
        constant=constant,
        repeated=repeated,
    )


def probe(samples: Samples, seconds: float) -> tuple[int, float, float]:
    """Look at images all over a dataset.

    Args:
        samples: the dataset.
        seconds: after which no further image is read.

    Returns:
        The middle of their shorter sides (0 when none can be read), the share with one colour, the
        share that are exact copies of another.
    """
    begun = time.perf_counter()
    sides, constant, seen = [], 0, set()
    count = min(PROBED, len(samples))
    order = np.random.default_rng(0).permutation(count) * len(samples) // count
    for i in order:
        if time.perf_counter() - begun > seconds and len(sides) > 8:
            break
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
