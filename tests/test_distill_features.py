"""Features of teachers: where they come from, what of them is kept, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from selftaught import augment, cli, dist, export, open_data
from selftaught.augment import Views, sample_rng
from selftaught.backbones import Image, backbone
from selftaught.engine import corpus as kept
from selftaught.engine.build import assemble, restored
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.corpus import RunCorpus
from selftaught.engine.pretrain import pretrain
from selftaught.engine.teachers import teacher as named
from selftaught.errors import TrainingError, UserError
from selftaught.feed.passes import DatasetPass
from selftaught.method import Batch
from selftaught.methods import DINOv2, DistillFeatures
from selftaught.parts import Frozen, Standardize, fingerprint
from tests.cases import CASES, larger_dinov2, teacher
from tests.pool import Pool
from tests.test_engine import Killed, curve, killed_after, photos, train

RUN = {"batch": 8, "workers": 0, "accelerator": "cpu", "evaluate": False, "precision": "fp32"}
NET = {"backbone": "test_resnet", "size": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An encoder, as a run leaves it: images of 48 px, normalized by numbers of its own."""
    place = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(3)
    export.save(Image("test_convnext", 48, mean=(0.4,), std=(0.3,)), place)
    return place


def student(channels: int = 3) -> Image:
    torch.manual_seed(0)
    return backbone("test_resnet", size=32, channels=channels)


# What a teacher is, and what it sees.


def test_a_teacher_sees_whole_images_at_its_own_size_and_normalization(folder):
    theirs = export.load(folder)
    samples = open_data(photos(5))
    looked = DatasetPass(samples, student(), 8, 0, torch.device("cpu"))
    method = DistillFeatures(student(), theirs, hidden=8)
    method.on_start(looked)
    pixels = np.stack([augment.plain(48)(image, None) for image in photos(5)])
    expected = theirs((torch.from_numpy(pixels) / 255 - 0.4) / 0.3)
    torch.testing.assert_close(method.goals[0], expected)
    own = DatasetPass(samples, theirs, 8, 0, torch.device("cpu")).embed(nn.Sequential(theirs))
    torch.testing.assert_close(own, expected)  # what says no size has that of the run's encoder
    at = DistillFeatures(student(), theirs, teacher_size=64, hidden=8)
    at.on_start(looked)
    assert not torch.allclose(at.goals[0], expected)
    assert theirs.size == 48  # which is the user's


def test_the_same_crop_is_made_at_each_size():
    method = DistillFeatures(student(), teacher(size=64), teacher_view="same", hidden=8)
    image = photos(1, 6)[0].repeat(30, 0).repeat(30, 1)
    made = method.views(32)(image, sample_rng(0, 0, 0))
    assert [[v.shape for v in views] for views in made] == [[(3, 32, 32)] * 2, [(3, 64, 64)] * 2]
    plain = DistillFeatures(student(), teacher()).views(32)(image, sample_rng(0, 0, 0))
    for small, large, alone in zip(*made, plain, strict=True):
        np.testing.assert_array_equal(small, alone)
        halved = large.reshape(3, 32, 2, 32, 2).mean((2, 4))
        assert np.abs(halved - small).mean() < 0.1 * np.abs(halved - small[..., ::-1]).mean()
    assert isinstance(DistillFeatures(student(), teacher()).views(32), Views)


def test_views_of_several_sizes_are_blurred_alike():
    """A step between black and white, blurred, is as wide for its size in each."""
    step = np.zeros((128, 128, 3), np.uint8)
    step[:, 64:] = 255
    method = DistillFeatures(
        *(student(), teacher(size=128)), teacher_view="same", hidden=8, strength=0.0, blur=1.0
    )
    crops = replace(method.views(32), sizes=tuple(map(uncropped, method.views(32).sizes)))
    for seed in range(5):
        small, large = (views[0][0].astype(float) for views in crops(step, sample_rng(0, 0, seed)))
        width = [(v.shape[1], (v[len(v) // 2] / 255)) for v in (small, large)]
        soft = [((x > 0.16) & (x < 0.84)).sum() / n for n, x in width]
        assert abs(soft[0] - soft[1]) <= 1.5 / 32


def uncropped(views: Views) -> Views:
    """The whole image, never gray."""
    return replace(
        views,
        views=tuple(replace(v, scale=(1.0, 1.0), ratio=(1.0, 1.0), gray=0.0) for v in views.views),
    )


@torch.no_grad()
def test_normalization_is_carried_over_exactly():
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    one, other = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    found = augment.renormalize(augment.normalize(pixels, *one), one, other)
    torch.testing.assert_close(found, augment.normalize(pixels, *other))
    x = augment.normalize(pixels, *one)
    assert augment.renormalize(x, one, one) is x


def test_features_come_on_one_scale():
    scale, x = Standardize(3), torch.randn(40, 3) * torch.tensor([5.0, 0.1, 0.0]) + 7
    for part in x.chunk(4):
        scale.show(part)
    torch.testing.assert_close(scale.mean, x.mean(0))
    torch.testing.assert_close(scale.var, x.var(0, unbiased=False), rtol=1e-4, atol=1e-9)
    found = scale(x)
    assert found.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(found.square().mean(), torch.tensor(1.0))
    spread = found.std(0) / x.std(0)
    torch.testing.assert_close(spread[0], spread[1])  # what hardly changes is not blown up
    scale.fit(x[:10])
    torch.testing.assert_close(scale.mean, x[:10].mean(0))
    torch.testing.assert_close(Standardize(2)(torch.ones(4, 2) * 0), torch.zeros(4, 2))


def test_a_frozen_network_moves_along_and_is_no_part():
    net = teacher()
    held = nn.Sequential(nn.Linear(2, 2), Frozen(net)).double().train()
    inner = held[1].held
    assert next(inner.parameters()).dtype == torch.float64
    assert next(net.parameters()).dtype == torch.float32
    assert not inner.training
    assert len(list(held.parameters())) == 2
    assert list(held.state_dict()) == ["0.weight", "0.bias", "1.digest"]
    assert held[1].key == fingerprint(net)
    again = nn.Sequential(nn.Linear(2, 2), Frozen(net))
    again.load_state_dict(held.state_dict())
    other = nn.Sequential(nn.Linear(2, 2), Frozen(teacher("test_vit")))
    with pytest.raises(UserError, match="give the same teacher as before"):
        other.load_state_dict(held.state_dict())


# Names.


def test_a_teacher_is_named_in_many_ways(folder, tmp_path, monkeypatch):
    theirs = fingerprint(export.load(folder))
    assert fingerprint(named(str(folder))) == theirs
    assert fingerprint(named(str(folder / "encoder.safetensors"))) == theirs
    elsewhere = tmp_path / "net.safetensors"
    shutil.copy(folder / "encoder.safetensors", elsewhere)
    found = named(f"test_convnext={elsewhere}", size=48)
    assert fingerprint(found) == theirs
    assert (found.size, found.trained) == (48, True)
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Conv2d(3, 5, 4, 4)\n"
    )
    assert named("own.py:make", size=32).dim == 5
    for word in ("resnet18", "timm:resnet18"):  # whose weights are not at hand
        monkeypatch.setattr("selftaught.engine.teachers.build", lambda *a, **given: (*a, given))
        asked = ("resnet18", {"pretrained": True, "channels": 1})
        assert named(word, channels=1) == asked


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere/at/all", "does not exist"),
        ("resnet181", "did you mean"),
        ("timm:no_such_net", "no backbone is called"),
        ("no_such.py:make", "does not exist"),
    ],
)
def test_a_teacher_that_is_not_there_is_told(name, words):
    with pytest.raises(UserError, match=words):
        named(name)


def test_weights_that_do_not_say_whose_they_are_are_told(tmp_path):
    torch.save(teacher().net.state_dict(), tmp_path / "some.pth")
    with pytest.raises(UserError, match=r"vit_small_patch16_224=.*some\.pth"):
        named(str(tmp_path / "some.pth"))


# What is refused.


def test_what_cannot_teach_is_told(folder):
    own = student()
    own.net.load_state_dict(own.net.state_dict())
    with pytest.raises(UserError, match="begins with the weights of its teacher test_resnet"):
        DistillFeatures(own, own)
    DistillFeatures(student(), [nn.Conv2d(3, 4, 2)], hidden=4)  # any module can
    with pytest.raises(UserError, match="images of 3 channels and the student those of 1"):
        DistillFeatures(student(channels=1), teacher())
    for path in (folder, str(folder)):
        with pytest.raises(UserError, match=r"this is the path '.*selftaught\.load\("):
            DistillFeatures(student(), path)
    with pytest.raises(UserError, match="an empty list"):
        DistillFeatures(student(), [])
    with pytest.raises(UserError, match="both 0"):
        DistillFeatures(student(), teacher(), cosine=0.0, smooth_l1=0.0)
    with pytest.raises(UserError, match="set teacher_view to same"):
        DistillFeatures(student(), teacher(), local=1.0)
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    with pytest.raises(UserError, match="gives no features of places"):
        DistillFeatures(student(), flat, teacher_view="same", local=1.0)
    unseen = DistillFeatures(student(), teacher(), hidden=4)
    with pytest.raises(UserError, match="has seen no images yet"):
        unseen.loss(Batch([torch.rand(2, 3, 32, 32)] * 2, torch.arange(2)))


def test_no_name_is_told(tmp_path, capsys):
    words = ["pretrain", "distill_features", str(tmp_path), "--out", str(tmp_path / "run")]
    np.save(tmp_path / "x.npy", photos(8))
    words[2] = str(tmp_path / "x.npy")
    assert cli.main(words) == 2
    assert "name it with --teacher" in capsys.readouterr().err


# Runs.


def test_a_run_goes_on_with_the_same_curve_and_asks_its_teacher_no_more(
    folder, tmp_path, monkeypatch
):
    given = {"teacher": (str(folder),), "hidden": 16, "epochs": 3, "log_every": 1, **NET, **RUN}
    pretrain("distill_features", photos(), tmp_path / "whole", recipe="paper", **given)
    whole = curve(tmp_path / "whole")
    out = tmp_path / "killed"
    image = {"name": "test_resnet", "size": 32}
    options = {"teacher": (str(folder),), "hidden": 16}
    method = assemble("distill_features", image, options, open_data(photos()), 0)
    with pytest.raises(Killed):
        train(out, method=killed_after(method, 5), epochs=3, recipe="paper", save_every=1e-9)
    assert Checkpoints.of(out).steps()[0] == 5
    state = Checkpoints.of(out).training()
    assert state is not None
    assert {n.split(".")[0] for n in state["method"]} == {"backbone", "heads", "scales", "frozen"}
    (file,) = out.glob("features-*.safetensors")
    monkeypatch.setattr(DatasetPass, "embed", lambda *_: pytest.fail("computed twice"))
    method = assemble("distill_features", image, options, open_data(photos()), 0)
    train(out, method=method, epochs=3, recipe="paper", resume=True)
    assert curve(out) == whole
    monkeypatch.undo()
    file.write_bytes(b"damaged")
    shutil.rmtree(out / "checkpoints")
    method = assemble("distill_features", image, options, open_data(photos()), 0)
    train(out, method=method, epochs=3, recipe="paper", resume=True)  # computed again, and alike
    assert curve(out) == whole
    assert [f.name for f in out.glob("features-*")] == [file.name]


def test_another_teacher_is_not_gone_on_with(folder, tmp_path):
    own = tmp_path / "teacher"
    shutil.copytree(folder, own)
    given = {"teacher": (str(own),), "hidden": 16, **NET, **RUN}
    pretrain("distill_features", photos(), tmp_path / "run", epochs=1, **given)
    torch.manual_seed(4)
    export.save(Image("test_convnext", 48, mean=(0.4,), std=(0.3,)), own)
    with pytest.raises((TrainingError, UserError), match="give the same teacher as before"):
        pretrain("distill_features", photos(), tmp_path / "run", epochs=2, resume=True, **given)


def test_an_object_that_teaches_is_asked_for_again(tmp_path):
    def method(net: str) -> DistillFeatures:
        return DistillFeatures(student(), teacher(net), hidden=16, teacher_view="same")

    train(tmp_path / "run", method=method("test_convnext"), epochs=1)
    train(tmp_path / "run", method=method("test_convnext"), epochs=2, resume=True)
    with pytest.raises(TrainingError, match="is of another training than this one"):
        train(tmp_path / "run", method=method("test_vit"), epochs=3, resume=True)


def test_too_large_a_file_is_not_kept(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(kept, "LARGEST", 1000)
    looked = RunCorpus(open_data(photos()), student(), 8, 0, torch.device("cpu"))
    looked.folder = tmp_path
    net = export.load(folder)
    assert looked.embed(net, fingerprint(net)).shape == (24, net.dim)
    assert list(tmp_path.iterdir()) == []
    assert "are computed again" in caplog.text


def test_a_dry_run_asks_no_teacher(folder, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "x.npy", photos())
    monkeypatch.setattr(DatasetPass, "embed", lambda *_: pytest.fail("asked"))
    words = ["pretrain", "distill_features", str(tmp_path / "x.npy"), "--teacher", str(folder)]
    words += ["--backbone", "test_resnet", "--size", "32", "--batch", "8", "--dry-run"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "distill_features" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_command_leaves_the_student_alone(folder, tmp_path):
    np.save(tmp_path / "x.npy", photos())
    words = ["pretrain", "distill_features", str(tmp_path / "x.npy"), "--out", str(tmp_path / "r")]
    words += ["--teacher", f"{folder},{folder}", "--teacher-view", "same", "--local", "0.5"]
    words += ["--backbone", "test_resnet", "--size", "32", "--batch", "8", "--workers", "0"]
    assert cli.main([*words, "--hidden", "8", "--epochs", "1", "--no-evaluate"]) == 0
    found = export.load(tmp_path / "r")
    assert found.name == "test_resnet"
    assert found.state_dict().keys() == student().state_dict().keys()


def look_twice(rank: int, folder: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Features as a process of a run has them: computed, then from the file."""
    looked = RunCorpus(open_data(photos(13)), student(), 4, 0, torch.device("cpu"))
    looked.folder, net = Path(folder), teacher()
    first = looked.embed(net, fingerprint(net))
    dist.mean(torch.zeros(()))  # the first process has written its file when all are here
    again = looked.embed(net, fingerprint(net))
    return first.numpy(), again.numpy(), [f.name for f in sorted(Path(folder).glob("features-*"))]


@pytest.mark.xdist_group("pool")
def test_two_processes_look_at_half_each_and_both_have_all(tmp_path, pool: Pool):
    (first, again, files), (other, other_again, _) = pool.run(look_twice, str(tmp_path))
    alone = DatasetPass(open_data(photos(13)), student(), 4, 0, torch.device("cpu")).embed(
        teacher()
    )
    np.testing.assert_allclose(first, alone.numpy(), rtol=1e-5, atol=1e-6)
    for found in (again, other, other_again):
        np.testing.assert_array_equal(found, first)
    assert len(files) == 1


# DINOv2's own.

SMALL = {"prototypes": 24, "hidden": 32, "bottleneck": 16, "local_crops": 2}


def test_dinov2_learns_from_a_run_of_its_own(tmp_path):
    train(tmp_path / "large", method=larger_dinov2(), epochs=1)
    image = {"name": "test_vit", "size": 32}
    options = {**SMALL, "teacher": tmp_path / "large"}
    method = assemble("dinov2", image, options, None, 0)
    large = restored(tmp_path / "large")
    held = method.network.held
    for part, theirs in (("backbone", large.ema), ("head", large.ema_head)):
        for name, value in held[part].state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name])
    assert torch.equal(method.center, large.center)
    assert method.backbone.drop_path == 0.0
    assert not method.mask_token.requires_grad
    with pytest.raises(Killed):
        train(tmp_path / "a", method=killed_after(method, 4), epochs=2, save_every=1e-9)
    state = Checkpoints.of(tmp_path / "a").training()
    assert state is not None
    assert [n for n in state["method"] if n.startswith("network")] == ["network.digest"]
    method = train(
        *(tmp_path / "a",), method=assemble("dinov2", image, options, None, 0), resume=True
    )
    whole = assemble("dinov2", image, options, None, 0)
    train(tmp_path / "b", method=whole)
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    assert method.encoder is method.ema
    exported = export.load(tmp_path / "a").state_dict()
    assert all(torch.equal(v, method.ema.state_dict()[n]) for n, v in exported.items())
    # and its student may teach the next one
    third = assemble("dinov2", image, {**SMALL, "teacher": tmp_path / "a"}, None, 1)
    ours = third.network.held["backbone"].state_dict()
    assert all(torch.equal(v, method.ema.state_dict()[n]) for n, v in ours.items())


def test_what_dinov2_cannot_learn_from_is_told(tmp_path):
    net = Image("test_vit", 32)
    with pytest.raises(UserError, match="its teacher is a SimCLR"):
        DINOv2(net, **SMALL, network=CASES["simclr"].make("simclr"))
    with pytest.raises(UserError, match="set prototypes to 24"):
        DINOv2(net, **SMALL | {"prototypes": 8}, network=larger_dinov2())
    with pytest.raises(UserError, match="images of 3 channels"):
        DINOv2(Image("test_vit", 32, channels=1), **SMALL, network=larger_dinov2())
    finer = DINOv2(Image("test_vit", 32, patch_size=8), **SMALL, network=larger_dinov2())
    with pytest.raises(UserError, match="into those of 8 px"):
        finer.views(32)
    with pytest.raises(UserError, match="holds no run"):
        assemble("dinov2", {"name": "test_vit", "size": 32}, {"teacher": tmp_path}, None, 0)


def test_checkpoints_from_before_the_ema_teacher_was_called_so_are_read():
    method = CASES["dinov2"].make("dinov2")
    state = method.state_dict()
    former = {("teacher" + n[3:] if n.startswith("ema") else n): x for n, x in state.items()}
    assert former.keys() != state.keys()
    CASES["dinov2"].make("dinov2").load_state_dict(former)
