"""Images that are no squares: sizes of rows x columns, from views to exports."""

import json
import math

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from selftaught import augment, embed, export, methods, pretrain, sides
from selftaught.augment import normalize, sample_rng
from selftaught.augment.image.render import render_plain
from selftaught.augment.image.views import Plain
from selftaught.backbones import Wrapped, backbone, sincos
from selftaught.backbones.positions import grid_of, interpolate
from selftaught.classifier.graph import Whole
from selftaught.classifier.heads import Head, Linear
from selftaught.classifier.model import Classifier, load
from selftaught.classifier.targets import Target
from selftaught.cli import main
from selftaught.engine import resolution
from selftaught.errors import UserError
from selftaught.evaluate.image import changes
from selftaught.export.conversion import convert
from selftaught.method import Batch, terms_of
from selftaught.roles import ImageSize
from selftaught.signature import Parameter
from tests.cases import CASES

SIZE = 32, 64
SQUARES = {"rotation", "exemplar_cnn", "relative_patch", "distortion"}
"""Methods that turn what they see, or lay it out in a square."""

SHOWN = (
    *("simclr", "swav", "dino", "msn", "dinov2", "mae", "simmim", "beit", "discrete_vae", "ijepa"),
    *("capi", "selfie", "pixcontrast", "scrl", "pirl", "cpc", "counting", "inpainting"),
)


def made(name: str, size: sides.Size = SIZE):
    case = CASES[name]
    options = {"samples": 16} if "samples" in methods.signature(name) else {}
    return methods.find(name)(backbone(case.net, size), **options, **case.options)


def batch_of(method, size: sides.Size) -> Batch:
    """Four images of 45 x 80 px as the method sees them."""
    pipeline, rng = method.views(size), np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 9, 16, 3), np.uint8).repeat(5, 1).repeat(5, 2)
    seen = [pipeline(image, sample_rng(0, 0, i)) for i, image in enumerate(coarse)]
    views = normalize(default_collate(seen), method.backbone.mean, method.backbone.std)
    return Batch(views, torch.arange(4))


# sizes


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("224", 224),
        ("128x1024", (128, 1024)),
        (" 128 X 1024 ", (128, 1024)),
        ("64x64", 64),
        ("128, 1024", (128, 1024)),
        (96, 96),
        ([128, 1024], (128, 1024)),
        ((48, 48), 48),
        ("none", None),
    ],
)
def test_a_size_is_a_side_or_rows_and_columns(given, size):
    kind = ImageSize | None
    assert Parameter("size", sides.Size | None, False, None, "", True, kind).parse(given) == size


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("32x", "rows x columns such as 128x1024"),
        ("1x2x3", "rows x columns"),
        ("wide", "a whole number, or rows x columns"),
        ([32, 64.5], "rows x columns"),
        (True, "rows x columns"),
        ("0x32", "size must be at least 1"),
        ("32x-1", "size must be at least 1"),
    ],
)
def test_what_is_no_size_is_refused_in_words(given, said):
    with pytest.raises(UserError, match=said):
        Parameter("size", sides.Size, True, None, "", True, ImageSize).parse(given)


def test_squares_stay_one_number():
    assert sides.one((64, 64)) == 64
    assert sides.one([64, 32]) == (64, 32)
    assert backbone("test_resnet", (32, 32)).size == 32
    assert Wrapped(nn.Conv2d(3, 4, 3), (32, 32)).size == 32
    assert (sides.told_size(32), sides.told_size(SIZE)) == ("32", "32 x 64")
    assert sides.part(224, 3, 7) == 224 * 3 / 7
    assert sides.part((70, 140), 3, 7) == (30, 60)
    assert sides.part((70, 140), 3, 7, 35) == (35, 70)
    assert sides.within((50, 100), 20) == (10, 20)


# views


@pytest.mark.parametrize("shape", [(145, 280), (280, 145), (90, 700), (700, 90)])
def test_a_plain_rectangle_covers_and_cuts_the_center(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    view = augment.plain((70, 140))
    assert (view.size, view.resize) == ((70, 140), (80, 160))
    seen = view(image)
    assert seen.shape == (3, 70, 140)
    wanted = render_plain(image, (80, 160), (70, 140))
    assert np.abs(seen - wanted.astype(int)).max() <= 1  # where rounding falls on a tie
    assert augment.plain(SIZE) == Plain(SIZE, SIZE)


def test_files_say_how_a_plain_view_is_made():
    assert augment.plain(224).told == {"size": 224, "resize_short_side": 256}
    assert augment.plain((70, 140)).told == {"size": [70, 140], "resize_to_cover": [80, 160]}
    with pytest.raises(UserError, match="need 1 <= size <= resize"):
        Plain((32, 64), (32, 63))


def test_small_views_keep_the_proportions():
    dino = methods.find("dino")(backbone("test_vit", (56, 112), patch_size=4), local_crops=1)
    assert [v.size for v in dino.views((56, 112)).views] == [(56, 112), (56, 112), (24, 48)]
    dino.local_size = 16
    assert dino.views((56, 112)).views[2].size == (16, 32)


# networks


def test_a_square_keeps_its_table_of_positions_and_a_rectangle_has_its_own():
    for size, grid in ((32, (4, 4)), ((32, 64), (4, 8)), ((64, 24), (8, 3))):
        net = backbone("test_vit", size, patch_size=8)
        net.arrange("mean", positions="sincos")
        table = net.net.get_parameter("pos_embed")
        assert torch.equal(table, sincos(grid, net.dim, net.prefix).float())
        found = net.features(torch.rand(2, 3, *sides.both(size)))
        assert (found.grid, found.local.shape[1]) == (grid, math.prod(grid))
        assert net.grid(size) == grid
    with pytest.raises(UserError, match="64 x 25 px is no multiple of; use size 64x24"):
        net.grid((64, 25))
    with pytest.raises(UserError, match="8 x 4 px are smaller than the 8-px patches"):
        net.grid((8, 4))


@pytest.mark.parametrize(("size", "patch"), [(32, 4), ((32, 64), 4), ((64, 32), 4), ((24, 32), 4)])
def test_small_rectangles_get_patches_by_the_shorter_side(size, patch):
    assert backbone("test_vit", size).patch == patch


@pytest.mark.parametrize("size", [(32, 64), (64, 32), (48, 32)])
def test_stems_leave_four_cells_along_the_shorter_side(size):
    net = backbone("test_resnet", size)
    assert min(net.features(torch.rand(1, 3, *size)).grid) >= 4
    assert net.config["size"] == size


def test_what_is_cut_off_is_told_by_side():
    with pytest.raises(UserError, match=r"last 3 of 67 x 96 rows .* use size 64x96 or 68x96"):
        backbone("test_convnext", (67, 96))


def test_positions_of_a_rectangle_are_carried_from_the_grid_beside_the_weights(tmp_path):
    """1 + 3 * 8 positions are also a square: what is beside the file is asked first."""
    old = backbone("test_vit", (24, 64), patch_size=8)
    export.save(old, tmp_path)
    new = backbone("test_vit", (48, 32), patch_size=8, weights=tmp_path / "encoder.safetensors")
    theirs = old.net.get_parameter("pos_embed")
    wanted = interpolate(theirs, (3, 8), (6, 4), old.prefix)
    assert torch.allclose(new.net.get_parameter("pos_embed"), wanted, atol=1e-6)
    assert grid_of(24, (24, 64), 8) == (3, 8)
    assert (grid_of(25, None, 8), grid_of(24, None, 8)) == ((5, 5), None)


# methods


@pytest.mark.parametrize("name", SHOWN)
def test_methods_learn_from_rectangles(name):
    method = made(name)
    batch = batch_of(method, SIZE)
    loss = sum(term for term in terms_of(method.loss(batch)).values())
    loss.backward()
    assert torch.isfinite(loss.detach())
    moved = [p.grad for p in method.parameters() if p.grad is not None]
    assert moved
    assert all(bool(torch.isfinite(g).all()) for g in moved)
    with torch.no_grad():
        method.eval().show(batch)


@pytest.mark.parametrize("name", sorted(SQUARES))
def test_methods_that_need_squares_say_so(name):
    with pytest.raises(UserError, match=r"needs square images, as it .* 32 x 64 px are none"):
        made(name)


def test_masks_have_rows_and_columns():
    masks = {
        name: batch_of(made(name), SIZE).views[1].shape[1:]
        for name in ("mae", "simmim", "beit", "selfie")
    }
    assert masks == {"mae": (128,), "simmim": (4, 8), "beit": (8, 16), "selfie": (32,)}
    ibot = made("ibot")
    assert ibot.views(SIZE).grid == (8, 16)
    assert made("ijepa").predictor.predictor_pos_embed.shape[1] == 8 * 16


def test_a_phase_may_be_of_rectangles_and_not_where_squares_are_needed():
    assert resolution.phase(made("mae"), "32x48@0.5", 10) == ((32, 48), 5)
    assert resolution.phase(made("mae"), "48x48@0.5", 10) == (48, 5)
    with pytest.raises(UserError, match="needs square images"):
        resolution.phase(made("rotation", 32), "32x48@0.5", 10)


# runs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Labeled images of 40 x 80 px: waves of two widths."""
    folder, rng = tmp_path_factory.mktemp("waves"), np.random.default_rng(0)
    for i in range(16):
        wave = np.sin(np.arange(80) / (2 + 4 * (i % 2)) + i)[None, :, None]
        image = 128 + 60 * wave + rng.normal(0, 20, (40, 80, 3))
        (folder / str(i % 2)).mkdir(exist_ok=True)
        PIL.Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
            folder / str(i % 2) / f"{i}.png"
        )
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "mae"
    options = ["--dim", "32", "--depth", "1", "--heads", "2", "--workers", "0"]
    options += ["--backbone", "test_vit", "--size", "32x64", "--batch", "8", "--max-steps", "2"]
    options += ["--no-evaluate"]
    assert main(["pretrain", "mae", str(data), "--out", str(out), *options]) == 0
    return out


def test_a_run_of_rectangles_is_told_and_read_back(run):
    assert "size: [32, 64]" in (run / "run.yaml").read_text("utf-8")
    assert json.loads((run / "encoder.json").read_text("utf-8"))["encoder"]["size"] == [32, 64]
    encoder = export.load(run)
    assert encoder.size == (32, 64)
    assert encoder.features(torch.rand(1, 3, 32, 64)).grid == (8, 16)
    assert "32 x 64" in (run / "report.html").read_text("utf-8")


def test_scores_and_features_are_of_rectangles(run, data, tmp_path):
    options = ["--workers", "0", "--probes", "knn,retrieval", "--out", str(tmp_path / "s.json")]
    assert main(["evaluate", str(run), str(data), *options]) == 0
    scores = json.loads((tmp_path / "s.json").read_text("utf-8"))
    assert scores["size"] == [32, 64]
    assert "32 x 64 px" in scores["encoder"]
    assert embed(run, data, workers=0).features.shape == (16, 64)


@pytest.mark.parametrize("name", [*changes.CORRUPTIONS, *changes.COPIES])
def test_changed_rectangles_stay_as_large(name):
    x = np.random.default_rng(0).random((3, 20, 50))
    change = {**changes.CORRUPTIONS, **changes.COPIES}[name]
    seen = change(x, np.random.default_rng(0))
    assert seen.shape == x.shape
    assert not np.array_equal(seen, x)


def test_another_run_begins_with_one_on_the_other_grid(run, data, tmp_path):
    pretrain(
        *("mae", data, tmp_path / "on"),
        start=run,
        size=(64, 32),
        max_steps=1,
        batch=8,
        workers=0,
        dim=32,
        depth=1,
        heads=2,
        evaluate=False,
    )
    assert export.load(tmp_path / "on").size == (64, 32)


def test_exports_of_rectangles_are_read_back_and_say_how_images_are_made(
    run, tmp_path, monkeypatch
):
    convert(run, to="timm", out=tmp_path / "timm")  # which compares, and fails where it differs
    told = json.loads((tmp_path / "timm" / "config.json").read_text("utf-8"))
    assert told["pretrained_cfg"]["input_size"] == [3, 32, 64]
    out = tmp_path / "alone"
    convert(run, to="safetensors", out=out)
    told = json.loads((out / "preprocessing.json").read_text("utf-8"))
    assert (told["size"], told["resize_to_cover"]) == ([32, 64], [32, 64])
    readme = (out / "README.md").read_text("utf-8")
    assert "resized to cover 32 x 64 pixels" in readme
    assert "From an image of 32 x 64 pixels" in readme
    photo = np.linspace(0, 255, 50 * 150 * 3).reshape(50, 150, 3).astype(np.uint8)
    PIL.Image.fromarray(photo).save(out / "photo.jpg", quality=100)
    monkeypatch.chdir(out)
    found: dict = {}
    exec(readme.split("```python\n")[1].split("```")[0], found)
    assert found["grid"] == (8, 16)
    plain = torch.from_numpy(augment.plain(SIZE)(photo))[None]
    wanted = normalize(plain, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert np.abs(found["image"] - wanted.numpy()).mean() < 0.05


def test_a_classifier_of_rectangles_is_kept_and_predicts(run, data, tmp_path):
    head = Head(Linear(torch.eye(64, 2), torch.zeros(2)), "classes")
    target = Target("classes", ("narrow", "wide"), "as given")
    made = Classifier(export.load(run), head, target, (32, 64), {})
    made.save(tmp_path / "made")
    told = json.loads((tmp_path / "made" / "model.json").read_text("utf-8"))
    assert (told["size"], told["resize_to_cover"]) == ([32, 64], [32, 64])
    again = load(tmp_path / "made")
    assert again.size == (32, 64)
    assert len(again.predict(data, workers=0).outputs) == 16


@pytest.mark.parametrize("shape", [(45, 80), (80, 45), (30, 400), (333, 41), (70, 140), (141, 70)])
def test_the_graph_of_a_classifier_makes_plain_views(shape):
    whole = Whole.__new__(Whole)
    nn.Module.__init__(whole)
    whole.size, whole.resize = (70, 140), (80, 160)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    seen = whole.view(torch.from_numpy(image)[None])[0]
    off = (seen - torch.from_numpy(augment.plain((70, 140))(image))).abs()
    assert off.max() <= 1
