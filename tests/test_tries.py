"""`--try`: what is compared, for how long, what is taken and why, and what a killed run keeps."""

import json
import math
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image as Picture

from selftaught import cli, pretrain, report
from selftaught.chosen import Chosen
from selftaught.engine import choosing, tries
from selftaught.engine.estimate import Estimate
from selftaught.engine.run import Run
from selftaught.engine.settings import Settings, seconds
from selftaught.engine.tries import Candidate, Row, halved, rounds, table, variants, verdict
from selftaught.errors import Interrupted, TrainingError, UserError
from selftaught.evaluate.curve import KNN, Look
from selftaught.methods import SimCLR, SupCon
from selftaught.report.training import tried
from tests.test_engine import make, photos
from tests.test_report import Reader

SMALL = {"workers": 0, "evaluate": False, "curve": False, "accelerator": "cpu", "size": 32}
SMALL |= {"backbone": "test_resnet", "batch": 8, "precision": "fp32", "try_": True}


def shades(count: int = 120, classes: int = 3) -> list[tuple[np.ndarray, int]]:
    """Images whose classes differ by how bright they are."""
    bright = np.arange(count) % classes
    images = photos(count) // 4 + (60 * bright[:, None, None, None]).astype(np.uint8)
    return [(image, int(label)) for image, label in zip(images, bright)]


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Let tries be such as a test has time for, however slow the machine is."""
    patch.setattr(Run, "estimate", lambda _: Estimate(0.0, 1.0, 0.0))
    patch.setattr(tries, "_epoch", lambda _: 1.0)
    patch.setattr(tries.Trying, "_affordable", lambda *_: 0.1)
    patch.setattr(tries, "LEAST", 0)
    patch.setattr(tries, "LOOKED", 1e-6)
    patch.setattr(tries, "HANDFUL", ("simclr", "vicreg"))


# what is taken ----------------------------------------------------------------------------------


def row(name: str, share: float, failed: str = "", count: int = 200, floor: float = 30.0) -> Row:
    """A try that got this share of images right, the first of them."""
    right = np.arange(count) < round(share * count)
    look = Look(9, {KNN: 100 * float(right.mean())}, right)
    return Row(Candidate(name), 1.0, 90, look, Look(0, {KNN: floor}, right), failed)


def unlabeled(name: str, **figures: float) -> Row:
    return Row(Candidate(name), 1.0, 90, Look(9, figures))


def test_half_of_them_go_on_and_the_usual_one_always():
    assert [rounds(n) for n in (2, 3, 4, 5, 6)] == [[2], [3, 2], [4, 2], [5, 3, 2], [6, 3, 2]]
    rows = [row("usual", 0.3), row("b", 0.6), row("c", 0.5), row("d", 0.4)]
    assert [c.method for c in halved(rows, 2)] == ["usual", "b"]
    rows[1].failed = "the loss is not finite"
    assert [c.method for c in halved(rows, 2)] == ["usual", "c"]
    rows[0].failed = "too"
    assert [c.method for c in halved(rows, 2)] == ["c", "d"]
    assert [c.method for c in halved([row("usual", 0.9), *rows[1:]], 2)] == ["usual", "c"]


@pytest.mark.parametrize(
    ("shares", "name", "says"),
    [
        ((0.4, 0.6), "other", "beyond noise by"),
        ((0.4, 0.42), "usual", "no difference beyond noise: usual, the usual one, is taken"),
        ((0.4, 0.39), "usual", "with the best k-NN 40.0; other 39.0, which is within noise"),
        ((0.8, 0.4), "usual", "with the best k-NN 80.0; other 40.0"),
        ((0.1, 0.2), "other", "20.0, which is not above its floor yet, against 10.0 of usual"),
    ],
)
def test_another_is_taken_where_it_is_better_beyond_noise(shares, name, says):
    usual, other = row("usual", shares[0]), row("other", shares[1])
    taken, why = verdict([usual, other])
    assert taken.candidate.method == name
    assert says in why
    assert ("within noise" in why) == ("within noise" in says)


def test_what_failed_is_not_taken():
    taken, why = verdict([row("usual", 0.9, "collapsed"), row("b", 0.4), row("c", 0.5)])
    assert taken.candidate.method == "c"
    assert why == "c is taken (k-NN 50.0), as usual, the usual one, failed"
    taken, why = verdict([row("usual", 0.5), row("b", 0.9, "collapsed")])
    assert why == "usual is taken, the usual one (k-NN 50.0): no other did not fail"
    with pytest.raises(TrainingError, match="all 2 candidates failed, usual for this reason: bad"):
        verdict([row("usual", 0.5, "bad"), row("b", 0.9, "worse")])


def test_without_labels_a_figure_is_a_hint(monkeypatch):
    taken, why = verdict([unlabeled("usual", RankMe=20.0), unlabeled("b", RankMe=31.0)])
    assert taken.candidate.method == "b"
    assert why == (
        "b is taken: RankMe 31.0, against 20.0 of usual, the usual one; without labels that is a "
        "hint, not a score"
    )
    for other, floor in ((21.9, 5.0), (31.0, 40.0)):  # of a tenth more, and more than at first
        b = unlabeled("b", RankMe=other)
        b.floor = Look(0, {"RankMe": floor})
        taken, why = verdict([unlabeled("usual", RankMe=20.0), b])
        assert taken.candidate.method == "usual"
        assert why.startswith("no difference that tells without labels: usual, the usual one, is ")
    nothing = unlabeled("b", RankMe=math.nan)
    assert verdict([unlabeled("usual", RankMe=2.0), nothing])[0].candidate.method == "usual"
    monkeypatch.setattr(tries, "LABEL_FREE", "uniformity")  # the lower the better
    two = [unlabeled("usual", uniformity=-1.0), unlabeled("b", uniformity=-2.0)]
    assert verdict(two)[0].candidate.method == "b"


def test_the_table_has_eighty_columns():
    long = Candidate("simclr", {"lr": 0.000667, "anchor": ("cosine:1",), "color_jitter": 0.3})
    rows = [row("simclr", 0.5), Row(long, 98765.4, 123_456_789, failed="no loss", kept="dropped")]
    lines = table(rows, "uniformity").splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["candidate", "seconds", "images", "uniformity", "floor"]
    assert lines[1].split() == ["simclr", "1.0", "90", "50.0", "30.0", "dropped"]
    assert lines[2].split()[-3:] == ["-", "-", "dropped"]


class Timed:
    """A loop of which a clock needs to know."""

    steps, resting, doctor, plan = 7, 0, None, None


def test_schedules_follow_the_clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(tries.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(tries, "replace", lambda plan, **laid: plan.__class__(**laid))

    class Plan:
        steps, rest, rates = 100, 5, "rates"

        def __init__(self, **laid):
            vars(self).update(laid)

    loop = Timed()
    clock = tries.Clock(loop, Plan(), 10.0, lambda done, total: None)
    assert loop.steps == 7 * tries.AHEAD
    for step, when, steps in ((1, 1.0, 10), (2, 1.25, 16), (4, 9.0, 4), (5, 11.0, 5)):
        now[0] = when
        clock(step)
        assert (loop.steps, loop.resting) == (steps, steps * 5 // 100), step
    assert clock.passed == 11.0


# a run of it ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Where a run is kept before which two methods were tried on labeled images; what was told."""
    told, folder = [], tmp_path_factory.mktemp("tries")
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        patch.chdir(folder)
        patch.setattr(Run, "finish", lambda *_: None)  # as if it had been killed before
        patch.setattr(tries.log, "info", lambda text, *args: told.append(text))
        done = pretrain(None, shades(), epochs=1, save_every=0, **SMALL)
    assert done.folder == Path("runs/try-list")
    return folder / done.folder, told


def test_the_best_of_a_handful_is_an_ordinary_run(run):
    out, told = run
    written = yaml.safe_load((out / "run.yaml").read_text())
    found = json.loads((out / "tried.json").read_text())
    assert written["method"] == found["taken"]["method"]
    assert (written["training"]["epochs"], "try_" in written["training"]) == (1, False)
    (rows,) = found["rounds"]
    assert [r["candidate"] for r in rows] == ["simclr", "vicreg"]
    assert sorted(r["kept"] for r in rows) == ["dropped", "kept"]
    assert all(r["images"] > 0 and r["seconds"] >= 0.1 for r in rows)
    assert rows[0]["floor"] == rows[1]["floor"]  # of one network and one seed
    assert (found["figure"], found["images"]) == (KNN, 60)
    assert f"{found['why']}; it is trained from its start" in told


def test_it_is_told_and_shown(run):
    out, told = run
    assert any(text.startswith("trying 2 candidates for 0:0") for text in told)
    shown = next(text for text in told if text.startswith("candidate "))
    assert [line.split()[0] for line in shown.splitlines()] == ["candidate", "simclr", "vicreg"]
    words = " ".join(Reader(report.write(out).read_text("utf-8")).words)
    assert "What was tried" in words
    assert json.loads((out / "tried.json").read_text())["why"] in words


@pytest.mark.parametrize(
    "found",
    [{}, {"rounds": 3}, {"rounds": [3, {"kept": 1}]}, {"rounds": [["x", {"figure": "<b>"}]]}],
)
def test_a_damaged_table_breaks_no_report(found):
    section = tried(SimpleNamespace(tried=found))
    assert section is None or "<b>" not in section.body


@pytest.mark.parametrize("left", ["some steps", "none"])
def test_a_run_that_was_killed_goes_on_with_what_was_taken(run, left, tmp_path, monkeypatch):
    monkeypatch.setattr(tries.Trying, "_try", None)  # nothing is tried again
    monkeypatch.setattr(Run, "finish", lambda *_: None)
    before, out = run[0], tmp_path / "run"
    shutil.copytree(before, out)
    newest = sorted((out / "checkpoints").glob("step-*"))[-2:]  # with its checksum
    for file in newest if left == "some steps" else (out / "checkpoints").iterdir():
        file.unlink()
    again = pretrain(None, shades(), out, epochs=1, resume=True, **SMALL)
    taken = json.loads((before / "tried.json").read_text())["taken"]
    assert type(again.method).__name__.lower() == taken["method"]
    assert (out / "tried.json").read_text() == (before / "tried.json").read_text()
    assert (out / "checkpoints" / "step-000000015.pt").is_file()


def test_settings_are_tried_and_what_fails_is_told(tmp_path, caplog, monkeypatch):
    quicken(monkeypatch)
    wrong_ones = [{"lr": 1e30, "weight_decay": 0.0}, {"crop_scale": (0.5, 0.1)}]
    monkeypatch.setattr(tries, "variants", lambda _: wrong_ones)
    asked = {n: v for n, v in SMALL.items() if n not in ("size", "backbone")}
    settings = Settings.of(out=tmp_path / "run", time="9999h", **asked)
    network = [Chosen("backbone", "test_resnet", "resnet50", "fast"), Chosen("size", 32, 224)]
    once = iter([network])  # by the clock: another time it might be another one
    monkeypatch.setattr(choosing, "network", lambda _: next(once))
    made = tries.decided(SimCLR, photos(60), settings, {}, {})
    found = made.tried
    assert found is not None
    usual, fast, wrong = found["rounds"][0]
    assert (found["taken"]["method"], found["taken"]["changes"]) == ("simclr", {})
    assert (made.image.name, made.image.size) == ("test_resnet", 32)
    assert made.content["chosen"]["backbone"] == ["test_resnet", "resnet50", "fast"]
    assert found["taken"]["network"] == [list(c) for c in network]
    left = found["taken"]["time"]
    assert 9999 * 3600 - seconds(left) == pytest.approx(found["seconds"], abs=0.6)
    assert any(c.name == "epochs" and c.why.startswith(left) for c in made.chosen)
    assert found["figure"] == tries.LABEL_FREE
    assert "not finite" in fast["failed"]
    assert fast["candidate"] == "simclr --lr 1e+30 --weight-decay 0"
    assert "crop" in wrong["failed"]
    assert usual["kept"] == "kept"
    assert (made.settings.try_, made.out) == (False, tmp_path / "run")
    assert "simclr --lr 1e+30 --weight-decay 0 tells nothing: " in caplog.text


def test_stopped_while_trying_nothing_is_left(tmp_path, monkeypatch):
    quicken(monkeypatch)

    def stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(tries.Clock, "__call__", stop)
    with pytest.raises(Interrupted, match="repeat the command to try again") as caught:
        pretrain(SimCLR, photos(60), tmp_path / "run", epochs=1, **SMALL)
    assert caught.value.exit_code == 75
    assert not list(tmp_path.iterdir())


# what is asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "data", "given", "says"),
    [
        (SimCLR, photos(60), {"time": "1s"}, "--time 1s is too short to compare 4 candidates"),
        (SimCLR, photos(60), {"epochs": 1}, r"0:\d\d is too short .* train for longer"),
        (SimCLR, photos(16), {"time": "9999h"}, "compared on 16 images, and fewer than 50"),
        (SimCLR, shades(60), {"time": "9999h"}, "compared on 30 images, and fewer than 50"),
        (SimCLR, photos(60), {"time": "9999h", "devices": 2}, "on one device, got 2"),
        (SupCon, shades(), {"time": "9999h"}, "supcon learns the labels of these images"),
        (None, photos(60), {"temperature": 0.3}, "--temperature belongs to simclr"),
        (SimCLR, photos(60), {"lr": 1e-3, "color_jitter": 0.5, "time": "9999h"}, "nothing left"),
        (SimCLR, photos(60), {"resume": True}, "holds no run to resume, and nothing is kept"),
    ],
)
def test_what_cannot_be_compared_is_refused(method, data, given, says, tmp_path, monkeypatch):
    monkeypatch.setattr(tries.Trying, "_try", None)
    with pytest.raises(UserError, match=says):
        pretrain(method, data, tmp_path / "run", **SMALL | given)
    assert not list(tmp_path.iterdir())


def test_a_method_that_was_built_is_no_candidate(tmp_path):
    given = {n: v for n, v in SMALL.items() if n not in ("size", "backbone")}
    with pytest.raises(UserError, match="give its class, SimCLR, or leave --try out"):
        pretrain(make(), photos(60), tmp_path / "run", **given)


def test_a_run_of_no_tries_is_not_taken_for_one(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.yaml").write_text("method: simclr\n")
    for damage in ("", "{", '{"taken": {"changes": {"nothing": 1}}}', '{"taken": {"changes": {}}}'):
        (tmp_path / "run" / "tried.json").write_text(damage)
        with pytest.raises(UserError, match=r"does not say what --try has taken .* leave --try"):
            pretrain(SimCLR, photos(), tmp_path / "run", epochs=1, resume=True, **SMALL)


def test_the_command_says_what_it_would_try(tmp_path, monkeypatch, capsys):
    quicken(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(photos(60)):
        Picture.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    given = ["--workers", "0", "--accelerator", "cpu", "--try", "--dry-run"]
    assert cli.main(["pretrain", "photos", "--time", "1h", *given]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("trying 2 candidates for 0:00 each, by RankMe on the same 60 images")
    assert "images: simclr vicreg Then" in said
    assert said.endswith("in what is left of 1:00:00; the run is kept in runs/try-photos")
    asked = Settings(try_=True)
    assert tries.Trying("byol", "photos", asked, {}, {}).out == Path("runs/byol-photos")
    assert [f.name for f in tmp_path.iterdir()] == ["photos"]
    asked = cli.request(["photos", "--try"])
    assert (asked.named, asked.training) == (False, {"try_": True})
    assert cli.request(["byol", "photos", "--try"]).named


class Usual:
    """A plan of which only is known what its variants depend on."""

    def __init__(self, continued: bool, chosen: tuple[str, ...] = (), **given):
        self.continued, self.settings, self.method = continued, Settings(**given), make()
        self.rates = SimpleNamespace(peak=2e-3)
        self.chosen = [Chosen(name, None, None) for name in chosen]


def test_settings_that_are_given_are_not_tried():
    lower, higher, colors = {"lr": 0.000667}, {"lr": 0.006}, {"color_jitter": 0.3}
    anchor, half = {"anchor": ("cosine:1",)}, {"freeze": 2}
    for continued, given, found in (
        (False, {}, [lower, higher, colors]),
        (False, {"lr": 0.1}, [colors]),
        (False, {"color_jitter": 0.0}, [lower, higher]),
        (True, {}, [lower, anchor, half]),
        (True, {"chosen": ("lora",), "lora": 16}, [lower, anchor, {"lora": 0}]),
        (True, {"chosen": ("lora",), "lora": 16, "lora_alpha": 8.0}, [lower, anchor]),
        (True, {"chosen": ("lora",), "lora": 16, "lora_layers": ("fc1",)}, [lower, anchor]),
        (True, {"freeze": 1}, [lower, anchor]),
        (True, {"freeze": "all"}, [lower]),
        (True, {"anchor": ("gram:1",), "lora": 4}, [lower]),
    ):
        assert variants(Usual(continued, **given)) == found, given
