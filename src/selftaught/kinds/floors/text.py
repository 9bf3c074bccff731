"""What is told from texts by counting alone: what an encoder must beat.

Words are those of the texts themselves, not an encoder's tokens: a small vocabulary would make a
weak floor.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torch.nn import functional as F

PENALTIES = tuple(10.0**k for k in range(-1, 4))
"""Inverse strengths of the probe's penalty, of which held-out training texts choose."""
CHOOSING = 10_000
"""Training texts by which it is chosen, at most."""
HASHED = 512
"""Numbers that a bag of tokens has at most."""
SMOOTHING = 1.0
"""Tokens as if seen by their frequency alone, beside each neighbor that is counted."""


class Bags(NamedTuple):
    """Sparse [N, words], rows of unit length, of training and of test texts."""

    train: csr_matrix
    test: csr_matrix


def by_words(train: Sequence[str], labels: np.ndarray, test: Sequence[str]) -> np.ndarray:
    """`probe` of `bags`."""
    return probe(bags(train, test), labels)


def by_neighbors(train: Sequence[str], labels: np.ndarray, test: Sequence[str]) -> np.ndarray:
    """`nearest` of `bags`."""
    return nearest(bags(train, test), labels)


def bags(train: Sequence[str], test: Sequence[str]) -> Bags:
    """Words weighed by how rare they are in the training texts (tf-idf).

    1 + log of a word's count, times log of the inverse share of texts that have it. Words are runs
    of letters and digits, one is enough, and marks alone: "not" and "!" tell much of reviews.
    """
    vectorizer: Any = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    try:
        return Bags(vectorizer.fit_transform(train), vectorizer.transform(test))
    except ValueError:  # no text has a word
        return Bags(csr_matrix((len(train), 1)), csr_matrix((len(test), 1)))


def probe(found: Bags, labels: np.ndarray, penalties: Iterable[float] = PENALTIES) -> np.ndarray:
    """int64 [N] labels of the test texts, told by logistic regression.

    Values are not standardized: rare words would count as much as frequent ones. The strength of
    the penalty is the best on held-out fifths of the training texts.

    Args:
        found: of training and test texts.
        labels: int64 [N] of the training texts, at least two different ones.
        penalties: inverse strengths to choose from.
    """
    penalties = tuple(penalties)
    some = np.random.default_rng(0).permutation(len(labels))[:CHOOSING]
    best = penalties[0]
    if len(penalties) > 1:
        best = _best(found.train[some], labels[some], penalties)
    return _logistic(best).fit(found.train, labels).predict(found.test)


def _best(x: Any, y: np.ndarray, penalties: Sequence[float]) -> float:
    parts = min(5, int(np.unique(y, return_counts=True)[1].min()))
    if parts < 2:
        return 1.0
    right = dict.fromkeys(penalties, 0)
    for train, held in StratifiedKFold(parts, shuffle=True, random_state=0).split(x, y):
        for c in penalties:
            told = _logistic(c).fit(x[train], y[train]).predict(x[held])
            right[c] += int((told == y[held]).sum())
    return max(penalties, key=lambda c: right[c])


def _logistic(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=1000)


def nearest(found: Bags, labels: np.ndarray, neighbors: int = 20) -> np.ndarray:
    """int64 [N] labels of the test texts, told by their nearest training texts, by cosine."""
    classes, codes = np.unique(labels, return_inverse=True)
    told = np.empty(found.test.shape[0], np.int64)
    count = min(neighbors, found.train.shape[0])
    for start in range(0, len(told), 512):
        near = (found.test[start : start + 512] @ found.train.T).toarray()
        top = np.argpartition(-near, count - 1, axis=1)[:, :count]
        votes = np.zeros((len(near), len(classes)))
        for k in range(count):
            rows = np.arange(len(near))
            np.add.at(votes, (rows, codes[top[:, k]]), near[rows, top[:, k]])
        told[start : start + 512] = classes[votes.argmax(1)]
    return told


@dataclass(frozen=True)
class Counts:
    """How often tokens are there, and how often one follows another.

    single: float64 [V]. pairs: float64 [V, V], sparse, row before column.
    """

    single: np.ndarray
    pairs: csr_matrix

    @property
    def entropy(self) -> float:
        """Of a token drawn by its frequency, in nats: the loss of who knows no more than that."""
        share = self.single[self.single > 0] / max(self.single.sum(), 1.0)
        return float(-(share * np.log(share)).sum())


def count(texts: Iterable[np.ndarray], vocabulary: int) -> Counts:
    """Counts of tokens in texts, int64 [n] each, framed or not."""
    single = np.zeros(vocabulary)
    pairs = csr_matrix((vocabulary, vocabulary))
    befores: list[np.ndarray] = []
    afters: list[np.ndarray] = []
    held = 0
    for ids in texts:
        single += np.bincount(ids, minlength=vocabulary)
        befores.append(ids[:-1])
        afters.append(ids[1:])
        held += len(ids)
        if held > 1 << 22:
            pairs, befores, afters, held = pairs + _pairs(befores, afters, vocabulary), [], [], 0
    return Counts(single, pairs + _pairs(befores, afters, vocabulary))


def _pairs(befores: list[np.ndarray], afters: list[np.ndarray], vocabulary: int) -> csr_matrix:
    before = np.concatenate([*befores, np.zeros(0, np.int64)])
    after = np.concatenate([*afters, np.zeros(0, np.int64)])
    shape = (vocabulary, vocabulary)
    return csr_matrix((np.ones(len(before)), (before, after)), shape)


def by_frequency(counts: Counts, count: int) -> np.ndarray:
    """int64 [count]: the most frequent token, whatever is asked."""
    return np.full(count, int(counts.single.argmax()))


def between(counts: Counts, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """int64 [M]: the likeliest token between two others, as pairs are counted.

    p(w | left) p(w | right) / p(w), as if the neighbors did not know of each other; each is mixed
    with p(w), which is all that an unseen neighbor, such as [MASK], leaves.

    Args:
        counts: of training texts.
        left, right: int64 [M] the tokens before and after.
    """
    share = counts.single / max(counts.single.sum(), 1.0)
    following, preceding = counts.pairs, counts.pairs.T.tocsr()
    told = np.empty(len(left), np.int64)
    for start in range(0, len(left), 256):
        part = slice(start, start + 256)
        after = _mixed(following, left[part], share)
        before = _mixed(preceding, right[part], share)
        with np.errstate(divide="ignore", invalid="ignore"):
            likely = np.where(share > 0, after * before / share, 0.0)
        told[part] = likely.argmax(1)
    return told


def _mixed(pairs: Any, beside: np.ndarray, share: np.ndarray) -> np.ndarray:
    """[M, V] of each token, given the one beside it."""
    rows = pairs[beside].toarray()
    total = rows.sum(1, keepdims=True)
    return (rows + SMOOTHING * share) / (total + SMOOTHING)


def bag(ids: Tensor, words: int, special: Sequence[int]) -> Tensor:
    """Ids [B, L] -> [B, `HASHED`]: how often each is there, by the square root, unit length.

    Of a larger vocabulary tokens share places, with signs at random (feature hashing, Weinberger et
    al., 2009), so that a million texts fit into memory.

    Args:
        ids: of texts.
        words: entries of the vocabulary.
        special: those that are no text.
    """
    counts = torch.zeros(len(ids), words)
    counts.scatter_add_(1, ids, torch.ones(ids.shape))
    counts[:, list(special)] = 0
    known = F.normalize(counts.sqrt(), dim=1)
    if words <= HASHED:
        return known
    draws = torch.Generator().manual_seed(0)
    place = torch.randint(HASHED, (words,), generator=draws)
    sign = torch.randint(2, (words,), generator=draws) * 2.0 - 1.0
    return torch.zeros(len(ids), HASHED).index_add_(1, place, known * sign)
