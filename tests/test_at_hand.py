"""What a training begins with where nobody says it: weights in the caches, or the largest network
that is fast enough; no clock and no cache of the machine counts here."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from selftaught import choose, config, methods
from selftaught.backbones import backbone
from selftaught.backbones.weights import hub, told
from selftaught.backbones.weights.at_hand import at_hand
from selftaught.choose import Facts
from selftaught.cli import request
from selftaught.engine import networks
from selftaught.engine.plan import Plan, prepared
from selftaught.engine.settings import Settings

FAST: dict[str, Any] = {"workers": 0, "evaluate": False, "curve": False}


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    """A folder with an empty cache of the hub and one of torch."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(hub, "reachable", lambda: 1 / 0)  # nobody asks the network
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path


def put(caches: Path, repository: str, net: str = "", current: bool = True) -> Path:
    """Weights of `net` under a name of timm's; returns their file."""
    folder = caches / "hub" / f"models--timm--{repository}"
    file = folder / "snapshots" / "x" / "model.safetensors"
    file.parent.mkdir(parents=True)
    if current:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("x")
    save_file(timm.create_model(net or repository.partition(".")[0]).state_dict(), file)
    return file


def planned(method: str = "simclr", side: int = 64, count: int = 20, **given: Any) -> Plan:
    """The plan for random images."""
    image = {n: given.pop(n) for n in ("weights", "name", "size", "channels") if n in given}
    channels = image.get("channels", 3)
    data = np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)
    return prepared(method, data, Settings(**FAST | given), image, {})


def chosen(plan: Plan) -> dict[str, Any]:
    return {c.name: c.value for c in plan.chosen}


def test_caches_are_told_and_what_is_broken_in_them_is_passed_over(caches, caplog):
    caplog.set_level("INFO", "selftaught")
    good = put(caches, "test_resnet.r160_in1k")
    old = put(caches, "test_vit2.old", current=False)
    put(caches, "test_vit.r160_in1k", "test_efficientnet")
    put(caches, "no_network_of_timms.tag", "test_convnext")
    put(caches, "test_nfnet.cut").write_bytes(good.read_bytes()[:5000])
    put(caches, "test_byobnet.empty").write_bytes(b"")
    link = put(caches, "test_convnext.link")
    link.unlink()
    os.symlink(caches / "nowhere", link)
    begun = caches / "hub" / "models--timm--test_vit3.begun" / "blobs"
    begun.mkdir(parents=True)
    (begun / "ab.incomplete").write_bytes(b"12")
    (caches / "hub" / "models--org--test_resnet").mkdir()
    torchs = caches / "torch" / "hub" / "checkpoints"
    torch.save(timm.create_model("test_efficientnet").state_dict(), torchs / "any-0123abcd.pth")
    (torchs / "cut-1.pth").write_bytes((torchs / "any-0123abcd.pth").read_bytes()[:5000])
    torch.save({"head": torch.zeros(3)}, torchs / "head.pth")
    (torchs / "x.pth.0a.partial").write_bytes(b"1")
    assert [(f.word, f.network) for f in at_hand()] == [
        (str(old), "test_vit2"),
        ("hf-hub:timm/test_resnet.r160_in1k", "test_resnet"),
        (str(torchs / "any-0123abcd.pth"), "test_efficientnet"),
    ]
    for name, reason in {
        "test_vit.r160_in1k": "is called test_vit, and holds weights of test_efficientnet",
        "no_network": "is of no network that is known",
        "test_nfnet.cut": "no whole file of weights",
        "test_byobnet.empty": "it is empty",
        "test_convnext.link": "leads to a file that is not there any more",
        "test_vit3.begun": "has no file of weights; its download may have been stopped",
        "cut-1.pth": "no whole file of weights",
        "head.pth": "is of no network that is known",
        "x.pth.0a.partial": "is a part of a download",
    }.items():
        lines = [r.getMessage() for r in caplog.records if name in r.getMessage()]
        assert [reason in line for line in lines] == [True], name
    assert {r.levelno for r in caplog.records} == {logging.INFO}


def test_another_file_of_a_repository_is_taken_where_the_first_is_broken(caches):
    file = put(caches, "test_resnet.r160_in1k")
    torch.save(timm.create_model("test_resnet").state_dict(), file.with_name("pytorch_model.bin"))
    file.write_bytes(b"")
    assert [f.word for f in at_hand()] == [str(file.with_name("pytorch_model.bin"))]


def test_no_caches_are_no_error(caches, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(caches / "nowhere"))
    monkeypatch.setenv("TORCH_HOME", str(caches / "nowhere"))
    assert at_hand() == []


def test_a_training_begins_with_weights_at_hand_is_told_of_and_keeps_them(caches, caplog):
    caplog.set_level("INFO", "selftaught")
    put(caches, "test_convnext2.r160_in1k")
    out, word = caches / "run", "hf-hub:timm/test_convnext2.r160_in1k"
    plan = planned(out=out)
    assert plan.continued
    assert plan.settings.epochs == choose.epochs(Facts(20, 64, False, True)).value
    assert (plan.image.name, plan.image.mean) == ("test_convnext2", (0.5,) * 3)
    assert "as timm has it of test_convnext2.r160_in1k" in caplog.text
    assert caplog.text.count("tensors of test_convnext2") == 1  # what is only tried says nothing
    assert plan.chosen[0].row[:2] == ("weights", word)
    assert plan.chosen[0].why.startswith("in a cache of this machine; on few")
    out.mkdir()
    (out / "run.yaml").write_text(config.dump(plan.content))
    assert request(["--config", str(out / "run.yaml")]).backbone["weights"] == Path(word)
    put(caches, "test_vit3.r160_in1k")
    put(caches, "test_resnet.r160_in1k")
    again = planned(out=out, resume=True)
    assert (again.image.name, chosen(again)["weights"]) == ("test_convnext2", word)
    assert planned(out=caches / "other").image.name == "test_resnet"


def test_the_largest_of_the_methods_kind_comes_first(caches, caplog):
    caplog.set_level("INFO", "selftaught")
    for name in ("test_resnet.r160_in1k", "test_efficientnet.r160_in1k", "test_vit2.r160_in1k"):
        put(caches, name)
    found = chosen(planned(side=160))
    assert (found["backbone"], found["size"]) == ("test_resnet", 128)
    assert planned("dino").image.name == "test_vit2"
    # masks need patches: what has none is no beginning, and said to be none
    (caches / "hub" / "models--timm--test_vit2.r160_in1k").rename(caches / "away")
    plan = planned("ibot")
    assert (plan.image.name, plan.continued) == ("test_vit2", False)
    assert "test_resnet.r160_in1k is passed over: " in caplog.text


def test_weights_that_only_look_right_are_not_begun_with(caches, caplog):
    caplog.set_level("INFO", "selftaught")
    file = put(caches, "test_resnet.r160_in1k")
    state = timm.create_model("test_resnet").state_dict()
    state.pop("layer4.0.conv2.weight")  # a number of weights that no list knows
    save_file(state, file)
    plan = planned()
    assert (plan.continued, chosen(plan)["weights"]) == (False, None)
    assert "test_resnet.r160_in1k is passed over: " in caplog.text


@pytest.mark.parametrize(
    "given",
    [
        {"recipe": "paper", "batch": 10},
        {"name": "test_vit"},
        {"weights": None},
        {"side": 32},
        {"size": 32},
        {"channels": 1},
        {"method": "rotation"},
        {"method": "mae"},
    ],
    ids=str,
)
def test_nobody_looks_where_the_network_is_said_or_no_photos_are_seen(given, caches, monkeypatch):
    monkeypatch.setattr(networks, "at_hand", lambda: 1 / 0)
    plan = planned(**given)
    assert not plan.continued
    assert "weights" not in chosen(plan)


def test_nobody_looks_where_machines_may_have_other_caches(caches, monkeypatch):
    put(caches, "test_resnet.r160_in1k")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for world, begins in (("2", True), ("4", False)):
        monkeypatch.setenv("WORLD_SIZE", world)
        found = {c.name: c.value for c in networks.network(wanted(40, 64))}
        assert ("weights" in found) is begins


def test_what_is_too_large_for_the_machine_is_named(caches, caplog, monkeypatch):
    caplog.set_level("INFO", "selftaught")
    monkeypatch.setattr(choose, "START_WEIGHTS", {False: 1e5, True: 4e5})
    put(caches, "test_resnet.r160_in1k")
    assert [c.value for c in networks.network(wanted(40, 64))][:2] == [None, "test_resnet"]
    assert "test_resnet, of 0.375 million weights, is passed over" in caplog.text
    assert choose.starts(at_hand(), methods.find("simclr").needs, gpu=True)


def test_millions_of_images_teach_a_network_of_their_own():
    needs = methods.find("simclr").needs
    for images, expected in ((500, True), (100_000, True), (1_000_000, False)):
        assert choose.may_begin(needs, Facts(images, 64, False, False), {}) is expected


def test_where_nothing_is_at_hand_the_plan_says_what_timm_has(caches):
    for method, model in {
        "simclr": "tf_efficientnet_lite0.in1k (19 MB)",
        "dino": "vit_tiny_patch16_224.augreg_in21k_ft_in1k (23 MB)",
    }.items():
        plan = planned(method)
        line = " ".join(next(c.row for c in plan.chosen if c.name == "weights"))
        assert line.startswith("weights none none that fit in the caches")
        assert f"--weights timm would download {model}" in line
        assert not plan.continued
    facts = Facts(100, 224, False, True)
    needs = methods.find("simclr").needs
    for given in ({"weights": "timm"}, {"pretrained": True}):
        taken = {c.name: c.value for c in choose.network(needs, facts, given)}
        assert taken == {"backbone": "tf_efficientnet_lite0", "size": 128}
    assert not choose.network(needs, facts, {"weights": "x.pth"})


def test_none_is_said_as_weights_none(tmp_path):
    (tmp_path / "photos").mkdir()
    asked = request(["simclr", str(tmp_path / "photos"), "--weights", "none"])
    assert asked.backbone == {"weights": None}


def test_a_network_with_a_deep_stem_is_told_by_its_size(caches):
    assert told.weights_command(str(put(caches, "test_resnet.r160_in1k"))).network == "test_resnet"


def test_weights_of_timms_are_normalized_as_timm_says(caches):
    file = put(caches, "test_resnet.r160_in1k")
    assert backbone("test_resnet", 64, weights=file).mean == (0.5,) * 3
    torchs = caches / "tf_efficientnet_lite0-0aa007d2.pth"  # as timm's address has it
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), torchs)
    assert backbone("tf_efficientnet_lite0", 64, weights=torchs).std == (0.5,) * 3
    mine = caches / "mine.safetensors"
    file.rename(mine)
    assert backbone("test_resnet", 64, weights=mine).mean == (0.485, 0.456, 0.406)


def test_a_vit_of_timms_that_averages_its_patches_has_its_weights(caches):
    net = timm.create_model("test_vit2", num_classes=0).eval()
    file = caches / "test_vit2.pth"
    torch.save(net.state_dict(), file)
    ours, images = backbone("test_vit2", 160, weights=file).eval(), torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), net(images))


# by the clock -------------------------------------------------------------------------------------


@pytest.fixture
def rates(monkeypatch) -> dict[tuple[str, int], float]:
    """(network, side) -> images a second that are measured; what was asked is left in `asked`."""
    table: dict[tuple[str, int], float] = {}

    def measured(method: Any, *_: Any) -> float:
        return table[method.backbone.name, method.backbone.size]

    monkeypatch.setattr(networks, "images_per_second", measured)
    monkeypatch.setattr(networks, "MOST", float("inf"))
    monkeypatch.setattr(networks, "SHARE", 1.0)
    return table


def wanted(images: int, side: int, **given: Any) -> networks.Wanted:
    """A training by SimCLR whose network is only made up."""
    facts, needs = Facts(images, side, False, False), methods.find("simclr").needs

    def built(image: dict[str, Any]) -> Any:
        return SimpleNamespace(backbone=SimpleNamespace(**image))

    return networks.Wanted(needs, Settings(**given), range(images), facts, {}, built)


@pytest.mark.parametrize(
    ("resnet10t", "resnet18", "larger", "expected"),
    [
        (100, 0, 0, ("test_resnet", 64)),
        (300, 200, 0, ("resnet10t", 64)),
        (400, 300, 100, ("resnet18", 64)),
        (400, 300, 250, ("resnet18", 96)),
    ],
)
def test_the_largest_network_that_sees_enough_images_is_taken(
    rates, resnet10t, resnet18, larger, expected
):
    rates |= {("test_resnet", 64): 1000.0, ("resnet10t", 64): resnet10t}
    rates |= {("resnet18", 64): resnet18, ("resnet18", 96): larger}
    network = {c.name: c for c in networks._grown(wanted(3000, 96, time="20m"))}
    assert (network["backbone"].value, network["size"].value) == expected
    rate = rates[expected]
    said = f"{rate:.3g} images/s here, {rate * 1020 / 3000:,.0f} passes in 20m; by the clock"
    assert said in network["backbone"].why


def test_weights_at_hand_are_shown_images_as_large_as_the_time_allows(rates, caches, caplog):
    caplog.set_level("INFO", "selftaught")
    put(caches, "test_resnet.r160_in1k")
    put(caches, "test_efficientnet.r160_in1k")

    def begins(**speed: float) -> list[Any]:
        for net in ("test_resnet", "test_efficientnet"):
            rates.update({(net, s): speed.get(net, 0.0) * 64 / s for s in (64, 96, 128)})
        found = {c.name: c.value for c in networks.network(wanted(40, 160, time="20s"))}
        return [found[name] for name in ("weights", "backbone", "size")]

    first, second = (f"hf-hub:timm/test_{n}.r160_in1k" for n in ("resnet", "efficientnet"))
    assert begins(test_resnet=500) == [first, "test_resnet", 128]  # 3,000 images in 17 s
    assert begins(test_resnet=200) == [first, "test_resnet", 64]
    assert begins(test_resnet=100, test_efficientnet=300) == [second, "test_efficientnet", 96]
    assert "test_resnet.r160_in1k would see too few images in 20s" in caplog.text
    assert begins() == [None, "test_resnet", 64]


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("simclr", {"time": "5s"}),
        ("simclr", {"time": "20m", "devices": 2}),
        ("simclr", {"time": "20m", "second": "others/"}),
        ("simclr", {"epochs": 3}),
        ("motion", {"time": "20m"}),
        ("distill_features", {"time": "20m"}),
        ("stego", {"time": "20m"}),
    ],
)
def test_nothing_is_measured_without_time_or_of_more_than_images(method, given):
    asked = wanted(100, 64, **given)
    asked.needs = methods.find(method).needs
    assert not asked.measurable()


@pytest.mark.parametrize(
    ("method", "side", "gpu", "given", "expected"),
    [
        ("simclr", 224, True, {}, [("resnet18", 96), ("resnet18", 0), ("resnet50", 0)]),
        ("simclr", 64, True, {}, [("resnet18", 0), ("resnet50", 0)]),
        ("mae", 224, True, {}, [("vit_tiny_patch16_224", 0), ("vit_small_patch16_224", 0)]),
        ("mae", 64, False, {}, [("test_vit2", 64), ("vit_tiny_patch16_224", 64)]),
        (
            "simclr",
            80,
            False,
            {"size": 80},
            [(n, 0) for n in ("test_resnet", "resnet10t", "resnet18")],
        ),
        ("simclr", 32, False, {}, [(n, 32) for n in ("test_resnet", "resnet10t", "resnet18")]),
    ],
)
def test_networks_grow(method, side, gpu, given, expected):
    grown = choose.grown(methods.find(method).needs, Facts(1000, side, gpu, False), given)
    found = [{c.name: c.value for c in made} for made in grown]
    assert [(f["backbone"], f.get("size", 0)) for f in found] == expected


def test_measuring_stops_when_it_has_taken_its_share(monkeypatch):
    monkeypatch.setattr(networks, "images_per_second", lambda *_: 1e9)
    clock = iter((0.0, 2.0, 10.0, 15.0))  # two measures, of 2 and of 5 seconds
    monkeypatch.setattr(networks.time, "perf_counter", lambda: next(clock))
    asked = wanted(100, 96, time="1h")
    network = {c.name: c.value for c in networks._grown(asked)}
    assert (network["backbone"], asked.spent) == ("resnet10t", 7.0)


def test_images_are_really_shown():
    plan = planned(side=32)
    settings = Settings(batch=8, **FAST)
    assert networks.images_per_second(plan.method, plan.samples, settings) > 1
