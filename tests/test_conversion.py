"""Encoders for other libraries: each is read back there, and what cannot be is refused in words."""

import importlib.util
import json
import re
import shutil

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image as Picture
from safetensors.torch import load_file
from torch import nn

import selftaught
from selftaught import augment, export
from selftaught.augment.image.device import normalize
from selftaught.backbones import Image
from selftaught.cli import main
from selftaught.data import open_data
from selftaught.demo import PHOTOS
from selftaught.errors import TrainingError, UserError
from selftaught.export import targets, trial
from selftaught.export.conversion import NEEDS
from tests.vits import without_class_tokens

TEST = str(PHOTOS / "test.parquet")


def run_of(folder, name="test_resnet", size=64, channels=3, mean=0.4, **options):
    """A run folder as pretrain leaves it, of a network that was never trained."""
    encoder = Image(name, size, channels, **options)
    encoder.mean, encoder.std = (mean,) * channels, (0.3,) * channels
    for norm in encoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
    export.save(encoder, folder)
    settings = {
        "method": "simclr",
        "data": TEST,
        "backbone": {"name": name, "pretrained": False},
        "options": {"temperature": 0.1},
        "training": {"epochs": 3, "batch": 8, "lr": None, "column": None},
        "made_by": {"selftaught": "0.1.0", "images": 401},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    diagnosis = {"verdict": "healthy", "evidence": ["the loss went from 5 to 2"]}
    (folder / "diagnosis.json").write_text(json.dumps(diagnosis))
    return folder


@pytest.fixture
def run(tmp_path):
    return run_of(tmp_path / "run")


@pytest.fixture
def photo(tmp_path):
    pixels = open_data(TEST).read(0)
    Picture.fromarray(pixels).save(tmp_path / "photo.jpg", quality=95)
    return np.asarray(Picture.open(tmp_path / "photo.jpg"))


def refused(match, *args, **options):
    with pytest.raises(UserError, match=match):
        export.convert(*args, **options)


# every target ------------------------------------------------------------------------------------

FILES = {
    "timm": {"config.json", "model.safetensors"},
    "hf": {"config.json", "model.safetensors"},
    "onnx": {"encoder.onnx", "preprocessing.json"},
    "safetensors": {"encoder.safetensors", "encoder.json", "preprocessing.json"},
    "torch-export": {"encoder.pt2", "preprocessing.json"},
}


@pytest.mark.parametrize("to", FILES)
def test_the_lines_of_the_card_give_the_features_of_a_photo(to, run, photo, tmp_path, monkeypatch):
    done = export.convert(run, to=to, license="cc0-1.0")
    assert done.folder == run / f"export-{to}"
    assert {f.name for f in done.folder.iterdir()} == FILES[to] | {"README.md"}
    assert done.images == "16 images of the training data"
    assert set(done.differences) == {"pooled", "local"}
    assert max(done.differences.values()) < 1e-5
    assert not [p for p in run.iterdir() if p.name.startswith(".")]

    moved = tmp_path / "moved"
    shutil.copytree(done.folder, moved)
    shutil.copy(tmp_path / "photo.jpg", moved)
    monkeypatch.chdir(moved)
    space = {}
    exec(re.findall(r"```python\n(.*?)```", (moved / "README.md").read_text(), re.S)[0], space)
    encoder = export.load(run)
    view = torch.from_numpy(augment.plain(64)(photo))[None]
    with torch.inference_mode():
        wanted = encoder(normalize(view, encoder.mean, encoder.std))
    found = torch.as_tensor(np.asarray(space["pooled"]))
    assert (found - wanted).norm() / wanted.norm() < 0.02  # Pillow rounds after each direction


VITS = {
    "as timm has it": {"name": "test_vit"},
    "of MAE": {"pool": "mean", "positions": "sincos"},
    "of I-JEPA, small images": {"pool": "mean", "class_token": False, "size": 32},
    "of DINO, one channel": {"pool": "class", "channels": 1},
}


@pytest.mark.parametrize("kind", VITS)
@pytest.mark.parametrize("to", ["timm", "hf", "torch-export"])
def test_vits_of_all_kinds(to, kind, tmp_path):
    options = {"name": "test_vit", "drop_path": 0.1, **VITS[kind]}
    done = export.convert(run_of(tmp_path, **options), to=to)
    assert max(done.differences.values()) < 1e-5


def test_onnx_takes_any_batch_and_says_how_images_are_prepared(tmp_path):
    import onnxruntime

    run = run_of(tmp_path, "test_vit", pool="class")
    export.convert(run, to="onnx", out=tmp_path / "here")
    session = onnxruntime.InferenceSession(tmp_path / "here" / "encoder.onnx")
    x = torch.rand(5, 3, 64, 64)
    pooled, local = session.run(["pooled", "local"], {"image": x.numpy()})
    with torch.inference_mode():
        wanted = export.load(run).features(x)
    assert torch.from_numpy(pooled).allclose(wanted.pooled, atol=1e-5)
    assert torch.from_numpy(local).allclose(wanted.local, atol=1e-5)
    about = json.loads(session.get_modelmeta().custom_metadata_map["selftaught"])
    assert about == json.loads((tmp_path / "here" / "preprocessing.json").read_text())
    assert about["mean"] == [0.4] * 3
    assert (about["size"], about["resize_short_side"], about["channels"]) == (64, 73, 3)


def test_onnx_in_16_bits(tmp_path):
    """A small-image stem, edges and four channels on the way."""
    run = run_of(tmp_path, size=32, channels=4, sobel=True)
    whole = export.convert(run, to="onnx")
    half = export.convert(run, to="onnx", out=tmp_path / "half", fp16=True)
    sizes = [(d.folder / "encoder.onnx").stat().st_size for d in (half, whole)]
    assert sizes[0] < 0.65 * sizes[1]
    assert 1e-5 < max(half.differences.values()) < 1e-3
    refused("fp16 is for onnx, not for timm", run, to="timm", fp16=True)


def test_timm_fine_tunes_it(tmp_path):
    folder = export.convert(run_of(tmp_path, channels=4), to="timm").folder
    net = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7)
    assert net.eval()(torch.rand(2, 4, 64, 64)).shape == (2, 7)
    weights = load_file(folder / "model.safetensors")
    assert all(net.state_dict()[k].equal(v) for k, v in weights.items())


def test_transformers_fine_tunes_it(run):
    import transformers

    folder = export.convert(run, to="hf").folder
    classifier = transformers.AutoModelForImageClassification
    net = classifier.from_pretrained(folder, num_labels=7, local_files_only=True)
    assert net(pixel_values=torch.rand(2, 3, 64, 64)).logits.shape == (2, 7)
    weights = load_file(folder / "model.safetensors")
    assert all(net.timm_model.state_dict()[k].equal(v) for k, v in weights.items())


def test_nothing_of_timms_own_weights_is_claimed(tmp_path):
    folder = export.convert(run_of(tmp_path, "test_resnet"), to="timm").folder
    config = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert config["mean"] == [0.4] * 3
    assert not {"tag", "url", "hf_hub_id", "license", "origin_url", "paper_name"} & set(config)
    net = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert not net.pretrained_cfg.get("license")
    assert net.pretrained_cfg["mean"] == [0.4] * 3


@pytest.mark.parametrize("size", range(64, 520, 7))
def test_timm_resizes_as_we_do(size):
    view = augment.plain(size)
    transform = timm.data.create_transform(
        (3, size, size), crop_pct=targets._crop_share(view), crop_mode="center"
    )
    assert transform.transforms[0].size == view.resize


# the card ----------------------------------------------------------------------------------------


def test_the_card_says_what_is_known(run):
    (run / "bad_files.csv").write_text("path,reason\na.jpg,truncated\n")
    scores = {
        "verdict": "Learned: its score clears its floor.",
        "margins": [{"score": "k-NN", "verdict": "above"}],
        "scores": [
            {
                "features": f,
                "score": "k-NN",
                "value": v,
                "interval": [v - 1, v + 1],
                "protocol": "p",
            }
            for f, v in (("this encoder", 70.0), ("pixels 8x8", 50.0))
        ],
    }
    (run / "scores.json").write_text(json.dumps(scores))
    text = (export.convert(run, to="safetensors", license="mit").folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "mit"
    assert "simclr" in front["tags"]
    for said in (
        "# test_resnet, trained by simclr",
        "| data | test.parquet, 401 images |",
        "| left out as unreadable | 1 |",
        "| epochs | 3 |",
        "| lr | as in the method's paper |",
        "**Learned**: its score clears its floor.",
        "| pixels 8x8 | k-NN | 50.0 | 49.0 to 51.0 |",
        "- The loss went from 5 to 2",
        "mean [0.4, 0.4, 0.4]",
        "mit. The weights belong to whoever trained them",
    ):
        assert said in text
    assert str(PHOTOS) not in text


def test_the_card_says_what_is_not_known(tmp_path):
    """An encoder of `save`, without a run; its photos are those of the package."""
    export.save(Image("test_resnet", 32, 4, sobel=True), tmp_path)
    done = export.convert(tmp_path / "encoder.safetensors", to="safetensors")
    assert done.images == "16 demo photos"
    text = (done.folder / "README.md").read_text()
    assert "license" not in yaml.safe_load(text.split("---\n")[1])
    for said in ("how is not known", "Not scored", "None was recorded", "None was chosen yet"):
        assert said in text
    assert "fits selftaught alone" in text


def test_weights_of_others_at_the_start_are_named(run):
    settings = yaml.safe_load((run / "run.yaml").read_text())
    settings["backbone"]["pretrained"] = True
    (run / "run.yaml").write_text(yaml.safe_dump(settings))
    text = (export.convert(run, to="safetensors").folder / "README.md").read_text()
    assert "started from timm's weights of test_resnet: their license" in text


def test_few_images_are_filled_up_and_broken_ones_replaced(tmp_path):
    photos = open_data(TEST)
    (tmp_path / "photos").mkdir()
    for i in range(20):
        Picture.fromarray(photos.read(i)).save(tmp_path / "photos" / f"{i:02}.png")
    for i in range(0, 20, 2):
        (tmp_path / "photos" / f"{i:02}.png").write_bytes(b"no image")
    encoder = Image("test_resnet", 32)
    x, source, count = trial.images({"data": str(tmp_path / "photos")}, encoder)
    assert x.shape == (16, 3, 32, 32)
    assert source == "10 images of the training data and 6 demo photos"
    assert count == 20
    for broken in ("no: [yaml", "- a list"):
        (tmp_path / "run.yaml").write_text(broken)
        export.save(encoder, tmp_path)
        done = export.convert(tmp_path, to="safetensors", out=tmp_path / broken[:2])
        assert done.images == "16 demo photos"


# bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "options"), [(32, {}), (64, {"sobel": True})])
@pytest.mark.parametrize("to", ["timm", "hf"])
def test_what_timm_cannot_build_is_refused(to, size, options, tmp_path):
    run = run_of(tmp_path, size=size, **options)
    before = set(run.iterdir())
    refused("timm has no such network .* --to onnx, torch-export or safetensors", run, to=to)
    assert set(run.iterdir()) == before


def test_a_vit_that_timm_cannot_build_is_refused(tmp_path, monkeypatch):
    without_class_tokens(monkeypatch)
    run = run_of(tmp_path, "test_vit", class_token=False)
    refused("timm has no such network .*cls_token", run, to="timm")


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_a_network_that_is_no_graph_is_refused(to, run, monkeypatch):
    features = Image.features

    def undecided(self, x, keep=None, replace=None):
        return features(self, x if x.sum() > 0 else -x, keep, replace)

    monkeypatch.setattr(Image, "features", undecided)
    refused(r"cannot express this test_resnet \(.+\); export it --to safetensors", run, to=to)
    assert not (run / f"export-{to}").exists()


@pytest.mark.parametrize("to", FILES)
def test_other_features_are_noticed_and_nothing_kept(to, run, monkeypatch):
    features = trial.features

    def other(encoder, x):
        found = features(encoder, x)
        return {**found, "local": found["local"] * (1 + 1e-4)}

    monkeypatch.setattr(trial, "features", other)
    with pytest.raises(TrainingError, match=r"other local features .* 0.0001 .* 1e-05 is allowed"):
        export.convert(run, to=to, out=run.parent / "deep" / "out")
    assert not (run.parent / "deep").exists()
    assert not [p for p in run.parent.iterdir() if p.name.startswith(".")]


def test_what_a_library_cannot_read_back_is_not_kept(run, monkeypatch):
    def broken(encoder, folder, fp16):
        targets._write_hub(encoder, folder, fp16)
        (folder / "model.safetensors").write_bytes(b"cut off")

    target = targets.Target("timm", broken, targets._read_timm)
    monkeypatch.setitem(targets.TARGETS, "timm", target)
    with pytest.raises(TrainingError, match="timm cannot read back this test_resnet"):
        export.convert(run)
    assert not (run / "export-timm").exists()


def test_a_failed_training_needs_force(run, caplog):
    diagnosis = {"verdict": "failed", "evidence": ["the features are constant"]}
    (run / "diagnosis.json").write_text(json.dumps(diagnosis))
    with pytest.raises(TrainingError, match=r"failed: the features are constant; .* --force"):
        export.convert(run)
    assert not (run / "export-timm").exists()
    text = (export.convert(run, force=True).folder / "README.md").read_text()
    assert "exported because of force" in caplog.text
    assert "**Failed**: The features are constant." in text


@pytest.mark.parametrize("to", ["timm", "safetensors"])
def test_weights_that_are_not_finite_need_force(to, tmp_path):
    encoder = Image("test_resnet", 64)
    encoder.net.bn1.weight.data[3] = float("nan")
    export.save(encoder, tmp_path, force=True)
    with pytest.raises(TrainingError, match=r"not finite \(bn1.weight\)"):
        export.convert(tmp_path, to=to)
    folder = export.convert(tmp_path, to=to, force=True).folder
    (weights,) = folder.glob("*.safetensors")
    assert load_file(weights)["bn1.weight"].isnan().sum() == 1


def test_no_encoder_no_export(run, tmp_path):
    (run / "encoder.safetensors").unlink()
    refused("encoder.safetensors is missing: .* --resume, and --force if the doctor", run)
    (tmp_path / "empty").mkdir()
    refused("encoder.safetensors is missing", tmp_path / "empty")
    refused("does not exist", tmp_path / "nowhere")


def test_weights_of_other_packages(run, tmp_path):
    for name in ("last.ckpt", "model.pt", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"\x80\x04anything")
        refused(r"a pickle, which can run code .* weights_only=True.*export\.save", tmp_path / name)
    alone = tmp_path / "model.safetensors"
    shutil.copy(run / "encoder.safetensors", alone)
    refused(r"encoder.json is missing: .*selftaught\.export\.save", alone)


def test_damaged_weights(run):
    weights = run / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused("not a whole safetensors file", run)
    assert not (run / "export-timm").exists()


def test_where_it_cannot_be_written(run, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    refused("exists already; move it away", run, out=tmp_path / "taken")
    refused("exists already", run, out=tmp_path / "taken" / "file")
    refused("cannot be written", run, out=tmp_path / "taken" / "file" / "below")
    refused("name of a file; .* such as --out .*model", run, to="onnx", out=tmp_path / "model.onnx")
    (tmp_path / "free").mkdir()
    assert export.convert(run, out=tmp_path / "free").folder.is_dir()
    refused("exists already", run, out=tmp_path / "free")
    assert (tmp_path / "taken" / "file").read_text() == "mine"


def test_a_full_disk_leaves_nothing(run, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(targets, "save_file", full)
    refused("cannot be written .No space left", run)
    assert not [p for p in run.iterdir() if "export" in p.name]


@pytest.mark.parametrize("to", [name for name, needs in NEEDS.items() if needs])
def test_a_missing_extra_is_named(to, run, monkeypatch):
    found = importlib.util.find_spec

    def without(name):
        return None if name in NEEDS[to] else found(name)

    monkeypatch.setattr("selftaught.export.conversion.find_spec", without)
    refused(rf'needs {NEEDS[to][0]}.*pip install "selftaught\[{to}\]"', run, to=to)


def test_unknown_targets(run, capsys):
    refused("exports to no 'onxx': did you mean onnx", run, to="onxx")
    refused("exports to no 'keras'; known: hf, onnx", run, to="keras")
    assert main(["export", str(run), "--to", "torchexport"]) == 2
    assert "did you mean torch-export?" in capsys.readouterr().err


def test_the_command(run, capsys):
    assert main(["export", str(run), "--to", "safetensors", "--license", "mit"]) == 0
    out = capsys.readouterr().out
    assert "Read back by safetensors: on 16 images of the training data" in out
    assert "export-safetensors/README.md says how to load it" in out
    assert main(["export", str(run), "--to", "safetensors"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert selftaught.load(run / "export-safetensors").name == "test_resnet"
