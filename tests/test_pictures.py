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
from selftaught.engine.pictures import SHOWN, keep_views
from selftaught.feed.views import ViewDataset
from selftaught.method import Batch, Method, Pictures
from selftaught.methods.clustering.swav import SwAV
from selftaught.methods.dense import scrl
from selftaught.methods.dense.densecl import DenseCL
from selftaught.methods.dense.pixcontrast import PixContrast
from selftaught.methods.dense.pixpro import PixPro
from selftaught.methods.dense.scrl import SCRL
from selftaught.methods.masked.beit import BEiT
from selftaught.methods.masked.mae import MAE
from selftaught.methods.pretext import jigsaw
from selftaught.methods.pretext.counting import Counting
from selftaught.methods.pretext.exemplar_cnn import ExemplarCNN
from selftaught.methods.pretext.jigsaw import Jigsaw
from selftaught.methods.pretext.rotation import Rotation
from selftaught.methods.pretext.split_brain import SplitBrain, color_bin, lightness_bin
from selftaught.objectives.masked import patchify, standardize
from selftaught.parts.colors import lab
from selftaught.parts.drawing import COLORS, boxed, framed
from selftaught.report.image import gallery
from tests.cases import CASES


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
    shown = method.show(Batch([tiles, which], torch.arange(2)))
    assert torch.equal(shown.columns["solved"], image)
    assert not torch.equal(shown.columns["laid"], image)
    assert shown.captions["solved"] == ["9 of 9 right ✓"] * 2


@torch.no_grad()
def test_turned_images_and_what_is_said_of_them(net):
    method = Rotation(net).eval()
    x = torch.rand(2, 3, 32, 32)
    method.classifier.weight.zero_()
    method.classifier.bias.copy_(torch.tensor([0.0, 1, 0, 0]))
    shown = method.show(Batch([x], torch.arange(2)))
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
    shown = method.show(Batch([x, noise], torch.arange(2)))
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
    shown = method.show(Batch([x, x], torch.arange(2)))
    assert torch.equal(shown.columns["one view"], shown.columns["the other"])
    assert not torch.equal(shown.columns["one view"], x)


def corners(*boxes):
    return torch.tensor([[boxes] * 2], dtype=torch.float32).squeeze(0)


@torch.no_grad()
@pytest.mark.parametrize("method", [PixPro, PixContrast])
def test_matches_of_cells_are_judged_by_where_the_views_lie(net, method):
    method = method(net, hidden=32, dim=16).eval()
    x = torch.rand(2, 3, 32, 32)
    whole, elsewhere = (0, 0, 32, 32), (64, 0, 96, 32)
    same = Batch([[x, x], corners(whole, whole)], torch.arange(2))
    apart = same._replace(views=[[x, x], corners(whole, elsewhere)])
    cells = len(net.features(x).local[0])
    count = min(5, cells)
    if isinstance(method, PixContrast):  # the same network sees both
        assert method.show(same).captions["the other"] == [f"{count} of {count} right ✓"] * 2
    assert method.show(apart).captions["the other"] == [f"0 of {count} right"] * 2


@torch.no_grad()
def test_boxes_of_one_view_are_found_in_the_other(net, monkeypatch):
    method = SCRL(net, hidden=32, dim=16).eval()
    x = torch.rand(2, 3, 32, 32)
    rows = torch.tensor([[0, 0, 8, 8], [8, 8, 32, 32], [16, 0, 30, 12]], dtype=torch.float32)
    boxes = rows.expand(2, 2, 3, 4)
    turned = torch.eye(16)[[0, 1, 2, 0, 1, 2, 1, 0, 2, 1, 0, 2]]
    monkeypatch.setattr(scrl, "embed", lambda *_: turned)
    monkeypatch.setattr(method, "predictor", torch.nn.Identity())
    shown = method.show(Batch([[x, x], boxes], torch.arange(2)))
    assert shown.captions["the other"] == ["1 of 3 right"] * 2
    about = net.mean, net.std
    assert torch.equal(shown.columns["one view"], boxed(x, boxes[:, 0], *about))
    assert torch.equal(shown.columns["the other"], boxed(x, boxes[:, 0, [1, 0, 2]], *about))


@torch.no_grad()
def test_colors_that_are_told_rightly_give_the_image(net, monkeypatch):
    method = SplitBrain(net, width=16).eval()
    colors = torch.tensor([[0.9, 0.3, 0.2], [0.2, 0.5, 0.7]])[..., None, None].expand(2, 3, 32, 32)
    mean, std = torch.tensor([net.mean, net.std])[..., None, None]
    light, ab = lab(colors).split([1, 2], 1)
    told = F.one_hot(color_bin(ab, method.centers), 313).movedim(3, 1) * 1e3
    bright = F.one_hot(lightness_bin(light[:, 0], method.steps), method.steps).movedim(3, 1) * 1e3
    monkeypatch.setattr(SplitBrain, "predict", lambda *_: (told.float(), bright.float()))
    shown = method.show(Batch((colors - mean) / std, torch.arange(2)))
    painted = {name: x * std + mean for name, x in shown.columns.items()}
    torch.testing.assert_close(painted["true"], colors, rtol=0, atol=1e-3)
    torch.testing.assert_close(painted["lit"], colors, rtol=0, atol=0.01)  # half of a hundredth
    assert (lab(painted["colored"])[:, 1:] - ab).norm(dim=1).max() < 7.2  # half of a bin
    assert lab(painted["lightness"])[:, 1:].abs().max() < 1e-2
    assert (lab(painted["colors"])[:, :1] - 60).abs().max() < 1


@torch.no_grad()
def test_counts_stand_below_what_was_counted(net, monkeypatch):
    method = Counting(net, counts=4, hidden=(8,)).eval()
    x, small = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 32, 32)
    parts = torch.tensor([[[1.0, 0, 0, 0], [0, 3, 0, 0]]]).expand(4, 2, 4)
    whole = torch.tensor([[4.0, 0, 0, 0], [0, 12, 0, 5]])
    monkeypatch.setattr(Counting, "counted", lambda *_: (parts, whole))
    shown = method.show(Batch([x, small], torch.arange(2)))
    assert torch.equal(shown.columns["whole"], small)
    assert torch.equal(shown.columns["lower left"], x[:, :, 32:, :32])
    assert shown.captions["whole"] == ["4, off by 0", "17, off by 5"]
    assert shown.captions["upper right"] == ["1", "3"]


@torch.no_grad()
def test_a_patch_is_known_by_its_class(net, monkeypatch):
    method = ExemplarCNN(net, samples=4, surrogates=3, copies=2).eval()
    method.surrogate.copy_(torch.tensor([0, -1, 1, 2]))
    x = torch.rand(4, 2, 3, 32, 32)
    method.classifier.weight.zero_()
    method.classifier.bias.copy_(torch.tensor([0.0, 2, 1]))
    shown = method.show(Batch([x], torch.arange(4)))
    assert torch.equal(shown.columns["copy 2"], x[:, 1])
    expected = ["3 of 3", "has no class", "1 of 3 ✓", "2 of 3"]
    assert shown.captions == {"copy 1": expected, "copy 2": expected}


@torch.no_grad()
def test_a_patch_is_known_by_its_likeness(net):
    method = ExemplarCNN(net, samples=4, objective="triplet", copies=2, dim=8).eval()
    one, other = torch.rand(2, 3, 32, 32)
    alike = torch.stack([torch.stack([one, one]), torch.stack([other, other])])
    crossed = torch.stack([torch.stack([one, other])] * 2)
    for x, sign in ((alike, "✓"), (crossed, "✗")):
        shown = method.show(Batch([x], torch.arange(2)))
        assert shown.captions == {"copy 1": [sign] * 2, "copy 2": [sign] * 2}


@torch.no_grad()
def test_words_that_are_told_bring_their_patches_back(monkeypatch):
    method = BEiT(backbone("test_vit", 32), vocabulary=16).eval()
    x, hidden = torch.rand(2, 3, 32, 32), torch.zeros(2, 8, 8, dtype=torch.bool)
    hidden[:, :2, :3] = True
    ids = method.ids(x)
    said = ids.clone()
    said[0, 0, 0] = (said[0, 0, 0] + 1) % 16
    said[:, 5, 5] = (said[:, 5, 5] + 1) % 16  # which is not hidden
    logits = F.one_hot(said.flatten(1), 16).float()
    monkeypatch.setattr(BEiT, "predict", lambda *_: logits)
    shown = method.show(Batch([x, hidden], torch.arange(2)))
    assert shown.captions["told"] == ["5 of 6 words", "6 of 6 words"]
    assert torch.equal(shown.columns["told"][1], x[1])
    assert int((shown.columns["told"][0] != x[0]).any(0).sum()) == 4 * 4
    assert not shown.columns["seen"][:, :, :8, :12].any()
    assert torch.equal(shown.columns["seen"][:, :, 8:], x[:, :, 8:])


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_lie_around_their_cells(channels):
    x = torch.zeros(1, channels, 16, 12)
    mean, std = (0.5,) * channels, (0.25,) * channels
    drawn = framed(x, torch.tensor([[5, 0]]), (4, 3), mean, std)[0] * 0.25 + 0.5
    box = drawn[:, 4:8, 8:12]  # cell 5 of 4 x 3
    color = torch.tensor(COLORS[0])
    color = color if channels == 3 else color.mean()[None]
    torch.testing.assert_close(box[:, 0, 0], color)
    assert torch.equal(box[:, 1:3, 1:3], torch.full((channels, 2, 2), 0.5))
    assert int((drawn != 0.5).any(0).sum()) == 2 * 12


def test_a_frame_has_the_places_of_its_box():
    x = torch.zeros(1, 3, 16, 16)
    boxes = torch.tensor([[[2.0, 3, 7, 14], [0, 0, 16, 16]]])
    drawn = boxed(x, boxes, (0,) * 3, (1,) * 3)[0]
    assert drawn[:, 3, 2].tolist() == pytest.approx(COLORS[0])
    assert drawn[:, 13, 6].tolist() == pytest.approx(COLORS[0])
    assert drawn[:, 15, 15].tolist() == pytest.approx(COLORS[1])
    assert not drawn[:, 4:13, 3:6].any()
    assert not drawn[:, 1:15, 7:15].any()


# kept -----------------------------------------------------------------------------------------


@pytest.fixture
def samples():
    return open_data(np.random.default_rng(0).integers(0, 255, (40, 40, 50, 3), np.uint8))


def shown(method, samples, out):
    views = ViewDataset(samples, method.views(32), 0)
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
        belongs = method.eval().assign(augment.normalize(images, net.mean, net.std))
    strength, which = belongs.max(1)
    biggest = int(which.bincount(minlength=5).argmax())
    name, cells = found.rows[0]
    assert name == f"number {biggest}: {int((which == biggest).sum())} images"
    members = [i for i in strength.argsort(descending=True).tolist() if which[i] == biggest]
    assert [c.name for c in cells] == [samples.name(i) for i in members[:8]]


@pytest.mark.parametrize("name", ["simclr", "mae", "jigsaw", "pixpro", "colorization", "swav"])
def test_views_are_kept_whatever_makes_them(name, samples, tmp_path):
    method = CASES[name].make(name)
    size = method.backbone.size
    keep_views(ViewDataset(samples, method.views(size), 0), tmp_path)
    kept = np.load(tmp_path / "views.npz")
    assert len(kept) == {"simclr": 2, "jigsaw": 9, "pixpro": 2, "swav": 4}.get(name, 1)
    assert all(v.shape[:2] == (SHOWN, 3) for v in kept.values())


class Shows(Method):
    recipe = SwAV.recipe

    def __init__(self, backbone, how):
        super().__init__()
        self.backbone, self.how = backbone, how

    def views(self, size):
        return augment.crop(size)

    def loss(self, batch):
        return self.backbone(batch.views[0]).sum()

    def show(self, batch):
        return self.how(batch.views[0])


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
