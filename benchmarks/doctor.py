"""Does the doctor name what is wrong, early, and keep quiet where nothing is?

python benchmarks/doctor.py --data $DATA [--half build] [--patients 40] [--healthy 30] [--seed 0]
    [--only NAMES ...] [--staged]

Patients are drawn: a method, a set of images, a seed, and one change out of the kinds of
`patients.py`. A kind, method and set together are of one half: rules are built on `build`;
of `published` totals alone are printed. Healthy runs have a method, a set, a seed and the settings
of `auto` or `paper`, with heads, queues and batch cut to what a CPU bears. A patient's run ends as
soon as its outcome is decided, a healthy one at its end. Rows are added to
results/doctor.json, where a run that is there is left (with --only it is done again), and the
tables are written anew. --staged trains the patients of `staged.py` instead.

$DATA has a folder for each set of `adapt.py`; the photos are shipped with the package.
"""

import argparse
import hashlib
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from adapt import SETS
from learn import ALONE, CONV, OWN, VIT
from patients import KINDS, Change, Drawn, Kind, Unfit
from PIL import Image as Picture

from selftaught import kinds, methods, open_data
from selftaught.demo import PHOTOS
from selftaught.engine.loop import Loop
from selftaught.engine.plan import Plan, prepared
from selftaught.engine.run import Run
from selftaught.engine.settings import Settings
from selftaught.errors import Interrupted, SelftaughtError
from selftaught.evaluate.scores import wilson

RESULTS = Path(__file__).parent / "results" / "doctor.json"
SIZE, BATCH, IMAGES, SIDE, EARLY = 32, 32, 384, 64, 0.1
GRAY = "it is gray"
"""In the error of a method that learns from colors, of a set without them."""
STEPS = (60, 151)
"""Of a training, the second number is out."""
CUT = {"head width": 512, "prototypes": 64, "queue": 96, "drawn images": 96, "small views": 2}
CUT |= {"decoder width": 128}
"""Largest values of roles with the papers' settings; queues and what is drawn of a set are below
half of the smallest set, 245 images, as longer ones are refused."""
HALVES, FAR = ("build", "published"), 1000
"""Parts of the draws; turns from which on the second's healthy runs are drawn."""
METHODS = [
    name
    for name in ALONE
    if not methods.find(name).needs.learned
    and "image" in kinds.among(methods.find(name).needs.kinds)
]
PHOTOSET = "photos"
NARROW = {name: {"dim": 15} for name in ("ace", "dcca", "dccae")}
NARROW |= {"w_mse": {"dim": 16, "group": None}}
"""Options of methods that else need more than BATCH images at once."""


@dataclass(frozen=True)
class Case:
    """A training to look at.

    Args:
        method, data, seed: of what, on what, of everything random.
        steps, recipe: of the training.
        half: that rules are built on, or that is published.
        kind: what is wrong with it; None where nothing is.
        change: what that is here.
    """

    method: str
    data: str
    seed: int
    steps: int
    recipe: str
    half: str
    kind: Kind | None = None
    change: Change | None = None

    @property
    def key(self) -> str:
        """By which its row is found."""
        what = f"{self.kind.name}: {self.change.says}" if self.kind and self.change else "healthy"
        return f"{what} | {self.method} | {self.data} | {self.recipe} | seed {self.seed}"


# -------------------------------------------------------------------------------------- drawn


def half(kind: str, method: str, data: str) -> str:
    """Which half a kind, a method and a set together are of."""
    return HALVES[hashlib.sha256(f"{kind} {method} {data}".encode()).digest()[0] % 2]


def patients(which: str, seed: int) -> Iterator[Case]:
    """Patients without end: kinds in turn, each with one of the methods that came least so far."""
    turn, came = 0, Counter[str]()
    names = [*SETS, PHOTOSET]
    while True:
        for place in np.random.default_rng((seed, turn)).permutation(len(KINDS)):
            kind = list(KINDS.values())[place]
            rng = np.random.default_rng((seed, turn, int(place)))
            for method in sorted(rng.permutation(METHODS).tolist(), key=came.__getitem__):
                change = kind.draw(Drawn(method), rng)
                sets = [x for x in rng.permutation(names) if half(kind.name, method, x) == which]
                if change is not None and sets:
                    came[method] += 1
                    own, steps = int(rng.integers(1000)), int(rng.integers(*STEPS))
                    yield Case(method, str(sets[0]), own, steps, "auto", which, kind, change)
                    break
        turn += 1


def healthy(which: str, seed: int) -> Iterator[Case]:
    """Healthy runs without end, methods in turn."""
    turn = FAR * HALVES.index(which)
    while True:
        for place in np.random.default_rng((seed, turn)).permutation(len(METHODS)):
            rng = np.random.default_rng((seed, turn, int(place)))
            data = str(rng.choice([*SETS, PHOTOSET]))
            recipe = ("auto", "paper")[(int(place) + turn) % 2]
            steps = int(rng.integers(*STEPS))
            yield Case(METHODS[place], data, int(rng.integers(1000)), steps, recipe, which)
        turn += 1


# --------------------------------------------------------------------------------------- runs


@cache
def read(folder: Path, data: str) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Images of a set, with a shorter side of SIDE at most, and their labels."""
    file = PHOTOS / "train.parquet"
    samples = open_data(file) if data == PHOTOSET else SETS[data](folder / data)[0]
    chosen = np.random.default_rng(0).permutation(len(samples))[: 2 * IMAGES]
    images = []
    for i in chosen:
        image = Picture.fromarray(samples.read(int(i)))
        scale = min(1.0, SIDE / min(image.size))
        size = [max(1, round(n * scale)) for n in image.size]
        images.append(np.asarray(image.resize(size, Picture.Resampling.BOX)))
    return tuple(images), np.asarray(samples.labels)[chosen]


def data_of(case: Case, folder: Path) -> list[tuple[np.ndarray, int]]:
    """What a case trains on."""
    images, labels = read(folder, case.data)
    chosen = np.random.default_rng(case.seed).permutation(len(images))[:IMAGES]
    found, kinds = [images[i] for i in chosen], labels[chosen]
    if case.change and case.change.images:
        found, kinds = case.change.images(found, kinds)
    return [(x, int(k)) for x, k in zip(found, kinds)]


def options_of(case: Case) -> dict[str, Any]:
    """Of the method: the papers' cut, and the change."""
    options = OWN.get(case.method, {}) | NARROW.get(case.method, {})
    if case.recipe == "paper":
        for p in methods.signature(case.method).parameters:
            most = min((CUT[r.name] for r in p.roles if r.name in CUT), default=None)
            if most is not None and p.default is not None and p.name not in options:
                many = isinstance(p.default, tuple)
                options[p.name] = (
                    tuple(min(x, most) for x in p.default) if many else min(p.default, most)
                )
    return options | (case.change.options if case.change else {})


class Decided(Exception):
    """Nothing can change the outcome any more."""


class Examined(Run):
    """A run that ends with the diagnosis: no export, no report; and a patient's as soon as what
    comes later cannot change the outcome."""

    def __init__(self, plan: Plan, kind: Kind | None):
        super().__init__(plan)
        self.kind = kind

    def train(self, loop: Loop) -> None:
        def look(step: int) -> None:
            assert loop.doctor is not None
            findings = list(map(asdict, loop.doctor.findings))
            if decided(self.kind, findings, step / loop.steps):
                raise Decided

        loop.look = look if self.kind else None
        with suppress(Decided):
            super().train(loop)

    def finish(self, loop: Loop) -> None:
        assert loop.doctor is not None
        loop.doctor.save(loop.doctor.conclude())


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Train, and keep what the doctor said."""
    net = VIT if Drawn(case.method).transformer else CONV
    image = {"name": net, "size": SIZE} | ({"patch_size": SIZE // 8} if net == VIT else {})
    change = case.change or Change("")
    torch.manual_seed(case.seed)
    begun, error, unfit = time.process_time(), "", ""
    with tempfile.TemporaryDirectory() as out:
        train = {"max_steps": case.steps, "batch": BATCH, "recipe": case.recipe} | change.train
        settings = Settings(
            out=Path(out) / "run", seed=case.seed, workers=0, evaluate=False, curve=False,
            precision="fp32", colors="loader", **train,
        )  # fmt: skip
        try:
            data = data_of(case, folder)
            plan = prepared(case.method, data, settings, image, options_of(case))
            if change.views:
                plan = replace(plan, pipeline=change.views(plan.pipeline))
            if change.method:
                change.method(plan.method)
            Examined(plan, case.kind).complete()
        except Interrupted:
            raise
        except SelftaughtError as raised:
            error, _, _ = str(raised).partition("; nothing was exported")
            unfit = error if GRAY in error else ""
        except Unfit as raised:
            unfit = str(raised)
        except Exception as raised:  # a change that torch refuses needs no doctor
            unfit = f"{type(raised).__name__}: {raised}"
        file = Path(out) / "run" / "diagnosis.json"
        found = json.loads(file.read_text()) if file.exists() else {}
    row = {
        "method": case.method,
        "data": case.data,
        "recipe": case.recipe,
        "steps": case.steps,
        "family": Drawn(case.method).family,
        "kind": case.kind.name if case.kind else "",
        "half": case.half,
        "outcome": "unfit" if unfit else outcome(case.kind, found, error),
        "found": [
            f"{f['name']} ({f['severity']}, {f['progress']:.0%}): {(f['causes'] or [''])[0]}"
            for f in found.get("findings", [])
        ],
        "error": unfit or error,
        "course": brief(found.get("course", [])),
        "cpu_seconds": round(time.process_time() - begun, 1),
        "machine": machine.describe(),
    }
    if row["half"] == "published":  # it is not looked at
        row |= {"found": [], "error": "", "course": {}}
    return row


def brief(course: list[dict[str, Any]]) -> dict[str, list[float]]:
    """First, third and last number of each figure that changes."""
    found = {}
    for name in dict.fromkeys(k for look in course for k in look):
        values = [x[name] for x in course if isinstance(x.get(name), int | float)]
        if values and name not in ("step", "progress"):
            found[name] = [float(f"{x:.4g}") for x in (values[0], values[len(values) // 10])]
            found[name].append(float(f"{values[-1]:.4g}"))
    return found


def outcome(kind: Kind | None, found: dict[str, Any], error: str) -> str:
    """right, late, wrong or missed; of a healthy run quiet, alarm or refused."""
    findings = found.get("findings", [])
    alarms = [f for f in findings if f["severity"] != "note"]
    if kind is None:
        return "alarm" if alarms else "refused" if error else "quiet"
    if error and not findings:
        return "right" if any(w in error for w in kind.words) else "wrong"
    named = [f for f in findings if names(kind, f)]
    before = alarms[: alarms.index(named[0])] if named and named[0] in alarms else []
    early = [f for f in alarms if f["progress"] <= EARLY]
    if named and named[0] not in alarms:
        before = [f for f in early if f["progress"] < named[0]["progress"]]
    if not named:
        return "wrong" if early else "missed"
    if before:
        return "wrong"
    return "right" if named[0]["progress"] <= EARLY else "late"


def decided(kind: Kind | None, findings: list[dict[str, Any]], progress: float) -> bool:
    """Whether a patient's outcome stays as it is, whatever is found from here on."""
    return progress > EARLY and outcome(kind, {"findings": findings}, "") != "missed"


def names(kind: Kind, finding: dict[str, Any]) -> bool:
    """Whether a finding is the right one, and its first cause, where it has several."""
    for name, _, word in (entry.partition("/") for entry in kind.expected):
        if finding["name"] == name and word in " ".join(finding["causes"][:1]):
            return True
    return False


# ------------------------------------------------------------------------------------- tables


def share(rows: list[dict[str, Any]], wanted: Callable[[dict[str, Any]], bool]) -> str:
    """How many of the rows, with the interval."""
    good = sum(map(wanted, rows))
    if not rows:
        return "none"
    low, high = wilson(good / len(rows), len(rows))
    return f"{good} of {len(rows)} ({100 * good / len(rows):.0f} %; {low:.0f} to {high:.0f})"


def right(row: dict[str, Any]) -> bool:
    return row["outcome"] == "right"


def alarm(row: dict[str, Any]) -> bool:
    return row["outcome"] in ("alarm", "refused")


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """Totals of both halves, and all about the half that rules are built on."""
    rows = [r for r in found.values() if r["outcome"] != "unfit"]
    well = [r for r in rows if not r["kind"]]
    newest = max((r["machine"] for r in rows), key=lambda m: m["date"])
    lines = [
        "# The doctor on patients that are drawn, and on healthy runs",
        "",
        "Made by `OMP_NUM_THREADS=1 python benchmarks/doctor.py --data $DATA --patients 80 "
        "--healthy 57`, with `--healthy 69 --seed 1` (and patients of seed 1 of kinds whose rules "
        "were changed, `--only`), and with `--half published "
        "--patients 150 --healthy 100 --seed 3` at commit b8ec3e1, without its methods of series. "
        f"{machine.sentence(newest)}",
        "",
        f"{SIZE} px, batch {BATCH}, {STEPS[0]} to {STEPS[1] - 1} steps. Right: the first finding "
        f"(notes aside) names the cause within {EARLY:.0%} of training, or an error does before "
        "it; late: after that; wrong: another finding came first; missed: none came in time. "
        "Intervals are Wilson's, of 95 %.",
        "",
        "| half | right | wrong | late | missed | methods | healthy: alarms | methods |",
        "| --- | --- | --- | --- | --- | ---: | --- | ---: |",
    ]
    for which in HALVES:
        ill = [r for r in rows if r["half"] == which and r["kind"]]
        own = [r for r in well if r["half"] == which]
        counts = [sum(r["outcome"] == o for r in ill) for o in ("wrong", "late", "missed")]
        many, more = (len({r["method"] for r in each}) for each in (ill, own))
        cells = [which, share(ill, right), *map(str, counts), str(many), share(own, alarm)]
        lines.append(f"| {' | '.join(cells)} | {more} |")
    for title, of in (("Kinds", "kind"), ("Families", "family")):
        alarms = ["false alarms"] if of == "family" else []
        head = [of, *HALVES, *alarms]
        lines += [
            "",
            f"## {title}, right",
            "",
            f"| {' | '.join(head)} |",
            "|" + " --- |" * len(head),
        ]
        for value in sorted({r[of] for r in rows if r["kind"] or alarms}):
            own = [r for r in rows if r[of] == value]
            ill = [r for r in own if r["kind"]]
            parts = [share([r for r in ill if r["half"] == h], right) for h in HALVES]
            parts += [share([r for r in own if not r["kind"]], alarm) for _ in alarms]
            lines.append(f"| {value} | {' | '.join(parts)} |")
    lines += ["", "## What is wrong, late or missed in the half that is built on, and alarms", ""]
    for key, row in found.items():
        if row["half"] != "published" and row["outcome"] not in ("right", "quiet", "unfit"):
            heard = "; ".join(row["found"]) or row["error"] or "nothing"
            lines.append(f"- {row['outcome']}: {key.replace('|', ',')}: {heard}")
    return "\n".join(lines) + "\n"


def take(cases: Iterator[Case], count: int, rows: dict[str, Any], arguments: Any) -> Iterator[str]:
    """Run the first `count` that fit, one by one, but for those that are there already."""
    done = 0
    while done < count:
        case = next(cases)
        wanted = not arguments.only or any(part in case.key for part in arguments.only)
        if wanted and (arguments.only or case.key not in rows):
            rows[case.key] = run(case, arguments.data)
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            RESULTS.with_suffix(".md").write_text(markdown(rows))
            if rows[case.key]["half"] != "published":
                tell(case.key, rows[case.key], bool(arguments.only))
            yield case.key
        # of those that are passed over the number is the same, whatever is asked for
        done += case.key not in rows or rows[case.key]["outcome"] != "unfit"


def tell(key: str, row: dict[str, Any], all_of_it: bool) -> None:
    print(f"{row['outcome']:8}{row['cpu_seconds']:6}  {key}: {row['found'] or row['error'][:200]}",
          flush=True)  # fmt: skip
    if all_of_it:
        print("   ", row["error"], json.dumps(row["course"]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with a folder a set")
    parser.add_argument("--half", choices=HALVES, default="build")
    parser.add_argument("--patients", type=int, default=40, help="that are drawn")
    parser.add_argument("--healthy", type=int, default=30, help="runs that nothing is wrong with")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--only", nargs="+", default=[], help="parts of what a row is called")
    parser.add_argument("--staged", action="store_true", help="the patients of staged.py instead")
    arguments = parser.parse_args()
    logging.getLogger("selftaught").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if arguments.staged:
        import staged  # its photos are made ready when they are asked for

        staged.main(arguments.only)
        return
    if arguments.data is None:
        parser.error("name the folder that has a folder a set, with --data")
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    ill = take(patients(arguments.half, arguments.seed), arguments.patients, rows, arguments)
    well = take(healthy(arguments.half, arguments.seed), arguments.healthy, rows, arguments)
    for _ in zip_longest(ill, well):  # in turn, so that a study that is killed has both
        pass


if __name__ == "__main__":
    main()
