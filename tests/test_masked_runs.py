"""Runs of masked methods: their reconstructions by command, the phase of higher resolution."""

import logging

import numpy as np
import PIL.Image
import pytest

from selftaught import export, pretrain
from selftaught.backbones import Image, backbone
from selftaught.cli import main
from selftaught.engine import resolution
from selftaught.errors import UserError
from selftaught.methods.contrastive.simclr import SimCLR
from selftaught.methods.masked.mae import MAE
from selftaught.methods.masked.simmim import SimMIM

FAST = {"batch": 4, "workers": 0, "accelerator": "cpu", "evaluate": False}


def mae(size: int = 32) -> MAE:
    return MAE(Image("test_vit", size), dim=32, depth=1, heads=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(8):
        image = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        PIL.Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def test_reconstruct_writes_masked_painted_and_original(photos, tmp_path, capsys):
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    pretrain(mae(), str(photos), tmp_path / "run", epochs=1, **FAST)
    again = tmp_path / "other"
    again.mkdir()
    (again / "0.png").write_bytes((photos / "1.png").read_bytes())
    files = [str(photos / "0.png"), str(again / "0.png")]
    assert main(["reconstruct", run, *files, "--out", out]) == 0
    written = capsys.readouterr().out.split()
    assert written == [str(tmp_path / "out" / n) for n in ("0.png", "0-2.png")]
    row = np.asarray(PIL.Image.open(written[0]))
    assert row.shape == (32, 3 * 32 + 2 * 4, 3)
    masked, painted, original = row[:, :32], row[:, 36:68], row[:, 72:]
    # the whole of the central square, as the network saw it
    whole = np.asarray(PIL.Image.open(photos / "0.png").resize((43, 32)).crop((5, 0, 37, 32)))
    assert np.abs(original.astype(int) - whole).mean() < 12
    seen = np.all(masked == original, 2)
    assert 0.2 < seen.mean() < 0.35
    assert np.array_equal(painted[seen], original[seen])
    assert not np.array_equal(painted[~seen], original[~seen])

    for bad, message in (
        ([str(photos)], f"{photos} is a folder; name the images in it"),
        ([files[0], str(tmp_path / "run" / "run.yaml")], "run.yaml is not an image that can be"),
        ([files[0], str(tmp_path / "no.png")], "no.png does not exist"),
        ([files[0], "--out", files[1]], "0.png is a file; name a folder with --out"),
    ):
        assert main(["reconstruct", run, *bad]) == 2
        assert message in capsys.readouterr().err
    assert main(["reconstruct", run]) == 2
    assert "needs IMAGES" in capsys.readouterr().err
    assert main(["reconstruct", str(tmp_path), *files]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["reconstruct", run, str(tmp_path / "none.png")]) == 2
    assert "none.png" in capsys.readouterr().err


def test_methods_that_paint_nothing_say_so(photos, tmp_path, capsys):
    method = SimCLR(backbone("test_resnet", 32), hidden=16, dim=8)
    pretrain(method, str(photos), tmp_path / "run", epochs=1, **FAST)
    assert main(["reconstruct", str(tmp_path / "run"), str(photos / "0.png")]) == 2
    assert "simclr paints no images; mae" in capsys.readouterr().err


def test_the_last_steps_see_larger_images(photos, tmp_path, monkeypatch, caplog):
    sides: list[int] = []
    loss = MAE.loss

    def noted(self, batch):
        sides.append(batch.views[0].shape[-1])
        return loss(self, batch)

    monkeypatch.setattr(MAE, "loss", noted)
    options = {"epochs": 5, "resolution_phase": "64@0.3", **FAST}
    with caplog.at_level(logging.INFO, "selftaught"):
        pretrain(mae(), str(photos), tmp_path / "run", **options)
    assert "the last 3 steps see images of 64 px" in caplog.text
    assert sides[:6] == [32] * 3 + [64] * 3  # both are measured before, of two batches, and time
    assert sides[-10:] == [32] * 7 + [64] * 3
    assert export.load(tmp_path / "run").size == 32


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    ("make", "asked", "message"),
    [
        (mae, "518", r"'518' must be SIZE@SHARE .* such as 518@0.02"),
        (mae, "64@1.5", "share of training between 0 and 1"),
        (mae, "64@0.001", "less than one of the 100 steps; take a share of at least 0.01"),
        (mae, "65@0.1", "test_vit of 32 px cannot take images of 65 px .*4-px patches"),
        (
            lambda: SimMIM(Image("beit_base_patch16_224", 32)),
            "64@0.1",
            "beit_base_patch16_224 of 32 px cannot take images of 64 px",
        ),
    ],
)
def test_phases_that_cannot_be_are_refused(make, asked, message):
    with pytest.raises(UserError, match=message):
        resolution.phase(make(), asked, 100)


def test_a_phase_begins_where_its_share_says():
    assert resolution.phase(mae(), "64@0.02", 1000) == (64, 980)
