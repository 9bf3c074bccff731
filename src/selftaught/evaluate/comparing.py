"""All scores of an encoder and of its floors, from as few looks at the images as can be."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import kinds, voice
from selftaught.data import Samples
from selftaught.data.labels import match, names_of, warn_once
from selftaught.data.selection import select
from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.evaluate.attention import attentive, split_tokens, tokens
from selftaught.evaluate.augmented import linear_augmented
from selftaught.evaluate.calibrated import references
from selftaught.evaluate.classifiers import linear, logistic
from selftaught.evaluate.clusters import cluster
from selftaught.evaluate.depth import NAME, Deep, by_depth
from selftaught.evaluate.features import (
    Asked,
    Embeddings,
    Encoder,
    Layered,
    Progress,
    Rest,
    changed_features,
    device_for,
    one_pass,
    open_samples,
    pooled,
    resolve,
    running,
)
from selftaught.evaluate.few_labels import lowshot
from selftaught.evaluate.finding import copies, evenly, retrieval
from selftaught.evaluate.floors import ENCODER, Comparison
from selftaught.evaluate.grouped import worst_group
from selftaught.evaluate.image.adversarial import Attack, Linear, on_attacked
from selftaught.evaluate.image.changes import COPIES, CORRUPTIONS, Change
from selftaught.evaluate.image.corrupted import on_corrupted
from selftaught.evaluate.mislabeled import noisy_labels
from selftaught.evaluate.scores import Score, Task, few, knn, probe, unlike
from selftaught.evaluate.settings import Encoding, Scoring
from selftaught.feed.readers import limited
from selftaught.sides import Size
from selftaught.signature import takes
from selftaught.voice import counted

if TYPE_CHECKING:
    from selftaught.options import ScoringOptions

PROBES = ("knn", "ridge", "linear", "linear-paper", "lowshot", "retrieval", "cluster")
PROBES += ("robustness", "noisy-labels", "groups", "attentive", "layers")
PROBES += ("adversarial", "segment")

APART = ("linear-paper", "attentive", "layers", "adversarial", "segment")
"""Those that look at the images in a way of their own: `OF_IMAGES`, and what scores places."""

ATTENDED = 2**30
"""Bytes of local features of a network, of training or of test samples, at most; of more samples
some are left out."""

Network = Callable[[Tensor], Tensor]
Scores = dict[str, tuple[Score, ...]]


@takes(Scoring)
def compare(
    encoder: Encoder | nn.Module | str | Path,
    train: Any,
    test: Any = None,
    *,
    strict: bool = False,
    progress: Progress | None = None,
    start: Encoder | nn.Module | str | Path | None = None,
    **options: "Unpack[ScoringOptions]",
) -> Comparison:
    """Scores of an encoder and of its floors; each image is read once for all of them.

    Test images that are corrupted and copied, and images with masks, are read once more.

    Args:
        encoder, progress: as of `embed`.
        train, test: labeled data, as of `embed`; without `test` a fifth of `train` is held out.
        strict: whether a class of one image is refused where test images are held out of `train`.
        start: the encoder as its training began, where that was with weights worth keeping: one
            more floor, and the first question of the verdict. It sees the same images.
        options: fields of `Scoring`; its probe finetune, which trains, is the command's alone.

    Raises:
        UserError: labels or masks are missing or do not fit, or an argument cannot work.
        DataError: no sample can be read.
        TrainingError: features are not finite.
    """
    asked = Scoring.of(test=test, **options)
    with limited(asked.read_timeout), voice.heard(), counted("embedding") as show:
        found = compared(encoder, train, asked, strict, progress or show, start)
    if asked.out is not None:
        found.save(asked.out)
    return found


def compared(
    encoder: Encoder | nn.Module | str | Path,
    train: Any,
    asked: Scoring,
    strict: bool = False,
    progress: Progress | None = None,
    start: Encoder | nn.Module | str | Path | None = None,
) -> Comparison:
    """What `compare` returns: arguments and errors as there."""
    begun = time.perf_counter()
    probes = asked.probes
    if not probes or not set(probes) <= set(PROBES):
        raise UserError(
            f"probes={list(probes)}: must be some of {', '.join(PROBES)}; finetune trains, which "
            "`selftaught evaluate` does"
        )
    network = resolve(named(encoder, asked), asked.size)
    side = asked.size or network.size
    began = None if start is None else resolve(start, side)
    if began is not None and began.channels != network.channels:
        raise UserError(
            f"the encoder takes images of {network.channels} channels, and the one that it "
            f"began as takes {began.channels}: they cannot see the same images"
        )
    sources = [d for d in (train, asked.test) if d is not None]
    opened = [open_samples(d, network, asked.labels, asked.path_column) for d in sources]
    by_class = [p for p in PROBES if p in probes and p not in APART]
    apart = [scored for p, scored in OF_IMAGES.items() if p in probes]
    sets = labeled(opened, strict) if by_class or apart else []
    grouped = Grouped.of(sources[-1], opened[-1], network, asked) if "groups" in probes else None
    places = _places(network) if "segment" in probes else None
    fields = places.opened(sources, opened, asked) if places else None
    found: Scores = {}
    skipped = 0
    with ExitStack() as stack:
        where = device_for(encoder, network, asked.device)
        beside = references(
            network,
            began,
            opened[0],
            size=side,
            device=where,
            workers=asked.workers,
            seed=asked.seed,
        )
        networks = {ENCODER: network, **beside}
        look = Look(networks, where, side, asked, progress, stack)
        if by_class:
            found, skipped = _of_classes(look, sets, by_class, grouped)
        for scored in apart:
            for name, score in scored(look, sets).items():
                found[name] = (*found.get(name, ()), score)
        if places:
            for name, scores in places.scored(look, fields).items():
                found[name] = found.get(name, ()) + scores
    origin = "" if isinstance(encoder, nn.Module) else f" from {encoder}"
    return Comparison(
        encoder=f"{network.name}, {kinds.of(network).at(side)}{origin}",
        scores=found,
        skipped=skipped,
        seconds=time.perf_counter() - begun,
        images=fingerprints(opened),
        size=side,
        about=kinds.of(network).about_floors,
    )


def named(
    encoder: Encoder | nn.Module | str | Path, asked: Encoding
) -> Asked | Encoder | nn.Module:
    """An encoder with what is said of it, where it is given by its name.

    Raises:
        UserError: something is said of a network that is given itself.
    """
    if isinstance(encoder, str | Path):
        return Asked(str(encoder), asked.backbone, asked.mean, asked.std, asked.weights)
    said = [n for n in ("backbone", "weights", "mean", "std") if getattr(asked, n) is not None]
    if said:
        raise UserError(
            f"{said[0]} says what the files of an encoder do not; a network itself has it: "
            "Wrapped(module, mean=..., std=...)"
        )
    return encoder


def _places(network: Encoder) -> Any:
    """The module that scores what is where in samples of the network's kind."""
    kind = kinds.of(network)
    if not kind.places:
        raise UserError(f"segment scores what is where in images, and {kind.many} have no masks")
    return import_module(f"selftaught.evaluate.{kind.places}.fields")


@dataclass(frozen=True)
class Look:
    """The encoder, its start and its untrained self, and how images are read and shown to them.

    size: side of the views in pixels. asked: all else that was asked for.
    """

    networks: Mapping[str, Encoder]
    device: torch.device
    size: Size
    asked: Scoring
    progress: Progress | None
    stack: ExitStack

    def each(self, of: Sequence[Callable[[Encoder, Tensor], Tensor]]) -> list[Network]:
        """All of them, each asked for something."""
        return [
            self.stack.enter_context(running(n, self.device, self.asked.precision, wanted))
            for n, wanted in zip(self.networks.values(), of, strict=True)
        ]

    def at(self, samples: Samples, networks: Sequence[Network]) -> tuple[list[np.ndarray], Rest]:
        """One pass over plain views."""
        asked = self.asked
        return one_pass(networks, samples, self.size, asked.batch, asked.workers, self.progress)

    def embedded(
        self, sets: Sequence[Samples], networks: Sequence[Network]
    ) -> list[list[Embeddings]]:
        """Of each set what each network gives."""
        passes = (self.at(samples, networks) for samples in sets)
        return [[Embeddings(x, *rest) for x in found] for found, rest in passes]


# classes ---------------------------------------------------------------------------------------


def labeled(sets: Sequence[Samples], strict: bool = False) -> list[Samples]:
    """The samples that have labels, training and test; no others are read.

    Raises:
        UserError: there are none, or classes that no score can be had of.
    """
    kept = []
    for samples in sets:
        known = [] if samples.labels is None else np.flatnonzero(np.asarray(samples.labels) >= 0)
        if not len(known):
            raise UserError(
                "scores need labels, and this data has none: sort the images into one folder a "
                "class, or name a column or a CSV of path,label with labels"
            )
        kept.append(samples if len(known) == len(samples) else select(samples, known))
    names = _names(kept[0])
    if len(names) < 2:
        raise UserError(
            f"all {len(kept[0])} labeled images are of one class ({next(iter(names))}): a "
            "score tells classes apart and needs two at least"
        )
    if len(kept) > 1:
        _meet(*kept)
    alone = [name for name, count in names.items() if count == 1]
    if strict and len(kept) == 1 and alone:
        raise UserError(
            f"{len(alone)} of {len(names)} classes have one image alone ({few(alone)}), which "
            "cannot be in the training and in the test part: add images, take the class out, or "
            "give test images with --test; where labels are amounts, or several names an image, "
            "selftaught classify scores them"
        )
    return kept


def fingerprints(sets: Sequence[Samples]) -> dict[str, str]:
    """Which images and labels are trained and tested on: alike where both are, wherever they lie.

    Two tests of as many images are not the same test.
    """
    return {name: _fingerprint(s) for name, s in zip(("train", "test"), (sets[0], sets[-1]))}


def _fingerprint(samples: Samples) -> str:
    if samples.labels is None:
        return samples.fingerprint
    labels = np.asarray(samples.labels)
    names = names_of(labels, samples.classes)
    return digest(samples.fingerprint, *names.values(), *(labels == code for code in names))


def _meet(train: Samples, test: Samples) -> None:
    """Say what becomes of classes that are not called alike. UserError where none is."""
    ours, theirs = (names_of(np.asarray(s.labels), s.classes) for s in (test, train))
    found, otherwise = match(ours, theirs)
    if not found:
        raise UserError(unlike(ours.values(), theirs.values(), "test images"))
    if otherwise:
        warn_once(
            f"classes of the test images are taken by their number or spelling: {few(otherwise)}"
        )
    lost = [code for code in ours if code not in found]
    if lost:
        count = int(np.isin(np.asarray(test.labels), lost).sum())
        warn_once(
            f"{count} of {len(test)} test images are of {len(lost)} classes that no training image "
            f"is of ({few(ours[code] for code in lost)}): they count as wrong"
        )


def tell_shared(train: np.ndarray, test: np.ndarray) -> None:
    """Warn where test images are training images, too: to the last digit of small pixels [N, D]."""
    known = {hash(row.tobytes()) for row in train}
    # what has one color is a picture of nothing, and may be alike by right
    shared = sum(hash(row.tobytes()) in known for row in test if row.any())
    if shared:
        warn_once(
            f"{shared:,} of {len(test):,} test images are among the training images as well, so "
            "that scores are too good: leave them out of one of both"
        )


def _names(samples: Samples) -> Counter[str]:
    """Number of samples of each class that there is, by its name."""
    labels = np.asarray(samples.labels)
    names = names_of(labels, samples.classes)
    found: Counter[str] = Counter()
    for code, count in zip(*np.unique(labels, return_counts=True)):
        found[names[int(code)]] += int(count)
    return found


@dataclass(frozen=True)
class Grouped:
    """codes: [N] group of each labeled test sample, below 0 for none. names: of groups, by code."""

    codes: np.ndarray
    names: dict[int, str]

    @staticmethod
    def of(source: Any, samples: Samples, network: Encoder, asked: Scoring) -> "Grouped":
        """The groups of the test samples.

        Raises:
            UserError: they are not named, or not of these samples.
        """
        if asked.groups is None or isinstance(source, Samples):
            raise UserError(
                "the probe groups needs to know of which group each test image is: name a column "
                "or a CSV of path,group with --groups, of data that is named by its path"
            )
        found = open_samples(source, network, asked.groups, asked.path_column)
        if found.labels is None or len(found) != len(samples):
            raise UserError(
                f"{asked.groups} says nothing of the groups of these {len(samples)} test images: "
                "name a column or a CSV of path,group that has all of them"
            )
        codes, labels = np.asarray(found.labels), np.asarray(samples.labels)
        return Grouped(codes[labels >= 0], names_of(codes, found.classes))


def _of_classes(
    look: Look, sets: list[Samples], probes: Sequence[str], grouped: Grouped | None = None
) -> tuple[Scores, int]:
    """Scores of the encoder and of its floors, and how many samples could not be read."""
    asked, seed = look.asked, look.asked.seed
    wide = [Layered() for _ in look.networks]
    floors = kinds.of(look.networks[ENCODER]).floors()
    plain = [*floors.values()]
    flat = [pooled] * len(wide)
    networks = look.each(wide if "linear" in probes else flat) + plain
    found: list[list[Embeddings]] = []
    for samples in sets:
        features, rest = look.at(samples, networks)
        layered = [
            w.split(f) if w is not None and w.widths else (f, {})
            for f, w in zip(features, [*wide, *[None] * len(plain)], strict=True)
        ]
        found.append([Embeddings(f, *rest, extra) for f, extra in layered])
    if len(found) > 1:
        tell_shared(*(each[-1].features for each in found))
    data = [list(pair) for pair in zip(*found)]
    tasks = [Task.of(*pair) for pair in data]
    of_tested = np.empty(0, int)
    if grouped is not None:
        of_tested = grouped.codes[found[-1][0].index[tasks[0].tested]]
    changes: dict[str, Change] = {}
    changes |= CORRUPTIONS if "robustness" in probes else {}
    changes |= COPIES if "retrieval" in probes else {}
    rows, changed = np.empty(0, int), []
    if changes:
        tested = tasks[0].tested
        rows = evenly(len(tested), asked.altered).numpy()
        changed = changed_features(
            look.each(flat) + plain,
            select(sets[-1], found[-1][0].index[tested[rows]]),
            changes,
            look.size,
            asked.batch,
            asked.workers,
            seed,
            look.progress,
        )

    def scored(n: int) -> tuple[Score, ...]:
        train = data[n]

        def of_changed(names: Mapping[str, Change]) -> Tensor:
            return torch.from_numpy(changed[n][:, [list(changes).index(name) for name in names]])

        def of(name: str) -> tuple[Score, ...]:
            match name:
                case "knn":
                    return (knn(*train, k=asked.k, temperature=asked.temperature),)
                case "ridge":
                    return (probe(*train, seed=seed),)
                case "linear":
                    return linear(*train, seed=seed), logistic(*train, seed=seed)
                case "lowshot":
                    return lowshot(*train, seed=seed)
                case "retrieval":
                    own = tasks[n].test_x[rows]
                    found = copies(own, of_changed(COPIES), tuple(COPIES)) if len(rows) > 1 else ()
                    return (*retrieval(*train), *found)
                case "cluster":
                    return cluster(*train, seed=seed)
                case "noisy-labels":
                    return (noisy_labels(*train, seed=seed),)
                case "groups" if grouped is not None:
                    test = train[1] if len(train) > 1 else None
                    names = grouped.names
                    return (worst_group(train[0], test, of_tested, names, seed=seed),)
                case _:
                    corrupted = of_changed(CORRUPTIONS)
                    return on_corrupted(
                        tasks[n],
                        corrupted,
                        tuple(CORRUPTIONS),
                        rows,
                        asked.k,
                        asked.temperature,
                        seed,
                    )

        return tuple(score for name in probes for score in of(name))

    skipped = sum(len(each[0].skipped) for each in found)
    names = (*look.networks, *floors)
    scores = {name: scored(n) for n, name in enumerate(names)}
    return scores | _judged(scores[ENCODER], sets, data[0]), skipped


def _judged(ours: Sequence[Score], sets: Sequence[Samples], data: Sequence[Embeddings]) -> Scores:
    """Scores of what tells labels of the samples themselves, where the encoder has such ones."""
    judges = kinds.of(sets[0]).judges()
    if not judges:
        return {}
    # the same rows and classes as the features': by the positions of the samples in their sets
    rows_of = [replace(e, features=e.index[:, None], extra={}) for e in data]
    task = Task.of(rows_of[0], rows_of[1] if len(rows_of) > 1 else None)
    rows = (task.train_x[:, 0].long().tolist(), task.test_x[:, 0].long().tolist())
    train, test = ([s.read(i) for i in r] for s, r in zip((sets[0], sets[-1]), rows))
    found: Scores = {}
    for floor, known in judges.items():
        for name in (score.name for score in ours if score.name in known):
            start = time.perf_counter()
            told = torch.from_numpy(known[name](train, task.train_y.numpy(), test))
            score = task.score(name, told, f"{task.protocol}; {floor}", start)
            found[floor] = (*found.get(floor, ()), score)
    return found


def _augmented(look: Look, sets: Sequence[Samples]) -> dict[str, Score]:
    """Linear classification with augmented images, of the encoder and of its floors."""
    running_ones = look.each([pooled] * len(look.networks))
    networks = dict(zip(look.networks, running_ones, strict=True))
    networks |= kinds.of(look.networks[ENCODER]).floors()
    train, *rest = sets
    test = rest[0] if rest else None
    return linear_augmented(networks, train, test, look.size, look.asked, look.progress)


def _attended(look: Look, sets: Sequence[Samples]) -> dict[str, Score]:
    """Attentive probes of the encoder, of its start and of its untrained self. Floors that have no
    places are told by the ridge probe, which must not be better either."""
    asked, kind = look.asked, kinds.of(look.networks[ENCODER])
    networks = look.each([tokens] * len(look.networks))
    blank = kind.blank(1, look.networks[ENCODER])
    # what has no local features is told before the samples are read
    each = networks[0](blank).nbytes
    floors = kind.floors()
    sides = []
    most = max(2, ATTENDED // each)
    sets = [select(s, evenly(len(s), most).numpy()) if len(s) > most else s for s in sets]
    for samples in sets:
        found, rest = look.at(samples, [*networks, *floors.values()])
        sides.append(
            [split_tokens(x, rest) for x in found[: len(networks)]]
            + [Embeddings(x, *rest) for x in found[len(networks) :]]
        )
    pairs = list(zip(*sides))
    scores = {
        name: attentive(*pair, blocks=asked.blocks, seed=asked.seed, device=look.device)
        for name, pair in zip(look.networks, pairs)
    }
    for name, pair in zip(floors, pairs[len(networks) :]):
        scores[name] = replace(probe(*pair, seed=asked.seed), name=scores[ENCODER].name)
    judged = _judged([scores[ENCODER]], sets, pairs[0])
    return scores | {name: score for name, (score,) in judged.items()}


def _attacked(look: Look, sets: list[Samples]) -> dict[str, Score]:
    """Probes of the encoder, of its start and of its untrained self on images that are changed to
    mislead them. UserError where samples are no images."""
    start, asked = time.perf_counter(), look.asked
    kind = kinds.of(look.networks[ENCODER])
    if not kind.photos:
        raise UserError(f"adversarial changes images, and these are {kind.many}: leave it out")
    networks = look.each([pooled] * len(look.networks))
    sides = look.embedded(sets, networks)
    tasks = [Task.of(*pair) for pair in zip(*sides)]
    probes = [Linear.of(task, asked.seed) for task in tasks]
    rows = evenly(len(tasks[0].tested), asked.altered).numpy()
    tested = select(sets[-1], sides[-1][0].index[tasks[0].tested[rows]])
    attacks = look.each([Attack(probe, asked.seed) for probe, _ in probes])
    told, rest = look.at(tested, attacks)
    return {
        name: on_attacked(task, classes, rows[rest.index], strength, start)
        for name, task, classes, (_, strength) in zip(look.networks, tasks, told, probes)
    }


def _by_depth(look: Look, sets: list[Samples]) -> dict[str, Score]:
    """Probes at every depth of the encoder, of its start and of its untrained self. Floors, which
    have no depth, are told by the ridge probe."""
    wide = [Deep() for _ in look.networks]
    networks, floors = look.each(wide), kinds.of(look.networks[ENCODER]).floors()
    sides = look.embedded(sets, [*networks, *floors.values()])
    pairs = [(pair[0], pair[1] if len(pair) > 1 else None) for pair in zip(*sides)]
    seed = look.asked.seed
    scores = {
        name: by_depth(*pair, deep.widths, seed)
        for name, pair, deep in zip(look.networks, pairs, wide)
    }
    for name, pair in zip(floors, pairs[len(networks) :]):
        scores[name] = replace(probe(*pair, seed=seed), name=NAME)
    return scores


OF_IMAGES: dict[str, Callable[[Look, list[Samples]], dict[str, Score]]] = {
    "linear-paper": _augmented,
    "attentive": _attended,
    "adversarial": _attacked,
    "layers": _by_depth,
}
"""The probes of classes that look at the images in a way of their own, in the order they do."""
