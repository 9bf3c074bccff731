"""Which network a training gets where nobody names one: what weights at hand are of, or the largest
that sees enough images in the time that there is."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selftaught import choose
from selftaught.backbones.image.create import offered
from selftaught.backbones.weights.at_hand import at_hand
from selftaught.choose import Facts
from selftaught.chosen import Chosen
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.engine import precision
from selftaught.engine.build import image_of
from selftaught.engine.estimate import USED, of_step
from selftaught.engine.launchers import launched
from selftaught.engine.machine import fabric_for, spare_cores
from selftaught.engine.settings import Settings, seconds
from selftaught.engine.views import views_of
from selftaught.errors import UserError, out_of_memory
from selftaught.feed.views import ViewDataset
from selftaught.method import Method, Needs

log = logging.getLogger("selftaught")

SHARE, MOST, LEAST = 0.03, 10.0, 1.0
"""Of a time that was asked for, and in seconds: what measuring may take. Where that is less than
the last, nothing is measured."""
BY_THE_CLOCK = "by the clock, so that run.yaml repeats it and the command may not"
WORDS = {"backbone": "name"}
"""What the parameters of a backbone are called on the command line."""


@dataclass
class Wanted:
    """A training that is to get a network.

    Args:
        needs: of its method.
        settings: of it, with a batch.
        samples: that it learns from.
        facts: of it.
        image: parameters of the backbone that were given.
        build: makes the method around a backbone of such parameters.
    """

    needs: Needs
    settings: Settings
    samples: Samples
    facts: Facts
    image: dict[str, Any]
    build: Callable[[dict[str, Any]], Method]
    spent: float = field(default=0.0, init=False)
    longest: float = field(default=0.0, init=False)

    @property
    def seconds(self) -> float:
        """What the training may take, less what its end takes."""
        return USED * seconds(self.settings.time or "")

    def measurable(self) -> bool:
        """Whether another network can be measured: of one process, which sees images alone."""
        several = self.settings.devices > 1 or launched() is not None
        more = self.settings.second or self.needs.beside or self.needs.teacher or self.needs.learned
        if self.settings.time is None or several or more:
            return False
        most = min(MOST, SHARE * seconds(self.settings.time))
        return most >= LEAST and self.spent + self.longest <= most

    def seen(self, network: Sequence[Chosen]) -> float:
        """Images that a network is shown in the time."""
        begun = time.perf_counter()
        with _unheard():
            rate = images_per_second(self.build(self.with_(network)), self.samples, self.settings)
        took = time.perf_counter() - begun
        self.spent, self.longest = self.spent + took, max(self.longest, took)
        return rate * self.seconds

    def with_(self, network: Sequence[Chosen]) -> dict[str, Any]:
        """Parameters of the backbone with those of a network."""
        chosen = {WORDS.get(c.name, c.name): c.value for c in network if c.value is not None}
        return self.image | chosen

    def told(self, network: list[Chosen], images: float) -> list[Chosen]:
        """With what was measured as the reason."""
        passes = images / self.facts.images
        count = f"{passes:,.0f}" if passes >= 10 else f"{passes:.1f}"
        why = (
            f"{images / self.seconds:.3g} images/s here, {count} passes in {self.settings.time}; "
            f"{BY_THE_CLOCK}"
        )
        return [c._replace(why=why) if c.name == "backbone" else c for c in network]


def network(wanted: Wanted) -> list[Chosen]:
    """Parameters of the backbone that nobody gave, those of weights at hand included."""
    offer: list[Chosen] = []
    alike = wanted.settings.second is None and not _on_machines()  # whose caches may differ
    if alike and choose.may_begin(wanted.needs, wanted.facts, wanted.image):
        found = _begins(wanted)
        if found:
            return found
        offer = _offer(wanted)
    named = wanted.image.get("name") or wanted.facts.begins
    return offer + (_plain(wanted) if named or not wanted.measurable() else _grown(wanted))


def _on_machines() -> bool:
    """Whether there are processes on several machines."""
    there = launched()
    return there is not None and there.nodes > 1


def _plain(wanted: Wanted) -> list[Chosen]:
    return choose.network(wanted.needs, wanted.facts, wanted.image)


def _begins(wanted: Wanted) -> list[Chosen]:
    """The best weights at hand that this training can begin with; empty where there are none."""
    every = at_hand()
    few = choose.starts(every, wanted.needs, wanted.facts.gpu)
    for found in every:
        if found not in few:
            log.info(
                "%s, of %.3g million weights, is passed over: they take long here; --weights %s "
                "begins with it all the same",
                found.network,
                found.numbers / 1e6,
                found.word,
            )
    for found in few:
        choices = choose.start(found, wanted.needs, wanted.facts, wanted.image)
        try:
            if wanted.measurable():
                fast = [made for made, enough in _tried(wanted, choices, choose.START) if enough]
                if fast:
                    return fast[-1]
                log.info("%s would see too few images in %s", found.word, wanted.settings.time)
                continue
            with _unheard():
                wanted.build(wanted.with_(choices[-1]))
            return choices[-1] if wanted.settings.time is None else choices[0]
        except UserError as error:
            log.info("%s is passed over: %s", found.word, error)
    return []


def _grown(wanted: Wanted) -> list[Chosen]:
    """The largest network that sees enough images, else the smallest."""
    choices = choose.grown(wanted.needs, wanted.facts, wanted.image)
    least = max(choose.ENOUGH, choose.PASSES * wanted.facts.images)
    tried = _tried(wanted, choices, least)
    return [made for i, (made, enough) in enumerate(tried) if enough or i == 0][-1]


def _tried(
    wanted: Wanted, choices: Sequence[list[Chosen]], least: int
) -> list[tuple[list[Chosen], bool]]:
    """Networks, each slower than those before, until one does not see `least` images in the time,
    with what was measured, and whether each does."""
    tried: list[tuple[list[Chosen], bool]] = []
    for made in choices:
        if not wanted.measurable():
            break
        images = wanted.seen(made)
        tried.append((wanted.told(made, images), images >= least))
        if images < least:
            break
    return tried


def _offer(wanted: Wanted) -> list[Chosen]:
    """What timm's weights would be, which nobody has asked for."""
    own = wanted.needs.backbone
    timms = offered(own if wanted.facts.gpu else choose.STANDINS.get(own, own))
    if timms is None:
        return []
    name, size = timms
    why = (
        f"none that fit in the caches of timm and torch; --weights timm would download {name} "
        f"({size / 1e6:.0f} MB), better than a fresh draw on few images"
    )
    return [Chosen("weights", None, None, why)]


def images_per_second(method: Method, samples: Samples, settings: Settings) -> float:
    """How fast a training is, measured on a few images; 0 where memory runs out."""
    image = image_of(method)
    asked = precision.asked(settings.precision, None)
    fabric = fabric_for(settings.accelerator, 1, asked, image)
    if method.needs.labels and samples.labels is not None:
        samples = select(samples, np.flatnonzero(np.asarray(samples.labels) >= 0))
    views = ViewDataset(
        samples, views_of(method, image.size, settings), settings.seed, settings.reduced
    )
    assert settings.batch is not None
    try:
        need = of_step(
            method,
            views,
            fabric,
            batch=settings.batch,
            accumulate=settings.accumulate,
            makers=spare_cores(fabric) if settings.workers is None else settings.workers,
            optimizer="adamw",
        )
    except RuntimeError as error:
        if out_of_memory(error):
            return 0.0
        raise
    return settings.batch / need.seconds


@contextmanager
def _unheard() -> Iterator[None]:
    """What is said of a network that is only tried is said again of the one that is taken."""

    def quiet(_: logging.LogRecord) -> bool:
        return False

    log.addFilter(quiet)
    try:
        yield
    finally:
        log.removeFilter(quiet)
