"""Whoever follows a run: trackers of experiments by their own packages, and a function of yours."""

import json
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

from selftaught import pretrain
from selftaught.cli import main
from selftaught.engine import curve as looking
from selftaught.errors import UserError
from tests.test_curve import GIVEN, shades
from tests.test_engine import Killed, killed_after, make
from tests.test_engine import curve as metrics


class Calls(list):
    """What a fake was called with: (name, positional, named)."""

    def record(self, name: str, result: Any = None):
        def call(*given: Any, **named: Any) -> Any:
            self.append((name, given, named))
            np.random.rand(), torch.rand(1)  # packages may draw
            return result

        return call

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(given, named) for n, given, named in self if n == name]


def wandb(calls: Calls) -> types.ModuleType:
    module = types.ModuleType("wandb")
    run = types.SimpleNamespace(log=calls.record("log"), finish=calls.record("finish"))
    module.init = calls.record("init", run)
    return module


def mlflow(calls: Calls) -> types.ModuleType:
    module = types.ModuleType("mlflow")
    run = types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))
    module.start_run = calls.record("start_run", run)
    module.active_run = calls.record("active_run")
    for name in ("set_experiment", "log_params", "log_metrics", "end_run"):
        setattr(module, name, calls.record(name))
    return module


def trackio(calls: Calls) -> types.ModuleType:
    module = types.ModuleType("trackio")
    for name in ("init", "log", "finish"):
        setattr(module, name, calls.record(name))
    return module


LOGS = {"wandb": "log", "mlflow": "log_metrics", "trackio": "log"}
ENDS = {"wandb": "finish", "mlflow": "end_run", "trackio": "finish"}
BEGINS = {"wandb": "init", "mlflow": "start_run", "trackio": "init"}


@pytest.fixture
def fakes(monkeypatch) -> dict[str, Calls]:
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TRACKIO_PROJECT", raising=False)
    found = {}
    for make_fake in (wandb, mlflow, trackio):
        calls = found[make_fake.__name__] = Calls()
        monkeypatch.setitem(sys.modules, make_fake.__name__, make_fake(calls))
    return found


def train(out, method=None, **options):
    options = GIVEN | {"evaluate": False} | options
    return pretrain(method or make(), shades(), out, **options)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_each_row_and_each_look_is_logged_under_its_step(name, fakes, tmp_path):
    run = train(tmp_path / "run", track=(name, "csv"), evaluate=True)
    calls = fakes[name]
    assert len(calls.of(BEGINS[name])) == len(calls.of(ENDS[name])) == 1
    logged = [(named["step"], given[0]) for given, named in calls.of(LOGS[name])]
    rows = metrics(tmp_path / "run")
    losses = [(step, values["loss"]) for step, values in logged if "loss" in values]
    assert losses == [(int(r["step"]), pytest.approx(float(r["loss"]))) for r in rows]
    looks = [(step, values["curve/k-NN"]) for step, values in logged if "curve/k-NN" in values]
    assert looks == [(x.step, x.figures["k-NN"]) for x in run.curve.looks]
    assert [step for step, _ in logged] == sorted(step for step, _ in logged)
    assert all(
        "step" not in values and np.isfinite([*values.values()]).all() for _, values in logged
    )


def test_settings_and_names_go_with_it(fakes, tmp_path):
    train(tmp_path / "first", track="wandb,mlflow,trackio")
    ((_, named),) = fakes["wandb"].of("init")
    assert named["project"] == "selftaught"
    assert named["name"] == "first"
    assert named["config"]["training"]["epochs"] == 2
    assert "mode" not in named  # WANDB_MODE says it
    ((_, named),) = fakes["mlflow"].of("start_run")
    assert named == {"nested": False, "run_name": "first"}
    (((params,), _),) = fakes["mlflow"].of("log_params")
    assert params["training.epochs"] == "2"
    assert fakes["mlflow"].of("set_experiment") == [(("selftaught",), {})]
    ((_, named),) = fakes["trackio"].of("init")
    assert named["project"] == "selftaught"
    assert named["name"].startswith("first-")


def test_their_own_settings_win(fakes, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("TRACKIO_PROJECT", "mine")
    train(tmp_path / "run", track="wandb,mlflow,trackio")
    assert "project" not in fakes["wandb"].of("init")[0][1]
    assert not fakes["mlflow"].of("set_experiment")
    assert fakes["trackio"].of("init")[0][1]["project"] == "mine"


def test_a_run_that_goes_on_is_the_same_run_to_them(fakes, tmp_path):
    with pytest.raises(Killed):
        train(tmp_path / "run", killed_after(make(), 3), track="wandb,mlflow,trackio", save_every=0)
    train(tmp_path / "run", track="wandb,mlflow,trackio", resume=True)
    first, second = (named for _, named in fakes["wandb"].of("init"))
    assert first["id"] == second["id"]
    assert second["resume"] == "allow"
    assert fakes["mlflow"].of("start_run")[1][1] == {"nested": False, "run_id": "abc"}
    assert len(fakes["mlflow"].of("log_params")) == 1
    assert len({named["name"] for _, named in fakes["trackio"].of("init")}) == 1


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_package_that_is_not_there_is_named_before_anything_is_done(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=f"pip install {name}"):
        train(tmp_path / "run", track=(name,))
    assert not (tmp_path / "run").exists()


def test_one_that_cannot_begin_is_told_in_a_sentence(fakes, tmp_path, monkeypatch):
    def refused(**_):
        raise RuntimeError("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", refused)
    with pytest.raises(UserError, match=r"--track wandb cannot begin \(RuntimeError: no API key\)"):
        train(tmp_path / "run", track="mlflow,wandb")
    assert fakes["mlflow"].of("end_run")


def test_the_command_line_and_a_file_take_them(fakes, tmp_path, capsys):
    np.save(tmp_path / "photos.npy", np.stack([x for x, _ in shades()]))
    words = ["pretrain", "simclr", str(tmp_path / "photos.npy"), "--out", str(tmp_path / "run")]
    words += ["--backbone", "test_resnet", "--size", "32", "--epochs", "1", "--batch", "8"]
    words += ["--workers", "0", "--accelerator", "cpu", "--no-evaluate"]
    assert main([*words, "--track", "wandb,csv"]) == 0
    assert fakes["wandb"].of("log")
    assert "track: [wandb, csv]" in (tmp_path / "run" / "run.yaml").read_text()
    assert main([*words, "--track", "wandbb"]) == 2
    assert "wandb, mlflow, trackio, csv, tensorboard" in capsys.readouterr().err


# a function ---------------------------------------------------------------------------------------


def test_a_function_is_handed_rows_and_looks_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "affordable", lambda steps, each, left: 2)
    seen: list[dict[str, float]] = []
    run = train(tmp_path / "run", on_record=seen.append, evaluate=True)
    rows = [r for r in seen if "loss" in r]
    looks = [r for r in seen if "curve/k-NN" in r]
    assert [str(r["loss"]) for r in rows] == [r["loss"] for r in metrics(tmp_path / "run")]
    assert [r["step"] for r in looks] == [0, 3, 6]
    assert [r["step"] for r in seen] == [0, 1, 2, 3, 3, 4, 5, 6, 6]
    assert looks[-1]["curve/probe"] == run.curve.looks[-1].figures["probe"]
    assert "on_record" not in (tmp_path / "run" / "run.yaml").read_text()


def test_a_function_that_fails_stops_nothing_and_is_told_of_once(tmp_path, caplog):
    called = []

    def broken(row):
        called.append(row["step"])
        row.clear()  # it has a copy
        torch.rand(3), np.random.rand(3)
        raise LookupError("my dashboard")

    train(tmp_path / "with", on_record=broken)
    train(tmp_path / "without")
    assert called == [1, 2, 3, 4, 5, 6]
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
    told = [m for m in caplog.messages if "on_record failed" in m]
    assert len(told) == 1
    assert "LookupError: my dashboard" in told[0]
    assert "Traceback" in told[0]


def test_a_tracker_that_fails_stops_nothing_either(fakes, tmp_path, caplog, monkeypatch):
    def offline(values, step):
        raise ConnectionError("no network")

    monkeypatch.setattr(sys.modules["trackio"], "log", offline)
    train(tmp_path / "run", track="trackio")
    assert len([m for m in caplog.messages if "trackio failed" in m]) == 1
    assert (tmp_path / "run" / "encoder.safetensors").exists()


@pytest.mark.parametrize(
    ("given", "said"), [("print", "on_record can be given in Python alone"), (3, "be a function")]
)
def test_what_is_no_function_is_refused(given, said, tmp_path):
    with pytest.raises(UserError, match=said):
        train(tmp_path / "run", on_record=given)


def test_what_it_is_known_as_is_plain_text(fakes, tmp_path):
    train(tmp_path / "run", track="mlflow")
    assert json.loads((tmp_path / "run" / "track.json").read_text()) == {"mlflow": "abc"}
