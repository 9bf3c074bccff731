"""What a training began with is kept, and is what it began with after an interruption, too."""

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selftaught import cli, export, pretrain
from selftaught.backbones import Image
from selftaught.backbones.image import encoder as module
from selftaught.engine import beginning
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.plan import Plan, prepared
from selftaught.engine.run import Run
from selftaught.engine.settings import Settings
from selftaught.engine.signals import StopSignals
from selftaught.errors import Interrupted, UserError
from selftaught.methods import SimCLR

RUN = {"batch": 8, "workers": 0, "accelerator": "cpu", "evaluate": False}


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), np.uint8)


def started(monkeypatch) -> list[Run]:
    runs: list[Run] = []
    made = Run.__init__
    monkeypatch.setattr(
        Run, "__init__", lambda self, plan: (made(self, plan), runs.append(self))[0]
    )
    return runs


def same(one, other) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(n == m and torch.equal(a, b) for (n, a), (m, b) in pairs)


def test_an_encoder_with_weights_is_remembered_and_a_fresh_one_is_not(data, tmp_path, monkeypatch):
    fresh = pretrain(
        "simclr", data, tmp_path / "a", backbone="test_resnet", size=32, **RUN, epochs=1
    )
    assert fresh.began is None
    assert not (tmp_path / "a" / beginning.FILE).exists()
    encoder = Image("test_resnet", 32)
    encoder.net.load_state_dict(encoder.net.state_dict())  # from now on they are worth something
    before = {n: x.clone() for n, x in encoder.state_dict().items()}
    run = pretrain(SimCLR(encoder), data, tmp_path / "b", epochs=1, **RUN)
    assert run.began is not None
    assert all(torch.equal(x, before[n]) for n, x in run.began.state_dict().items())
    assert not same(run.began, run.encoder)
    again = pretrain(
        SimCLR(encoder), data, tmp_path / "b", epochs=2, resume=True, force=True, **RUN
    )
    assert again.began is not None
    assert same(again.began, run.began)


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_with_the_same_weights(
    data, tmp_path, monkeypatch
):
    first = pretrain(
        "simclr", data, tmp_path / "a", backbone="test_resnet", size=32, **RUN, epochs=1
    )
    given = {"backbone": "test_resnet", "size": 32, "start": tmp_path / "a", "epochs": 1} | RUN

    def stopped(self, loop):
        raise Interrupted("stopped", 75)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train", stopped)
        with pytest.raises(Interrupted):
            pretrain("simclr", data, tmp_path / "b", **given)
    assert not Checkpoints.of(tmp_path / "b").steps()
    seen = started(monkeypatch)
    pretrain("simclr", data, tmp_path / "b", resume=True, **given)
    assert seen[0].began is not None
    assert same(seen[0].began, first.encoder.cpu())


def test_damaged_weights_of_the_start_are_told(data, tmp_path):
    encoder = Image("test_resnet", 32)
    encoder.trained = True
    pretrain(SimCLR(encoder), data, tmp_path / "b", epochs=1, **RUN)
    (tmp_path / "b" / beginning.FILE).write_bytes(b"no")
    with pytest.raises(UserError, match="is damaged"):
        pretrain(SimCLR(encoder), data, tmp_path / "b", epochs=2, resume=True, force=True, **RUN)


def stopped(out: Path, data, image: dict, method: str = "mae", **given) -> Plan:
    """A run that stops before its first step; its plan."""
    plan = prepared(method, data, Settings(out=out, **RUN, **given), image, {})
    run = Run(plan)
    run._prepare_folder()
    beginning.keep(plan.image, out)
    return plan


@pytest.mark.parametrize("net", ["test_vit", "test_vit2"])
def test_a_run_goes_on_where_the_weights_that_it_began_with_have_gone(net, data, tmp_path):
    file, out = tmp_path / "weights.pth", tmp_path / "run"
    torch.save(Image(net, 32).net.state_dict(), file)
    image = {"name": net, "size": 32, "weights": file, "mean": (0.4,)}
    before = stopped(out, data, image)
    file.unlink()
    again = prepared("mae", data, Settings(out=out, resume=True, **RUN), image, {})
    assert same(again.method, before.method)
    assert again.content["backbone"] == before.content["backbone"]
    assert again.continued
    other = image | {"weights": tmp_path / "other.pth"}
    with pytest.raises(UserError, match="does not exist"):  # nothing stands in for another one
        prepared("mae", data, Settings(out=out, resume=True, **RUN), other, {})


@pytest.mark.parametrize("net", ["test_resnet", "test_vit2", "test_vit3"])
def test_a_run_is_repeated_where_the_weights_that_it_began_with_have_gone(net, data, tmp_path):
    """By its settings and the copy beside them; the file, where it is there, comes first."""
    file, out = tmp_path / "weights.pth", tmp_path / "run"
    torch.save(Image(net, 32).net.state_dict(), file)
    np.save(tmp_path / "data.npy", data)
    before = stopped(out, data, {"name": net, "size": 32, "weights": file}, method="simclr")
    words = [
        "--config",
        str(out / "run.yaml"),
        str(tmp_path / "data.npy"),
        "--out",
        str(tmp_path / "new"),
    ]
    assert cli.request(words).backbone["weights"] == file
    file.unlink()
    asked = cli.request(words)
    settings = Settings(**asked.training)
    again = prepared(asked.method, data, settings, asked.backbone, asked.options)
    assert same(again.method, before.method)
    assert again.continued
    other = str(tmp_path / "other.pth")
    assert str(cli.request([*words, "--weights", other]).backbone["weights"]) == other
    (out / beginning.FILE).unlink()  # then it is told, when it is read
    assert cli.request(words).backbone["weights"] == file


@pytest.mark.parametrize("kind", ["weights", "pretrained", "start"])
def test_checkpoints_go_on_without_what_a_run_began_with(kind, data, tmp_path, monkeypatch):
    net, place, image = (
        Image("test_resnet", 32),
        tmp_path / "gone",
        dict[str, Any](name="test_resnet"),
    )
    given = RUN | {"epochs": 1, "curve": False, "lora": 0}
    create = module.create
    if kind == "weights":
        torch.save(net.net.state_dict(), place)
        image["weights"] = place
    elif kind == "start":
        export.save(net, place)
        given["start"] = place
    else:
        image["pretrained"] = True
        monkeypatch.setattr(module, "create", lambda *a: create(*a[:3], False, *a[4:]))

    def plan(**more) -> Plan:
        asked = Settings(out=tmp_path / "run", **given, **more)
        return prepared("simclr", data, asked, {"size": 32} | image, {"hidden": 16, "dim": 8})

    first, signals = plan(), StopSignals()
    run = Run(first)
    with run.guarded(signals):
        loop = run.start(signals)
        signals.received = signal.SIGTERM  # it saves after its first step
        with pytest.raises(Interrupted):
            run.train(loop)
    if kind != "pretrained":
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    monkeypatch.setattr(module, "create", lambda *a: 1 / 0 if a[3] else create(*a))
    again, signals = plan(resume=True), StopSignals()
    assert again.content == first.content
    assert again.continued
    run = Run(again)
    with run.guarded(signals):
        assert run.start(signals).step == 1
    assert same(again.method, first.method)
