"""Sources of draws that repeat what was recorded of a paper's code."""

from typing import Any

import numpy as np
from torch import Tensor


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


class Log:
    """Rows (kind, low, high, value) in the order of the calls; bounds are checked.

    Kinds: 0 uniform in [low, high), 1 whole number from low to high inclusive, 2 index of a choice,
    3 uniform in [0, 1).
    """

    def __init__(self, rows: Tensor):
        self.rows = iter(rows.tolist())

    def uniform(self, low: float, high: float) -> float:
        kind, expected_low, expected_high, value = next(self.rows)
        assert kind == 0
        np.testing.assert_allclose([low, high], [expected_low, expected_high], rtol=1e-12)
        return value

    def random(self, size: Any = None) -> float:
        kind, _, _, value = next(self.rows)
        assert kind == 3
        return value

    def integers(self, low: int, high: int, size: Any = None) -> int:
        kind, expected_low, expected_high, value = next(self.rows)
        assert kind in (1, 2)
        if kind == 1:
            assert (low, high - 1) == (expected_low, expected_high)
        return int(value)

    def exhausted(self) -> bool:
        return not [*self.rows]
