"""Alternating conditional expectations (Breiman and Friedman, 1985), the classical algorithm.

Transforms theta(y) and phi_1(x_1), ..., phi_p(x_p) whose correlation is largest. Conditional
expectations of numbers are Friedman's supersmoother (1984); those of categories are exact. This is
for tables of numbers, from Python; what `pretrain ace` trains on images is the loss of
`methods/correlation/ace.py`, which replaces the smoothers by networks.
"""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from selftaught.errors import UserError

SPANS = (0.05, 0.2, 0.5)
"""Share of the points that a line is fitted to: the supersmoother chooses among these."""
LEAST = 10
"""Points below which smoothing means nothing."""


class Transforms(NamedTuple):
    """theta: [N] of mean 0 and variance 1; phi: [p, N] of mean 0; correlation: of theta and the sum
    of phi."""

    theta: np.ndarray
    phi: np.ndarray
    correlation: float


def ace(x: np.ndarray, y: np.ndarray, most: int = 200) -> Transforms:
    """Best transforms of a response and of predictors, in float64.

    Args:
        x: [p, N] predictors, finite numbers.
        y: [N] response.
        most: rounds after which to stop in any case; otherwise the error says when.

    Raises:
        UserError: lengths that differ, too few points, or values that are not finite.
    """
    x, y = np.atleast_2d(np.asarray(x, np.float64)), np.asarray(y, np.float64)
    if y.ndim != 1 or x.shape[1] != len(y):
        raise UserError(
            f"predictors of {x.shape[1]} samples and a response of shape {y.shape} do not belong "
            "together: x must be [p, N] and y [N], column i of the same sample"
        )
    if len(y) < LEAST:
        raise UserError(f"ace smooths over {LEAST} samples or more, got {len(y)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError("ace cannot smooth values that are not finite: leave these samples out")
    orders = [row.argsort(kind="stable") for row in x]
    order = y.argsort(kind="stable")
    theta, phi = standardized(y), np.zeros_like(x)
    error, rounds = np.inf, 0
    while (now := _unexplained(theta, phi)) < error and rounds < most:
        error, rounds, inner = now, rounds + 1, np.inf
        while (now := _unexplained(theta, phi)) < inner:
            inner = now
            for k, own in enumerate(orders):
                others = theta - phi.sum(0) + phi[k]
                phi[k] = _given(x[k], others, own)
                phi[k] -= phi[k].mean()
        theta = standardized(_given(y, phi.sum(0), order))
    return Transforms(theta, phi, float(np.corrcoef(theta, phi.sum(0))[0, 1]))


def maximal_correlation(joint: np.ndarray) -> Transforms:
    """The same for two categorical variables of known distribution: where ACE ends.

    Args:
        joint: [K, L] probabilities of each pair of categories, or counts; each category occurs.

    Returns:
        theta: [L] and phi: [1, K] of mean 0 and variance 1 under `joint`, and their correlation.
    """
    joint = np.asarray(joint, np.float64)
    if joint.ndim != 2 or min(joint.shape) < 2 or (joint < 0).any():
        raise UserError(
            f"a joint distribution is a table [K, L] of at least 2 categories each, none below 0; "
            f"got shape {joint.shape}"
        )
    p = joint / joint.sum()
    rows, columns = p.sum(1), p.sum(0)
    if min(rows.min(), columns.min()) == 0:
        raise UserError(
            "a category that never occurs has no transform: leave out its row or column"
        )
    left, values, right = np.linalg.svd(p / np.sqrt(np.outer(rows, columns)))
    # the first pair is that of constants, with correlation 1
    theta, phi = right[1] / np.sqrt(columns), left[:, 1] / np.sqrt(rows)
    return Transforms(theta, phi[None], float(values[1]))


def supersmoother(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[N] smoothed y at ascending x: lines in windows whose width follows the data.

    At each point the width of `SPANS` with the smallest (smoothed) cross-validated residual is
    taken, widths are smoothed, and the smooths of the two nearest are interpolated.
    """
    tweeter, middle, _ = SPANS
    fits = [running_lines(x, y, span) for span in SPANS]
    residuals = [running_lines(x, residual, middle)[0] for _, residual in fits]
    best = np.take(SPANS, np.argmin(residuals, 0))
    best = np.clip(running_lines(x, best, middle)[0], SPANS[0], SPANS[-1])
    upper = np.clip(np.searchsorted(SPANS, best), 1, len(SPANS) - 1)
    low, high = np.take(SPANS, upper - 1), np.take(SPANS, upper)
    smooths, at = np.stack([smooth for smooth, _ in fits]), np.arange(len(x))
    below, above = smooths[upper - 1, at], smooths[upper, at]
    mixed = below + (above - below) * (best - low) / (high - low)
    return running_lines(x, mixed, tweeter)[0]  # as Friedman's program does, not his paper


def running_lines(x: np.ndarray, y: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares lines through the nearest points of each point.

    Args:
        x: [N] ascending.
        y: [N].
        span: share of the points in a window.

    Returns:
        [N] value of its line at each point, and [N] absolute cross-validated residual.
    """
    count, side = len(x), int(len(x) * span) // 2
    width = max(2 * side + 1, 2)
    first = np.clip(np.arange(count) - side, 0, count - width)
    smooth, residual = np.empty(count), np.empty(count)
    for start in range(0, count, max(1, 2**22 // width)):
        rows = slice(start, start + max(1, 2**22 // width))
        near, values = (sliding_window_view(v, width)[first[rows]] for v in (x, y))
        mean, level = near.mean(1), values.mean(1)
        off = near - mean[:, None]
        variance = np.square(off).sum(1)
        flat = variance == 0  # all x alike: their mean, not a line
        slope = (off * (values - level[:, None])).sum(1) / np.where(flat, 1, variance)
        here = x[rows] - mean
        smooth[rows] = level + slope * here
        left = 1 - 1 / width - np.square(here) / np.where(flat, 1, variance)
        off_line = np.abs(y[rows] - smooth[rows])
        residual[rows] = np.where(left == 0, 1.0, off_line / np.where(left == 0, 1, np.abs(left)))
    return smooth, residual


def standardized(y: np.ndarray) -> np.ndarray:
    """y with mean 0 and variance 1."""
    deviation = y.std()
    if deviation == 0:
        raise UserError("a response that never varies has no transform")
    return (y - y.mean()) / deviation


def _given(x: np.ndarray, y: np.ndarray, order: np.ndarray) -> np.ndarray:
    """E[y | x], x[order] ascending."""
    out = np.empty_like(y)
    out[order] = supersmoother(x[order], y[order])
    return out


def _unexplained(theta: np.ndarray, phi: np.ndarray) -> float:
    return float(np.square(theta - phi.sum(0)).mean())
