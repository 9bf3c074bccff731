"""How good a classifier is on labels that it has not seen, beside the same one of its floors."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selftaught.classifier.choosing import average_precisions, folds, learn
from selftaught.classifier.targets import VALUE, Target, counts, strata
from selftaught.errors import UserError
from selftaught.evaluate.floors import ENCODER, Comparison
from selftaught.evaluate.scores import Score, draws, few

NESTED = 500
"""Labels up to which each is predicted by a classifier of the others; else a fifth is held out."""

LOPSIDED = 3.0
"""How many times more images the largest class has than the smallest where both are scored."""

LARGE = {
    "classes": "accuracy is mostly that of the large ones",
    "multilabel": "mAP counts each of them alike",
}
"""What that means for the score of each kind of target."""

SURE = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Probabilities between which predictions are set beside how often they are right."""


class Mistake(NamedTuple):
    """A picture of the page: data URL, name of the image, what it is and what was said; and its
    words, of a text."""

    url: str
    name: str
    said: str
    words: str = ""


@dataclass(frozen=True)
class Judged:
    """What was said of samples that were not learned from.

    index: [M] positions in the data they are of. outputs: [M, C] probabilities or amounts.
    truth: [M] classes, -1 for one that is unknown, [M, C] of 0 and 1, or [M] amounts.
    target: what was predicted. how: what was held out, in words. chosen: what said it.
    """

    index: np.ndarray
    outputs: np.ndarray
    truth: np.ndarray
    target: Target
    how: str
    chosen: str = "classifier chosen on held-out parts of the labels learned from"

    @property
    def predicted(self) -> np.ndarray:
        """[M] the likeliest classes, of a target of classes."""
        return self.outputs.argmax(1)

    @property
    def correct(self) -> np.ndarray:
        """[M] whether they are right."""
        return self.predicted == self.truth

    @property
    def confusion(self) -> np.ndarray:
        """[C, C] how many samples of a class (rows) were taken for which (columns)."""
        count = len(self.target.names)
        known = self.truth >= 0
        cells = self.truth[known] * count + self.predicted[known]
        return np.bincount(cells, minlength=count * count).reshape(count, count)

    @property
    def mistakes(self) -> np.ndarray:
        """Rows of the mistakes, the surest first; of amounts, the farthest first."""
        if self.target.kind == "regression":
            return np.argsort(-np.abs(self.outputs[:, 0] - self.truth), kind="stable")
        if self.target.kind == "multilabel":
            off = np.abs(self.outputs - self.truth).max(1)
            rows = np.argsort(-off, kind="stable")
            return rows[off[rows] > 0.5]
        rows = np.flatnonzero(~self.correct)
        return rows[np.argsort(-self.outputs.max(1)[rows], kind="stable")]

    @property
    def sureness(self) -> list[dict[str, float]]:
        """Predictions by how sure they are: how many, their mean probability, per cent right."""
        if self.target.kind == "regression":
            return []
        if self.target.kind == "classes":
            sure, right = self.outputs.max(1), self.correct
        else:
            sure = np.maximum(self.outputs, 1 - self.outputs).ravel()
            right = ((self.outputs > 0.5) == (self.truth > 0.5)).ravel()
        found = []
        for low, high in pairwise(SURE):
            inside = (sure > low) & (sure <= high)
            if inside.any():
                found.append(
                    {
                        "predictions": int(inside.sum()),
                        "said": round(100 * float(sure[inside].mean()), 1),
                        "right": round(100 * float(right[inside].mean()), 1),
                    }
                )
        return found

    @property
    def off(self) -> float:
        """Points by which probabilities are off on average (expected calibration error)."""
        rows = self.sureness
        total = sum(r["predictions"] for r in rows)
        return sum(r["predictions"] * abs(r["said"] - r["right"]) for r in rows) / max(total, 1)

    def at(self, index: np.ndarray) -> "Judged":
        """What was said of the samples at these positions, in this order."""
        order = np.argsort(self.index, kind="stable")
        rows = order[np.searchsorted(self.index, index, sorter=order)]
        return replace(self, index=index, outputs=self.outputs[rows], truth=self.truth[rows])

    @property
    def error(self) -> float:
        """Root mean square error of amounts."""
        return float(np.sqrt(np.mean((self.outputs[:, 0] - self.truth) ** 2)))


@dataclass(frozen=True)
class Exam:
    """Samples of which parts are learned from and others told, alike for an encoder and floors.

    given: [N] labels of the samples. test: [M] of those of a test set, which are then told.
    parts: positions that are held out in turn where there is no test set. how: all this in words.
    """

    target: Target
    given: np.ndarray
    heads: tuple[str, ...]
    seed: int
    test: np.ndarray | None = None
    parts: list[np.ndarray] = field(default_factory=list)
    how: str = ""

    @staticmethod
    def of(
        target: Target,
        given: np.ndarray,
        test: np.ndarray | None,
        heads: tuple[str, ...],
        seed: int,
    ) -> "Exam":
        """Which samples are told by a classifier of which others.

        Raises:
            UserError: there are too few to hold any out.
        """
        if test is not None:
            how = f"learned from {len(given)} labels, tested on the {len(test)} given"
            return Exam(target, given, heads, seed, test, [], how)
        parts = folds(strata(given, target), seed=seed)
        if not parts or len(given) - max(map(len, parts)) < 2:
            raise UserError(
                f"{len(given)} labels are too few to tell how good a classifier of them is: none "
                "can be held out. Label two images of each class at least, better ten"
            )
        if len(given) > NESTED:
            parts = parts[:1]
            how = f"learned from {len(given) - len(parts[0])} labels, {len(parts[0])} held out"
        else:
            told = sum(map(len, parts))
            how = f"each of {told} labels told by a classifier of others ({len(parts)} parts)"
        return Exam(target, given, heads, seed, None, parts, how)

    def take(
        self, x: Tensor, test_x: Tensor | None, told: Callable[[], None] = lambda: None
    ) -> Judged:
        """What classifiers of features say.

        Args:
            x: [N, D]; test_x: [M, D] of the test set.
            told: called after each part.
        """
        if self.test is not None:
            assert test_x is not None
            head = learn(x, self.given, self.target, self.heads, self.seed).head
            told()
            return Judged(
                np.arange(len(test_x)), head(test_x).numpy(), self.test, self.target, self.how
            )
        found = []
        for held in self.parts:
            fit = np.setdiff1d(np.arange(len(x)), held)
            head = learn(x[fit], self.given[fit], self.target, self.heads, self.seed).head
            found.append(head(x[torch.from_numpy(held)]).numpy())
            told()
        index = np.concatenate(self.parts)
        return Judged(index, np.concatenate(found), self.given[index], self.target, self.how)


def scores(judged: Judged, start: float) -> tuple[Score, ...]:
    """What a classifier is worth on the samples that were held out, each with its interval.

    Args:
        judged: what it said of them.
        start: `time.perf_counter` when it began.
    """
    truth, outputs, n = judged.truth, judged.outputs, len(judged.truth)
    seconds = time.perf_counter() - start
    if judged.target.kind == "classes":
        right = judged.correct
        how = f"{judged.how}; {judged.chosen}"
        found = [Score("accuracy", 100 * float(right.mean()), n, how, seconds, right)]
        each = [c for c in counts(truth, judged.target).values() if c]
        if max(each) > LOPSIDED * min(each):
            found.append(
                _resampled(
                    "balanced accuracy",
                    lambda rows: _recall(right[rows], truth[rows]),
                    judged,
                    "right of each class, on average",
                    seconds,
                )
            )
        return tuple(found)
    if judged.target.kind == "multilabel":

        def precision(rows: np.ndarray) -> float:
            each = average_precisions(outputs[rows], truth[rows])
            known = [v for v in each if not math.isnan(v)]
            return float(np.mean(known)) if known else math.nan

        return (_resampled("mAP", precision, judged, "mean average precision", seconds),)

    def explained(rows: np.ndarray) -> float:
        some = truth[rows]
        from sklearn.metrics import r2_score  # which takes a second to import

        return r2_score(some, outputs[rows, 0]) if np.ptp(some) else math.nan

    return (_resampled("R²", explained, judged, "of the variance explained", seconds),)


def _recall(right: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([right[truth == c].mean() for c in np.unique(truth[truth >= 0])]))


def _resampled(
    name: str,
    of: Callable[[np.ndarray], float],
    judged: Judged,
    measure: str,
    seconds: float,
) -> Score:
    n = len(judged.truth)
    some = [of(rows) for rows in draws(n)]
    value = of(np.arange(n))
    if math.isnan(value):
        raise UserError(f"{name} of {n} held-out samples is not defined: label more images")
    each = np.array([value if math.isnan(v) else v for v in some])
    how = f"{judged.how}; {judged.chosen}"
    return Score(name, 100 * value, n, how, seconds, measure=measure, resampled=100 * each)


def told(given: np.ndarray, target: Target, left: int) -> list[str]:
    """What is to be known of the labels before a classifier is made of them, in sentences.

    Args:
        given: the labels.
        target: what they are.
        left: images without a label.
    """
    lines = [f"{target.said}: {target.why}"]
    if left:
        lines.append(f"{left:,} images have no label and are left out")
    each = counts(given, target)
    lone = [name for name, count in each.items() if count == 1]
    none = [name for name, count in each.items() if not count]
    if lone:
        lines.append(
            f"{few(lone)}: one image alone, which can be learned from but not be told whether it is"
        )
    if none:
        lines.append(f"{few(none)}: no image, so it is never said")
    if each and max(each.values()) > LOPSIDED * max(1, min(each.values())):
        most, least = (f(each, key=lambda name: each[name]) for f in (max, min))
        lines.append(
            f"the classes are of unlike size, from {each[least]} ({least}) to {each[most]} "
            f"({most}): {LARGE[target.kind]}"
        )
    if target.kind == "regression":
        lines.append(
            f"{len(given)} amounts from {given.min():g} to {given.max():g}, called {VALUE}"
        )
    return lines


def plain(judged: Judged) -> Mapping[str, Any]:
    """What is kept beside the scores: which was taken for which, and how sure it is."""
    found: dict[str, Any] = {"how": judged.how}
    if judged.target.kind == "regression":
        return found | {"rms_error": judged.error}
    found |= {"sureness": judged.sureness, "off": round(judged.off, 2)}
    if judged.target.kind == "classes":
        return found | {"confusion": judged.confusion.tolist()}
    each = average_precisions(judged.outputs, judged.truth)
    named = zip(judged.target.names, each, strict=True)
    return found | {
        "precisions": {n: None if math.isnan(v) else round(100 * v, 1) for n, v in named}
    }


def beside_floors(compared: Comparison) -> dict[str, Any]:
    """Scores as `model.json` has them."""
    found: dict[str, Any] = {}
    for score in compared.scores[ENCODER]:
        floors = {
            name: round(s.value, 2)
            for name, scores in compared.scores.items()
            for s in scores
            if name != ENCODER and s.name == score.name
        }
        found[score.name] = {
            "value": round(score.value, 2),
            "interval": [round(v, 2) for v in score.interval],
            "n": score.n,
            "floors": floors,
        }
    return found
