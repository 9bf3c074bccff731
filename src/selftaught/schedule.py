"""Values as functions of progress, the fraction of training done in [0, 1]."""

from math import cos, pi


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * (1 + cos(pi * progress)) / 2


def linear(start: float, end: float, progress: float) -> float:
    """From `start` to `end` in a straight line; `end` beyond 1."""
    return start + (end - start) * min(progress, 1.0)
