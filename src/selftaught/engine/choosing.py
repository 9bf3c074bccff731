"""A training's settings where nobody gave them: by the rules of `choose`, as the run has them that
goes on, or the paper's."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from selftaught import choose, kinds
from selftaught.choose import PAPER_BATCH, PAPER_EPOCHS, Facts
from selftaught.chosen import Chosen, of
from selftaught.data import Samples
from selftaught.engine import continued
from selftaught.engine.build import assemble, usual_of
from selftaught.engine.networks import WORDS, Wanted, network
from selftaught.engine.settings import Settings
from selftaught.export.facts import SETTINGS, content
from selftaught.method import Method, Recipe

OF_RECIPE = ("optimizer", "lr", "weight_decay", "warmup")
WHOLE = 10
"""Passes from which on a training that is fitted to a time has whole ones."""


@dataclass
class Choice:
    """What a training is built with.

    Args:
        settings: of it, with a batch, and a number of epochs unless a time is to give it.
        image: parameters of the backbone.
        chosen: what nobody gave.
        facts: of the training; None where nothing is to be chosen any more.
        options: parameters of the method that were chosen when the run began.
    """

    settings: Settings
    image: dict[str, Any]
    chosen: list[Chosen] = field(default_factory=list)
    facts: Facts | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def fit(self, kind: type[Method], backbone: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Parameters of the method: those that were given, and those that fit data and backbone."""
        if self.facts is None:
            self.chosen = [c for c in self.chosen if c.name not in given]
            return self.options | given
        assert self.settings.batch is not None
        found = choose.options(kind, self.facts, self.settings.batch, backbone, given)
        self.chosen += found
        return given | {c.name: c.value for c in found}


def choice(
    kind: type[Method],
    settings: Settings,
    out: Path,
    samples: Samples,
    side: int,
    image: dict[str, Any],
    options: dict[str, Any],
) -> Choice:
    """Decide what a method, which is to be built, is built with and how long it trains.

    Args:
        kind: of the method.
        settings: as they were given.
        out: run folder; a run that goes on keeps what it has.
        samples: that it learns from.
        side: usual side that most of them have.
        image: parameters of the backbone, as they were given.
        options: of the method, as they were given.
    """
    before = recorded(settings, out)
    if before:
        return _going_on(settings, image, before)
    begins = settings.start is not None or bool(image.get("weights") or image.get("pretrained"))
    facts = facts_of(settings, samples, side, begins, kind.needs.labels)
    if settings.recipe == "paper":
        return Choice(_with(settings, length(kind, settings, facts)), image)

    def build(image: dict[str, Any]) -> Method:
        tried = Choice(batched, image, [], facts)
        return assemble(kind, image, options, samples, settings.seed, begins, tried.fit)

    batched = _with(settings, length(kind, settings, facts))
    wanted = Wanted(kind.needs, batched, samples, facts, image, build)
    # only of images there are weights in caches
    seen = kinds.of(samples)
    networks = []
    if image.get("name") is None:
        paper = usual_of(kind, seen)
        networks = network(wanted) if seen.native else standin(seen, paper, facts)
    image = wanted.with_(networks)
    facts = replace(facts, begins=begins or image.get("weights") is not None)
    lengths = length(kind, settings, facts)
    return Choice(_with(settings, lengths), image, [*networks, *lengths], facts)


def standin(seen: kinds.Kind, paper: str, facts: Facts) -> list[Chosen]:
    """What is taken for a paper's network, which this data or machine is too small for."""
    name = seen.standins.get(facts.gpu, {}).get(paper)
    why = (
        "the paper's learned from billions of words" if facts.gpu else "a CPU trains it in minutes"
    )
    return [Chosen("backbone", name, paper, why)] if name else []


def _going_on(settings: Settings, image: dict[str, Any], before: dict[str, Any]) -> Choice:
    """What was chosen when the run began, but for what is given now."""
    images = {n: v for n, v in _images(before).items() if n not in image}
    options = _options(before)
    lengths = _lengths(settings)
    names = images.keys() | options.keys() | lengths
    chosen = [c for c in of(before) if WORDS.get(c.name, c.name) in names]
    return Choice(_again(settings, before), images | image, chosen, None, options)


def facts_of(settings: Settings, samples: Samples, side: int, begins: bool, labels: bool) -> Facts:
    """What the rules of a training look at; where it needs labels, only images with them count."""
    count = len(samples)
    if labels and samples.labels is not None:
        count = int((samples.labels >= 0).sum())
    gpu = settings.accelerator in ("cuda", "mps") or (
        settings.accelerator == "auto" and torch.cuda.is_available()
    )
    return Facts(count, side, gpu, begins)


def length(kind: type[Method], settings: Settings, facts: Facts) -> list[Chosen]:
    """Batch and epochs, where they were not given."""
    found = []
    if settings.batch is None:
        parts = settings.accumulate * settings.devices
        chosen = choose.batch(kind, facts, parts)
        if settings.effective_batch is not None:  # is made of whole ones
            part = math.gcd(chosen.value, settings.effective_batch)
            chosen = chosen._replace(value=part, why=f"parts of {settings.effective_batch}")
        found.append(chosen)
    if settings.epochs is None and settings.time is None and settings.max_steps is None:
        found.append(choose.epochs(facts))
    if settings.recipe == "paper":
        return [c._replace(value=c.paper) for c in found]
    return found


def passes(room: float, per_epoch: int, why: str) -> list[Chosen]:
    """Length of a training that has room for so many passes: of few of them, to the step.

    Args:
        room: passes over the data.
        per_epoch: steps of one.
        why: in a few words.
    """
    if room >= WHOLE:
        return [Chosen("epochs", int(room), PAPER_EPOCHS, why)]
    steps = max(1, int(room * per_epoch))
    epochs = Chosen("epochs", -(-steps // per_epoch), PAPER_EPOCHS, why)
    return [epochs, Chosen("max_steps", steps, None, f"{steps / per_epoch:.2g} passes")]


def settled(
    method: Method, settings: Settings, out: Path, samples: Samples, begins: bool
) -> tuple[Settings, list[Chosen]]:
    """Settings with a batch and a number of epochs, of a method that was built already."""
    before = recorded(settings, out)
    if before:
        lengths = _lengths(settings)
        return _again(settings, before), [c for c in of(before) if c.name in lengths]
    facts = facts_of(settings, samples, 0, begins, method.needs.labels)
    found = length(type(method), settings, facts)
    if begins and settings.lora is None:
        found += continued.low_rank(method, settings, facts.gpu)
        settings = replace(settings, lora=0)  # what its run.yaml repeats, wherever that is
    return _with(settings, found), [] if settings.recipe == "paper" else found


def recipe(method: Method, settings: Settings, batch: int, out: Path) -> Recipe:
    """How a training from a fresh draw is optimized, before the user's changes."""
    before = recorded(settings, out)
    # of a run from before there were rules, the paper's
    kept = before and not before.get("chosen", {}).keys() & set(OF_RECIPE)
    if settings.recipe == "paper" or settings.optimizer is not None or kept:
        return method.recipe
    return choose.recipe(method, batch)


def recorded(settings: Settings, out: Path) -> dict[str, Any]:
    """The settings of the run that goes on, from its first step too; empty where none does."""
    return content(out / SETTINGS) if settings.resume else {}


def _images(before: dict[str, Any]) -> dict[str, Any]:
    """Parameters of the backbone that were chosen when a run began."""
    names = [WORDS.get(n, n) for n in before.get("chosen", {})]
    return {n: before["backbone"][n] for n in names if n in before.get("backbone", {})}


def _options(before: dict[str, Any]) -> dict[str, Any]:
    """Parameters of the method that were chosen when a run began."""
    options = before.get("options", {})
    found = {n: options[n] for n in before.get("chosen", {}) if n in options}
    return {n: tuple(v) if isinstance(v, list) else v for n, v in found.items()}


def _lengths(settings: Settings) -> set[str]:
    """Which of the settings that are chosen nobody gives."""
    names = {n for n in ("batch", "lora") if getattr(settings, n) is None}
    given = settings.epochs is not None or settings.max_steps is not None
    return names if given else names | {"epochs", "max_steps"}


def _again(settings: Settings, before: dict[str, Any]) -> Settings:
    training = before.get("training", {})
    usual: dict[str, int | None] = {"batch": PAPER_BATCH, "epochs": PAPER_EPOCHS, "lora": None}
    if settings.max_steps is not None:  # it says how long
        del usual["epochs"]
    elif settings.epochs is None:
        usual["max_steps"] = None
    kept = {n: training.get(n, v) for n, v in usual.items() if getattr(settings, n) is None}
    return replace(settings, time=None, **kept)  # it has become epochs


def _with(settings: Settings, found: list[Chosen]) -> Settings:
    return replace(settings, **{c.name: c.value for c in found})
