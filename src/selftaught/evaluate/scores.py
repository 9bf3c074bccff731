"""Classification from frozen features, each score with the protocol that made it."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.data.labels import as_text, encode, match, names_of
from selftaught.errors import TrainingError, UserError
from selftaught.evaluate.features import Embeddings, embed

STRENGTHS = tuple(10.0**e for e in range(-4, 3))
"""Ridge penalties that `probe` chooses from, relative to the mean eigenvalue of the features."""

_BLOCK = 2**24
"""Similarities that are held at a time: 64 MiB of float32."""


RESAMPLES = 200
"""Draws of test samples with replacement, for intervals of scores other than a share."""


@dataclass(frozen=True)
class Score:
    """How good features are for a task on test samples, and how it was found.

    value: per cent of `measure`. n: number of test samples. seconds: on top of the features.
    correct: [n] bool, of a share of samples that are right. resampled: [R] values on resampled test
    samples, of any other measure; alike for all features, so that their differences have an
    interval too. parts: what the value is the mean of. labels: number of labels it was fitted on,
    where that is what scores are compared by. settings: what somebody chose, by name.
    """

    name: str
    value: float
    n: int
    protocol: str
    seconds: float
    correct: np.ndarray | None = field(default=None, repr=False, compare=False)
    measure: str = "right"
    resampled: np.ndarray | None = field(default=None, repr=False, compare=False)
    parts: Mapping[str, float] = field(default_factory=dict)
    labels: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval in per cent, for samples drawn like these.

        Wilson's for a share; otherwise 1.96 standard deviations over the resampled test samples
        (bootstrap; Efron, 1979), which holds the value whatever the bias of the resampled ones.
        """
        if self.resampled is None:
            return wilson(self.value / 100, self.n)
        half = 1.96 * float(self.resampled.std())
        return max(min(0.0, self.value), self.value - half), min(100.0, self.value + half)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.name} {self.value:.1f} % (95 % interval {low:.1f} to {high:.1f}, "
            f"n {self.n}; {self.protocol})"
        )


def draws(n: int, seed: int = 0) -> Iterator[np.ndarray]:
    """`RESAMPLES` times the positions of n samples drawn with replacement; alike at each call."""
    rng = np.random.default_rng([seed, n])
    for _ in range(RESAMPLES):
        yield rng.integers(0, n, n)


def mean_score(
    name: str, each: np.ndarray, protocol: str, start: float, measure: str, **more: Any
) -> Score:
    """The mean of a value of each test sample, in [0, 1].

    Args:
        each: [n], or [D, n] of D repetitions, which are resampled too.
        start: `time.perf_counter` when it began.
        name, protocol, measure, more: as of `Score`.
    """
    each = np.atleast_2d(each).astype(np.float64)
    repeats = np.random.default_rng(0).integers(0, len(each), (RESAMPLES, len(each)))
    resampled = [each[r][:, i].mean() for r, i in zip(repeats, draws(each.shape[1]))]
    return Score(
        name,
        100 * float(each.mean()),
        each.shape[1],
        protocol,
        time.perf_counter() - start,
        measure=measure,
        resampled=100 * np.array(resampled),
        **more,
    )


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a proportion, in per cent (Wilson, 1927)."""
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return 100 * max(0.0, center - half), 100 * min(1.0, center + half)


def difference(ours: np.ndarray, theirs: np.ndarray, z: float = 1.96) -> tuple[float, float]:
    """Interval of how many more of the same samples are right, in per cent.

    The adjusted interval of a paired difference of proportions by Bonett and Price (2012).
    One sample more is gained and one lost than there were: what has never been seen to differ may,
    and by less the more samples there are.

    Args:
        ours, theirs: [n] bool.
        z: half width in standard errors.
    """
    count = len(ours) + 2
    gained = (int((ours & ~theirs).sum()) + 1) / count
    lost = (int((~ours & theirs).sum()) + 1) / count
    center = gained - lost
    half = z * math.sqrt((gained + lost - center**2) / count)
    return 100 * max(-1.0, center - half), 100 * min(1.0, center + half)


def knn(
    train: Any,
    test: Any = None,
    *,
    encoder: nn.Module | str | Path | None = None,
    k: int = 20,
    temperature: float = 0.07,
) -> Score:
    """Weighted k-nearest-neighbor classification by cosine (Wu et al., 2018, arXiv 1805.01978).

    The k most similar training samples vote with exp(similarity / temperature).

    Args:
        train, test: `Embeddings`, or a pair of features [N, D] and labels [N], arrays or tensors;
            with `encoder`, datasets that have labels. Without `test` a fifth of `train` is held
            out.
        encoder: embeds datasets first; see `embed`.
        k: number of neighbors; all training samples where there are fewer.
        temperature: of the votes, above 0.

    Raises:
        UserError: labels are missing, features do not fit, or a parameter is out of range.
    """
    if k < 1 or temperature <= 0:
        raise UserError(f"k={k} must be at least 1 and temperature={temperature} above 0")
    task = Task.of(train, test, encoder)
    start = time.perf_counter()
    k = min(k, len(task.train_x))
    predicted = vote(task.train_x, task.train_y, task.test_x, k, temperature)
    protocol = f"{task.protocol}; cosine, k={k}, T={temperature:g}"
    settings = {"k": k, "temperature": temperature}
    return replace(task.score("k-NN", predicted, protocol, start), settings=settings)


def probe(
    train: Any,
    test: Any = None,
    *,
    encoder: nn.Module | str | Path | None = None,
    seed: int = 0,
) -> Score:
    """Linear classification by ridge regression onto the classes, on standardized features.

    Of seven strengths the one is taken that is best on a fifth of the training samples, which are
    then all used; test samples are never looked at. The sweep costs one eigendecomposition.

    Args:
        train, test, encoder: as of `knn`.
        seed: of the split of the training samples.

    Raises:
        UserError: labels are missing, or features do not fit.
    """
    task = Task.of(train, test, encoder)
    start = time.perf_counter()
    classify, strength, chosen = fit_ridge(task.train_x, task.train_y, seed)
    predicted = classify(task.test_x)
    protocol = f"{task.protocol}; ridge classifier, strength {strength:g}, {chosen}"
    return task.score("probe", predicted.to(task.test_y.device), protocol, start)


def fit_ridge(x: Tensor, y: Tensor, seed: int = 0) -> tuple[Callable[[Tensor], Tensor], float, str]:
    """The classifier of `probe`: [M, D] -> [M]; its strength, and how it was chosen."""
    raw, y = x.cpu().double(), y.cpu()
    (x,) = standardized(raw)
    fit, held = (torch.from_numpy(i) for i in split(y.numpy(), seed))
    strength, chosen = 1.0, "too few training samples to choose"  # one sample a class
    if len(held):
        sweep = _ridge(x[fit], y[fit], x[held], STRENGTHS)
        right = [int((p == y[held]).sum()) for p in sweep]
        strength = STRENGTHS[max(range(len(right)), key=lambda i: (right[i], STRENGTHS[i]))]
        chosen = f"of 7 the best on {len(held)} held-out training samples"

    def classify(test: Tensor) -> Tensor:
        _, z = standardized(raw, test.cpu().double())
        return _ridge(x, y, z, (strength,))[0].to(test.device)

    return classify, strength, chosen


def standardized(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Each feature with mean 0 and deviation 1 in `x`, and the others measured by the same rule."""
    mean, scale = moments(x)
    return tuple((v - mean) / scale for v in (x, *others))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature [D], by which it is measured."""
    deviation, mean = torch.std_mean(x, 0, correction=0)
    return mean, deviation + 1e-6 * deviation.mean() + 1e-12  # constant features stay harmless


def split(labels: np.ndarray, seed: int = 0, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Positions to fit and positions held out: `share` of each class that has two or more."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == c))
        held[members[: max(1, round(share * len(members))) if len(members) > 1 else 0]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


@dataclass(frozen=True)
class Task:
    """Features and labels of a classification; labels are 0..C-1, -1 for classes without training.

    train_x: [N, D]; train_y: [N]; test_x: [M, D]; test_y: [M]. tested: [M] rows of the test samples
    in what was given. extra: further features of the same samples by name, training and test.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    protocol: str
    tested: np.ndarray
    extra: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """Number of classes that there are training samples of."""
        return int(self.train_y.max()) + 1

    @staticmethod
    def of(train: Any, test: Any = None, encoder: nn.Module | str | Path | None = None) -> "Task":
        """From what `knn` and `probe` take."""
        a = _labeled(train, encoder)
        b = None if test is None else _labeled(test, encoder)
        if b is None:
            known = np.flatnonzero(a.y >= 0)
            fit, tested = (known[i] for i in split(a.y[known]))
            a, b = a.rows(fit), a.rows(tested)
            how = "a fifth of each class held out, seed 0"
        else:
            tested = np.flatnonzero(b.y >= 0)
            a, b = a.rows(np.flatnonzero(a.y >= 0)), b.rows(tested)
            how = "given test set"
        if a.x.shape[1:] != b.x.shape[1:]:
            raise UserError(
                f"train features have width {a.x.shape[1]}, test features {b.x.shape[1]}; both "
                "must come from the same encoder"
            )
        names = a.names
        if len(set(names.values())) < 2 or not len(b.y):
            raise UserError(
                f"a score needs two classes of two samples at least, but there are "
                f"{len(set(names.values()))} classes, {len(a.y)} training and {len(b.y)} test "
                "samples with labels"
            )
        theirs, otherwise = match(b.names, names)
        if not theirs:
            raise UserError(unlike(b.names.values(), names.values(), f"{len(b.y)} test samples"))
        # two codes of one name are one class, and keep the place of the first
        position = {name: i for i, name in enumerate(dict.fromkeys(names.values()))}
        train_y = _lookup({c: position[name] for c, name in names.items()}, a.y)
        test_y = _lookup({c: position[names[there]] for c, there in theirs.items()}, b.y)
        device = a.x.device
        protocol = f"{len(a.y)} train, {len(b.y)} test, {len(position)} classes, {how}"
        if len(theirs) < len(b.names):
            strange = [name for code, name in b.names.items() if code not in theirs]
            protocol += (
                f"; {int((test_y < 0).sum())} test samples of classes without training "
                f"count as wrong ({few(strange)})"
            )
        if otherwise:
            protocol += f"; {few(otherwise)}"
        return Task(
            a.x,
            torch.from_numpy(train_y).to(device),
            b.x.to(device),
            torch.from_numpy(test_y).to(device),
            protocol,
            tested,
            {
                name: (a.extra[name], b.extra[name].to(device))
                for name in a.extra
                if name in b.extra
            },
        )

    def score(self, name: str, predicted: Tensor, protocol: str, start: float) -> Score:
        correct = (predicted == self.test_y).cpu().numpy()
        seconds = time.perf_counter() - start
        return Score(name, 100 * float(correct.mean()), len(correct), protocol, seconds, correct)


@dataclass(frozen=True)
class _Labeled:
    x: Tensor
    y: np.ndarray
    classes: tuple[str, ...] | None
    extra: Mapping[str, Tensor]

    def rows(self, index: np.ndarray) -> "_Labeled":
        where = torch.from_numpy(index).to(self.x.device)
        extra = {name: x[where] for name, x in self.extra.items()}
        return _Labeled(self.x[where], self.y[index], self.classes, extra)

    @property
    def names(self) -> dict[int, str]:
        """Names of the labels that occur: two datasets number their classes independently."""
        return names_of(self.y, self.classes)


def _lookup(table: Mapping[int, int], y: np.ndarray) -> np.ndarray:
    """Each label as the table has it, -1 where it has not."""
    codes, inverse = np.unique(y, return_inverse=True)
    return np.array([table.get(int(c), -1) for c in codes], np.int64)[inverse.reshape(-1)]


def few(names: Iterable[str]) -> str:
    """Some names, for messages."""
    first = [name if len(name) <= 60 else f"{name[:60]}..." for name in islice(names, 6)]
    return ", ".join(first[:5]) + (", ..." if len(first) > 5 else "")


def unlike(test: Iterable[str], train: Iterable[str], of: str) -> str:
    """What to say where no class of the test set has a name that one of the training set has."""
    return (
        f"none of the classes of the {of} ({few(test)}) is among those of the training "
        f"{of.rpartition(' ')[2]} ({few(train)}): labels are compared by their names; are these "
        "the ones that belong together?"
    )


def _labeled(given: Any, encoder: nn.Module | str | Path | None) -> _Labeled:
    if encoder is not None and not isinstance(given, Embeddings):
        given = embed(encoder, given)
    extra: Mapping[str, Any] = {}
    if isinstance(given, Embeddings):
        features, labels, classes, extra = given.features, given.labels, given.classes, given.extra
        if labels is None:
            raise UserError(
                "scores need labels, and this data has none: sort the images into one folder a "
                "class, or name a column or a CSV of path,label with labels"
            )
    elif isinstance(given, tuple | list) and len(given) == 2:
        (features, labels), classes = given, None
    else:
        raise UserError(
            f"got a {type(given).__name__} where Embeddings or a pair (features, labels) is "
            "needed; to score a dataset pass encoder as well"
        )
    if isinstance(features, np.ndarray) and not features.flags.writeable:  # torch would warn
        features = features.copy()
    x = torch.as_tensor(features).detach().float()
    y = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if not isinstance(given, Embeddings) and y.ndim == 1:
        y, classes = encode(map(as_text, y.tolist()), "the labels given")
    if x.dim() != 2 or y.ndim != 1 or len(x) != len(y):
        raise UserError(
            f"features must be [N, D] and labels [N], got {list(x.shape)} and {list(y.shape)}"
        )
    if not x.isfinite().all():
        raise TrainingError(
            f"{int((~x.isfinite()).any(1).sum())} of {len(x)} feature vectors are not finite; "
            "look at the run that made the encoder"
        )
    y, classes = y.astype(np.int64), None if classes is None else tuple(classes)
    return _Labeled(x, y, classes, {name: torch.as_tensor(v) for name, v in extra.items()})


def vote(x: Tensor, y: Tensor, test_x: Tensor, k: int, temperature: float) -> Tensor:
    """The classes [M] that `knn` predicts."""
    return torch.cat([tally.argmax(1) for tally in tallies(x, y, test_x, k, temperature)])


def tallies(x: Tensor, y: Tensor, test_x: Tensor, k: int, temperature: float) -> Iterator[Tensor]:
    """[m, C] votes of the k nearest training samples, for one block of test samples at a time.

    A vote weighs exp(cosine / T) relative to the nearest's, whose own is 1.
    """
    train, test = F.normalize(x, dim=1), F.normalize(test_x, dim=1)
    rows = min(len(test), 1024)
    columns = max(k, _BLOCK // rows)
    classes = int(y.max()) + 1
    for queries in test.split(rows):
        best = queries.new_empty(len(queries), 0)
        votes = y.new_empty(len(queries), 0)
        for keys, labels in zip(train.split(columns), y.split(columns)):
            near, where = (queries @ keys.T).topk(min(k, len(keys)), 1)
            best, votes = torch.cat([best, near], 1), torch.cat([votes, labels[where]], 1)
            best, where = best.topk(min(k, best.shape[1]), 1)
            votes = votes.gather(1, where)
        weights = ((best - best[:, :1]) / temperature).exp()  # relative to the nearest: no overflow
        yield best.new_zeros(len(queries), classes).scatter_add_(1, votes, weights)


def _ridge(x: Tensor, y: Tensor, test_x: Tensor, strengths: tuple[float, ...]) -> list[Tensor]:
    """Predictions for each strength, from one eigendecomposition of the smaller Gram matrix."""
    solved = solve_ridge(x, y)
    left = (test_x - solved.mean) @ solved.basis
    return [((left / solved.shrunk(s)) @ solved.right + solved.bias).argmax(1) for s in strengths]


class Solved(NamedTuple):
    """Ridge regression on classes, for all strengths: the scores of features x are
    (x - mean) @ basis / shrunk(strength) @ right + bias."""

    mean: Tensor
    basis: Tensor
    values: Tensor
    unit: Tensor
    right: Tensor
    bias: Tensor

    def shrunk(self, strength: float) -> Tensor:
        """What coordinates are divided by."""
        return self.values + strength * self.unit


def solve_ridge(x: Tensor, y: Tensor) -> Solved:
    """Of features [N, D] and classes [N]."""
    mean = x.mean(0)
    x = x - mean
    shares = F.one_hot(y).double()
    bias = shares.mean(0)
    wide = x.shape[1] > len(x)
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    values = values.clamp(min=0)
    basis = x.T @ vectors if wide else vectors
    right = vectors.T @ ((shares - bias) if wide else x.T @ (shares - bias))
    return Solved(mean, basis, values, values.sum() / x.shape[1] + 1e-12, right, bias)
