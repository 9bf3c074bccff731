"""Recorded draws in place of a generator: a sampler is exact if it consumes the same ones."""

from collections.abc import Iterable
from typing import Any

import numpy as np

UNIFORM, INCLUSIVE, CHOICE, RANDOM = 0, 1, 2, 3
"""Kinds of draws of Python's `random`: uniform(lo, hi), randint(lo, hi), choice of hi things,
random().
"""


class Recorded:
    """Draws by rows (kind, lo, hi, value), and permutations; bounds of whole numbers are checked.

    A uniform draw is given as the fraction of the way from lo to hi.
    """

    def __init__(self, rows: Any, orders: Iterable[np.ndarray] = ()):
        self.rows = iter(np.asarray(rows).tolist())
        self.orders = iter(orders)

    def random(self, size: Any = None) -> float:
        kind, low, high, value = next(self.rows)
        if kind == RANDOM:
            return value
        assert kind == UNIFORM
        return (value - low) / (high - low) if high != low else 0.0

    def integers(self, low: int, high: int, size: Any = None) -> int:
        kind, *bounds, value = next(self.rows)
        assert kind in (INCLUSIVE, CHOICE)
        assert bounds == [low, high - (kind == INCLUSIVE)]
        return int(value)

    def permutation(self, x: int) -> np.ndarray:
        order = next(self.orders)
        assert len(order) == x
        return order

    def exhausted(self) -> bool:
        return not [*self.rows, *self.orders]


class Replay:
    """Draws as they were recorded: numbers in [0, 1), whole numbers with their bounds, orders."""

    def __init__(self, uniform: Any = (), whole: Any = (), orders: Any = ()):
        self.uniform, self.whole, self.orders = iter(uniform), iter(whole), iter(orders)

    def random(self, size: Any = None) -> float:
        return float(next(self.uniform))

    def integers(self, low: int, high: int, size: Any = None) -> int:
        expected_low, expected_high, value = (int(n) for n in next(self.whole))
        assert (low, high) == (expected_low, expected_high)
        return value

    def permutation(self, x: int) -> np.ndarray:
        order = np.asarray(next(self.orders))
        assert len(order) == x
        return order

    def exhausted(self) -> bool:
        return not [*self.uniform, *self.whole, *self.orders]
