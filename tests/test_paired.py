"""Two modalities of the same things: pairing by name or row, and methods that compare them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from selftaught import open_data, pretrain
from selftaught.augment import crop, sample_rng
from selftaught.augment.pairs import Modalities
from selftaught.backbones import Image
from selftaught.data.paired import pair
from selftaught.data.selection import without
from selftaught.errors import UserError
from selftaught.methods import ACE, DCCA, DCCAE, SimCLR, VICReg


def arrays(count: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Colors [N, 20, 20, 3] and depths [N, 32, 24] of the same things."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 20, 20, 3), np.uint8), rng.integers(
        0, 256, (count, 32, 24), np.uint8
    )


def folder(where: Path, names: list[str], channels: int) -> str:
    rng = np.random.default_rng(1)
    for name in names:
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (16, 20, 3) if channels == 3 else (16, 20)
        Pillow.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    return str(where)


def vicreg(**options) -> VICReg:
    small = {"hidden": 16, "dim": 8, "second_net": "test_resnet", "second_channels": 1}
    return VICReg(Image("test_vit2", 32), pair="modalities", **{**small, **options})


def test_files_pair_by_name_and_rows_by_number(tmp_path):
    colors = folder(tmp_path / "rgb", ["a/1.png", "a/2.png", "b/1.png"], 3)
    depths = folder(tmp_path / "depth", ["b/1.bmp", "a/2.bmp", "a/1.bmp", "c/7.bmp"], 1)
    both = pair(open_data(colors), open_data(depths, channels=1))
    found = {both.first.name(i): both.second.name(i) for i in range(len(both))}
    assert found == {"a/1.png": "a/1.bmp", "a/2.png": "a/2.bmp", "b/1.png": "b/1.bmp"}

    one, two = arrays()
    both = pair(open_data(one), open_data(two, channels=1))
    (left, right), scale = both.open(5).read()
    assert scale == 1
    assert (left == one[5]).all()
    assert (right[..., 0] == two[5]).all()
    assert both.fingerprint != pair(open_data(one), open_data(255 - two, channels=1)).fingerprint


def test_things_without_a_partner_are_refused(tmp_path):
    one, two = arrays()
    with pytest.raises(UserError, match="have 24 and 23 images"):
        pair(open_data(one), open_data(two[:23], channels=1))
    colors = folder(tmp_path / "rgb", ["1.png", "2.png"], 3)
    depths = folder(tmp_path / "depth", ["1.png", "3.png"], 1)
    with pytest.raises(UserError, match=r"1 of 2 images have no partner .* such as 2;"):
        pair(open_data(colors), open_data(depths, channels=1))


def test_the_second_modality_leaves_with_its_own_statistics():
    one, two = arrays()
    whole = crop(32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    left, right = Modalities(whole, whole, (0.5,), (0.25,))(
        (one[0], two[0][..., None]), sample_rng(0, 0, 0)
    )
    assert left.shape == (3, 32, 32)
    assert left.dtype == np.uint8
    assert right.shape == (1, 32, 32)
    assert right.dtype == np.float32
    assert right.mean() == pytest.approx((two[0].mean() / 255 - 0.5) / 0.25, abs=0.2)


@pytest.mark.parametrize("kind", [VICReg, DCCA, DCCAE, ACE])
def test_methods_of_pairs_train_both_networks(kind, tmp_path):
    small = {"hidden": 16, "dim": 8} if kind is VICReg else {"dim": 3}
    small |= {"hidden": 16, "side": 8} if kind is DCCAE else {}
    torch.manual_seed(0)
    method = kind(Image("test_vit2", 32), pair="modalities", second_channels=1, **small)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    one, two = arrays()
    pretrain(method, one, tmp_path / "run", second=two, epochs=1, batch=12, workers=0)
    after = method.state_dict()
    for part in ("backbone", "other"):
        moved = [k for k in before if k.startswith(part + ".") and not after[k].equal(before[k])]
        assert moved, part
    assert method.other is not None
    assert method.other.channels == 1
    assert (tmp_path / "run" / "encoder.safetensors").exists()


def test_pairs_that_cannot_be_are_told_before_training(tmp_path):
    one, two = arrays()
    out = tmp_path / "run"
    with pytest.raises(UserError, match="name the data of the other modality with --second"):
        pretrain(vicreg(), one, out, epochs=1, batch=12)
    with pytest.raises(UserError, match="SimCLR sees one image a sample"):
        pretrain(SimCLR(Image("test_resnet", 32)), one, out, second=two, epochs=1, batch=12)
    with pytest.raises(UserError, match="have 24 and 20 images"):
        pretrain(vicreg(), one, out, second=two[:20], epochs=1, batch=12)
    assert not out.exists()


def test_an_unreadable_half_takes_the_whole_pair_away(tmp_path):
    names = [f"{i}.png" for i in range(12)]
    colors, depths = tmp_path / "rgb", tmp_path / "depth"
    folder(colors, names, 3)
    folder(depths, names, 1)
    (depths / "3.png").write_bytes(b"no image")
    run = tmp_path / "run"
    options = {"epochs": 1, "batch": 12, "workers": 0, "max_bad": 0.2}
    pretrain(vicreg(), str(colors), run, second=str(depths), **options)
    assert "3.png" in (run / "bad_files.csv").read_text()
    options |= {"batch": 11, "max_bad": 0.0, "quarantine": run / "bad_files.csv"}
    pretrain(vicreg(), str(colors), tmp_path / "again", second=str(depths), **options)
    whole = pair(open_data(str(colors)), open_data(str(depths), channels=1))
    kept = whole.of(without(whole.first, run / "bad_files.csv"))
    names = [(kept.first.name(i), kept.second.name(i)) for i in range(len(kept))]
    assert len(names) == 11
    assert all(one == two != "3.png" for one, two in names)
