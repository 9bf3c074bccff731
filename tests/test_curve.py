"""Looks at the encoder while it trains: they change nothing, survive what ends a run, and say when
to stop."""

import json
import logging
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import selftaught
from selftaught import export, pretrain
from selftaught.backbones import Image
from selftaught.cli import main
from selftaught.engine import curve as looking
from selftaught.engine.curve import affordable, grid, line
from selftaught.errors import Interrupted
from selftaught.evaluate import curve as saved
from selftaught.evaluate import held
from selftaught.evaluate.curve import KNN, RANK, Curve, Look, sure
from selftaught.evaluate.held import held_out
from selftaught.methods import SimCLR
from tests.test_ddp import SIMCLR, TWO
from tests.test_engine import Killed, killed_after, make, often_killed, photos
from tests.test_engine import curve as metrics
from tests.test_faults import ended, start, words

GIVEN = {"epochs": 2, "batch": 8, "workers": 0, "log_every": 1, "precision": "fp32"}
GIVEN |= {"accelerator": "cpu"}


def shades(count: int = 24, classes: int = 3) -> list[tuple[np.ndarray, int]]:
    """Images whose classes differ by how bright they are."""
    bright = np.arange(count) % classes
    images = photos(count) // 4 + (60 * bright[:, None, None, None]).astype(np.uint8)
    return [(image, int(label)) for image, label in zip(images, bright)]


def unlabeled(count: int = 24) -> np.ndarray:
    return photos(count)


def train(out: Path, data=None, method=None, **options):
    options = GIVEN | options
    return pretrain(method or make(), shades() if data is None else data, out, **options)


@pytest.fixture
def often(monkeypatch):
    """Looks after each of few steps, whatever they cost."""
    monkeypatch.setattr(looking, "affordable", lambda steps, each, left: steps)
    monkeypatch.setattr(looking, "BETWEEN", 1)


def rows(out: Path) -> list[dict]:
    return [json.loads(text) for text in (out / saved.FILE).read_text().splitlines()]


# nothing changes ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize("name", ["simclr", "moco_v2", "dino", "mae"])
@pytest.mark.parametrize("data", [shades, unlabeled])
def test_a_training_is_the_same_with_looks_and_without(name, data, tmp_path, often):
    with_looks = train(tmp_path / "with", data(), make(name)).method.state_dict()
    without = train(tmp_path / "without", data(), make(name), curve=False).method.state_dict()
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
    assert with_looks.keys() == without.keys()
    for key, value in with_looks.items():  # norms' statistics among them
        assert torch.equal(value, without[key]), key
    assert [r["step"] for r in rows(tmp_path / "with")[1:]] == list(range(7))
    assert not (tmp_path / "without" / saved.FILE).exists()


def test_modes_and_generators_are_put_back_even_where_a_look_fails():
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    network[1].eval()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), network[0].running_mean.clone()

    def failing():
        with looking.unnoticed(network, torch.device("cpu")):
            assert not any(m.training for m in network.modules())
            network(torch.rand(4, 2))
            np.random.rand(3)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        failing()
    assert [m.training for m in network] == [True, False]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(network[0].running_mean, before[2])


# which images and when ----------------------------------------------------------------------------


def test_what_is_tested_on_is_fitted_on_by_nobody():
    samples = selftaught.open_data(shades(40))
    some = held_out(samples, None, 16)
    fit, test = (set(e.index.tolist()) for e in some.of)
    assert not fit & test
    assert fit | test == set(range(40))
    assert {len(np.unique(e.labels)) for e in some.of} == {3}
    others = held_out(samples, None, 16, most=12, seed=1)
    assert len(others.fit) + len(others.test) == 12
    assert others.fit.dtype == torch.uint8
    again = held_out(samples, None, 16, most=12, seed=1)
    assert torch.equal(again.test, others.test)


def test_a_test_set_is_what_is_tested_on():
    test = selftaught.open_data(shades(9))
    some = held_out(selftaught.open_data(shades(40)), test, 16, most=12)
    assert (len(some.fit), len(some.test)) == (6, 6)
    assert set(some.of[1].index.tolist()) < set(range(9))


@pytest.mark.parametrize(
    "data", [photos(20), [(x, 0) for x in photos(20)], [(x, i) for i, x in enumerate(photos(20))]]
)
def test_without_labels_of_two_classes_no_label_is_looked_at(data):
    some = held_out(selftaught.open_data(data), None, 16, most=16)
    found = some.look(lambda x: x.float().flatten(1)[:, :9], 3)
    assert set(found.figures) == {RANK, "alpha-ReQ", "LiDAR", "alignment", "uniformity"}
    assert found.right is None
    assert all(math.isfinite(v) for v in found.figures.values())


def test_many_classes_are_some_classes_with_images_to_fit_on_and_to_test_on():
    data = [(x, i // 4) for i, x in enumerate(photos(80))]
    some = held_out(selftaught.open_data(data), None, 8, most=20)
    fit, test = (set(e.labels.tolist()) for e in some.of)
    assert fit == test
    assert len(fit) == 2


def test_looks_are_on_one_grid_as_many_as_there_is_time_for():
    assert grid(100, 4) == (0, 25, 50, 75, 100)
    assert grid(3, 1) == (0, 3)
    assert set(grid(997, 5)) <= set(grid(997, 20))
    assert affordable(10_000, 1.0, 100.0) == 20
    assert affordable(10_000, 1.0, 7.0) == 5
    assert affordable(10_000, 1.0, 1.9) == 1
    assert affordable(10_000, 1.0, -3.0) == 1  # the end is always looked at
    assert affordable(60, 1.0, 100.0) == 5
    assert affordable(7, 1.0, 100.0) == 1


def test_a_tiny_run_is_looked_at_before_and_after(tmp_path):
    run = train(tmp_path / "run")
    assert [x.step for x in run.curve.looks] == [0, 6]
    assert run.curve.floors.keys() == {"untrained", "pixels"}
    assert run.curve.floors["untrained"][KNN] == run.curve.looks[0].figures[KNN]


# what ends a run ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize("data", [shades, unlabeled])
def test_killed_and_resumed_the_curve_is_that_of_one_run(data, tmp_path, often):
    train(tmp_path / "whole", data(), save_every=0)
    out, looked = tmp_path / "killed", []

    def save(out, **options):
        looked.append(len(rows(out)) if (out / saved.FILE).exists() else 0)
        return train(out, data(), save_every=0, **options)

    resumed = often_killed(out, make, save, 1, 4)
    assert looked == [0, 2 + 1, 2 + 4]  # a look is on disk the moment it is seen
    assert rows(out) == rows(tmp_path / "whole")
    assert [x.step for x in resumed.curve.looks] == list(range(7))
    if data is shades:
        whole, other = (export.load(tmp_path / n / saved.BEST) for n in ("whole", "killed"))
        for key, value in whole.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key
    else:
        assert not (tmp_path / "whole" / saved.BEST).exists()


@pytest.mark.usefixtures("unfinished")
def test_looks_after_the_checkpoint_come_again_and_not_twice(tmp_path, often):
    train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "run", method=killed_after(make(), 3), save_every=0)
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*.pt"))
    newest.unlink()  # as if the run had been killed between a look and its checkpoint
    train(tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


@pytest.mark.usefixtures("unfinished")
def test_stopped_while_it_looked_it_looks_when_it_goes_on(tmp_path, often, monkeypatch):
    train(tmp_path / "whole")
    seen = looking.Observer.look

    def stopped(self, step):
        if step == 4:
            raise KeyboardInterrupt
        seen(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(looking.Observer, "look", stopped)
        with pytest.raises(Interrupted, match="stopped at step 4"):
            train(tmp_path / "run")
    train(tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


@pytest.mark.usefixtures("unfinished")
def test_a_damaged_curve_is_told_and_starts_anew(tmp_path, often, caplog):
    with pytest.raises(Killed):
        train(tmp_path / "run", method=killed_after(make(), 3), save_every=0)
    with (tmp_path / "run" / saved.FILE).open("a") as file:
        file.write('{"step": 4, "k-')
    train(tmp_path / "run", resume=True)
    assert "curve.jsonl is damaged" in caplog.text
    assert [r["step"] for r in rows(tmp_path / "run")[1:]] == [3, 4, 5, 6]


def test_a_longer_training_goes_on_with_its_looks(tmp_path, often):
    train(tmp_path / "run")
    run = train(tmp_path / "run", resume=True, epochs=4)
    assert [x.step for x in run.curve.looks] == [0, 1, 2, 3, 4, 5, 6, 8, 10, 12]
    assert run.curve.steps == 12


def test_an_encoder_that_cannot_be_looked_at_is_trained_all_the_same(tmp_path, often, monkeypatch):

    values = iter([1.0])

    def shown(network, fabric):
        value = next(values, math.nan)
        return lambda x: torch.full((len(x), 2), value)

    monkeypatch.setattr(looking, "shown", shown)
    run = train(tmp_path / "run")
    assert [x.step for x in run.curve.looks] == [0]
    assert (tmp_path / "run" / "encoder.safetensors").exists()


@pytest.mark.parametrize("more", [{"curve": False}, {"evaluate": False}])
def test_it_can_be_left_out(more, tmp_path):
    assert train(tmp_path / "run", **more).curve is None
    assert not (tmp_path / "run" / saved.FILE).exists()


def test_one_of_two_processes_looks(tmp_path):
    for i, (pixels, label) in enumerate(shades(40)):
        file = tmp_path / "data" / "abc"[label] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(pixels).save(file)
    more = ["--epochs", "2", "--workers", "0", "--save-every", "0.001"]
    out = tmp_path / "run"
    code, errors = ended(start(words(SIMCLR, tmp_path / "data", out, *more, *TWO)), 240)
    assert code == 0, errors
    assert errors.count("· k-NN") == len(rows(out)) - 1
    assert {r["step"] for r in rows(out)[1:]} >= {0, 10}


# the best -----------------------------------------------------------------------------------------


def falls_after(monkeypatch, step: int, low: float = 0.2):
    """k-NN is right on all until `step`, then on few."""
    real = held.Labeled.look

    def look(self, network, at):
        found = real(self, network, at)
        share = (at + 1) / (step + 1) if at <= step else low
        right = np.arange(400) < 400 * share
        return found._replace(right=right, figures=found.figures | {KNN: 100 * right.mean()})

    monkeypatch.setattr(held.Labeled, "look", look)


def test_the_best_encoder_is_kept_for_every_command(tmp_path, often, monkeypatch, capsys):
    falls_after(monkeypatch, 3)
    run = train(tmp_path / "run")
    best = tmp_path / "run" / saved.BEST
    about = json.loads((best / "encoder.json").read_text())
    assert (about["step"], about["steps"], about[KNN]) == (3, 6, 100.0)
    assert run.curve.best.step == 3
    train(tmp_path / "three", epochs=1, curve=False)  # whose steps are others: rates follow length
    encoder = selftaught.load(best)
    last = selftaught.load(tmp_path / "run")
    x = torch.rand(2, 3, encoder.size, encoder.size)
    assert encoder(x).shape == last(x).shape
    assert not torch.equal(encoder(x), last(x))
    found = selftaught.evaluate.compare(best, shades())
    assert "k-NN" in {s.name for s in found.scores["this encoder"]}
    exported = tmp_path / "exported"
    capsys.readouterr()
    assert main(["export", str(best), "--to", "safetensors", "--out", str(exported)]) == 0
    card = (exported / "README.md").read_text()
    assert "| encoder of step | 3 of 6 |" in card
    assert "| method | simclr |" in card
    assert "cannot be read" not in capsys.readouterr().err
    export.save(encoder, tmp_path / "bare")  # of which no run tells anything
    assert main(["export", str(tmp_path / "bare"), "--to", "safetensors"]) == 0
    assert "cannot be read" not in capsys.readouterr().err
    assert "Falling since step 3" in run.curve.advice


@pytest.mark.usefixtures("unfinished")
def test_the_best_encoder_is_that_of_its_step(tmp_path, often, monkeypatch):
    falls_after(monkeypatch, 3)
    train(tmp_path / "run")
    with pytest.raises(Killed):
        train(tmp_path / "killed", method=killed_after(make(), 3), save_every=0)
    state = torch.load(max((tmp_path / "killed" / "checkpoints").glob("step-*.pt")))
    assert state["step"] == 3
    best = selftaught.load(tmp_path / "run" / saved.BEST).net.state_dict()
    ours = {k.removeprefix("backbone.net."): v for k, v in state["method"].items()}
    for key, value in best.items():
        assert torch.equal(value, ours[key]), key


def test_the_best_of_low_rank_is_a_plain_encoder(tmp_path, often, monkeypatch):
    falls_after(monkeypatch, 3)
    encoder = Image("test_vit", 32)
    encoder.trained = True
    run = train(tmp_path / "run", method=SimCLR(encoder), lora=2)
    best = selftaught.load(tmp_path / "run" / saved.BEST).net.state_dict()
    assert best.keys() == run.encoder.net.state_dict().keys()
    began = run.began.net.state_dict()
    assert any(not torch.equal(value, began[name]) for name, value in best.items())


def test_a_frozen_encoder_has_no_curve(tmp_path):
    encoder = Image("test_resnet", 32)
    encoder.trained = True
    assert train(tmp_path / "run", method=SimCLR(encoder), freeze="all").curve is None


@pytest.mark.usefixtures("unfinished")
def test_a_best_that_is_later_than_what_goes_on_is_not_kept(tmp_path, often, monkeypatch):
    falls_after(monkeypatch, 4)
    with pytest.raises(Killed):
        train(tmp_path / "run", method=killed_after(make(), 4), save_every=0)
    for newest in sorted((tmp_path / "run" / "checkpoints").glob("step-*.pt"))[1:]:
        newest.unlink()
    resumed = train(tmp_path / "run", resume=True)
    assert resumed.curve.best.step == 4
    about = json.loads((tmp_path / "run" / saved.BEST / "encoder.json").read_text())
    assert about["step"] == 4


# what it says -------------------------------------------------------------------------------------


def look(step: int, share: float, count: int = 1000) -> Look:
    right = np.arange(count) < count * share
    return Look(step, {KNN: 100 * float(right.mean()), "probe": 50.0}, right)


def of(*shares: float, began: bool = False, **more) -> Curve:
    steps = 100 * (len(shares) - 1)
    looks = [look(100 * i, share) for i, share in enumerate(shares)]
    return Curve(steps, tuple(x.step for x in looks), began=began, looks=looks, **more)


@pytest.mark.parametrize(
    ("curve", "begins", "holds"),
    [
        (of(0.3, 0.4, 0.5, 0.6, 0.7), "Still rising: the last 25% of training gave +10.0", "70.0"),
        (of(0.3, 0.5, 0.6, 0.7, 0.7, 0.701, 0.7), "Flat since step 300:", "+0.0 points"),
        (of(0.3, 0.7, 0.8, 0.6, 0.5), "Falling since step 200: k-NN was 80.0", "best/"),
        (of(0.8, 0.7, 0.6, 0.5, began=True), "Worse than where it began: k-NN was 80.0", "best/"),
        (of(0.8, 0.5, 0.5, 0.5), "Worse than untrained", ""),  # fresh weights are no choice
        (of(0.5, 0.501, 0.5, 0.5), "Flat from the start", "1000 images"),
        (of(0.3, 0.9), "k-NN went from 30.0 to 90.0 % in 2 looks, too few", ""),
    ],
)
def test_when_to_stop_in_words(curve, begins, holds):
    assert curve.advice.startswith(begins)
    assert holds in curve.advice


def test_without_labels_nothing_is_said_on_when_to_stop():
    looks = [Look(i, {RANK: 10.0 + i}) for i in range(5)]
    curve = Curve(4, tuple(range(5)), looks=looks)
    assert curve.best is None
    assert curve.advice.startswith("Without labels no figure can tell when to stop")
    assert Curve(4, (0,)).advice == ""


def test_looks_differ_by_the_interval_of_a_paired_difference():
    """100 gained and 40 lost of 1,000: 101 and 41 of 1,002 by Bonett and Price."""
    one, other = np.zeros(1000, bool), np.zeros(1000, bool)
    one[:100], other[100:140] = True, True
    a, b = (Look(i, {KNN: 100 * float(r.mean())}, r) for i, r in enumerate((one, other)))
    wanted = 100 * (60 - 3 * math.sqrt(142 - 60**2 / 1002)) / 1002
    assert sure(a, b) == pytest.approx(wanted)
    assert sure(b, a) == pytest.approx(-wanted)
    assert sure(a, b, errors=6) == 0
    assert sure(a, Look(3, {RANK: 3.0})) == 0


def test_a_look_has_room_on_a_terminal():
    curve = of(0.3, 0.4, floors={"untrained": {KNN: 30.0, "probe": 41.0}})
    curve.steps = curve.looks[-1].figures["step"] = 1_000_000
    del curve.looks[-1].figures["step"]
    assert line(curve) == "step 100/1000000 · k-NN 40.0 · probe 50.0 · floor 30.0 · best"
    figures = {RANK: 512.1, "alpha-ReQ": 1.234, "LiDAR": 249.0, "alignment": 1.99}
    wide = Curve(10**6, (), looks=[Look(10**6, figures | {"uniformity": -3.91})])
    assert len(line(wide)) <= 80
    assert "uniformity" not in line(wide)


# beside where it began ----------------------------------------------------------------------------


def begun(tmp_path: Path, monkeypatch, caplog, **more):
    encoder = Image("test_resnet", 32)
    encoder.net.load_state_dict(encoder.net.state_dict())  # from now on they are worth something
    with caplog.at_level(logging.INFO, "selftaught"):
        return train(tmp_path / "run", method=SimCLR(encoder), epochs=4, **more)


def test_a_run_that_gets_worse_than_its_start_is_warned_of_once(
    tmp_path, often, monkeypatch, caplog
):
    falls_after(monkeypatch, 0)
    run = begun(tmp_path, monkeypatch, caplog)
    told = [m for m in caplog.messages if m.startswith("doctor: by k-NN")]
    assert len(told) == 1
    assert "100.0 %" in told[0]
    for way in ("--lr", "--freeze", "--anchor", "norms' statistics", "keep the start"):
        assert way in told[0]
    found = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    (finding,) = [f for f in found["findings"] if f["name"] == "worse than where it began"]
    assert finding["step"] == 1
    assert "worse than where it began" in found["standing"]
    assert run.curve.floors.keys() == {"as it began", "untrained", "pixels"}
    assert run.curve.best.step == 0
    assert run.curve.advice.startswith("Worse than where it began")
    start = selftaught.load(tmp_path / "run" / saved.BEST).state_dict()
    for key, value in run.began.state_dict().items():
        assert torch.equal(value, start[key]), key


def test_a_run_that_recovers_was_worse_and_is_not(tmp_path, often, monkeypatch, caplog):
    real = held.Labeled.look

    def look(self, network, at):
        found = real(self, network, at)
        right = np.arange(400) < (100 if at in (2, 3) else 300)
        return found._replace(right=right, figures=found.figures | {KNN: 100 * right.mean()})

    monkeypatch.setattr(held.Labeled, "look", look)
    begun(tmp_path, monkeypatch, caplog)
    found = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert [f["step"] for f in found["findings"] if f["name"] == "worse than where it began"] == [2]
    assert "worse than where it began" not in found["standing"]


def test_killed_and_resumed_it_is_told_of_at_the_same_step(tmp_path, often, monkeypatch, caplog):
    falls_after(monkeypatch, 2, 0.1)

    def method():
        torch.manual_seed(3)
        encoder = Image("test_resnet", 32)
        encoder.trained = True
        return SimCLR(encoder)

    for name in ("whole", "killed"):
        if name == "killed":
            with pytest.raises(Killed):
                train(tmp_path / name, method=killed_after(method(), 4), save_every=0)
        train(tmp_path / name, method=method(), save_every=0, resume=name == "killed", force=True)
    found = [json.loads((tmp_path / n / "diagnosis.json").read_text()) for n in ("whole", "killed")]
    assert found[0]["findings"] == found[1]["findings"]
    assert found[0]["standing"] == found[1]["standing"]


def test_fresh_weights_are_no_start_to_fall_below(tmp_path, often, monkeypatch, caplog):
    falls_after(monkeypatch, 0)
    train(tmp_path / "run", epochs=4)
    assert "where training began it was" not in caplog.text
    assert "as it began" not in rows(tmp_path / "run")[0]["floors"]


# where it is seen ---------------------------------------------------------------------------------


def test_the_page_has_the_curve_with_its_floors(tmp_path, often):
    run = train(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "While it trained" in page
    assert "k-NN, per cent right" in page
    assert "pixels" in page
    assert run.curve.advice.partition(":")[0] in page
    (tmp_path / "run" / saved.FILE).write_text("{")
    selftaught.report.write(tmp_path / "run")
    assert "While it trained" not in (tmp_path / "run" / "report.html").read_text()


def test_tensorboard_has_the_curve(tmp_path, often):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path / "run")
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    found = [(e.step, e.value) for e in board.Scalars("curve/k-NN")]
    wanted = [(x.step, pytest.approx(x.figures[KNN])) for x in run.curve.looks]
    assert found == wanted


def test_the_curve_of_a_run_that_is_moved_away_is_not_gone_on_with(tmp_path, often):
    train(tmp_path / "run")
    before = rows(tmp_path / "run")
    train(tmp_path / "run", overwrite=True, seed=1)
    assert rows(tmp_path / "run") != before
    shutil.rmtree(tmp_path / "run.old-1")
