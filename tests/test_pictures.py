"""What a method shows of itself: right in itself, and kept in the run folder."""

import json

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import backbone
from selftaught.data import open_data
from selftaught.engine import pictures
from selftaught.engine.feed import Views
from selftaught.method import Batch, Method, Pictures
from selftaught.methods.clustering.swav import SwAV
from selftaught.methods.dense.densecl import DenseCL
from selftaught.methods.masked.mae import MAE
from selftaught.methods.pretext import jigsaw
from selftaught.methods.pretext.jigsaw import Jigsaw
from selftaught.methods.pretext.rotation import Rotation
from selftaught.objectives.masked import patchify, standardize
from selftaught.parts.drawing import COLOURS, framed
from selftaught.report import gallery


@pytest.fixture
def net():
    torch.manual_seed(0)
    return backbone("test_resnet", 32)


@torch.no_grad()
def test_a_puzzle_that_is_solved_is_the_image(net, monkeypatch):
    method = Jigsaw(net, count=6, tile_dim=8).eval()
    image = torch.rand(2, 3, 36, 36)
    tiles = image.unfold(2, 12, 12).unfold(3, 12, 12).flatten(2, 3).transpose(1, 2)
    assert torch.equal(jigsaw.whole(tiles), image)
    which = torch.tensor([[2], [4]])
    monkeypatch.setattr(Jigsaw, "answer", lambda self, t, w: F.one_hot(w[:, 0], 6).float())
    shown = method.pictures(Batch([tiles, which], torch.arange(2)))
    assert torch.equal(shown.columns["solved"], image)
    assert not torch.equal(shown.columns["laid"], image)
    assert shown.captions["solved"] == ["9 of 9 right ✓"] * 2


@torch.no_grad()
def test_turned_images_and_what_is_said_of_them(net):
    method = Rotation(net).eval()
    x = torch.rand(2, 3, 32, 32)
    method.classifier.weight.zero_()
    method.classifier.bias.copy_(torch.tensor([0.0, 1, 0, 0]))
    shown = method.pictures(Batch([x], torch.arange(2)))
    assert torch.equal(shown.columns["turned by 180°"], x.flip(2, 3))
    assert shown.captions["turned by 0°"] == ["“90°”"] * 2
    assert shown.captions["turned by 90°"] == ["“90°” ✓"] * 2


@torch.no_grad()
@pytest.mark.parametrize("normalize", [True, False])
def test_a_perfect_painter_paints_the_image(normalize, monkeypatch):
    torch.manual_seed(0)
    method = MAE(backbone("test_vit", 32), dim=32, depth=1, heads=2, normalize=normalize).eval()
    x, noise = torch.rand(2, 3, 32, 32), torch.rand(2, 64)
    target = patchify(x, method.patch)
    target = standardize(target) if normalize else target
    monkeypatch.setattr(MAE, "decode", lambda *_: target)
    shown = method.pictures(Batch([x, noise], torch.arange(2)))
    torch.testing.assert_close(shown.columns["painted"], x, rtol=0, atol=1e-4)
    assert torch.equal(shown.columns["true"], x)
    seen = patchify(shown.columns["seen"], method.patch)
    kept = noise.argsort(1)[:, :16]
    for i in range(2):
        assert torch.equal(seen[i, kept[i]], patchify(x, method.patch)[i, kept[i]])
        assert int(seen[i].any(1).sum()) == 16


@torch.no_grad()
def test_cells_of_one_view_match_themselves(net):
    method = DenseCL(net, hidden=32, dim=16, queue=12).eval()
    x = torch.rand(2, 3, 32, 32)
    shown = method.pictures(Batch([x, x], torch.arange(2)))
    assert torch.equal(shown.columns["one view"], shown.columns["the other"])
    assert not torch.equal(shown.columns["one view"], x)


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_lie_around_their_cells(channels):
    x = torch.zeros(1, channels, 16, 12)
    mean, std = (0.5,) * channels, (0.25,) * channels
    drawn = framed(x, torch.tensor([[5, 0]]), (4, 3), mean, std)[0] * 0.25 + 0.5
    box = drawn[:, 4:8, 8:12]  # cell 5 of 4 x 3
    colour = torch.tensor(COLOURS[0])
    colour = colour if channels == 3 else colour.mean()[None]
    torch.testing.assert_close(box[:, 0, 0], colour)
    assert torch.equal(box[:, 1:3, 1:3], torch.full((channels, 2, 2), 0.5))
    assert int((drawn != 0.5).any(0).sum()) == 2 * 12


# kept -----------------------------------------------------------------------------------------


@pytest.fixture
def samples():
    return open_data(np.random.default_rng(0).integers(0, 255, (40, 40, 50, 3), np.uint8))


def shown(method, samples, out):
    views = Views(samples, method.views(32), 0)
    pictures.keep_pictures(method, method.encoder, [views[0, i] for i in range(4)], samples, out)
    return gallery.load(out)


def test_a_gallery_is_kept_as_files_that_anything_opens(net, samples, tmp_path):
    method = Rotation(net).train()
    state = torch.get_rng_state()
    (found,) = shown(method, samples, tmp_path)
    assert method.training
    assert torch.equal(torch.get_rng_state(), state)
    assert found.title == "Turned images and the answers"
    assert [len(cells) for _, cells in found.rows] == [4] * 4
    for _, cells in found.rows:
        assert [c.name for c in cells] == [f"turned by {90 * k}°" for k in range(4)]
        assert all("°" in c.caption for c in cells)
    files = sorted((tmp_path / "pictures").glob("*.png"))
    assert len(files) == 16
    plain = augment.crop(32, scale=(0.08, 1.0), interpolation="bilinear")
    image = plain(samples.read(0), augment.sample_rng(0, 0, 0))[0]
    assert np.array_equal(np.asarray(Picture.open(files[0])).transpose(2, 0, 1), image)
    assert shown(method, samples, tmp_path) == [found]


def test_prototypes_are_shown_with_the_images_that_belong_to_them(net, samples, tmp_path):
    method = SwAV(net, prototypes=5, hidden=16, dim=8)
    (found,) = shown(method, samples, tmp_path)
    assert "of 5 are the nearest of any of 40 images" in found.note
    plain = augment.plain(32)
    images = torch.from_numpy(np.stack([plain(samples.read(i), None) for i in range(40)]))
    with torch.no_grad():
        belongs = method.eval().membership(augment.normalize(images, net.mean, net.std))
    strength, which = belongs.max(1)
    biggest = int(which.bincount(minlength=5).argmax())
    name, cells = found.rows[0]
    assert name == f"number {biggest}: {int((which == biggest).sum())} images"
    members = [i for i in strength.argsort(descending=True).tolist() if which[i] == biggest]
    assert [c.name for c in cells] == [samples.name(i) for i in members[:8]]


class Shows(Method):
    recipe = SwAV.recipe

    def __init__(self, backbone, show):
        super().__init__()
        self.backbone, self.show = backbone, show

    def views(self, size):
        return augment.crop(size)

    def loss(self, batch):
        return self.backbone(batch.views[0]).sum()

    def pictures(self, batch):
        return self.show(batch.views[0])


def broken(x):
    raise RuntimeError("no paper left")


def not_finite(x):
    return Pictures("title", "note", {"column": x * float("nan")})


def test_pictures_that_fail_cost_a_warning_alone(net, samples, tmp_path, caplog):
    assert shown(Shows(net, not_finite), samples, tmp_path)
    assert shown(Shows(net, broken), samples, tmp_path) == []
    assert "no pictures of what Shows did" in caplog.text
    assert "no paper left" in caplog.text
    assert shown(Shows(net, lambda x: None), samples, tmp_path) == []
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("damage", ["gone", "outside", "text", "shape"])
def test_a_damaged_gallery_is_left_out(net, samples, tmp_path, damage, caplog):
    shown(Rotation(net), samples, tmp_path)
    index = tmp_path / "pictures" / "pictures.json"
    content = json.loads(index.read_text())
    if damage == "gone":
        next((tmp_path / "pictures").glob("*.png")).unlink()
    elif damage == "outside":
        content[0]["rows"][0]["cells"][0]["file"] = "../secret.png"
    elif damage == "shape":
        content = {"a": 1}
    index.write_text("{" if damage == "text" else json.dumps(content))
    assert gallery.load(tmp_path) == []
    assert "is damaged" in caplog.text
