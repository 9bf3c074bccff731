"""Values as functions of progress, the fraction of training done in [0, 1]."""

from collections.abc import Sequence
from math import cos, pi


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine; `end` beyond 1."""
    return end + (start - end) * (1 + cos(pi * min(progress, 1.0))) / 2


def linear(start: float, end: float, progress: float) -> float:
    """From `start` to `end` in a straight line; `end` beyond 1."""
    return start + (end - start) * min(progress, 1.0)


def ramp(start: float, end: float, share: float, progress: float) -> float:
    """From `start` to `end` in a straight line over the first `share` of training, then `end`."""
    return linear(start, end, progress / share) if share else end


def steps(start: float, factor: float, milestones: Sequence[float], progress: float) -> float:
    """`start` times `factor` for each of `milestones` that `progress` has reached."""
    return start * factor ** sum(progress >= m for m in milestones)
