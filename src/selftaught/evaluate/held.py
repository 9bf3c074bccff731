"""Some images, decoded once, on which an encoder is looked at again and again."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from selftaught import kinds
from selftaught.data import Samples
from selftaught.data.labels import names_of
from selftaught.diagnose import measures
from selftaught.errors import DataError, UserError
from selftaught.evaluate.curve import KNN, RANK, Look
from selftaught.evaluate.features import Embeddings, NoneReadable
from selftaught.evaluate.scores import knn, probe, split
from selftaught.feed.readers import Readers
from selftaught.feed.views import Fetched, ViewDataset
from selftaught.sides import Size

MOST = 2000
"""Images that are kept."""
ROOM = 2**28
"""Bytes that they take at most."""
EACH = 10
"""Images of a class that are kept, on average and at least, where there are so many."""
VIEWS = 4
"""Of each image by which views are told from images, without labels."""
BATCH = 64
"""Images that are shown at a time."""
_FEW = 512
"""With fewer images, starting worker processes takes longer than it saves."""

Network = Callable[[Tensor], Tensor]
"""uint8 [B, C, S, S] -> [B, D]."""


class Held(ABC):
    """Images to look with."""

    @property
    @abstractmethod
    def images(self) -> dict[str, int]:
        """How many, by what they are for."""

    @property
    @abstractmethod
    def some(self) -> Tensor:
        """uint8 [N, C, S, S] that norms may take their statistics of: no image of a test."""

    @abstractmethod
    def look(self, network: Network, step: int) -> Look:
        """What the features of `network` are worth."""

    @property
    @abstractmethod
    def pixels(self) -> dict[str, Look]:
        """What small images as features are worth, by the names of the floors."""


def held_out(
    samples: Samples,
    test: Samples | None,
    size: Size,
    *,
    most: int = MOST,
    seed: int = 0,
    workers: int = 0,
) -> Held:
    """Images chosen by `seed` to look with: by their labels where they have some of two classes.

    Args:
        samples: of the training.
        test: labeled images that no classifier is fitted on; by default some of `samples` are not.
        size: side of the views in pixels.
        most: images that are kept, if they are no more than `ROOM`.
        seed: of the choice.
        workers: processes that read.

    Raises:
        DataError: none of them can be read.
        UserError: they are too few, or have no class in common with `test`.
    """
    count = max(VIEWS, min(most, ROOM // kinds.of(samples).bytes(size, samples.channels)))
    rng = np.random.default_rng(seed)
    if samples.labels is not None:
        try:
            return _labeled(samples, test, size, count, rng, seed, workers)
        except UserError:  # all of one class, say
            if test is not None:
                raise
    rows = np.sort(rng.permutation(len(samples))[: count // 2])
    shown, rows = plain(samples, rows, size, workers)
    if len(rows) < VIEWS:
        raise UserError(f"{len(rows)} images are too few to look with, {VIEWS} at least are needed")
    some = rng.permutation(rows)[: count // 2 // VIEWS].tolist()
    pairs = ViewDataset(samples, kinds.of(samples).alike(size), seed)
    keys = [(epoch, i) for i in some for epoch in range(VIEWS // 2)]
    made = [torch.stack(item.views, 1) for item in batches(pairs, keys, workers)]
    return Unlabeled(shown, torch.cat(made).unflatten(0, (-1, VIEWS // 2)).flatten(1, 2))


@final
@dataclass(frozen=True)
class Labeled(Held):
    """Images with labels: a classifier is fitted on some and tested on others.

    fit, test: uint8 [N, C, S, S], or plain views of another kind; of: what belongs to them. floors:
    of their kind.
    """

    fit: Tensor
    test: Tensor
    of: tuple[Embeddings, Embeddings]
    seed: int
    floors: Mapping[str, Network]

    @property
    def images(self) -> dict[str, int]:
        return {"fit": len(self.fit), "test": len(self.test)}

    @property
    def some(self) -> Tensor:
        return self.fit

    def look(self, network: Network, step: int) -> Look:
        """By weighted k-NN and a ridge classifier."""
        pair = [
            Embeddings(_through(network, x).numpy(), e.labels, classes=e.classes)
            for x, e in zip((self.fit, self.test), self.of)
        ]
        near, linear = knn(*pair), probe(*pair, seed=self.seed)
        return Look(step, {KNN: near.value, "probe": linear.value}, near.correct)

    @property
    def pixels(self) -> dict[str, Look]:
        return {name: self.look(floor, 0) for name, floor in self.floors.items()}


@final
@dataclass(frozen=True)
class Unlabeled(Held):
    """Images without labels.

    plain: uint8 [N, C, S, S]. views: uint8 [n, q, C, S, S], of some of them.
    """

    plain: Tensor
    views: Tensor

    @property
    def images(self) -> dict[str, int]:
        return {"plain": len(self.plain), "views": self.views.shape[0] * self.views.shape[1]}

    @property
    def some(self) -> Tensor:
        return self.plain

    def look(self, network: Network, step: int) -> Look:
        """By RankMe, alpha-ReQ, uniformity, and LiDAR and alignment of views."""
        x = _through(network, self.plain)
        n, q = self.views.shape[:2]
        z = _through(network, self.views.flatten(0, 1)).unflatten(0, (n, q))
        figures = {
            RANK: measures.rank(x),
            "LiDAR": measures.lidar(z),
            "alpha-ReQ": measures.slope(x),
            "alignment": measures.alignment(z[:, 0], z[:, 1]),
            "uniformity": measures.uniformity(x),
        }
        return Look(step, figures)

    @property
    def pixels(self) -> dict[str, Look]:
        """None: dimensions of pixels say nothing of those of features."""
        return {}


def _labeled(
    samples: Samples,
    test: Samples | None,
    size: Size,
    count: int,
    rng: np.random.Generator,
    seed: int,
    workers: int,
) -> Labeled:
    """Half of the images to fit on and half to test on.

    Raises:
        UserError: they are not of two classes.
    """
    known = _some_of(samples, rng, count)
    if test is None:
        rows = _among(samples, known, rng, count)
        fit, held = split(np.asarray(samples.labels)[rows], seed, 0.5)
        sides = [(samples, rows[fit]), (samples, rows[held])]
    else:
        sides = [(s, _among(s, known, rng, count // 2)) for s in (samples, test)]
    names = [set(map(str, _named(s)[rows])) for s, rows in sides]
    if len(names[0]) < 2 or not names[0] & names[1]:
        raise UserError("scores need images of two classes that are in both parts")
    found = []
    for part, rows in sides:
        images, index = plain(part, rows, size, workers)
        labels = np.asarray(part.labels)[index]
        classes = None if part.classes is None else tuple(part.classes)
        none = np.empty((len(index), 0), np.float32)
        found.append((images, Embeddings(none, labels, index, classes)))
    (fit_x, fit_of), (test_x, test_of) = found
    return Labeled(fit_x, test_x, (fit_of, test_of), seed, kinds.of(samples).floors())


def _named(samples: Samples) -> np.ndarray:
    """[N] names of the classes of samples, alike in two datasets; empty where unknown."""
    labels = np.asarray(samples.labels)
    names = names_of(labels[labels >= 0], samples.classes)
    return np.array([names.get(int(code), "") for code in labels])


def _some_of(samples: Samples, rng: np.random.Generator, count: int) -> np.ndarray:
    """Classes of which about `EACH` images fit among `count`, the most frequent not preferred."""
    names, each = np.unique(_named(samples), return_counts=True)
    names = names[(names != "") & (each > 1)]
    return rng.permutation(names)[: max(2, count // EACH)]


def _among(samples: Samples, known: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Positions of at most `count` samples of these classes, in order."""
    rows = np.flatnonzero(np.isin(_named(samples), known))
    return np.sort(rng.permutation(rows)[:count])


def plain(
    samples: Samples, rows: np.ndarray, size: Size, workers: int
) -> tuple[Tensor, np.ndarray]:
    """uint8 [N, C, S, S] plain views of those of `rows` that can be read, and which these are.

    Raises:
        NoneReadable: there are none.
    """
    views = ViewDataset(samples, kinds.of(samples).plain(size), 0, replaced=False)
    keys = [(0, int(i)) for i in rows]
    found, skipped = [], dict[str, str]()
    for item in batches(views, keys, workers):
        skipped |= {samples.name(i): reason for i, reason in item.bad}
        if item.views is not None:
            found.append(item)
    if not found:
        raise NoneReadable.of(skipped)
    return torch.cat([f.views for f in found]), torch.cat([f.index for f in found]).numpy()


def batches(views: ViewDataset, keys: Sequence[tuple[int, int]], workers: int) -> Iterator[Fetched]:
    """Views of all keys, `BATCH` samples at a time."""
    parts = [list(keys[i : i + BATCH]) for i in range(0, len(keys), BATCH)]
    made = Readers(views.__getitems__, parts, workers if len(keys) >= _FEW else 0)
    with closing(made) as items:
        yield from items


def _through(network: Network, images: Tensor) -> Tensor:
    """[N, D] float32 on the CPU; DataError where features are not finite."""
    x = torch.cat([network(part).float().cpu() for part in images.split(BATCH)])
    if not bool(x.isfinite().all()):
        raise DataError("the encoder gives features that are not finite")
    return x
