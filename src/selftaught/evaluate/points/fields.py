"""Segmentation of scans by an encoder and its floors: what each point is, from its features."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selftaught import kinds
from selftaught.data import BadSample, Samples
from selftaught.data.points.files import parsed
from selftaught.data.points.labels import UNLABELED, Labels, open_labels
from selftaught.data.points.parts import near
from selftaught.errors import UserError
from selftaught.evaluate.classifiers import RATES, descend, predictions
from selftaught.evaluate.features import Local, tell_skipped
from selftaught.evaluate.finding import evenly
from selftaught.evaluate.image.places import CELLS, CLASSES, iou
from selftaught.evaluate.scores import Score
from selftaught.evaluate.settings import Scoring
from selftaught.kinds.floors.points import surroundings

if TYPE_CHECKING:
    from selftaught.evaluate.comparing import Look, Scores

SURROUNDINGS = "height and surroundings"
"""The floor of what is known of a point without any training."""

FIELDS = 500
"""Scans with labels of each set that are looked at, at most."""

FOLDS = 5
"""Parts that scans are cut into where no test is given, each of which is tested once."""

BATCH = 16
"""Views of a scan that a network sees at a time, at most."""

MOST = 20.0
"""Times that a point of a rare class is learned from, at most."""

FEW, SECTORS = 20, 8
"""With fewer test scans than `FEW` intervals are over sectors of them, of equally many points."""

Points = Callable[[np.ndarray], Tensor]
"""[N, C] points within reach -> [N, D] features of each."""


class Seen(NamedTuple):
    """The points of a scan that are seen and have a label. points: float32 [N, C], all within
    reach. rows: int64 [M] of those that count. code: int64 [M] their classes."""

    points: np.ndarray
    rows: np.ndarray
    code: np.ndarray


@dataclass(frozen=True)
class Fields:
    """Scans and their labels. fold: int64 [n] which test part each scan belongs to, -1 for scans
    that are trained on alone."""

    labels: tuple[Labels, ...]
    which: np.ndarray
    fold: np.ndarray
    ignore: tuple[int, ...]

    @property
    def crossed(self) -> bool:
        """Whether each scan is trained on and tested, as no other data is given."""
        return len(self.labels) == 1

    def trained(self, n: int) -> bool:
        """Whether scan n is learned from."""
        return self.crossed or self.fold[n] < 0

    def name(self, n: int) -> str:
        """What scan n is called."""
        return self.labels[self.which[n, 0]].samples.name(int(self.which[n, 1]))

    def seen(self, n: int) -> Seen:
        """Scan n of all.

        Raises:
            BadSample: it cannot be read.
            UserError: its labels do not belong to it.
        """
        labels, i = self.labels[self.which[n, 0]], int(self.which[n, 1])
        samples, kind = labels.samples, kinds.of(labels.samples)
        name, code = samples.name(i), labels.read(i)
        cloud = parsed(samples.source.load(i), name)
        points, good = kind.seen(cloud)  # type: ignore[attr-defined]
        if len(good) != len(code):
            raise UserError(
                f"{name} has {len(good):,} points, and {labels.files[i]} {len(code):,} labels: "
                "these do not belong together"
            )
        inside = near(points, kind.reach)  # type: ignore[attr-defined]
        points, code = points[inside], code[good][inside]
        rows = np.flatnonzero(~np.isin(code, self.ignore))
        return Seen(points, rows, code[rows])


def opened(sources: Sequence[Any], sets: Sequence[Samples], asked: Scoring) -> Fields:
    """Training and test scans with their labels.

    Where no test is given, scans are cut into `FOLDS` parts, or each is one: a part is told by what
    was learned of the others.

    Args:
        sources: what the scans were opened from.
        sets: the scans, of training and perhaps of test.
        asked: where labels are, and which count for nothing beside `UNLABELED`.

    Raises:
        UserError: they are missing, or do not fit.
    """
    folders = (asked.masks, asked.test_masks or asked.masks)
    labels = tuple(open_labels(samples, folder) for samples, folder in zip(sets, folders))
    labels = tuple(each.select(evenly(len(each), FIELDS).numpy()) for each in labels)
    which = np.array([(k, i) for k, each in enumerate(labels) for i in range(len(each))])
    if len(labels) > 1:
        fold = np.where(which[:, 0] > 0, 0, -1)
    elif len(which) > 1:
        order = np.random.default_rng(asked.seed).permutation(len(which))
        fold = order % min(FOLDS, len(which))
    else:
        raise UserError("segmentation needs two scans with labels at least, one to test on")
    return Fields(labels, which, fold, (UNLABELED, *asked.ignore))


def scored(look: "Look", fields: Fields) -> "Scores":
    """Segmentation by the encoder and by its floors: a linear layer on the features of points.

    Args:
        look: networks, and how scans are shown to them.
        fields: as `opened` gives them.
    """
    kind = kinds.of(fields.labels[0].samples)
    networks = look.each([Local() for _ in look.networks])
    of_points: dict[str, Points] = {
        name: _shown(network, int(look.size), min(look.asked.batch, BATCH))  # type: ignore[arg-type]
        for name, network in zip(look.networks, networks, strict=True)
    }
    reach: float = kind.reach  # type: ignore[attr-defined]
    of_points[SURROUNDINGS] = lambda x: torch.from_numpy(surroundings(x, reach))
    task = _Task.of(fields, look.asked.seed)
    return {name: (task.score(of),) for name, of in of_points.items()}


def _shown(network: Callable[[Tensor], Tensor], size: int, batch: int) -> Points:
    """Features of all points, which the network sees as it sees a view: `size` at a time."""

    def features(x: np.ndarray) -> Tensor:
        order = np.random.default_rng(0).permutation(len(x))
        parts = -(-len(x) // size)
        rows = np.resize(order, (parts, size))  # the last part is filled up
        found = [
            network(torch.from_numpy(x[part])).float().cpu()
            for part in np.array_split(rows, -(-parts // max(1, min(batch, parts))))
        ]
        local = torch.cat(found).flatten(0, 1)[: len(x)]
        return local[torch.from_numpy(np.argsort(order))]

    return features


@dataclass(frozen=True)
class _Task:
    fields: Fields
    codes: np.ndarray
    copies: np.ndarray  # [C] of each point of a class that are learned from, on average
    readable: np.ndarray
    seed: int

    @staticmethod
    def of(fields: Fields, seed: int) -> "_Task":
        counts = Counter[int]()
        readable: list[int] = []
        tested: set[int] = set()
        skipped: dict[str, str] = {}
        for n in range(len(fields.fold)):
            try:
                code, count = np.unique(fields.seen(n).code, return_counts=True)
            except BadSample as error:
                skipped[fields.name(n)] = str(error)
                continue
            if not len(code):
                continue
            readable.append(n)
            if fields.trained(n):
                counts.update(dict(zip(code.tolist(), count.tolist())))
            if fields.fold[n] >= 0:
                tested |= {*code.tolist()}
        if skipped:
            tell_skipped(skipped)
        codes = np.array(sorted(counts), np.int64)
        if not 2 <= len(codes) <= CLASSES or not tested & counts.keys():
            raise UserError(
                f"the labels hold {len(codes)} classes ({', '.join(map(str, codes[:5]))}); between "
                f"2 and {CLASSES} can be told apart, of which the test has one at least: are these "
                "labels of classes, and do they belong together?"
            )
        if fields.crossed and len({int(fields.fold[n]) for n in readable}) < 2:
            raise UserError("segmentation needs two scans with labels at least, one to test on")
        # by the square root of what there is: rare classes oftener, and not as often as others
        number = np.array([counts[c] for c in codes.tolist()], float)
        wanted = CELLS * np.sqrt(number) / np.sqrt(number).sum()
        copies = np.minimum(MOST, wanted / number)
        return _Task(fields, codes, copies, np.array(readable), seed)

    def coded(self, code: np.ndarray) -> np.ndarray:
        """Positions in `codes`, -1 for classes that nothing is learned of."""
        where = np.searchsorted(self.codes, code).clip(max=len(self.codes) - 1)
        return np.where(self.codes[where] == code, where, -1)

    def scans(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Seen]]:
        """Those that can be read, by their numbers."""
        for n in self.readable.tolist():
            if wanted(n):
                yield n, self.fields.seen(n)

    def score(self, of: Points) -> Score:
        """Of features: two looks at the scans, one to learn and one to tell."""
        start = time.perf_counter()
        x, y, scan, held = self._learned(of)
        layers = {}
        for fold in sorted({int(f) for f in self.fields.fold[self.readable] if f >= 0}):
            mine = torch.from_numpy(self.fields.fold[scan] != fold)
            layers[fold] = _Layer.fitted(x[mine], y[mine], held[mine], len(self.codes), self.seed)
        parts, tested = [], 0
        count = sum(self.fields.fold[n] >= 0 for n in self.readable.tolist())
        sectors = SECTORS if count < FEW else 1
        for n, seen in self.scans(lambda n: self.fields.fold[n] >= 0):
            told = layers[int(self.fields.fold[n])].tell(of(seen.points)[seen.rows])
            truth = self.coded(seen.code)
            sector = _sectors(seen.points[seen.rows], sectors)
            for part in range(sectors):
                mine = sector == part
                parts.append(_confusion(truth[mine], told[mine], len(self.codes)))
            tested += 1
        return iou(
            "segment linear",
            np.stack(parts),
            self.codes,
            self._protocol(tested, sectors, layers.values()),
            start,
            tested,
        )

    def _protocol(self, tested: int, sectors: int, layers: Any) -> str:
        folds, trained = len(layers), sum(map(self.fields.trained, self.readable.tolist()))
        how = f"{trained} training, {tested} test scans"
        if self.fields.crossed:
            how = f"{tested} scans in {folds} parts, each told by what was learned of the others"
        over = f"{SECTORS} sectors of each scan" if sectors > 1 else "scans"
        rates = ", ".join(f"{r:g}" for r in sorted({layer.rate for layer in layers}))
        return (
            f"{how}, {len(self.codes)} classes, all labeled points within reach; softmax "
            f"regression on {CELLS:,} points at most, drawn by the square root of how many a class "
            f"has, learning rate {rates}, best of {len(RATES)} on a quarter of the training "
            f"sectors; intervals over {over}"
        )

    def _learned(self, of: Points) -> tuple[Tensor, Tensor, np.ndarray, Tensor]:
        """Features [M, D], class [M], scan [M], and whether a point chooses the learning rate."""
        xs, ys, scans, held = [], [], [], []
        for n, seen in self.scans(self.fields.trained):
            truth = self.coded(seen.code)
            copies = np.where(truth >= 0, self.copies[truth], 0.0)
            draw = np.random.default_rng([self.seed, n]).random(len(truth))
            rows = np.repeat(np.arange(len(truth)), (copies + draw).astype(int))
            xs.append(of(seen.points)[seen.rows[rows]])
            ys.append(torch.from_numpy(truth[rows]))
            scans.append(np.full(len(rows), n))
            sector = _sectors(seen.points[seen.rows], SECTORS)[rows]
            held.append(torch.from_numpy(sector % 4 == 3))
        return torch.cat(xs), torch.cat(ys), np.concatenate(scans), torch.cat(held)


class _Layer(NamedTuple):
    mean: Tensor
    scale: Tensor
    heads: tuple[Tensor, Tensor]
    rate: float

    @staticmethod
    def fitted(x: Tensor, y: Tensor, held: Tensor, classes: int, seed: int) -> "_Layer":
        deviation, mean = torch.std_mean(x, 0, correction=0)
        scale = deviation + 1e-6 * deviation.mean() + 1e-12
        z = (x - mean) / scale
        rate = RATES[-4]
        if held.any() and not held.all():
            heads = descend(z[~held], y[~held], RATES, classes, seed)
            right = (predictions(z[held], *heads) == y[held, None]).sum(0).tolist()
            _, rate = max(zip(right, RATES))
        return _Layer(mean, scale, descend(z, y, (rate,), classes, seed), rate)

    def tell(self, x: Tensor) -> np.ndarray:
        return predictions((x - self.mean) / self.scale, *self.heads)[:, 0].numpy()


def _confusion(truth: np.ndarray, told: np.ndarray, count: int) -> np.ndarray:
    seen = truth >= 0
    joint = truth[seen] * count + told[seen]
    return np.bincount(joint, minlength=count * count).reshape(count, count)


def _sectors(points: np.ndarray, count: int) -> np.ndarray:
    """int64 [N]: which of `count` sectors, of equally many points, each of [N, C] lies in."""
    order = np.argsort(np.arctan2(points[:, 1], points[:, 0]), kind="stable")
    sector = np.empty(len(points), np.int64)
    sector[order] = np.arange(len(points)) * count // max(1, len(points))
    return sector
