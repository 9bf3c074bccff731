"""Which encoder is kept of a run that began with weights: its end, its start, or one between.

Training on may unlearn more than it teaches. The encoder that labeled training images say is better
is exported; the run's checkpoints stay those of its end.
"""

import copy
import json
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from selftaught.backbones import Encoder
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.engine.settings import Settings
from selftaught.errors import SelftaughtError, UserError
from selftaught.evaluate.features import Rest, home_of, one_pass, pooled, running
from selftaught.evaluate.finding import evenly
from selftaught.evaluate.scores import fit_ridge, split, vote
from selftaught.export.facts import KEPT, content
from selftaught.export.files import atomic
from selftaught.parts.norm import tracking
from selftaught.verdict import KEPT_START

log = logging.getLogger("selftaught")

State = dict[str, Tensor]

END = "end"
STATISTICS = "end with the start's statistics"
BLENDS = {f"{100 * share:.0f} % of the way from start to end": share for share in (0.75, 0.5, 0.25)}
"""Weights between start and end (Wortsman et al., 2022, arXiv 2109.01903), start's statistics."""

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""How the names of batch norms' statistics end."""

LEAST = 30
"""Labeled images below which nothing is chosen by them."""
MOST = 2000
"""Labeled images that are looked at."""
FOLDS = 5
"""Parts of them: each is classified by what the others say."""
SEEN = 256
"""Images without labels that activations are measured on."""
LOOSER = 1.25
"""How much worse the start's statistics may fit the end than they fit the start."""


# what there is to choose from --------------------------------------------------------------------


def with_statistics(weights: State, statistics: State) -> State:
    """The one state with the batch norms' statistics of the other."""
    return {n: statistics[n] if n.endswith(BUFFERS) else x for n, x in weights.items()}


def blend(start: State, end: State, share: float) -> State:
    """Weights `share` of the way from `start` to `end`, in 0..1, with the statistics of `start`."""
    return {
        n: start[n].lerp(x, share) if x.is_floating_point() else x
        for n, x in with_statistics(end, start).items()
    }


def alike(one: State, other: State) -> bool:
    """Whether both are of one network."""
    return {n: x.shape for n, x in one.items()} == {n: x.shape for n, x in other.items()}


def candidates(start: State, end: State) -> dict[str, State]:
    """Name -> state of what may be kept, the end first and the start last; each is there once.

    States of other names or shapes cannot be mixed.
    """
    if not alike(start, end):
        return {END: end, KEPT_START: start}
    found = {END: end, STATISTICS: with_statistics(end, start)}
    found |= {name: blend(start, end, share) for name, share in BLENDS.items()}
    found[KEPT_START] = start
    return {
        name: state
        for name, state in found.items()
        if name == END or not all(torch.equal(x, end[n]) for n, x in state.items())
    }


# the choice --------------------------------------------------------------------------------------


def best(right: Mapping[str, np.ndarray]) -> str:
    """The candidate to keep: the better of end and start, unless one between them is better still.

    What lies between must be above it by more than noise: one standard error of the difference on
    the same images, with half an image taken off the difference (as for McNemar's test, 1947). To
    export one is a decision, no claim: whoever asks for 95 % intervals keeps what is worse than its
    start more often, and whoever takes the highest of all trusts noise.

    Args:
        right: name -> [n] how right a candidate is on each image, in 0..1; the end is one.
    """
    ends = [name for name in (END, KEPT_START) if name in right]
    safe = max(ends, key=lambda name: right[name].sum())  # the end where both are as good
    above = {safe: 0.0}
    for name in [name for name in right if name not in ends]:
        difference = right[name] - right[safe]
        gain = float(difference.sum()) - 0.5
        if gain > len(difference) ** 0.5 * float(difference.std()):
            above[name] = gain
    return max(above, key=lambda name: above[name])


def rightness(x: Tensor, y: Tensor, folds: np.ndarray) -> np.ndarray:
    """How right k-NN and probe are on each image by what images of other folds say.

    Args:
        x: [N, D] features. y: [N] classes 0..C-1. folds: [N].

    Returns:
        [2, N] bool.
    """
    found = np.zeros((2, len(x)), bool)
    for fold in np.unique(folds):
        held, fit = torch.from_numpy(folds == fold), torch.from_numpy(folds != fold)
        near = vote(x[fit], y[fit], x[held], min(20, int(fit.sum())), 0.07)
        straight = fit_ridge(x[fit], y[fit])[0](x[held])
        found[:, held.numpy()] = torch.stack([near == y[held], straight == y[held]]).numpy()
    return found


def folds_of(y: np.ndarray, seed: int = 0) -> np.ndarray:
    """[N] fold of each image, each class spread over all of them."""
    rng = np.random.default_rng(seed)
    found = np.empty(len(y), int)
    for c in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == c))
        found[members] = (np.arange(len(members)) + rng.integers(FOLDS)) % FOLDS
    return found


@dataclass(frozen=True)
class Judges:
    """Labeled training images that tell which encoder is better.

    rows: their positions in the data. scored: number of the others that the final scores are of.
    """

    rows: np.ndarray
    scored: int

    @staticmethod
    def of(samples: Samples, bad: Collection[int], held: Samples | None) -> "Judges":
        """All labeled images that can be read, but for those that the scores will be of.

        Args:
            samples: of the training. bad: positions of those that cannot be read.
            held: test images of their own; without them the scores take a fifth of each class.
        """
        labels = np.full(len(samples), -1) if samples.labels is None else np.array(samples.labels)
        labels[list(bad)] = -1
        known = np.flatnonzero(labels >= 0)
        if held is not None:
            return Judges(known, 0 if held.labels is None else int((held.labels >= 0).sum()))
        fit, tested = split(labels[known])  # as `Task` does
        return Judges(known[fit], len(tested))


# without labels ----------------------------------------------------------------------------------


def misfit(network: Encoder, x: Tensor) -> float:
    """How far the statistics of batch norms are from those of what comes to them, for images x.

    The divergence of normal distributions (Kullback and Leibler, 1951), the median of a layer's
    channels, the mean of all layers; 0 where all are the same.
    """
    found: list[Tensor] = []

    def look(norm: Any, given: tuple[Tensor, ...]) -> None:
        seen = given[0].transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(seen, 1, correction=0)
        ratio = (variance + norm.eps) / (norm.running_var + norm.eps)
        shift = (mean - norm.running_mean).square() / (norm.running_var + norm.eps)
        found.append(((ratio - 1 - ratio.log() + shift) / 2).median())

    hooks = [norm.register_forward_pre_hook(look) for norm in tracking(network.modules())]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.stack(found).mean()) if found else 0.0


# in a run ----------------------------------------------------------------------------------------


def check(settings: Settings, image: Encoder, continued: bool, supervised: bool) -> None:
    """Refuse a choice that cannot be carried out, before the training."""
    if settings.keep != "start-statistics":
        return
    if not continued:
        raise UserError(
            "--keep start-statistics is for runs that begin with weights (--start, --weights or "
            "--pretrained), and this one has no start: drop it"
        )
    if supervised or not tracking(image.modules()):
        why = "has no batch norms" if not supervised else "is to fit what is learned of labels"
        raise UserError(f"--keep start-statistics: {image.name} {why}; use --keep end")


def keep(
    end: Encoder,
    start: Encoder,
    samples: Samples,
    *,
    settings: Settings,
    supervised: bool,
    held: Samples | None,
    bad: Collection[int],
    folder: Path,
) -> Encoder:
    """The encoder to export: `end`, or another one with the weights that are better.

    Args:
        end: after the last step; it is left as it is.
        start: before the first.
        samples, held, bad: as of `Judges.of`.
        settings: of the training; `keep` and `evaluate` are asked for.
        supervised: whether training learned from the labels.
        folder: of the run, which gets `kept.json`: the choice, why, and its figures.
    """
    states = [
        {n: x.detach().cpu().clone() for n, x in e.state_dict().items()} for e in (start, end)
    ]
    found = candidates(*states)
    choice = _Choice(end, start, found, samples, held, bad)
    log.info("looking at what to keep of the start, the end and what lies between")
    about = choice.made(settings, supervised)
    with atomic(folder / KEPT) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    name = about["kept"]
    if name == END:
        return end
    if not alike(*states):
        return cast(Any, copy.deepcopy(start)).requires_grad_(True)
    image = cast(Any, copy.deepcopy(end))
    image.load_state_dict(found[name])
    return image


def apart(folder: Path, skipped: int) -> None:
    """Warn where images that chose may be among those of the scores.

    Which images the scores hold out depends on which can be read. What the training met is known
    before the choice is made; images that it never drew are not.

    Args:
        folder: of the run.
        skipped: images that could not be read for the scores.
    """
    known = content(folder / KEPT).get("unreadable")
    if isinstance(known, int) and skipped > known:
        log.warning(
            "%d images that training never drew cannot be read: some of the images that chose the "
            "encoder may be among those of the scores; leave them out (selftaught check, "
            "--quarantine)",
            skipped - known,
        )


@dataclass(frozen=True)
class _Choice:
    """What is chosen from, and by which images."""

    end: Encoder
    start: Encoder
    found: dict[str, State]
    samples: Samples
    held: Samples | None
    bad: Collection[int]

    def made(self, settings: Settings, supervised: bool) -> dict[str, Any]:
        """The content of kept.json."""
        asked = f"as was asked for (--keep {settings.keep})"
        if settings.keep == "start-statistics" and STATISTICS in self.found:
            return _told(STATISTICS, asked)
        if settings.keep == "start-statistics":
            return _told(END, "it has the start's statistics of batch norms")
        if settings.keep == "end":
            return _told(END, asked)
        if supervised:
            return _told(END, "what training learned of the labels goes with it")
        if len(self.found) == 1:
            return _told(END, "it is no other than the start")
        judges = Judges.of(self.samples, self.bad, self.held)
        if not settings.evaluate:
            why = "evaluation was switched off"
        elif self.samples.labels is None:
            why = "without labels nobody can tell"
        elif len(judges.rows) < LEAST:
            why = (
                f"{len(judges.rows)} labeled images besides those of the scores are too few to "
                f"tell, {LEAST} are needed"
            )
        else:
            try:
                return self.by_labels(judges)
            except SelftaughtError as error:
                why = f"it could not be found out ({error})"
        return self.by_statistics(f"Whether it is the best is not known: {why}.")

    def by_labels(self, judges: Judges) -> dict[str, Any]:
        """The best of all, as far as its images can tell."""
        rng = np.random.default_rng(0)
        rows = np.sort(rng.permutation(judges.rows)[:MOST])
        features, rest = self.through(select(self.samples, rows))
        _, y = np.unique(np.asarray(rest.labels), return_inverse=True)
        if y.max() == 0:
            raise UserError("the labeled images are all of one class")
        folds = folds_of(y)
        each = {
            name: rightness(torch.from_numpy(x), torch.from_numpy(y), folds)
            for name, x in zip(self.found, features, strict=True)
        }
        right = {name: found.mean(0) for name, found in each.items()}
        name = best(right)
        figures = [_figures(n, found, right[n] - right[END]) for n, found in each.items()]
        mean = {f["name"]: f["mean"] for f in figures}
        others = ", ".join(f"{n} {mean[n]:.1f} %" for n in (END, KEPT_START) if n != name)
        return _told(
            name,
            f"{mean[name]:.1f} % by k-NN and probe on {len(y):,} labeled images of the training "
            f"data ({others}); the scores are of {judges.scored:,} others",
            by="labels",
            images={"choice": len(y), "scores": judges.scored},
            unreadable=None if self.held is not None else self.unreadable,
            candidates=figures,
        )

    def by_statistics(self, why: str) -> dict[str, Any]:
        """The end, with those statistics of batch norms that fit it."""
        if STATISTICS not in self.found:
            return _told(END, "as it is", why)
        some = select(self.samples, evenly(len(self.samples), SEEN).numpy())
        asked = {n: self.found[n] for n in (END, STATISTICS, KEPT_START)}
        try:
            features, _ = self.through(some, asked, _misfits)
        except SelftaughtError as error:
            return _told(END, "as it is", f"{why} Its statistics were not compared: {error}.")
        own, put_back, began = (float(x[0, 0]) for x in features)
        fits = put_back <= LOOSER * began
        because = (
            "the start's statistics of batch norms fit its activations as they fitted the start's, "
            "and those that training made, of changed images, cost more than they gave wherever "
            "it was measured"
            if fits
            else "the start's statistics of batch norms fit its activations no more"
        )
        return _told(
            STATISTICS if fits else END,
            f"{because} (misfit {put_back:.2f}; of the start {began:.2f})",
            why,
            by="statistics",
            misfits={"end": own, STATISTICS: put_back, KEPT_START: began},
        )

    def through(
        self,
        samples: Samples,
        states: dict[str, State] | None = None,
        of: Callable[[Encoder, Tensor], Tensor] = pooled,
    ) -> tuple[list[np.ndarray], Rest]:
        """What each candidate gives for plain views; one network has all weights in turn."""
        states = self.found if states is None else states
        place, scratch = home_of(cast(Any, self.end)), cast(Any, copy.deepcopy(self.end))
        with ExitStack() as stack:
            mine = stack.enter_context(running(scratch, place, "fp32", of))
            began = stack.enter_context(running(self.start, place, "fp32", of))

            def network(name: str) -> Callable[[Tensor], Tensor]:
                def forward(x: Tensor) -> Tensor:
                    scratch.load_state_dict(states[name])
                    return mine(x)

                return began if name == KEPT_START else forward

            return one_pass([network(n) for n in states], samples, self.end.size, SEEN)

    @property
    def unreadable(self) -> int:
        """Labeled images that the training could not read."""
        return int((np.asarray(self.samples.labels)[list(self.bad)] >= 0).sum())


def _misfits(network: Encoder, x: Tensor) -> Tensor:
    """[B, 1], the same for all."""
    return torch.full((len(x), 1), misfit(network, x))


def _figures(name: str, right: np.ndarray, above: np.ndarray) -> dict[str, Any]:
    """A candidate's row: right [2, N] by k-NN and probe, above [N] how much more than the end."""
    near, straight = 100 * right.mean(1)
    values = {
        "k-NN": near,
        "probe": straight,
        "mean": 100 * right.mean(),
        "above_end": 100 * above.mean(),
        "noise": 100 * above.std() / np.sqrt(len(above)),
    }
    return {"name": name} | {n: round(float(v), 2) for n, v in values.items()}


def _told(name: str, why: str, before: str = "", **more: Any) -> dict[str, Any]:
    return {"kept": name, "why": f"{before} Kept: {name}; {why}.".lstrip()} | more
