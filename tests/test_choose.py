"""What is chosen where nobody says it: by rules, told, recorded, and never a reason for alarm."""

import csv
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from selftaught import choose, chosen, kinds, methods, open_data, pretrain
from selftaught.backbones import backbone
from selftaught.choose import Facts
from selftaught.chosen import Chosen
from selftaught.cli import request
from selftaught.diagnose.before import BEFORE, REFUSED, Before
from selftaught.diagnose.preflight import known
from selftaught.diagnose.rules import Watch
from selftaught.engine import choosing, estimate, plan, run
from selftaught.engine.estimate import USED, Estimate, needed
from selftaught.engine.optim import Rates
from selftaught.engine.run import _rendered
from selftaught.engine.settings import Settings, seconds
from selftaught.errors import UserError
from selftaught.methods import BYOL, SimCLR
from selftaught.signature import read_object

IMAGES = (100, 1_000, 10_000, 100_000, 1_000_000)
NETS = {False: (64, 390_000), True: (2048, 23_500_000)}
"""Features and weights of what a CPU and a GPU train."""


class Net:
    """A backbone of which only its sizes are known."""

    def __init__(self, size: int, gpu: bool):
        self.size, (self.dim, self.weights) = size, NETS[gpu]
        self.stem = 16 if gpu else 4

    def parameters(self):
        return [torch.empty(self.weights, device="meta")]


def before(name: str, facts: Facts, monkeypatch, paper: bool = False) -> Before:
    """What the doctor sees of a method with what is chosen for it, or as in its paper, without
    building it."""
    kind = methods.find(name)
    batch, epochs = choose.batch(kind, facts, 1).value, choose.epochs(facts).value
    net = Net(facts.side, facts.gpu)
    chosen = choose.options(kind, facts, batch, net, ())
    if paper:
        batch, epochs, chosen = choose.PAPER_BATCH, choose.PAPER_EPOCHS, []
    steps = epochs * (facts.images // batch)
    values = {p.name: p.default for p in read_object(kind).parameters if not p.required}
    values |= {c.name: c.value for c in chosen}
    if "momentum" in values and not paper:
        first, *others = np.atleast_1d(values["momentum"]).tolist()
        first = choose.momentum(first, steps, center=values.get("center_momentum"))
        values["momentum"] = (first, *others) if others else first
    method = kind.__new__(kind)
    torch.nn.Module.__init__(method)
    method.weights = torch.nn.Parameter(torch.full((net.weights // 100,), 0.05))
    monkeypatch.setattr(kind, "backbone", net, raising=False)
    for key, value in (values | {"stem": net.stem, "reduction": net.stem}).items():
        object.__setattr__(method, key, value)
    recipe = kind.recipe if paper else choose.recipe(method, batch)
    rates = Rates(recipe, batch, steps, facts.images // batch)
    own = (kind.recipe.lr, Rates(kind.recipe, batch, steps, 1).peak)
    same = recipe is kind.recipe
    return known(
        method,
        rates,
        images=facts.images,
        size=facts.side,
        batch=batch,
        steps=steps,
        paper_lr=own if same else None,
    )


@pytest.mark.parametrize("name", methods.files())
def test_the_doctor_has_nothing_to_say_of_what_is_chosen(name, monkeypatch):
    found = {
        (images, side, gpu): [f.sentence() for f in Watch((*REFUSED, *BEFORE)).look(seen)]
        for images in IMAGES
        for side in (32, 64, 128, 224)
        for gpu in (False, True)
        if (seen := before(name, Facts(images, side, gpu, False), monkeypatch))
    }
    assert not {key: said for key, said in found.items() if said}


@pytest.mark.parametrize("name", methods.files())
def test_the_doctor_has_advice_at_most_on_the_papers_settings(name, monkeypatch):
    found = {
        (images, gpu): [f.sentence() for f in alarms]
        for images in (1_000, 10_000, 1_000_000)
        for gpu in (False, True)
        if (seen := before(name, Facts(images, 224, gpu, False), monkeypatch, paper=True))
        if (alarms := [f for f in Watch((*REFUSED, *BEFORE)).look(seen) if f.severity != "note"])
    }
    assert not found


ALONE = [
    name
    for name in methods.files()
    if "image" in kinds.among(methods.find(name).needs.kinds)
    and not any(
        p.name == "network" and p.required for p in read_object(methods.find(name)).parameters
    )
]
"""Methods that learn from images, and from no other network."""


@pytest.mark.parametrize("name", ALONE)
def test_a_method_is_built_with_what_is_chosen_for_a_hundred_images(name):
    kind, facts = methods.find(name), Facts(100, 64, False, False)
    image = {c.name: c.value for c in choose.network(kind.needs, facts, {})}
    net = backbone(image.pop("backbone"), **image)
    batch = choose.batch(kind, facts, 1).value
    chosen = {c.name: c.value for c in choose.options(kind, facts, batch, net, ())}
    every = read_object(kind).parameters
    of_data = {"samples": 100, "classes": 5}
    method = kind(net, **chosen, **{p.name: of_data[p.name] for p in every if p.from_data})
    assert all(getattr(method, key) == value for key, value in chosen.items())
    rates = Rates(choose.recipe(method, batch), batch, 40, 10)
    assert rates.lr(9) > 0.1 * rates.peak  # the first of four epochs is none of warming up alone
    assert batch % kind.needs.group == 0
    assert 8 <= batch <= 100


def photos(count: int = 40, side: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def told_in(caplog) -> dict[str, str]:
    """The table of a run's messages: setting -> the other cells; lines that go on are joined."""
    (text,) = (m for m in caplog.messages if m.startswith("chosen for"))
    _, head, *lines = text.split("\n")
    assert head.split() == ["setting", "value", "why", "the", "paper's"]
    assert max(map(len, text.split("\n")[1:])) <= 80
    starts = [head.index(name) for name in ("value", "why", "the paper's")]
    ends = [*starts[1:], None]
    found: dict[str, list[list[str]]] = {}
    for line in lines:
        if name := line[: starts[0]].strip():
            found[name] = []
        found[[*found][-1]].append([line[a:b].strip() for a, b in zip(starts, ends)])
    return {
        n: " ".join(" ".join(filter(None, cells)) for cells in zip(*rows))
        for n, rows in found.items()
    }


def test_a_run_is_told_records_and_repeats_what_was_chosen(tmp_path, caplog):
    caplog.set_level("INFO", "selftaught")
    out = tmp_path / "run"
    small = {"epochs": 1, "workers": 0, "evaluate": False, "curve": False}
    run = pretrain("moco_v2", photos(), out, temperature=0.3, **small)
    written = yaml.safe_load((out / "run.yaml").read_text())
    assert written["backbone"]["name"] == "test_resnet"
    assert (written["backbone"]["size"], written["training"]["batch"]) == (32, 16)
    assert written["options"] | {"queue": 16, "temperature": 0.3} == written["options"]
    assert "temperature" not in written["chosen"]
    assert written["chosen"]["queue"] == [16, 65536, "half of the images at most"]
    assert run.plan.recipe.optimizer == "adamw"
    assert run.method.momentum == choose.momentum(0.999, 2)
    told = told_in(caplog)
    assert told.keys() == written["chosen"].keys()
    assert told["queue"] == "16 half of the images at most 65536"
    assert told["lr"] == f"{run.plan.recipe.lr:.3g} {choose.REASONS['lr']} {0.03 * 16 / 256:.3g}"
    page = (out / "report.html").read_text("utf-8")
    for shown in (page, run._repr_html_()):
        cells = "<td>queue</td><td>16</td><td>half of the images at most</td><td>65536</td>"
        assert cells in shown
        assert shown.count("<tr><td>lr</td>") == 1
    caplog.clear()
    again = request(["--config", str(out / "run.yaml")])
    assert again.options["queue"] == 16
    assert again.training["batch"] == 16
    longer = pretrain(
        "moco_v2", photos(), out, temperature=0.3, **small | {"epochs": 2}, resume=True
    )
    assert longer.plan.recipe.optimizer == "adamw"
    assert longer.method.queue == 16
    assert longer.plan.batch == 16
    kept = yaml.safe_load((out / "run.yaml").read_text())["chosen"]
    assert kept["blur"] == written["chosen"]["blur"]  # or it would be refused the next time
    assert kept.keys() | {"lr", "warmup"} >= written["chosen"].keys()
    again = told_in(caplog)
    assert again.keys() == kept.keys()
    assert again["queue"] == told["queue"]
    assert "<td>queue</td><td>16</td>" in (out / "report.html").read_text("utf-8")


def test_what_is_chosen_is_a_table_that_fits_and_loses_no_word(monkeypatch):
    reason = " ".join(["because"] * 30)
    rows = [Chosen("weight_decay", (0.04, 0.4), 1e-6, reason), Chosen("size", 64, 224)]
    monkeypatch.setenv("FORCE_COLOR", "1")  # of a log on a build server
    for columns in (60, 80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = _rendered([chosen.table(rows)]).split("\n")
        assert max(map(len, lines)) <= columns
        assert "\x1b" not in "".join(lines)
        assert "\n".join(lines).split().count("because") == 30
        assert lines[0].split() == ["setting", "value", "why", "the", "paper's"]
        assert lines[1].split()[:2] == ["weight_decay", "0.04,0.4"]
        assert lines[-1].split() == ["size", "64", "224"]


@pytest.mark.parametrize(
    "damaged",
    [None, "auto", [1, 2], {"lr": 3}, {"lr": [1, 2]}, {"lr": {"why": 1}}, {"lr": [1, 2, 3, 4]}],
)
def test_of_a_damaged_file_what_is_whole_is_left(damaged):
    assert chosen.of({"chosen": damaged}) == []
    if isinstance(damaged, dict):
        rows = chosen.of({"chosen": damaged | {"blur": [0.0, 0.5, "small"]}})
        assert [r.row for r in rows] == [("blur", "0", "small", "0.5")]


def test_of_a_built_method_that_goes_on_what_was_chosen_is_still_told(monkeypatch, tmp_path):
    rows: dict[str, Any] = {"batch": [8, 256, "of 16 images"], "epochs": [2, 100, "1m"]}
    rows["max_steps"] = [3, None, "1.5 passes"]
    before = {"training": {n: v[0] for n, v in rows.items()}, "chosen": rows}
    monkeypatch.setattr(choosing, "recorded", lambda settings, out: before)
    method = SimCLR(backbone("test_resnet", size=32), hidden=8, dim=4)
    data = open_data(photos(16))
    for given, told, lasts in (
        ({}, ["batch", "epochs", "max_steps"], (2, 3)),
        ({"epochs": 30}, ["batch"], (30, None)),
        ({"max_steps": 7, "batch": 4}, [], (None, 7)),
    ):
        settings, kept = choosing.settled(method, Settings(**given), tmp_path, data, False)
        assert [c.name for c in kept] == told
        assert settings.batch == given.get("batch", 8)
        assert (settings.epochs, settings.max_steps) == lasts
    assert Chosen("max_steps", *rows["max_steps"]).row[3] == "none"


def test_the_papers_recipe_stays_as_it_was(tmp_path):
    given = {"backbone": "test_resnet", "size": 32, "batch": 8, "epochs": 1, "workers": 0}
    given |= {"evaluate": False, "curve": False}
    run = pretrain(BYOL, photos(), tmp_path / "run", recipe="paper", **given)
    assert run.plan.recipe == BYOL.recipe
    assert not run.plan.chosen
    assert (run.method.hidden, run.method.momentum) == (4096, 0.99)


def test_a_time_becomes_epochs(tmp_path):
    given = {"workers": 0, "evaluate": False, "curve": False, "time": "2s"}
    run = pretrain(SimCLR, photos(16), tmp_path / "run", **given)
    written = yaml.safe_load((run.folder / "run.yaml").read_text())
    assert written["training"]["epochs"] == run.plan.settings.epochs >= 1
    assert "time" not in written["training"]
    assert "2s at" in written["chosen"]["epochs"][2]
    with pytest.raises(UserError, match="is finished"):  # and not that time and epochs are given
        pretrain(SimCLR, photos(16), run.folder, resume=True, **given)


def test_a_training_ends_within_an_epoch(tmp_path):
    given = {"batch": 8, "workers": 0, "evaluate": False, "curve": False, "backbone": "test_resnet"}
    run = pretrain(SimCLR, photos(32), tmp_path / "run", max_steps=6, size=32, **given)
    assert (run.plan.steps, run.plan.per_epoch, run.plan.settings.epochs) == (6, 4, 2)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert max(int(row["step"]) for row in csv.DictReader(file)) == 6
    with pytest.raises(UserError, match=r"is finished .* larger --max-steps with --resume"):
        pretrain(SimCLR, photos(32), tmp_path / "run", size=32, resume=True, **given)
    given |= {"size": 32, "resume": True, "max_steps": 6}
    with pytest.raises(UserError, match="larger --max-steps with"):  # more epochs are not enough
        pretrain(SimCLR, photos(32), tmp_path / "run", **given, epochs=9)
    given["max_steps"] = 9
    assert pretrain(SimCLR, photos(32), tmp_path / "run", **given).plan.steps == 9


def test_little_time_is_kept_to_the_step(tmp_path, monkeypatch):
    given = Settings(batch=8, workers=0, evaluate=False, time="60s", out=tmp_path / "run")
    image, found = {"name": "test_resnet", "size": 32}, {}
    monkeypatch.setattr(plan, "room", lambda *_: USED * 60)
    for room in (0.3, 1.75, 10.5):
        step = Estimate(0.0, USED * 60 / room / 4, 0.0)  # of four in a pass
        monkeypatch.setattr(plan, "of_step", lambda *_, step=step, **__: step)
        made = plan.prepared(SimCLR, photos(32), given, image, {})
        found[room] = made.steps, made.settings.epochs, made.settings.max_steps
    assert found == {0.3: (1, 1, 1), 1.75: (7, 2, 7), 10.5: (40, 10, None)}


def test_time_is_left_for_scores_and_report():
    assert estimate.room(1200, 0.01, 3000, 3000) == 1020  # as much as they need, and more
    assert estimate.room(60, 0.004, 3000, 3000) == pytest.approx(60 - 12 - 8)
    assert estimate.room(60, 0.004, 3000, 0) == pytest.approx(60 - 6 - 8)  # nothing is scored
    assert estimate.room(20, 0.004, 50_000, 50_000) == 10  # half of it is trained for all the same
    assert estimate.room(1200, 0.004, 200_000, 200_000) == pytest.approx(1200 - 406 - 8)
    assert estimate.room(20, 0.01, 5, 5) == 17


def test_scores_of_labeled_images_take_of_the_time(tmp_path, monkeypatch):
    step = Estimate(0.0, 0.8, 0.0)  # a tenth of a second an image
    monkeypatch.setattr(plan, "of_step", lambda *_, **__: step)
    image, found = {"name": "test_resnet", "size": 32}, []
    labeled = open_data([(p, i % 2) for i, p in enumerate(photos(160))])
    for data, options in (
        (photos(160), {}),
        (labeled, {}),
        (labeled, {"evaluate": False}),
        (labeled, {"test": labeled}),
    ):
        given = Settings(batch=8, workers=0, time="60s", out=tmp_path / "run", **options)
        found.append(plan.prepared(SimCLR, data, given, image, {}).steps)
    assert found == [int(s / 0.8) for s in (51, 43.36, 51, 35.36)]


def test_a_time_is_measured_once(tmp_path, monkeypatch):
    looks = []
    for module in (estimate, run):
        monkeypatch.setattr(module, "needed", lambda *a, **k: looks.append(1) or needed(*a, **k))
    given = Settings(batch=8, workers=0, evaluate=False, time="2s", out=tmp_path / "run")
    image = {"name": "test_resnet", "size": 32}
    made = plan.prepared(SimCLR, photos(32), given, image, {"hidden": 16, "dim": 8})
    assert len(looks) == 1
    need = run.Run(made).estimate()
    assert len(looks) == 1
    assert made.step is not None
    assert need.seconds == pytest.approx(made.steps * made.step.seconds)
    frozen = run.Run(made)
    frozen.prepared = frozen.prepared._replace(told=["something is frozen"])
    frozen.views = frozen._views()
    frozen.estimate()
    assert len(looks) == 2


def test_times_are_read():
    assert [seconds(t) for t in ("20m", "1h30m", "90s", "1.5h")] == [1200, 5400, 90, 5400]
    for wrong in ("", "20", "m", "-1m", "1d", "0s"):
        with pytest.raises(UserError, match="such as 20m"):
            seconds(wrong)


def test_a_time_and_epochs_are_one_too_many():
    with pytest.raises(UserError, match="--time 5m and --epochs 3"):
        pretrain(SimCLR, photos(16), epochs=3, time="5m")


def test_large_batches_and_large_transformers_keep_the_papers():
    small = SimCLR(backbone("test_resnet", size=32), hidden=8, dim=4)
    assert choose.recipe(small, 1024) is SimCLR.recipe
    assert choose.recipe(small, 256).lr == pytest.approx(4e-3)
    assert choose.recipe(small, 64).lr == pytest.approx(2e-3)


def test_data_alone_is_trained_on_by_the_usual_method(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "byol").mkdir()
    asked = request(["photos", "--time", "5m"])
    assert (asked.method, asked.data, asked.training) == ("simclr", "photos", {"time": "5m"})
    assert request(["byol", "photos"]).method == "byol"
    with pytest.raises(UserError, match="nowhere"):
        request(["nowhere", "--time", "5m"])
