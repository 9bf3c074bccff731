"""Encoders on disk: what is saved loads here and in plain timm, and damage is named."""

import copy
import json
import os
import shutil

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from selftaught import export
from selftaught.backbones import Image
from selftaught.errors import TrainingError, UserError
from selftaught.export.encoder import CONFIG
from selftaught.export.facts import is_path
from selftaught.export.timm import WEIGHTS, plain_timm
from selftaught.parts import synchronize
from tests.vits import without_class_tokens

ENCODERS = {
    "stem adapted": ("test_resnet", 32, 3, {}),
    "stem of timm's own convolutions": ("test_efficientnet", 32, 1, {}),
    "plain": ("test_resnet", 64, 4, {}),
    "vit": ("test_vit", 64, 3, {}),
    "vit for small images": ("test_vit", 32, 3, {"drop_path": 0.1}),
    "vit of small patches": ("test_vit", 64, 3, {"patch_size": 8}),
    "vit of MAE": ("test_vit", 64, 3, {"pool": "mean", "positions": "sincos"}),
    "vit of I-JEPA": ("test_vit", 64, 3, {"pool": "mean", "class_token": False}),
    "vit of DINO": ("test_vit", 64, 3, {"pool": "class"}),
}


@pytest.fixture(params=ENCODERS)
def encoder(request):
    name, size, channels, options = ENCODERS[request.param]
    made = Image(name, size, channels, **options)
    for norm in made.modules():  # statistics that a fresh network does not have
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
    return made


@pytest.fixture
def small():
    return Image("test_resnet", 32)


def images(encoder):
    return torch.rand(3, encoder.channels, encoder.size, encoder.size)


@torch.no_grad()
def features(encoder, x):
    return copy.deepcopy(encoder).eval()(x)


def test_loads_here_with_the_same_features(encoder, tmp_path):
    encoder.mean = tuple(0.1 for _ in encoder.mean)
    assert encoder.training
    export.save(encoder, tmp_path / "run")
    assert encoder.training
    x = images(encoder)
    for path in (tmp_path / "run", tmp_path / "run" / WEIGHTS):
        loaded = export.load(path)
        assert not loaded.training
        assert features(loaded, x).equal(features(encoder, x))
        assert loaded.config == encoder.config
        assert (loaded.mean, loaded.std) == (encoder.mean, encoder.std)


def test_code_in_the_json_loads_it_with_timm_alone(encoder, tmp_path, monkeypatch):
    export.save(encoder, tmp_path)
    code = json.loads((tmp_path / CONFIG).read_text())["timm"]
    assert "selftaught" not in code
    monkeypatch.chdir(tmp_path)
    space = {}
    exec(code, space)
    x = images(encoder)
    assert features(space["model"], x).equal(features(encoder, x))


def test_as_training_left_it(tmp_path):
    """Channels last, norms over all processes, compiled, part of it frozen."""
    encoder = Image("resnet18", 64)
    before = {k: v.clone() for k, v in encoder.net.state_dict().items()}
    encoder.to(memory_format=torch.channels_last)
    synchronize(encoder)
    encoder.compile()
    encoder.net.conv1.requires_grad_(False)
    export.save(encoder, tmp_path)
    loaded = export.load(tmp_path).net.state_dict()
    assert all(loaded[k].equal(v) for k, v in before.items())
    assert json.loads((tmp_path / CONFIG).read_text())["timm"] is not None
    assert (tmp_path / WEIGHTS).stat().st_mode == (tmp_path / CONFIG).stat().st_mode


def test_weights_have_timms_names(encoder, tmp_path):
    export.save(encoder, tmp_path)
    assert load_file(tmp_path / WEIGHTS).keys() == encoder.net.state_dict().keys()


@pytest.mark.parametrize("pool", ["timm", "class", "mean"])
@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "test_vit4"])
def test_timm_builds_what_was_arranged(name, class_token, pool):
    """Where there is no class token, by its name or taken away, too."""
    encoder = Image(name, 64, pool=pool, class_token=class_token).eval()
    net = plain_timm(encoder).build(encoder.net.state_dict())
    x = images(encoder)
    with torch.no_grad():
        assert torch.equal(net(x), encoder(x))


def test_a_network_that_timm_cannot_build_is_saved_without_code(tmp_path, caplog, monkeypatch):
    without_class_tokens(monkeypatch)
    encoder = Image("test_vit", 64, class_token=False)
    export.save(encoder, tmp_path)
    assert "plain timm cannot load" in caplog.text
    assert json.loads((tmp_path / CONFIG).read_text())["timm"] is None
    x = images(encoder)
    assert features(export.load(tmp_path), x).equal(features(encoder, x))


def test_a_network_changed_by_hand_is_refused_and_nothing_left(small, tmp_path):
    small.net.conv1[0].stride = (2, 2)
    with pytest.raises(TrainingError, match="features differ"):
        export.save(small, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_need_force(small, tmp_path, caplog):
    small.net.bn1.weight.data[3] = float("nan")
    with pytest.raises(TrainingError, match=r"1 of \d+ weights .*\(bn1.weight\)"):
        export.save(small, tmp_path)
    assert list(tmp_path.iterdir()) == []
    export.save(small, tmp_path, force=True)
    assert "not finite" in caplog.text
    assert export.load(tmp_path).net.bn1.weight.isnan().sum() == 1


def test_an_older_encoder_survives_a_failed_save(small, tmp_path):
    export.save(small, tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    small.net.bn1.weight.data.fill_(float("inf"))
    with pytest.raises(TrainingError):
        export.save(small, tmp_path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_saving_leaves_no_random_state_behind(small, tmp_path):
    before = torch.get_rng_state()
    export.save(small, tmp_path)
    assert torch.get_rng_state().equal(before)


def test_unwritable_folder(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .* choose another place"):
        export.save(small, tmp_path / "file" / "run")


def test_a_full_disk_is_named_and_the_older_encoder_stays(small, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device")

    export.save(small, tmp_path)
    before = (tmp_path / WEIGHTS).read_bytes()
    monkeypatch.setattr("selftaught.export.encoder.save_file", full)
    with pytest.raises(UserError, match="No space left"):
        export.save(small, tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == before


def refused(path, match):
    with pytest.raises(UserError, match=match):
        export.load(path)


def test_what_is_missing_is_named(small, tmp_path):
    refused(tmp_path / "nowhere", "does not exist")
    refused(tmp_path, f"{WEIGHTS} is missing")
    export.save(small, tmp_path)
    (tmp_path / CONFIG).unlink()
    refused(tmp_path, f"{CONFIG} is missing")


def test_pickles_are_refused_unread(tmp_path):
    (tmp_path / "encoder.pt").write_bytes(b"anything")
    refused(tmp_path / "encoder.pt", "a pickle, which can run code")


def resave(folder, change):
    """Rewrite the weights as `change` wants them, with a checksum that fits."""
    state = change(load_file(folder / WEIGHTS))
    save_file(state, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda s: {f"module.{k}": v for k, v in s.items()},
            r"(\d+) of \1 weights are missing \((?:[^,]+, ){5}\.\.\.\), \1 are not known .*"
            "without the prefix 'module.'",
        ),
        (
            lambda s: {k: v for k, v in s.items() if k != "bn1.weight"},
            r"1 of \d+ weights are missing \(bn1.weight\), 0 are not known; .* another network",
        ),
        (
            lambda s: {**s, "bn1.weight": torch.ones(7)},
            r"1 of \d+ weights have another shape \(bn1.weight \[7\] instead of \[32\]\)",
        ),
        (lambda s: {**s, "bn1.weight": s["bn1.weight"] + 1}, "its checksum differs"),
    ],
)
def test_other_weights_are_explained(small, tmp_path, change, match):
    export.save(small, tmp_path)
    resave(tmp_path, change)
    refused(tmp_path, match)


def test_damaged_files_are_explained(small, tmp_path):
    export.save(small, tmp_path)
    whole = (tmp_path / WEIGHTS).read_bytes()
    for damaged in (b"", whole[:1000], whole[:-1], b"\xff" * 64 + whole):
        (tmp_path / WEIGHTS).write_bytes(damaged)
        refused(tmp_path, "not a whole safetensors file")
    (tmp_path / WEIGHTS).write_bytes(whole)
    about = json.loads((tmp_path / CONFIG).read_text())
    for text, match in (
        ("", "is damaged"),
        ("[]", "is damaged"),
        (json.dumps({**about, "format": 99}), "format 99"),
        (json.dumps({**about, "encoder": {"nane": "resnet18"}}), "does not describe"),
        (json.dumps({**about, "encoder": {**about["encoder"], "name": "no"}}), "no backbone"),
    ):
        (tmp_path / CONFIG).write_text(text)
        refused(tmp_path, match)


def test_atomic_leaves_the_old_file_where_the_block_fails(tmp_path):
    file = tmp_path / "scores.json"
    file.write_text("old")

    def fail():
        with export.atomic(file) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert file.read_text() == "old"
    with export.atomic(str(file)) as temporary:  # as Python's users name files
        temporary.write_text("new")
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["scores.json"]


def test_a_copied_encoder_loads(small, tmp_path):
    export.save(small, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere")
    assert export.load(tmp_path / "elsewhere").name == "test_resnet"


def test_channels_last_as_in_training_is_no_difference(small, tmp_path):
    export.save(small.to(memory_format=torch.channels_last), tmp_path)
    assert json.loads((tmp_path / "encoder.json").read_text())["timm"] is not None


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "vit_small_patch16_224.dino"])
def test_names_of_timm_models_are_no_places(name):
    assert not is_path(name)


@pytest.mark.parametrize("name", ["runs/a", "encoder.safetensors", "resnet81.pth", "tests"])
def test_places_are_no_names(name, monkeypatch):
    monkeypatch.chdir(os.path.dirname(os.path.dirname(__file__)))
    assert is_path(name)
