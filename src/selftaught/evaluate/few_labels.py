"""Classification from few labels, and how many labels an encoder saves."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from selftaught.evaluate.scores import STRENGTHS, Score, Task, mean_score, standardized

SHARES = (0.01, 0.1, 1.0)
PER_CLASS = (1, 2, 5, 10, 20, 50, 100)
DRAWS = 5
"""Random choices of the labeled samples that a score is the mean of."""


def lowshot(
    train: Any,
    test: Any = None,
    *,
    encoder: nn.Module | str | Path | None = None,
    seed: int = 0,
) -> tuple[Score, ...]:
    """Accuracy with 1, 2, 5 ... 100 labels a class and with 1 %, 10 %, 100 % of all labels.

    Ridge classifiers on features standardized by the labeled samples alone, the strength chosen by
    leave-one-out on them. Each score is the mean over five draws of labeled samples, alike for all
    encoders; the interval covers draws and test samples. Numbers that the training set cannot give
    are left out. The scores together are the curve that `savings` compares.

    Args:
        train, test, encoder: as of `knn`.
        seed: of the draws.

    Raises:
        UserError: labels are missing, or features do not fit.
    """
    task = Task.of(train, test, encoder)
    y = task.train_y.cpu().numpy()
    scores = []
    for name, each in budgets(y):
        start = time.perf_counter()
        repeats = 1 if each.sum() == len(y) else DRAWS
        right = np.stack([_right(task, y, choose(y, each, seed + d)) for d in range(repeats)])
        how = f"{each.sum()} labels, {name}" + (f", mean of {repeats} draws" if repeats > 1 else "")
        scores.append(
            mean_score(
                name,
                right,
                f"{task.protocol}; ridge classifier on {how}, strength by leave-one-out",
                start,
                "right",
                labels=int(each.sum()),
            )
        )
    return tuple(scores)


def budgets(y: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Name and number of labels of each class [C], from few to many."""
    counts = np.bincount(y)
    found = {f"{n} a class": np.full(len(counts), n) for n in PER_CLASS if n <= counts.min()} | {
        f"{100 * share:g} % of labels": np.maximum(1, np.round(share * counts)).astype(int)
        for share in SHARES
        if share * len(y) >= len(counts)
    }
    yield from sorted(found.items(), key=lambda item: (item[1].sum(), item[0]))


def choose(y: np.ndarray, each: np.ndarray, seed: int) -> np.ndarray:
    """Positions of `each[c]` random samples of each class c; few are part of many."""
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.flatnonzero(y == c)) for c in range(len(each))]
    return np.sort(np.concatenate([m[:n] for m, n in zip(members, each)]))


def _right(task: Task, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import RidgeClassifierCV  # which takes a second to import

    x, test_x = standardized(task.train_x[rows].cpu().double(), task.test_x.cpu().double())
    unit = len(rows)  # the mean eigenvalue of standardized features
    model = RidgeClassifierCV([unit * s for s in STRENGTHS]).fit(x.numpy(), y[rows])
    predicted = torch.from_numpy(model.predict(test_x.numpy()))
    return (predicted == task.test_y.cpu()).numpy()


class Saving(NamedTuple):
    """What an encoder is worth at one number of labels (Newell and Deng, 2020, arXiv 2003.14323).

    name: of the score. labels, value: of the encoder's score. needed: labels with which one gets as
    far without the encoder, interpolated; where the most there are do not suffice, that number.
    bounded: whether it is only known that more than `needed` are needed.
    """

    name: str
    labels: int
    value: float
    needed: float
    bounded: bool

    @property
    def saved(self) -> float:
        """Labels that need not be made: below 0 where the encoder costs some."""
        return self.needed - self.labels

    @property
    def utility(self) -> float:
        """`needed` / `labels` - 1, the paper's measure; at least that where `bounded`."""
        return self.needed / self.labels - 1

    def __str__(self) -> str:
        if self.bounded and self.saved <= 0:
            return f"{self.name}: {self.labels} labels do more than {self.needed:.0f} without it"
        least = "at least " if self.bounded else ""
        if self.saved < 0:
            return f"{self.name}: {self.labels} labels are worth {self.needed:.0f} without it"
        return (
            f"{self.name}: {self.labels} labels are worth {least}{self.needed:.0f} without it, "
            f"{least}{self.saved:.0f} saved"
        )


def savings(scores: Sequence[Score], without: Sequence[Sequence[Score]]) -> tuple[Saving, ...]:
    """At each of the encoder's scores, how many labels it takes to get as far without it.

    Args:
        scores: of the encoder, with `labels`.
        without: of whatever stands for having no encoder; of several, the best at each number of
            labels. More labels are never counted as worse: a curve is as high as its highest point
            so far. Between two points it is straight over the logarithm of labels.
    """
    floor: dict[int, float] = {}
    for score in (s for curve in without for s in curve):
        if score.labels is not None:
            floor[score.labels] = max(score.value, floor.get(score.labels, -np.inf))
    if not floor:
        return ()
    labels = sorted(floor)
    heights = np.maximum.accumulate([floor[n] for n in labels])
    return tuple(
        Saving(s.name, s.labels, s.value, *_needed(s.value, labels, heights))
        for s in scores
        if s.labels is not None
    )


def _needed(value: float, labels: Sequence[int], heights: np.ndarray) -> tuple[float, bool]:
    if value > heights[-1]:
        return float(labels[-1]), True
    i = int(np.searchsorted(heights, value))  # the first point that is as high
    if i == 0:
        return float(labels[0]), False
    part = (value - heights[i - 1]) / (heights[i] - heights[i - 1])
    logs = np.log(labels)
    return float(np.exp(logs[i - 1] + part * (logs[i] - logs[i - 1]))), False
