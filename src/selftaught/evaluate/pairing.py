"""Pairs of two modalities that are to find each other: recall@k both ways, beside honest floors."""

import copy
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import kinds
from selftaught.data import Samples
from selftaught.data.paired import Paired
from selftaught.data.selection import Selected
from selftaught.errors import UserError
from selftaught.evaluate import canonical
from selftaught.evaluate.calibrated import references
from selftaught.evaluate.features import Encoder, Progress, home_of, one_pass, pooled, running
from selftaught.evaluate.finding import RECALLS, evenly
from selftaught.evaluate.floors import ENCODER, UNTRAINED, Comparison
from selftaught.evaluate.scores import Score, mean_score
from selftaught.evaluate.settings import Reading

CHANCE, LINEAR, FRESH = "chance", "plain CCA", "untrained CCA"
"""Floors: any order; canonical correlations of what is known without networks, and of the same
networks with fresh weights, both fitted on the training pairs."""
MOST = 5000
"""First samples of the test pairs that are searched for, at most, and those that CCA is fitted on:
spread evenly."""
WIDTH = 256
"""Dimensions of words that count (latent semantic analysis), at most."""
ABOUT = (
    "Chance: what a random order would find. Plain CCA: regularized canonical correlations of what "
    "each side shows without a network (floors of its kind with means and deviations of channels; "
    "of texts, words by their rareness), fitted on the training pairs; untrained CCA: of the same "
    "networks with fresh weights. "
)


class Tower(NamedTuple):
    """An encoder of one modality, and what maps its features to where pairs are compared."""

    encoder: Encoder
    head: nn.Module


@dataclass(frozen=True)
class Side:
    """One modality's samples, as far as they could be read.

    place: where each that was given is among these, -1 where it could not be read. joint: [N, D]
    where pairs are compared. fresh: of the untrained encoder. plain: without any; of texts,
    themselves. keys: [N] alike for samples that are the same. skipped: how many were not read.
    """

    place: np.ndarray
    joint: Tensor
    fresh: np.ndarray
    plain: Any
    keys: np.ndarray
    skipped: int


def compare_pairs(
    towers: tuple[Tower, Tower],
    train: Paired,
    test: Paired | None,
    asked: Reading = Reading(),  # noqa: B008
    *,
    name: str = "",
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Recall@1, 5 and 10 of test pairs in both directions, and of the floors.

    A sample searches all different ones of the other modality, by cosine, and has found its partner
    where any of those that belong to it, or to one that is the same, is among the first k: several
    captions of a photo, and photos with the same caption, are all right.

    Args:
        towers: of both modalities.
        train: pairs that the floors are fitted on.
        test: pairs that are searched; a fifth of `train` without.
        asked: how samples are read.
        name: of the encoders, in the table.
        seed: of the fifth, and of fresh weights.
        progress: as of `embed`.

    Raises:
        UserError: there are too few pairs.
        DataError: no sample of a side can be read.
    """
    begun = time.perf_counter()
    how = f"{len(train):,} training"
    if test is None:
        train, test = _split(train, seed)
        how = f"{len(train):,} to fit floors on, a fifth held out, seed {seed}"
    train, test = (p.at(evenly(len(p), MOST).numpy()) for p in (train, test))
    fresh = tuple(_untrained(t.encoder, s, asked, seed) for t, s in zip(towers, _sides(train)))
    fitted, tested = (
        [
            _look(tower, new, samples, asked, progress)
            for tower, new, samples in zip(towers, fresh, _sides(pairs))
        ]
        for pairs in (train, test)
    )
    rows, searched = (_kept(p, s) for p, s in ((train, fitted), (test, tested)))
    if len(rows) < 10 or len(searched) < 2:
        raise UserError(
            f"{len(rows)} pairs to fit floors on and {len(searched)} to search are too few: 10 and "
            "2 at least are needed"
        )
    joint = [side.joint for side in tested]
    spaces = {ENCODER: joint}
    plain = zip(*(_plain(a.plain, b.plain) for a, b in zip(fitted, tested)))
    for floor, (before, after) in (
        (LINEAR, tuple(plain)),
        (FRESH, ([s.fresh for s in fitted], [s.fresh for s in tested])),
    ):
        made = canonical.fit(
            before[0][rows[:, 0]], before[1][rows[:, 1]], fitted[0].keys[rows[:, 0]], seed
        )
        spaces[floor] = [made.first(after[0]), made.second(after[1])]
    scores = _scores(spaces, tested, searched, towers, how)
    first, second = (t.encoder for t in towers)
    return Comparison(
        encoder=f"{first.name} and {second.name}{name}",
        scores=scores,
        skipped=sum(side.skipped for side in (*fitted, *tested)),
        seconds=time.perf_counter() - begun,
        images={"train": train.fingerprint, "test": test.fingerprint},
        size=first.size,
        about=ABOUT,
    )


def _scores(
    spaces: dict[str, list[Tensor]],
    sides: list[Side],
    rows: np.ndarray,
    towers: tuple[Tower, Tower],
    how: str,
) -> dict[str, tuple[Score, ...]]:
    """Recalls of each space, and of chance.

    Args:
        spaces: name -> both sides where they are compared.
        sides: of the test pairs.
        rows: [P, 2] pairs of them.
        towers: whose kinds name the directions.
        how: the rest was made, in words.
    """
    unique = [np.unique(side.keys[rows[:, s]], return_index=True) for s, side in enumerate(sides)]
    relevant = torch.zeros(len(unique[0][0]), len(unique[1][0]), dtype=torch.bool)
    codes = [
        np.searchsorted(names, side.keys[rows[:, s]])
        for s, (side, (names, _)) in enumerate(zip(sides, unique))
    ]
    relevant[codes[0], codes[1]] = True
    shown = [rows[first, s] for s, (_, first) in enumerate(unique)]  # one of those that are alike
    one, other = (kinds.of(t.encoder).one for t in towers)
    if one == other:
        one, other = f"first {one}", f"second {other}"
    scores: dict[str, list[Score]] = {name: [] for name in (*spaces, CHANCE)}
    for turned, name in ((False, f"{one} to {other}"), (True, f"{other} to {one}")):
        right = relevant.mT if turned else relevant
        count, among = right.shape
        protocol = f"{how}; {count:,} search {among:,} by cosine, any that belongs to it counts"
        for space, both in spaces.items():
            begun = time.perf_counter()
            a, b = (v[torch.from_numpy(s)] for v, s in zip(both, shown))
            found = canonical.ranks(*((b, a) if turned else (a, b)), right)
            scores[space] += [
                mean_score(
                    f"{name} recall@{k}", found < k, protocol, begun, "found", correct=found < k
                )
                for k in RECALLS
                if k < among
            ]
        each = right.sum(1).numpy()
        scores[CHANCE] += [
            mean_score(
                f"{name} recall@{k}", chance(each, among, k), protocol, time.perf_counter(), "found"
            )
            for k in RECALLS
            if k < among
        ]
    return {name: tuple(found) for name, found in scores.items()}


def chance(right: np.ndarray, among: int, k: int) -> np.ndarray:
    """[Q] probability that one of the first k of `among`, in random order, is one of the `right`.

    1 - C(among - right, k) / C(among, k), of a hypergeometric draw.
    """
    left = among - right.astype(np.float64)
    steps = [np.clip((left - i) / (among - i), 0, 1) for i in range(k)]
    return 1 - np.prod(steps, axis=0)


def _sides(pairs: Paired) -> tuple[Samples, Samples]:
    return pairs.first, pairs.second


def _split(pairs: Paired, seed: int) -> tuple[Paired, Paired]:
    """Pairs to fit on and a fifth of them, by their first samples."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    held = max(1, len(order) // 5)
    return pairs.at(np.sort(order[held:])), pairs.at(np.sort(order[:held]))


def _untrained(encoder: Encoder, samples: Samples, asked: Reading, seed: int) -> Encoder:
    """The same network with fresh weights, its norms as training would have them."""
    found = references(
        encoder,
        None,
        samples,
        size=encoder.size,
        device=home_of(encoder),
        workers=asked.workers,
        seed=seed,
    )
    return found[UNTRAINED]


def _look(
    tower: Tower, fresh: Encoder, samples: Samples, asked: Reading, progress: Progress | None
) -> Side:
    """One pass over the samples of a side."""
    kind, device = kinds.of(tower.encoder), home_of(tower.encoder)
    head = copy.deepcopy(tower.head).to(device).eval()
    samples, copies = _distinct(samples)
    floors = [] if kind.typed else [*kind.floors().values()]

    def joined(network: Encoder, x: Tensor) -> Tensor:
        return head(network(x))

    with ExitStack() as stack:
        networks = [
            stack.enter_context(running(net, device, asked.precision, of))
            for net, of in ((tower.encoder, joined), (fresh, pooled))
        ]
        if kind.native:
            floors.append(_channels)
        found, rest = one_pass(
            [*networks, *floors], samples, tower.encoder.size, asked.batch, asked.workers, progress
        )
    joint, untrained, *plain = found
    place = np.full(len(samples), -1)
    place[rest.index] = np.arange(len(rest.index))
    place = place[copies]
    words = [kind.said(samples.read(int(i))) for i in rest.index] if kind.typed else []
    known: dict[Any, int] = {}
    same = words or [row.tobytes() for row in plain[-2 if kind.native else -1]]
    keys = np.array([known.setdefault(each, len(known)) for each in same])
    return Side(
        place,
        torch.from_numpy(joint),
        untrained,
        words or np.concatenate(plain, 1),
        keys,
        len(rest.skipped),
    )


def _distinct(samples: Samples) -> tuple[Samples, np.ndarray]:
    """Samples each once, and which of them each of those that were given is: one may be the partner
    of many."""
    source = samples.source
    if not isinstance(source, Selected):
        return samples, np.arange(len(samples))
    positions, copies = np.unique(source.positions, return_inverse=True)
    return samples.over(Selected(source.source, positions)), copies


def _channels(x: Tensor) -> Tensor:
    """uint8 [B, C, H, W] -> [B, 2 C] mean and deviation of each channel."""
    x = x.float().flatten(2) / 255
    return torch.cat([x.mean(2), x.std(2)], 1)


def _kept(pairs: Paired, sides: Sequence[Side]) -> np.ndarray:
    """[P, 2] pairs of which both sides could be read, by where they are in these."""
    rows = pairs.rows
    found = np.stack([side.place[rows[:, s]] for s, side in enumerate(sides)], 1)
    return found[(found >= 0).all(1)]


def _plain(train: Any, test: Any) -> tuple[np.ndarray, np.ndarray]:
    """Features without a network, of training and of test samples; words by what goes together."""
    if not isinstance(train, list):
        return train, test
    from sklearn.decomposition import TruncatedSVD

    from selftaught.kinds.floors.text import bags

    found = bags(train, test)
    width = min(WIDTH, *(n - 1 for n in found.train.shape))
    if width < 1:
        return found.train.toarray(), found.test.toarray()
    reduce = TruncatedSVD(width, random_state=0)
    return reduce.fit_transform(found.train), reduce.transform(found.test)
