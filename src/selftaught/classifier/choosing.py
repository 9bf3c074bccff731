"""Which classifier of features is best for some labels, told by parts that it has not seen."""

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from selftaught.classifier.heads import Head, Kind, candidates
from selftaught.classifier.targets import Target, strata

FOLDS = 5
"""Parts that are held out in turn."""

MANY = 2000
"""Labels above which one part of five is held out, once."""

REPEATED = 100
"""Labels up to which that many are tried in all, by folds that are drawn again."""

WIDEST = 6.0
"""Logarithm of the scale, for scores of deviation 1, that it stays within: what is always right on
a few labels is no surer than that."""

SMALLEST = 1e-12

SMALL = 4_000_000
"""Features, over all samples, up to which one thread does the work."""


@dataclass(frozen=True)
class Learned:
    """A classifier of features, and how it was chosen.

    head: on the CPU. name: of it. how: it was chosen, in words.
    """

    head: Head
    name: str
    how: str


def folds(groups: np.ndarray, count: int = FOLDS, seed: int = 0) -> list[np.ndarray]:
    """Positions that are held out in turn: of each group alike, unless it has one sample alone.

    Args:
        groups: [N] of each sample.
        count: of parts, at most; fewer where there are fewer samples.

    Returns:
        Parts that hold each sample of a group of two or more once.
    """
    rng = np.random.default_rng(seed)
    found: list[list[int]] = [[] for _ in range(count)]
    next_one = 0
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        if len(members) == 1:  # without it nobody knows its group
            continue
        for member in members:  # goes on where the last group ended: parts are of one size
            found[next_one % count].append(int(member))
            next_one += 1
    return [np.sort(np.array(part, np.int64)) for part in found if part]


def one_hot(given: np.ndarray, target: Target) -> Tensor:
    """[N, C] of 0 and 1, or amounts [N, 1]."""
    y = torch.from_numpy(np.asarray(given))
    if target.kind == "classes":
        return F.one_hot(y, len(target.names)).float()
    return (y[:, None] if target.kind == "regression" else y).float()


def learn(
    x: Tensor, given: np.ndarray, target: Target, heads: tuple[str, ...], seed: int = 0
) -> Learned:
    """The classifier that is best on held-out parts of these samples, fitted to all of them.

    Args:
        x: [N, D] features.
        given: their labels, as `targets.values` has them.
        target: what these are.
        heads: kinds to choose from.
        seed: of the parts.
    """
    with _threads(x.numel()):
        return _learn(x, one_hot(given, target), strata(given, target), target.kind, heads, seed)


def _learn(
    x: Tensor, y: Tensor, groups: np.ndarray, kind: Kind, heads: tuple[str, ...], seed: int
) -> Learned:
    """`learn`, with targets [N, C] and the groups of which each part has its share."""
    best, scale, shift = "", 1.0, 0.0
    parts: list[np.ndarray] = []
    for again in range(max(1, min(3, REPEATED // len(x)))):
        parts += folds(groups, FOLDS, seed + again)[: 1 if len(x) > MANY else None]
    how = "too few labels to choose by, or to tell how sure it is"
    if len(parts) > 1 or (parts and len(x) > MANY):
        said: dict[str, list[Tensor]] = defaultdict(list)
        for held in parts:
            fit = np.setdiff1d(np.arange(len(x)), held)
            for name, head in candidates(x[fit], y[fit], kind, heads):
                said[name].append(head(x[held]))
        truth = torch.cat([y[held] for held in parts])
        whole = {n: torch.cat(s) for n, s in said.items() if len(s) == len(parts)}
        right = {n: _right(scores, truth, kind) for n, scores in whole.items()}
        first = max(right.values())  # of several that are right as often: which is surer of it
        tuned = {
            n: calibrate(whole[n], truth, kind, len(x)) for n, r in right.items() if r == first
        }
        best = min(tuned, key=lambda n: tuned[n][0])
        _, scale, shift = tuned[best]
        held_out = f"on {len(truth)} held-out labels"
        if len(parts) > 1:
            again = len(parts) // FOLDS
            times = f", {again} times over" if again > 1 else ""
            held_out = f"by {min(FOLDS, len(parts))}-fold cross-validation{times}"
        how = f"best of {len(whole)} {held_out}"
    for name, head in candidates(x, y, kind, heads):
        if name == best or not best:  # or the first, which is the plainest
            return Learned(Head(head, kind, scale, shift), name, how)
    raise AssertionError("the chosen classifier was fitted to a part, and cannot be to all")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """A block in which torch works alone on few numbers: threads would wait for each other."""
    before = torch.get_num_threads()
    few = 1 if count < SMALL else None
    torch.set_num_threads(few or before)
    try:
        with threadpool_limits(few):
            yield
    finally:
        torch.set_num_threads(before)


def _right(scores: Tensor, truth: Tensor, kind: Kind) -> float:
    """What a classifier is chosen by: the higher the better, alike for all."""
    if kind == "classes":
        return float((scores.argmax(1) == truth.argmax(1)).double().mean())
    if kind == "multilabel":
        return mean_precision(scores.numpy(), truth.numpy())
    return -float((scores - truth).square().mean())


def calibrate(
    scores: Tensor, truth: Tensor, kind: Kind, count: int | None = None
) -> tuple[float, float, float]:
    """Scale and shift by which held-out scores become logits that are as sure as they are right.

    One temperature for classes (Guo et al., 2017, arXiv 1706.04599), Platt's line for names that
    are told one by one. One image more, that might be anything, is reckoned with: who has been
    right ten times of ten is not certain.

    Args:
        scores, truth: [N, C].
        count: of different images among them; N unless given.

    Returns:
        Mean loss with them, scale, shift.
    """
    if kind == "regression":
        return float((scores - truth).square().mean()), 1.0, 0.0
    s, n = scores.double(), count or len(truth)
    any_of = 1 / truth.shape[1] if kind == "classes" else 0.5
    y = (n * truth.double() + any_of) / (n + 1)
    start = -math.log(max(float(s.std()), SMALLEST))

    def loss(size: float, shift: float) -> float:
        logits = s * math.exp(_within(size, start)) + float(shift)
        if kind == "classes":
            return float(F.cross_entropy(logits, y))
        return float(F.binary_cross_entropy_with_logits(logits, y))

    if kind == "classes":  # a softmax does not see a shift
        found = scipy.optimize.minimize_scalar(
            lambda at: loss(at, 0.0),
            bounds=(start - WIDEST, start + WIDEST),
            method="bounded",
            options={"xatol": 1e-3},
        )
        return float(found.fun), math.exp(float(found.x)), 0.0
    options = {"xatol": 1e-3, "fatol": 1e-6, "maxiter": 200}
    found = scipy.optimize.minimize(
        lambda at: loss(at[0], at[1]), np.array([start, 0.0]), method="Nelder-Mead", options=options
    )
    return float(found.fun), math.exp(_within(found.x[0], start)), float(found.x[1])


def _within(at: float, start: float) -> float:
    return float(np.clip(at, start - WIDEST, start + WIDEST))


def mean_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the names of average precision; names that no sample has, or all have, are out.

    Args:
        scores, truth: [N, C].
    """
    each = [v for v in average_precisions(scores, truth) if not math.isnan(v)]
    return float(np.mean(each)) if each else math.nan


def average_precisions(scores: np.ndarray, truth: np.ndarray) -> list[float]:
    """Of each name, the mean over its samples of the precision where they stand in the order of
    scores; NaN where no sample has it."""
    found = []
    for s, y in zip(scores.T, truth.T, strict=True):
        order = np.argsort(-s, kind="stable")
        right, sorted_ = y[order] > 0, s[order]
        hits = np.cumsum(right)
        # samples of equal scores stand together: the precision behind the last of them
        last = np.searchsorted(-sorted_, -sorted_, side="right") - 1
        precision = hits[last] / (last + 1)
        found.append(float(precision[right].mean()) if right.any() else math.nan)
    return found
