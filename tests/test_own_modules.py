"""Modules of one's own as backbones, weights that methods leave alone, and normalization."""

import copy
import json
import logging
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from torch import nn

import selftaught
from selftaught import backbone, cli, evaluate, export, methods, pretrain
from selftaught.backbones import Image, Wrapped, is_encoder
from selftaught.errors import UserError
from selftaught.methods import MAE, DenseCL, MoCoV3, SimCLR
from tests.cases import CASES, drawn
from tests.photos import two_classes
from tests.test_engine import Killed, curve, killed_after

FAST = {"epochs": 1, "batch": 8, "workers": 0, "log_every": 1, "precision": "fp32"}
WORDS = [f"--{name.replace('_', '-')}={value}" for name, value in FAST.items()]
WORDS += ["--hidden=16", "--dim=8"]

CSP = '''"""A backbone as detectors have it: half of the channels go around the middle."""

import torch
from torch import nn


class Csp(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.SiLU())
        self.way, self.around = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.SiLU())
        self.last = nn.Conv2d(16, 24, 3, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.last(torch.cat([self.middle(self.way(x)), self.around(x)], 1))


def make_encoder(channels=3):
    return Csp(channels)


def pooled():
    return nn.Sequential(Csp(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
'''


class UNetEncoder(nn.Module):
    """Maps of each level; the last one, or all."""

    def __init__(self, channels: int = 3, every: bool = False):
        super().__init__()
        widths = [channels, 8, 16, 32]
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(widths)
        )
        self.every = every

    def forward(self, x):
        maps = []
        for level in self.levels:
            maps.append(level(x))
            x = nn.functional.max_pool2d(maps[-1], 2)
        return maps if self.every else maps[-1]


class Named(UNetEncoder):
    def forward(self, x):
        return {"features": super().forward(x), "logits": x.mean((2, 3))}


class Pair(UNetEncoder):
    """Two maps of one size, of which none is the deepest."""

    def forward(self, x):
        first = self.levels[0](x)
        return first, first


class Masked(nn.Module):
    def forward(self, x, mask):
        return x * mask


class Keywords(nn.Module):
    def forward(self, x, *, text):
        return x


class Pyramid(UNetEncoder):
    """Maps by the names of their levels, as detectors' necks give them."""

    def forward(self, x):
        maps = []
        for n, level in enumerate(self.levels):
            x = nn.functional.max_pool2d(level(x), 2)
            maps.append((f"p{n}", x))
        return dict(maps)


def resnet18() -> nn.Module:
    net: Any = torchvision.models.resnet18()
    net.fc = nn.Identity()
    return net


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos of two classes, and a module of one's own."""
    two_classes(tmp_path / "photos")
    (tmp_path / "my_csp.py").write_text(CSP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_csp", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "size", "channels", "dim"),
    [
        (resnet18, 64, 3, 512),
        (UNetEncoder, 32, 3, 32),
        (lambda: UNetEncoder(1), 32, 1, 32),
        (lambda: UNetEncoder(4), 32, 4, 32),
        (lambda: UNetEncoder(every=True), 32, 3, 32),
        (Pyramid, 32, 3, 32),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)), 16, 3, 5),
        (lambda: timm.create_model("test_vit", img_size=32, num_classes=7), 32, 3, 64),
    ],
)
def test_any_module_is_an_encoder(module, size, channels, dim):
    net = module().train()
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    found = Wrapped(net, size)
    assert is_encoder(found)
    assert (found.dim, found.channels, len(found.mean)) == (dim, channels, channels)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(x.equal(before[k]) for k, x in net.state_dict().items())
    method = SimCLR(found, hidden=16, dim=8)
    assert method.backbone is found
    assert found(torch.rand(2, channels, size, size)).shape == (2, dim)
    assert is_encoder(backbone("test_resnet", size=32))
    assert not is_encoder(net)


def test_a_module_is_wrapped_with_a_word_on_what_is_assumed(caplog):
    with caplog.at_level(logging.INFO, "selftaught"):
        method = SimCLR(UNetEncoder(4), hidden=16, dim=8)
    assert isinstance(method.backbone, Wrapped)
    assert "images of 224 px and 4 channels" in caplog.text
    assert "become 32 numbers; say otherwise with Wrapped(module, size=" in caplog.text
    assert isinstance(SimCLR(backbone=UNetEncoder(), hidden=16, dim=8).backbone, Wrapped)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: Wrapped(Named(), 32), "gives a dict of features, logits"),
        (lambda: Wrapped(Pair(), 32), r"a tuple of \[2, 8, 32, 32\], \[2, 8, 32, 32\]"),
        (lambda: Wrapped(Masked(), 32), r"takes 2 inputs \(x, mask\), and a backbone takes images"),
        (lambda: Wrapped(Keywords(), 32), r"takes 2 inputs \(x, text\)"),
        (lambda: Wrapped(nn.Flatten(0), 32), r"gives \[6144\] for images"),
        (lambda: Wrapped(UNetEncoder(), 32, channels=1), "cannot take images .*say what it takes"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), "cannot take images .*size="),
        (lambda: Wrapped(UNetEncoder(), 32, dim=8), "features of 32 numbers, not dim=8"),
        (lambda: Wrapped(UNetEncoder(), 32, mean=(0.5, 0.5)), "2 values for 3 channels"),
        (lambda: Wrapped(UNetEncoder(), 32, std=(0.5, 0.0, 0.5)), "std must be above 0"),
    ],
)
def test_what_is_no_encoder_is_told_in_words(made, says):
    with pytest.raises(UserError, match=says):
        SimCLR(made(), hidden=16, dim=8)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (lambda: "resnet18", r"the name 'resnet18': selftaught\.backbone\('resnet18', size=96\)"),
        (lambda: UNetEncoder, r"the class UNetEncoder: give an instance, UNetEncoder\(...\)"),
        (lambda: resnet18, r"the function resnet18: give what it returns, resnet18\(...\)"),
        (lambda: 18, r"an object \(int\)"),
        (lambda: None, r"an object \(NoneType\)"),
        (lambda: torch.jit.trace(nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 8, 8)), "TorchScript"),
    ],
)
def test_what_is_no_module_is_told_in_words(thing, says, wrap):
    with pytest.raises(UserError, match=says):
        SimCLR(Wrapped(thing(), 32) if wrap else thing(), hidden=16, dim=8)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (Mean, "Mean has no weights, so that there is nothing to train"),
        (lambda: UNetEncoder().double(), r"UNetEncoder are float64, .*give module\.float\(\)"),
    ],
)
def test_modules_that_cannot_be_trained_are_refused_before_a_folder_is_made(net, says, here):
    with pytest.raises(UserError, match=says):
        pretrain(SimCLR(Wrapped(net(), 32), hidden=16, dim=8), "photos", "a", **FAST)
    assert not (here / "a").exists()


def test_parts_of_another_size_than_the_only_one_are_told():
    only = Wrapped(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)), 32)
    with pytest.raises(UserError, match="made for images of 32 px, cannot take parts of 16 x 16"):
        only(torch.rand(2, 3, 16, 16))


NEEDS_PATCHES = {
    "aim",
    "beit",
    "capi",
    "data2vec",
    "dinov2",
    "ibot",
    "ijepa",
    "mae",
    "msn",
    "simdinov2",
    "simmim",
}


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.net.startswith("test_")])
def test_every_method_takes_a_module_or_says_why_not(name):
    case = CASES[name]
    options = dict(case.options)
    if "samples" in methods.signature(name):
        options["samples"] = 16
    module = Wrapped(UNetEncoder(), case.size)
    if name in NEEDS_PATCHES:
        with pytest.raises(UserError, match=r"of whose patches nothing is known .*vit_small"):
            methods.find(name)(module, **options)
        return
    if name == "split_brain":
        with pytest.raises(UserError, match="not cut into halves; use a ResNet"):
            methods.find(name)(module, **options)
        return
    method = methods.find(name)(module, **options)
    assert method.encoder.config["name"] == "UNetEncoder"


def test_dense_methods_need_maps():
    maps = Wrapped(UNetEncoder(), 32)
    assert (maps.has_local, maps.local_dim, maps.reduction) == (True, 32, 4)
    DenseCL(maps, hidden=16, dim=8, queue=16)
    flat = Wrapped(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)), 32)
    assert not flat.has_local
    with pytest.raises(UserError, match=r"pooled features \[B, 5\] alone"):
        DenseCL(flat, hidden=16, dim=8, queue=16)


# runs ------------------------------------------------------------------------------------------


def command(*words: str) -> None:
    assert cli.main(list(words)) == 0


def test_a_function_of_ones_own_trains_repeats_resumes_and_is_exported(here, capsys):
    own = ["--backbone", "my_csp.py:make_encoder"]
    command("pretrain", "simclr", "photos", *own, *WORDS, "--epochs=3", "--out=a")
    command("pretrain", "--config", "a/run.yaml", "--out=b")
    assert curve(here / "a") == curve(here / "b")
    assert yaml.safe_load((here / "a" / "run.yaml").read_text())["backbone"] == {
        "name": "my_csp.py:make_encoder",
        "size": 32,
        "channels": 3,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "sobel": False,
        "input": "colors",
    }
    first, second = (export.load(here / run) for run in "ab")
    x = torch.rand(2, 3, 32, 32)
    assert first(x).equal(second(x))
    assert first.trained
    for to in ("safetensors", "onnx", "torch-export"):
        assert set(export.convert("a", to=to).differences) == {"pooled", "local"}
    assert "stem.0.weight" in torch_names(here / "a" / "export-safetensors")
    for to in ("timm", "hf"):
        with pytest.raises(UserError, match="Csp is a module of one's own"):
            export.convert("a", to=to)
    command("evaluate", "a", "photos", "--probes=knn")
    command("report", "a")
    command("compare", "a", "b")
    assert "What it sees where" in (here / "a" / "report.html").read_text()
    assert "knn" in capsys.readouterr().out.lower().replace("-", "")


def torch_names(folder: Path) -> set[str]:
    from safetensors.torch import load_file

    return set(load_file(folder / "encoder.safetensors"))


@pytest.mark.usefixtures("unfinished")
def test_a_stopped_run_of_a_module_goes_on_to_the_same_bits(here):
    def make() -> SimCLR:
        torch.manual_seed(0)
        return SimCLR(Wrapped(UNetEncoder(), 32), hidden=16, dim=8)

    given = {**FAST, "epochs": 3, "save_every": 0, "evaluate": False}
    whole = pretrain(make(), "photos", "whole", **given)
    with pytest.raises(Killed):
        pretrain(killed_after(make(), 3), "photos", "killed", **given)
    resumed = pretrain(make(), "photos", "killed", resume=True, **given)
    assert curve(here / "killed") == curve(here / "whole")
    for name, x in whole.method.state_dict().items():
        assert x.equal(resumed.method.state_dict()[name]), name


def test_pooled_features_alone_are_exported(here):
    pretrain(SimCLR, "photos", "a", backbone="my_csp.py:pooled", hidden=16, dim=8, **FAST)
    for to in ("safetensors", "onnx", "torch-export"):
        done = export.convert("a", to=to)
        assert set(done.differences) == {"pooled"}
        assert "local" not in (done.folder / "README.md").read_text().split("## Training")[0]
    assert "gives no features of places" in (here / "a" / "report.html").read_text()


def test_a_module_from_python_is_kept_and_given_back(here):
    net = UNetEncoder()
    run = pretrain(SimCLR(Wrapped(net, 32), hidden=16, dim=8), "photos", "a", **FAST)
    assert run.report is not None
    assert "Map, neighbors, local features" not in run.report.read_text()
    with pytest.raises(UserError, match="UNetEncoder that was built in Python: build it"):
        selftaught.load("a")
    found = selftaught.load("a", UNetEncoder())
    x = torch.rand(2, 3, 32, 32)
    plain = run.encoder.eval().to(memory_format=torch.contiguous_format)
    assert found(x).equal(plain(x))
    with pytest.raises(UserError, match="does not fit"):
        selftaught.load("a", UNetEncoder(4))


def test_code_that_came_with_a_run_is_not_run(here):
    own = {"backbone": "my_csp.py:make_encoder", "hidden": 16, "dim": 8, **FAST}
    pretrain(SimCLR, "photos", "a", **own)
    bad = "import pathlib\npathlib.Path('ran').touch()\n" + CSP
    (here / "a" / "theirs.py").write_text(bad)
    for file in ("run.yaml", "encoder.json"):
        text = (here / "a" / file).read_text()
        (here / "a" / file).write_text(text.replace("my_csp.py", "a/theirs.py"))
    for call in (
        lambda: selftaught.load("a"),
        lambda: cli.request(["--config", "a/run.yaml"]),
        lambda: pretrain("distill", "photos", "b", backbone="test_resnet", teacher="a", **FAST),
    ):
        with pytest.raises(UserError, match=r"theirs\.py"):
            call()
    assert not (here / "ran").exists()
    about = json.loads((here / "a" / "encoder.json").read_text())
    for name in ("os:abort", "shutil:rmtree", "torchvision.models:resnet18"):
        about["encoder"]["name"] = name
        (here / "a" / "encoder.json").write_text(json.dumps(about))
        with pytest.raises(UserError, match=r"not in the folder where you are.*--backbone"):
            selftaught.load("a")
    assert selftaught.load("a", "my_csp.py:make_encoder").dim == 24
    assert (
        cli.request(
            ["simclr", "photos", "--config", "a/run.yaml", "--backbone", "my_csp.py:make_encoder"]
        )
        .backbone["name"]
        .startswith("my_csp")
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_csp.py", "name it too, as in my_csp.py:make_encoder"),
        ("absent.py:make", "absent.py does not exist"),
        ("no_such_module:make", "no file holds a module no_such_module"),
        ("my_csp.py:absent", "has no function absent"),
        ("my_csp.py:CSP_TEXT", "has no function CSP_TEXT"),
        ("json:dumps", "fails"),
    ],
)
def test_names_of_functions_that_are_none(name, says, here):
    with pytest.raises(UserError, match=says):
        pretrain(SimCLR, "photos", "run", backbone=name, **FAST)
    assert not (here / "run").exists()


def test_a_function_may_say_size_and_normalization(here):
    (here / "sized.py").write_text(
        "from selftaught.backbones import Wrapped\nfrom my_csp import Csp\n"
        "def gray():\n    return Wrapped(Csp(1), size=24, mean=(0.5,), std=(0.25,))\n"
    )
    run = pretrain(SimCLR, "photos", "a", backbone="sized.py:gray", hidden=16, dim=8, **FAST)
    found = export.load("a")
    assert (found.size, found.channels, found.mean, found.std) == (24, 1, (0.5,), (0.25,))
    assert run.samples.channels == 1
    with pytest.raises(UserError, match="pretrained is a parameter of timm's networks"):
        pretrain(SimCLR, "photos", "b", backbone="sized.py:gray", pretrained=True, **FAST)


def test_a_module_is_scored_with_places_and_by_finetuning(here):
    net = Wrapped(UNetEncoder(), 32)
    samples = selftaught.open_data("photos")
    scores = evaluate.compare(net, samples, samples, probes=["knn"])
    assert scores is not None
    command("pretrain", "finetune", "photos", "--backbone", "my_csp.py:make_encoder", *WORDS[:-2])


def test_a_function_of_an_installed_package(here, capsys):
    """It trains, and is scored, embedded and exported once more where the user names it."""
    own = ["--backbone", "torchvision.models:squeezenet1_1"]
    command("pretrain", "simclr", "photos", *own, *WORDS, "--size=64", "--out=a")
    assert cli.main(["evaluate", "a", "photos"]) == 2
    assert "--backbone torchvision.models:squeezenet1_1" in capsys.readouterr().err
    command("evaluate", "a", "photos", "--probes=knn", *own)
    command("embed", "a", "photos", "--out=a.npy", *own)
    command("export", "a", "--to", "safetensors", *own)
    command("pretrain", "simclr", "photos", *own, *WORDS, "--size=64", "--start=a", "--out=b")
    assert np.load("a.npy").shape == (16, 1000)


def test_a_function_is_scored_by_its_name_and_says_what_is_assumed(here, capsys, caplog):
    command("evaluate", "my_csp.py:make_encoder", "photos", "--probes=knn", "--size=32")
    assert "images are normalized with mean [0.485, 0.456, 0.406]" in caplog.text
    caplog.clear()
    given = ["--mean=0.5", "--std=0.5"]
    command("embed", "my_csp.py:make_encoder", "photos", "--size=32", "--out=f.npy", *given)
    assert "are normalized" not in caplog.text
    assert np.load("f.npy").shape == (16, 24)


def test_normalization_given_to_evaluate_counts(here):
    pretrain(SimCLR, "photos", "a", backbone="test_resnet", size=32, hidden=16, dim=8, **FAST)
    command("embed", "a", "photos", "--out=usual.npy")
    command("embed", "a", "photos", "--out=other.npy", "--mean=0.5", "--std=0.5")
    command("embed", "a", "photos", "--out=same.npy", "--mean=0.485,0.456,0.406")
    assert not np.allclose(np.load("usual.npy"), np.load("other.npy"))
    assert np.allclose(np.load("usual.npy"), np.load("same.npy"))
    assert cli.main(["embed", "a", "photos", "--out=x.npy", "--mean=0.5,0.5"]) == 2


def test_a_timm_module_without_weights_is_normalized_as_imagenet(caplog):
    with caplog.at_level(logging.INFO, "selftaught"):
        found = Wrapped(timm.create_model("test_resnet", num_classes=0), 64)
    assert found.mean == (0.485, 0.456, 0.406)
    assert "no weights of timm's" in caplog.text
    net = timm.create_model("test_resnet", num_classes=0)
    with torch.no_grad():  # as after a training, of which nobody knows whose it was
        net.layer1[0].bn1.weight.add_(torch.rand(net.layer1[0].bn1.weight.shape))
    assert Wrapped(net, 64).mean == (0.5, 0.5, 0.5)


# weights that are there ------------------------------------------------------------------------


def loaded(name: str, size: int, how: str) -> Image:
    net = drawn(name, size)
    state = {k: v + 0.1 if v.is_floating_point() else v for k, v in net.net.state_dict().items()}
    if how == "net":
        net.net.load_state_dict(state)
    else:
        net.load_state_dict({f"net.{k}": v for k, v in state.items()})
    return net


@pytest.mark.parametrize("how", ["net", "encoder"])
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"split_brain"}))  # which cuts it in two
def test_no_method_draws_weights_anew_that_are_there(name, how):
    case = CASES[name]
    if how == "encoder" and case.net != "test_vit":
        return
    net = loaded(case.net, case.size, how)
    assert net.trained
    before = {k: v.clone() for k, v in net.net.state_dict().items()}
    options = dict(case.options)
    if "samples" in methods.signature(name):
        options["samples"] = 16
    methods.find(name)(net, **options)
    after = net.net.state_dict()
    # a norm may get the name of the other, a class token's place may go
    renamed = {k.replace("fc_norm", "norm"): v for k, v in before.items()}
    for key, value in after.items():
        old = renamed[key.replace("fc_norm", "norm")]
        assert value.equal(old[:, -value.shape[1] :] if key == "pos_embed" else old), key


def test_an_encoder_that_was_read_is_trained(tmp_path):
    net = backbone("test_vit", size=32)
    assert not net.trained
    export.save(net, tmp_path)
    assert selftaught.load(tmp_path).trained
    assert copy.deepcopy(selftaught.load(tmp_path)).trained
    assert not evaluate.untrained(selftaught.load(tmp_path)).trained
    for kind, options in ((MAE, {"dim": 32, "depth": 1, "heads": 2}), (MoCoV3, {"hidden": 8})):
        drawn = backbone("test_vit", size=32)
        before = drawn.net.state_dict()["blocks.0.mlp.fc1.weight"].clone()
        kind(drawn, **options)
        assert not drawn.net.state_dict()["blocks.0.mlp.fc1.weight"].equal(before)
        assert not drawn.trained


@pytest.mark.parametrize(
    ("word", "value"), [("sobel", True), ("input", "lightness"), ("size", 48), ("std", (0.5,) * 3)]
)
def test_another_module_in_the_place_of_one_is_shown_the_same(word, value):
    net = Wrapped(UNetEncoder(), 32)
    if word == "sobel":
        net.see_edges()
    elif word == "input":
        net.see(value)
    else:
        net = Wrapped(UNetEncoder(), **({"size": 32} | {word: value}))
    assert getattr(net.like(UNetEncoder()), word) == value
    assert evaluate.untrained(net).config == net.config


# normalization belongs to weights --------------------------------------------------------------


def test_normalization_is_kept_wherever_the_weights_go(here):
    own = {"backbone": "test_resnet", "size": 32, "hidden": 16, "dim": 8, **FAST}
    run = pretrain(SimCLR, "photos", "a", mean=(0.5,), std=(0.5, 0.4, 0.3), **own)
    assert (run.encoder.mean, run.encoder.std) == ((0.5,) * 3, (0.5, 0.4, 0.3))
    found = export.load("a")
    assert (found.mean, found.std) == ((0.5,) * 3, (0.5, 0.4, 0.3))
    about = json.loads((here / "a" / "encoder.json").read_text())
    assert (about["mean"], about["std"]) == ([0.5] * 3, [0.5, 0.4, 0.3])
    assert evaluate.untrained(found).mean == found.mean
    written = yaml.safe_load((here / "a" / "run.yaml").read_text())["backbone"]
    assert (written["mean"], written["std"]) == ([0.5] * 3, [0.5, 0.4, 0.3])
    usual = pretrain(SimCLR, "photos", "b", **own)
    assert curve(here / "a") != curve(here / "b")
    assert usual.encoder.mean == (0.485, 0.456, 0.406)
    done = export.convert("a", to="onnx")
    told = json.loads((done.folder / "preprocessing.json").read_text())
    assert (told["mean"], told["std"]) == ([0.5] * 3, [0.5, 0.4, 0.3])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mean": (0.5, 0.5)}, "mean has 2 values for 3 channels"),
        ({"std": (0.5, 0.5, -1.0)}, "std must be above 0"),
        ({"channels": 4, "std": (0.5, 0.5, 0.5)}, "std has 3 values for 4 channels"),
    ],
)
def test_normalization_that_cannot_be(given, says):
    with pytest.raises(UserError, match=says):
        backbone("test_resnet", size=32, **given)
    assert backbone("test_resnet", size=32, channels=4, mean=(0.5,)).mean == (0.5,) * 4
