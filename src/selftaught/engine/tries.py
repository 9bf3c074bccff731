"""`--try`: a handful of candidates is trained for a short while, the better half for longer, and so
on (successive halving; Jamieson and Talwalkar, 2016); the time that is left trains what won.

A try is an ordinary training from its start, but its schedules follow the clock: all of a round get
the same seconds, which is what a budget is made of, and how many images each sees in them is part
of what is compared. They have one seed; how many steps each gets, the machine decides.
"""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from selftaught import choose, kinds, methods, voice
from selftaught.backbones.stages import stages
from selftaught.chosen import Chosen, plain, said
from selftaught.data import Samples
from selftaught.engine import curve
from selftaught.engine.build import method_name
from selftaught.engine.estimate import of_step
from selftaught.engine.folder import default_out
from selftaught.engine.loop import Loop
from selftaught.engine.networks import WORDS
from selftaught.engine.plan import Plan, prepared, stem
from selftaught.engine.run import Run
from selftaught.engine.settings import Settings, seconds
from selftaught.engine.signals import StopSignals
from selftaught.errors import DataError, Interrupted, TrainingError, UserError
from selftaught.evaluate.curve import KNN, RANK, Look, sure
from selftaught.evaluate.held import MOST, Held, held_out
from selftaught.export.facts import SETTINGS, TRIED, content
from selftaught.feed.views import ViewDataset
from selftaught.method import Method, Needs
from selftaught.sides import Size
from selftaught.voice import duration

log = logging.getLogger("selftaught")

LABEL_FREE = RANK
"""Figure that compares candidates where there are no labels: one of those that
`evaluate.held.Unlabeled.look` gives, that which ranked short runs of twelve methods and their
settings best by k-NN (benchmarks/results/ranks.md)."""
LOWER = ("alignment", "uniformity")
"""Of these figures, those that are better the lower they are."""
MARGIN = 0.1
"""Of the usual one's such figure, that another has to be better by: runs that were had the higher
k-NN in about five of six pairs (benchmarks/results/ranks.md)."""

HANDFUL = ("simclr", "swav", "vicreg", "instdisc")
"""What is tried where no method is named: those of each family that learned most. k-NN after
250,000 images, and CPU seconds, of benchmarks/results/learn-cifar10.md and learn-clothing.md:
SimCLR 53.5 and 51.3 (606 s, 319 s), SwAV 52.3 and 43.3 (701 s, 456 s), VICReg 50.5 and 41.4 (574 s,
389 s), InstDisc 50.5 on clothing (201 s), the most for its time. BYOL 49.4 and 36.3 (755 s, 487 s),
DINO 47.2 and 36.0 (890 s, 527 s) and MAE 39.4 and 24.7 learn less in more time."""
TRANSFORMERS = ("simclr", "vicreg", "dino", "mae")
"""The same where the user names a transformer, for which the last two were made. No table here has
them side by side on one; that is what is tried."""
FACTOR, COLORS, ANCHOR = 3.0, 0.3, ("cosine:1",)
"""What is tried of one method: its rate lower and higher, and less of its color jitter, for images
that are told apart by color; neither was measured here. From weights, all of them instead of low
rank beside them, and these held by an anchor: benchmarks/results/adapt.md has what each gained."""

SHARE = 0.15
"""Of the time, that goes into trying."""
LEAST, LOOKED = 1600, 2
"""Images that a first try has time to see at least, some dozen steps; and for each that its encoder
is looked at, which takes a tenth of its time, as that is forward alone and of one view."""
FEWEST = 50
"""Images to compare on: with fewer, one standard error is more than seven points."""
ERRORS = 2.4
"""Standard errors of a difference within which it is noise: when three others are as good as the
usual one, chance alone makes one of them pass in one of twenty times."""
AHEAD = 1000
"""Of the steps that a try is thought to have, those that readers may have the order of."""

APART: dict[str, Any] = {
    "time": None,
    "evaluate": False,
    "curve": False,
    "track": (),
    "on_record": None,
    "cache": False,
    "compile": False,
    "resolution_phase": None,
    "overwrite": False,
}
"""Settings that a try has of its own: nobody follows it, and nothing is done that pays only later.
"""


@dataclass(frozen=True)
class Candidate:
    """method: that is trained. changes: settings that are other than the user's."""

    method: str | type[Method]
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it is typed."""
        flags = (f"--{n.replace('_', '-')} {said(v)}" for n, v in self.changes.items())
        return " ".join([named(self.method), *flags])


@dataclass(eq=False)
class Row:
    """A try.

    seconds, images: that it was trained for, and saw. look, floor: at its encoder, after the last
    step and before the first. failed: why it tells nothing. kept: what came of it.
    """

    candidate: Candidate
    seconds: float = 0.0
    images: int = 0
    look: Look | None = None
    floor: Look | None = None
    failed: str = ""
    kept: str = "dropped"

    @property
    def figure(self) -> float:
        """What is compared, NaN where there is nothing."""
        return _value(self.look)

    @property
    def worth(self) -> float:
        """The figure, so that more is better."""
        return -math.inf if self.failed or math.isnan(self.figure) else _signed(self.look)

    @property
    def learned(self) -> bool:
        """Whether it is above its floor."""
        return self.floor is None or self.worth > _signed(self.floor)

    def plain(self) -> dict[str, Any]:
        """As the file in the run folder has it."""
        figures = {"figure": self.figure, "floor": _value(self.floor)}
        return {
            "candidate": self.candidate.name,
            "seconds": round(self.seconds, 1),
            "images": self.images,
            **{n: round(v, 2) if math.isfinite(v) else None for n, v in figures.items()},
            "kept": self.kept,
            "failed": self.failed,
        }


# what is asked for ------------------------------------------------------------------------------


def decided(
    method: str | type[Method] | Method | None,
    data: Any,
    settings: Settings,
    image: dict[str, Any],
    options: dict[str, Any],
    samples: Samples | None = None,
) -> Plan:
    """The plan of a training: as it was asked for or, with `--try`, of the candidate that won.

    Args:
        method: None for the usual one, or for whichever wins.
        data, settings, image, options, samples: as of `prepared`.

    Raises:
        UserError: as of `plan`, or nothing can be compared in this time or on this data.
        TrainingError: all candidates failed.
        Interrupted: it was stopped, and nothing is kept.
    """
    if not settings.try_:
        method = method or (methods.USUAL if samples is None else kinds.of(samples).method)
        return prepared(method, data, settings, image, options, samples)
    trying = Trying(method, data, settings, image, options, samples)
    return trying.again() if settings.resume else trying.winner()


def preview(*asked: Any) -> str:
    """What `decided` would try, and for how long."""
    trying = Trying(*asked)
    if trying.settings.resume:
        plan = trying.again()
        return f"{plan.out} goes on with {method_name(plan.method)}; nothing is tried again"
    announced = trying.lay_out()
    names = "\n".join(f"  {candidate.name}" for candidate in trying.candidates)
    rest = "in what is left of" if trying.settings.time else "as long as it is without, about"
    return (
        f"{announced}:\n{names}\nThen what is best is trained from its start, {rest} "
        f"{duration(trying.whole)}; the run is kept in {trying.out}"
    )


class Trying:
    """What `decided` was asked for, and what is known of it.

    Attributes:
        out: run folder of the training to come.
        candidates: the usual one, which the others have to beat, and these.
        rounds: how many are tried in each.
        each: seconds of a try of the first.
        whole: seconds of the training: those that it may take, or is thought to take.
        speed: steps a second of the usual one.
        network: what was chosen of the backbone, alike for all of them.
        held: images to compare on.
    """

    def __init__(
        self,
        method: Any,
        data: Any,
        settings: Settings,
        image: dict[str, Any],
        options: dict[str, Any],
        samples: Samples | None = None,
    ):
        self.begun = time.perf_counter()
        if isinstance(method, Method):
            raise UserError(
                f"--try builds each of its candidates, and this {method_name(method)} was built "
                f"already: give its class, {type(method).__name__}, or leave --try out"
            )
        if method is None and options:
            flag = f"--{next(iter(options)).replace('_', '-')}"
            usual = methods.USUAL if samples is None else kinds.of(samples).method
            raise UserError(
                f"{flag} belongs to {usual}, and --try without a method compares several: "
                f"name the method to try its settings, or leave {flag} out"
            )
        self.method, self.data, self.image, self.options = method, data, image, options
        self.samples = settings.open(data, image.get("channels", 3)) if samples is None else samples
        # without a method the folder cannot be called by what is not known yet
        name = f"{'try' if method is None else named(method)}-{stem(data)}"
        self.out = settings.out or default_out(name, settings.resume)
        self.settings = replace(settings, out=self.out, try_=False)
        self.candidates: list[Candidate] = []
        self.rounds: list[int] = []
        self.each = self.whole = self.around = self.speed = 0.0
        self.network: list[Chosen] = []
        self.held: Held | None = None
        self.floors: dict[tuple[str, Size], Look] = {}

    def plan(self, candidate: Candidate, **changes: Any) -> Plan:
        """Of a candidate, with its changes of the settings, and these."""
        asked = replace(self.settings, **candidate.changes | changes)
        given = (candidate.method, self.data, asked, self.image, self.options, self.samples)
        made = prepared(*given)
        rows = [*self.network, *made.chosen]
        return replace(made, chosen=rows, content=made.content | {"chosen": plain(rows)})

    def settle(self, network: list[Chosen]) -> None:
        """Let all that is planned from now on have a network that was chosen."""
        self.network = network
        self.image = self.image | {
            WORDS.get(c.name, c.name): c.value for c in network if c.value is not None
        }

    def lay_out(self) -> str:
        """Settle what is tried, for how long and on which images, and say so.

        Raises:
            UserError: there is nothing to compare, or too little time, or too few images.
        """
        usual, given = Candidate(self.usual), self.settings.time
        timed: dict[str, Any] = {}
        short: dict[str, Any] = {}
        if given is not None:
            left = max(1, round((1 - SHARE) * seconds(given)))
            timed, short = {"time": f"{left}s"}, {"time": None, "epochs": 1}
        plan = self.plan(usual, **timed)
        _comparable(plan)
        self.settle(of_backbone(plan))
        begun = time.perf_counter()
        plan = self.plan(usual, **short)  # again, as a try is planned, to see how long that takes
        self.candidates = [usual, *self._others(plan)]
        if len(self.candidates) == 1:
            raise UserError(
                f"there is nothing left to try: all that --try varies of {usual.name} is given; "
                "leave --try out"
            )
        epoch = _epoch(plan)
        self.around, self.speed = time.perf_counter() - begun, plan.per_epoch / epoch
        self.whole = epoch * plan.steps / plan.per_epoch if given is None else seconds(given)
        self.rounds = rounds(len(self.candidates))
        self.each = self._affordable(0, len(self.candidates))
        each = epoch / (plan.per_epoch * plan.batch)
        if self.each < LEAST * each:
            self._too_short(LEAST * each)
        self.held = held_out(
            plan.samples,
            plan.held,
            plan.image.size,
            most=min(MOST, int(self.each / each / LOOKED)),
            seed=self.settings.seed,
            workers=plan.workers,
        )
        count = _compared(self.held)
        if count < FEWEST:
            raise UserError(
                f"candidates would be compared on {count} images, and fewer than {FEWEST} tell "
                "nothing: give more images, or labeled ones with --test, or leave --try out"
            )
        later = (
            f", then the better {n} for {duration(self.each * self.rounds[0] / n)}"
            for n in self.rounds[1:]
        )
        return (
            f"trying {self.rounds[0]} candidates for {duration(self.each)} each{''.join(later)}, "
            f"by {_figure(self.held)} on the same {count:,} images"
        )

    def _others(self, usual: Plan) -> list[Candidate]:
        """What is tried beside the usual one: other methods, or other settings of one."""
        if self.method is None and not usual.continued:
            own = Needs(backbone=self.image.get("name") or "")
            known = TRANSFORMERS if choose.wants_transformer(own) else HANDFUL
            word = kinds.of(self.samples).word
            known = [n for n in known if word in kinds.among(methods.find(n).needs.kinds)]
            return [Candidate(name) for name in known if name != self.usual]
        return [Candidate(self.usual, c) for c in variants(usual)]

    @property
    def usual(self) -> Any:
        """What was named, or is usual for such samples."""
        return self.method or kinds.of(self.samples).method

    def _affordable(self, turn: int, count: int) -> float:
        """Seconds of each of so many tries of a round: all rounds that are left take as long."""
        left = self.begun + SHARE * self.whole - time.perf_counter()
        return left / (len(self.rounds) - turn) / count - self.around

    def _too_short(self, least: float) -> None:
        """Refuse a time in which first tries do not have the least that tells something."""
        count = len(self.candidates)
        spent = time.perf_counter() - self.begun
        need = (spent + (least + self.around) * count * len(self.rounds)) / SHARE
        given = self.settings.time
        short = f"about {duration(self.whole)}" if given is None else f"--time {given}"
        more = "train for longer" if given is None else f"give --time {math.ceil(need / 60)}m"
        raise UserError(
            f"{short} is too short to compare {count} candidates in {SHARE:.0%} of it: to see "
            f"{LEAST:,} images each at first, which tells something, they need about "
            f"{duration(need)}; {more}, or leave --try out"
        )

    # try ----------------------------------------------------------------------------------------

    def winner(self) -> Plan:
        """Try, and plan the training of what is taken in the time that is left."""
        log.info(self.lay_out())
        assert self.held is not None
        alive, tried = self.candidates, list[list[Row]]()
        for turn, count in enumerate([*self.rounds[1:], 1]):
            if turn:
                self.each = max(self.each, self._affordable(turn, len(alive)))
            rows = [self._try(candidate) for candidate in alive]
            taken, why = verdict(rows)
            alive = halved(rows, count) if count > 1 else [taken.candidate]
            for row in rows:
                row.kept = (
                    "failed" if row.failed else "kept" if row.candidate in alive else row.kept
                )
            tried.append(rows)
            log.info(table(rows, _figure(self.held)))
            for row in rows:
                if row.failed:
                    log.warning("%s tells nothing: %s", row.candidate.name, row.failed)
            if len(alive) == 1:
                break
        spent = time.perf_counter() - self.begun
        left = self.settings.time and f"{max(1, round(self.whole - spent))}s"
        within = f" in {duration(seconds(left))}" if left else ""
        log.info(f"{why}; it is trained from its start{within}")
        plan = self.plan(taken.candidate, time=left)
        own = taken.candidate.method
        found = {
            "figure": _figure(self.held),
            "images": _compared(self.held),
            "seconds": round(spent, 1),
            "rounds": [[row.plain() for row in rows] for rows in tried],
            "taken": {
                "candidate": taken.candidate.name,
                "method": own if isinstance(own, str) else methods.reference(own),
                "changes": taken.candidate.changes,
                "network": [list(c) for c in self.network],
                "time": left,
            },
            "why": why,
        }
        return replace(plan, tried=found)

    def _try(self, candidate: Candidate) -> Row:
        """Train a candidate for `each` seconds, and look at its encoder before and after."""
        row, begun = Row(candidate), time.perf_counter()
        with (
            voice.counted(f"trying {candidate.name}") as tell,
            _quiet(),
            tempfile.TemporaryDirectory(prefix="selftaught-try-", ignore_cleanup_errors=True) as at,
        ):
            signals = StopSignals()
            try:
                steps = max(1, round(self.each * self.speed))  # to begin with, for momenta
                length = {"epochs": steps, "max_steps": steps}
                plan = self.plan(candidate, **APART, **length, out=Path(at) / "run")
                run = Run(plan)
                with signals, run.guarded(signals):
                    loop = run.start(signals)
                    row.floor = self._floor(plan)
                    loop.look = clock = Clock(loop, plan, self.each, tell)
                    run.train(loop)
                    row.seconds, row.images = clock.passed, loop.step * plan.batch
                    row.look = self._look(plan, loop.step)
                    assert loop.doctor is not None
                    diagnosis = loop.doctor.conclude()
                    row.failed = diagnosis.evidence[0] if diagnosis.verdict == "failed" else ""
            except (UserError, TrainingError, Interrupted) as error:
                if signals.received is not None:
                    raise Interrupted(
                        "stopped while candidates were tried, of which nothing is kept: repeat the "
                        "command to try again",
                        signals.exit_code,
                    ) from None
                row.failed = str(error)
        self.around = time.perf_counter() - begun - row.seconds
        return row

    def _floor(self, plan: Plan) -> Look:
        """A look at an encoder before its first step: alike for all that begin with the same."""
        key = (plan.image.name, plan.image.size)
        if key not in self.floors:
            self.floors[key] = self._look(plan, 0)
        return self.floors[key]

    def _look(self, plan: Plan, step: int) -> Look:
        assert self.held is not None
        try:
            with curve.unnoticed(plan.image, plan.fabric.device):
                return self.held.look(curve.shown(plan.image, plan.fabric), step)
        except DataError as error:  # features that are not finite, say
            raise TrainingError(str(error)) from error

    # go on --------------------------------------------------------------------------------------

    def again(self) -> Plan:
        """The plan of a run that goes on: of what was taken, without trying again."""
        taken = content(self.out / TRIED).get("taken")
        taken = taken if isinstance(taken, dict) else {}
        changes, network = taken.get("changes"), taken.get("network")
        if not (self.out / SETTINGS).is_file():
            raise UserError(
                f"{self.out} holds no run to resume, and nothing is kept while candidates are "
                "tried: leave --resume out to try"
            )
        known = {f.name for f in fields(Settings)}
        whole = isinstance(changes, dict) and isinstance(network, list)
        if not (whole and changes.keys() <= known and all(map(_is_chosen, network))):
            raise UserError(
                f"{self.out} does not say what --try has taken (no {TRIED}): give its method and "
                "settings, as its run.yaml has them, and leave --try out"
            )
        self.settle([Chosen(*row) for row in network])
        left = self.settings.time and taken.get("time")
        return self.plan(Candidate(self.method or str(taken.get("method")), changes), time=left)


class Clock:
    """Ends a training after so many seconds, and lays its schedules over the steps that it has time
    for; called after each of them.

    Args:
        loop: that is timed, before its first step.
        plan: of it.
        limit: seconds.
        tell: is handed seconds that have passed, and these.

    Attributes:
        passed: seconds from the beginning to the last step.
    """

    def __init__(self, loop: Loop, plan: Plan, limit: float, tell: Callable[[int, int], None]):
        self.loop, self.plan, self.limit, self.tell = loop, plan, limit, tell
        loop.steps *= AHEAD  # until it is known how fast it is
        self.begun, self.passed = time.perf_counter(), 0.0

    def __call__(self, step: int) -> None:
        self.passed = max(time.perf_counter() - self.begun, 1e-9)
        self.tell(int(self.passed), int(self.limit))
        steps = max(step, round(step * self.limit / self.passed))
        rest = self.plan.rest * steps // self.plan.steps
        self.loop.steps, self.loop.resting = steps, rest
        self.loop.plan = replace(self.plan, steps=steps, rest=rest).rates
        if self.loop.doctor:
            self.loop.doctor.steps = steps


@contextmanager
def _quiet() -> Iterator[None]:
    """A block of which only errors are told: what a try says, the training says again."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


# rules ------------------------------------------------------------------------------------------


def rounds(count: int) -> list[int]:
    """How many of `count` are tried in each round: all, then half of them, down to two."""
    found = [count]
    while found[-1] > 2:
        found.append(-(-found[-1] // 2))
    return found


def of_backbone(plan: Plan) -> list[Chosen]:
    """What was chosen of the backbone in a plan."""
    known = plan.content["backbone"].keys() - plan.content["options"].keys()
    return [c for c in plan.chosen if WORDS.get(c.name, c.name) in known]


def _is_chosen(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 4 and isinstance(row[0], str)


def variants(usual: Plan) -> list[dict[str, Any]]:
    """Settings of a method that are tried, of those that the user has not given."""
    given, peak = usual.settings, usual.rates.peak
    found: list[dict[str, Any]] = []
    if given.lr is None:
        rates = (peak / FACTOR,) if usual.continued else (peak / FACTOR, peak * FACTOR)
        found += [{"lr": float(f"{rate:.3g}")} for rate in rates]
    if usual.continued:
        if given.anchor is None and given.freeze != "all":
            found.append({"anchor": ANCHOR})
        shaped = given.lora_alpha is not None or given.lora_layers is not None
        if any(c.name == "lora" for c in usual.chosen) and not shaped:  # it is wanted, then
            found.append({"lora": 0})
        parts = len(stages(usual.method.backbone)) - 1 if not given.lora else 0  # type: ignore
        if given.freeze is None and parts > 1:
            found.append({"freeze": parts // 2})
    elif given.color_jitter is None and usual.method.needs.views == "alike":
        found.append({"color_jitter": COLORS})
    return found


def halved(rows: Sequence[Row], count: int) -> list[Candidate]:
    """The best `count` of those that did not fail; the usual one stays, which is to be beaten."""
    usual = rows[0]
    best = sorted((row for row in rows if not row.failed), key=lambda row: -row.worth)[:count]
    if not usual.failed and usual not in best:
        best[-1] = usual
    return [row.candidate for row in rows if row in best]


def verdict(rows: Sequence[Row]) -> tuple[Row, str]:
    """Which of the tries of a round is taken, and why; the first of them is the usual one.

    Raises:
        TrainingError: all have failed.
    """
    usual, others = rows[0], sorted(rows[1:], key=lambda row: -row.worth)
    best = max(rows, key=lambda row: row.worth)
    name, first = best.candidate.name, usual.candidate.name
    if best.worth == -math.inf:
        raise TrainingError(
            f"all {len(rows)} candidates failed, {first} for this reason: {usual.failed}; leave "
            "--try out to see its report"
        )
    assert best.look is not None
    figure, low = _named(best.look), "" if best.learned else ", which is not above its floor yet"
    now = f"{figure} {curve.short(best.figure)}{low}"
    if usual.failed:
        return best, f"{name} is taken ({now}), as {first}, the usual one, failed"
    if best is usual:
        second = others[0] if others and others[0].worth > -math.inf else None
        if second is None:
            return best, f"{name} is taken, the usual one ({now}): no other did not fail"
        theirs = f"{second.candidate.name} {curve.short(second.figure)}"
        same = best.look.right is not None and not _surely(best, second)
        noise = ", which is within noise" if same else ""
        return best, f"{name} is taken, the usual one, with the best {now}; {theirs}{noise}"
    taken = f"{name} is taken: {now}, against {curve.short(usual.figure)} of {first}, the usual one"
    low = "" if usual.learned else ", not above its floor yet"
    both = f"({figure} {curve.short(usual.figure)}{low}; {name} {curve.short(best.figure)}"
    if best.look.right is None:
        if best.learned and best.worth - usual.worth > MARGIN * abs(usual.figure):
            return best, f"{taken}; without labels that is a hint, not a score"
        return usual, (
            f"no difference that tells without labels: {first}, the usual one, is taken {both}, "
            f"where {MARGIN:.0%} and its floor are to be passed)"
        )
    count = f"on the same {len(best.look.right):,} images"
    if surely := _surely(best, usual):
        return best, f"{taken}, {count}, beyond noise by {surely:.1f} points"
    return usual, (f"no difference beyond noise: {first}, the usual one, is taken {both}, {count})")


def _surely(one: Row, other: Row) -> float:
    """Points of k-NN that `one` is above `other` beyond noise."""
    assert one.look is not None
    assert other.look is not None
    return max(0.0, sure(one.look, other.look, ERRORS))


def table(rows: Sequence[Row], figure: str) -> str:
    """The tries of a round, in 80 columns."""
    lines = [_line("candidate", "seconds", "images", figure, "floor", "")]
    for row in rows:
        took = f"{row.seconds:.1f}", f"{row.images:,}"
        two = _short(row.figure), _short(_value(row.floor))
        lines.append(_line(row.candidate.name, *took, *two, row.kept))
    return "\n".join(lines)


def _line(name: str, spent: str, images: str, figure: str, floor: str, kept: str) -> str:
    return f"{name:<32.32}{spent:>9}{images:>12}{figure:>11}{floor:>7}  {kept}".rstrip()


def _short(value: float) -> str:
    return curve.short(value) if math.isfinite(value) else "-"


def _comparable(plan: Plan) -> None:
    """Refuse a training whose candidates could not be told apart."""
    name, count = method_name(plan.method), plan.fabric.world_size
    if count > 1:
        raise UserError(
            f"--try compares candidates on one device, got {count}: try with --devices 1, then "
            f"train what it takes on {count}"
        )
    if plan.method.needs.learned:
        raise UserError(
            f"{name} takes its encoder as it is, so that --try has nothing to compare: leave it out"
        )
    if plan.method.needs.labels and plan.held is None:
        raise UserError(
            f"{name} learns the labels of these images, so that --try needs others to compare by: "
            "name them with --test, or leave --try out"
        )


def _epoch(plan: Plan) -> float:
    """Seconds of a pass over the data, measured on a few images."""
    views = ViewDataset(
        plan.seen(plan.samples), plan.pipeline, plan.settings.seed, plan.settings.reduced
    )
    asked: dict[str, Any] = {"batch": plan.batch, "accumulate": plan.parts}
    asked |= {"makers": plan.workers, "optimizer": plan.recipe.optimizer}
    return plan.per_epoch * of_step(plan.method, views, plan.fabric, **asked).seconds


def named(method: str | type[Method]) -> str:
    """What a method is called, by its name or its class."""
    return methods.short(method if isinstance(method, str) else methods.reference(method))


def _compared(held: Held) -> int:
    return min(held.images.values())


def _figure(held: Held) -> str:
    return KNN if "test" in held.images else LABEL_FREE


def _named(look: Look) -> str:
    return LABEL_FREE if look.right is None else KNN


def _value(look: Look | None) -> float:
    return math.nan if look is None else look.figures[_named(look)]


def _signed(look: Look | None) -> float:
    """The figure, so that more is better."""
    value = _value(look)
    return -value if look is not None and _named(look) in LOWER else value
