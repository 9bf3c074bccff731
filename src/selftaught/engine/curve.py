"""Looks at the encoder while it trains, on images that are held out, as if nobody had looked."""

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from selftaught import export, kinds
from selftaught.backbones import Encoder
from selftaught.data import Samples
from selftaught.diagnose.beside import Beside
from selftaught.engine.plan import Plan
from selftaught.engine.randomness import Generators
from selftaught.errors import SelftaughtError
from selftaught.evaluate.calibrated import calibrate
from selftaught.evaluate.curve import BEST, FILE, KNN, RANK, Curve, Look, read, sure
from selftaught.evaluate.features import untrained
from selftaught.evaluate.floors import UNTRAINED
from selftaught.evaluate.held import MOST, Held, held_out
from selftaught.export.facts import CONFIG, content
from selftaught.parts.norm import keeping
from selftaught.verdict import START

log = logging.getLogger("selftaught")

GRIDS = (20, 10, 5, 4, 2, 1)
"""Numbers of looks after the first: as many as the time allows, the same steps among them."""

SHARE = 0.03
"""Of the time of a training that looks take, but for the first and the last."""

BETWEEN = 10
"""Steps between two looks at least."""

LEAST = 400
"""Images that are looked at in short trainings: fewer tell nothing."""

SEEN = 25
"""Images that a training sees, in all epochs, for each that is looked at."""

WIDE = 80
"""Columns that a look has on a terminal."""

Told = Callable[[dict[str, float]], None]


def grid(steps: int, looks: int) -> tuple[int, ...]:
    """0 and `looks` evenly spaced steps, the last one `steps`."""
    return tuple(sorted({0, *(round(steps * i / looks) for i in range(1, looks + 1))}))


def affordable(steps: int, each: float, left: float) -> int:
    """Looks after the first that a training has steps and time for; the last is always there.

    Args:
        steps: of the training.
        each: seconds that a look takes.
        left: seconds that they may take together.
    """
    most = min(steps // BETWEEN, left / max(each, 1e-9))
    return next((n for n in GRIDS if n <= most), 1)


class Observer:
    """Looks at an encoder at given steps of its training, and writes down what it sees.

    Nothing that training depends on is changed: generators, modes of modules, statistics of batch
    norms are afterwards what they were.

    Args:
        image: that is looked at.
        held: images to look with.
        fabric: gives device and precision.
        folder: of the run.
        curve: of an earlier part of the run; otherwise it begins with a look at once.
        tell: is handed each look as a row of numbers.
        compare: is handed the encoder beside what it began with.
    """

    def __init__(
        self,
        image: Encoder,
        held: Held,
        fabric: Fabric,
        folder: Path,
        curve: Curve,
        tell: Told,
        compare: Callable[[Beside], None],
    ):
        self.image, self.held, self.fabric, self.folder = image, held, fabric, folder
        self.curve, self.tell, self.compare = curve, tell, compare
        self.blind = False
        for look in curve.looks:  # the doctor hears of a run as a whole
            self._beside(look)

    def __call__(self, step: int) -> None:
        """Look, where it is due after `step` steps."""
        if step in self.curve.at and not self.blind:
            try:
                self.look(step)
            except (SelftaughtError, RuntimeError, OSError, MemoryError) as error:
                # a watcher must not end what it watches
                log.warning("the encoder cannot be looked at (%s): its curve ends here", error)
                self.blind = True

    def look(self, step: int) -> None:
        """Look, and keep, write and tell what is seen."""
        curve = self.curve
        before = curve.best
        with unnoticed(self.image, self.fabric.device):
            see = shown(self.image, self.fabric)
            if not (step or curve.began):
                calibrate(self.image, see, self.held.some)  # which is put back, and no learning
            look = self.held.look(see, step)
            curve.looks.append(look)
            if curve.best is not None and curve.best is not before:
                facts = {"step": step, "steps": curve.steps, KNN: look.figures[KNN]}
                export.save(self.image, self.folder / BEST, quick=True, facts=facts)
        curve.save(self.folder / FILE)
        log.info(line(curve))
        self._beside(look)
        finite = {f"curve/{n}": v for n, v in look.figures.items() if math.isfinite(v)}
        self.tell({"step": step, "progress": step / curve.steps, **finite})

    def floors(self) -> None:
        """Look at what the encoder is to be better than; its own first look is there already."""
        curve = self.curve
        first = curve.looks[0].figures
        if curve.began:
            curve.floors[START] = first
            with unnoticed(self.image, self.fabric.device):
                fresh = untrained(self.image)
                fresh.to(self.fabric.device)  # type: ignore[attr-defined]
                with unnoticed(fresh, self.fabric.device):
                    see = shown(fresh, self.fabric)
                    calibrate(fresh, see, self.held.some)
                    seen = self.held.look(see, 0)
                    curve.floors[UNTRAINED] = seen.figures
        else:
            curve.floors[UNTRAINED] = first
        pixels = self.held.pixels
        if pixels:
            curve.floors["pixels"] = max((p.figures for p in pixels.values()), key=lambda f: f[KNN])

    def _beside(self, look: Look) -> None:
        """Let the doctor compare a look with the first, where that was at weights worth keeping."""
        curve, first = self.curve, self.curve.looks[0]
        if not curve.began or look.step == 0:
            return
        at = look.step, look.step / curve.steps
        if look.right is None:
            facts = Beside(*at, dimensions=look.figures[RANK], began=first.figures[RANK])
        else:
            now, start = look.figures[KNN], first.figures[KNN]
            facts = Beside(*at, now, start, len(look.right), -sure(look, first))
        self.compare(facts)


def shown(network: Encoder, fabric: Fabric) -> Callable[[Tensor], Tensor]:
    """Its features, by `forward`: hooks and compiled code belong to training."""

    def features(x: Tensor) -> Tensor:
        x = kinds.of(network).prepare(x.to(fabric.device), network)
        with fabric.autocast():
            return network.forward(x)

    return features


def observed(
    plan: Plan,
    samples: Samples,
    folder: Path,
    *,
    began: bool,
    done: int,
    seconds: float,
    tell: Told,
    compare: Callable[[Beside], None],
) -> Observer | None:
    """Whoever looks at the encoder of a training; None where there is nothing to see.

    Args:
        plan: of the training; its method is on its device and has its weights.
        samples: of the training.
        folder: of the run.
        began: whether it began with weights that are worth keeping.
        done: steps that are done.
        seconds: that the training is estimated to take.
        tell, compare: as of `Observer`.
    """
    settings, method = plan.settings, plan.method
    trained = any(p.requires_grad for p in method.backbone.parameters())
    if not (settings.curve and settings.evaluate and trained) or method.needs.learned:
        return None
    if method.needs.labels and plan.held is None:
        log.info("the encoder learns these labels, so that no curve is drawn: others need --test")
        return None
    begun = time.perf_counter()
    curve = _earlier(folder, done)
    most = min(MOST, max(LEAST, plan.steps * plan.batch // SEEN)) if curve is None else curve.most
    try:
        with unnoticed(plan.image, plan.fabric.device):
            held = held_out(
                samples,
                plan.held,
                plan.image.size,
                most=most,
                seed=settings.seed,
                workers=plan.workers,
            )
        if curve is not None and dict(curve.images) != held.images:
            log.warning("%s is of other images than are there now and starts anew", folder / FILE)
            curve = None
        if curve is not None:
            _same_length(curve, plan.steps, done)
            made = Observer(plan.image, held, plan.fabric, folder, curve, tell, compare)
            if all(x.step != done for x in curve.looks):  # stopped before or while it looked
                made(done)
            return made
        shutil.rmtree(folder / BEST, ignore_errors=True)
        began = began and done == 0  # what it began with cannot be looked at any more
        curve = Curve(plan.steps, (done,), most, held.images, began=began)
        made = Observer(plan.image, held, plan.fabric, folder, curve, tell, compare)
        first = time.perf_counter()
        made.look(done)
        each = time.perf_counter() - first
        if done == 0:
            made.floors()
        left = SHARE * seconds - (time.perf_counter() - begun)
        at = grid(plan.steps, affordable(plan.steps, each, left))
        curve.at = (done, *(s for s in at if s > done))
        curve.save(folder / FILE)
    except (SelftaughtError, RuntimeError, OSError, MemoryError) as error:
        log.info("no curve is drawn: %s", error)
        return None
    return made


def _earlier(folder: Path, done: int) -> Curve | None:
    """The curve of what is done of a run that goes on; later looks, and their best, go."""
    curve = read(folder / FILE) if done else None
    if curve is None or not curve.looks:
        return None
    curve.looks = [x for x in curve.looks if x.step <= done]
    if not curve.looks:
        return None
    best, kept = curve.best, content(folder / BEST / CONFIG).get("step")
    if best is not None and kept != best.step:
        # written after the checkpoint that the run goes on from, or half written
        shutil.rmtree(folder / BEST, ignore_errors=True)
    return curve


def _same_length(curve: Curve, steps: int, done: int) -> None:
    """Lay the looks to come over another length, where the run is made longer."""
    if curve.steps != steps:
        count = sum(step > 0 for step in curve.at)
        later = grid(steps, min(count, max(1, steps // BETWEEN)))
        curve.at = (*(x.step for x in curve.looks), *(s for s in later if s > done))
        curve.steps = steps


def line(curve: Curve) -> str:
    """The newest look on one line of a terminal."""
    look = curve.looks[-1]
    parts = [f"step {look.step}/{curve.steps}"]
    parts += [f"{name} {short(v)}" for name, v in look.figures.items()]
    floor = max((f[KNN] for f in curve.floors.values() if KNN in f), default=None)
    if floor is not None:
        parts.append(f"floor {floor:.1f}")
    if look.step and curve.best is look:
        parts.append("best")
    while len(" · ".join(parts)) > WIDE:  # all of them are in the file
        del parts[-1]
    return " · ".join(parts)


def short(value: float) -> str:
    """With a digit after the point where that says something."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


@contextmanager
def unnoticed(image: Encoder, device: torch.device) -> Iterator[None]:
    """A block with a network in evaluation mode and without gradients; then all is as before, the
    statistics of its norms too."""
    generators = Generators.now(device)
    norms = keeping(image.modules())
    statistics = [(x, x.clone()) for norm in norms for x in norm.buffers(recurse=False)]
    modes = [(module, module.training) for module in image.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for x, was in statistics:
                x.copy_(was)
        generators.put_back(device)
