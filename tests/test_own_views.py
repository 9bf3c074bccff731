"""Own augmentation: flips, turns and erasing, options that change a method's views, callables."""

import math
import pickle
import random
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from selftaught import augment, cli, config, methods
from selftaught.augment import Changes, Custom, Params, View, Views, sample_rng
from selftaught.augment.image import native, render
from selftaught.augment.image.view import DRAWS
from selftaught.augment.pairs import Modalities
from selftaught.backbones import backbone
from selftaught.engine.plan import Plan, prepared
from selftaught.engine.run import Run
from selftaught.engine.settings import Settings
from selftaught.engine.views import views_of
from selftaught.errors import UserError
from selftaught.feed.readers import Readers
from selftaught.feed.views import ViewDataset
from selftaught.methods.contrastive.simclr import SimCLR
from selftaught.methods.dense.scrl import SCRL
from selftaught.signature import read_object
from tests.cases import CASES


@pytest.fixture(params=["native", "reference"])
def engine(request, monkeypatch) -> None:
    if request.param == "reference":
        monkeypatch.setattr(native, "library", lambda: None)
    else:
        assert native.library() is not None


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def drawn(view: View, n: int) -> list[Params]:
    rows = np.random.default_rng(5).random((n, DRAWS)).tolist()
    return [view.params(row, 60, 80) for row in rows]


# ------------------------------------------------------------------------------- flips and turns


def test_a_view_is_the_crop_flipped_and_turned(engine):
    """As numpy flips and turns it, each of the 8 ways equally often, and none costs a draw."""
    image, found = noise(60, 80, 3), []
    free = Views((View(24, vertical=0.5, turns=True),))
    for i in range(400):
        (p,) = free.draw(sample_rng(0, 0, i), 60, 80)
        found.append(p.turned)
        if i >= 40:
            continue
        (got,) = free.render(image, [p])
        (want,) = free.render(image, [p._replace(flip=False, vertical=False, transpose=False)])
        want = want.transpose(1, 2, 0)
        ways = {}
        for flip in (False, True):
            for quarters in range(4):
                way = np.rot90(want[:, ::-1] if flip else want, quarters)
                ways[way.tobytes()] = (flip, quarters)
        assert len(ways) == 8
        assert got.transpose(1, 2, 0).tobytes() in ways
    counts = np.bincount(found, minlength=8)
    assert counts.sum() == 400
    assert counts.min() > 400 / 8 - 5 * math.sqrt(400 / 8)


def test_none_of_an_option_is_none_and_not_the_methods(tmp_path):
    words = ["simclr", "photos/", "--flips", "none", "--scaling", "none"]
    (tmp_path / "run.yaml").write_text("method: simclr\ntraining: {flips: none, scaling: none}\n")
    for given in (words, ["--config", str(tmp_path / "run.yaml"), "photos/"]):
        assert cli.request(given).training == {"flips": "none", "scaling": "none"}
    asked = config.sort_out({"flips": "none"}, read_object(SimCLR))["training"]
    method = SimCLR(backbone("test_resnet", size=32))
    pipeline: Any = views_of(method, 32, Settings(**asked))
    assert all((v.flip, v.vertical) == (0, 0) for v in pipeline.views)


@pytest.mark.parametrize(
    ("view", "ways"),
    [
        (View(8, flip=0), {0}),
        (View(8, flip=1), {1}),
        (View(8, flip=0, vertical=1), {2}),
        (View(8, flip=0.5, vertical=0.5), {0, 1, 2, 3}),
        (View(8, flip=0, turns=True), {0, 3, 5, 6}),
        (View(8, flip=1, turns=True), {1, 2, 4, 7}),
    ],
    ids=str,
)
def test_what_is_asked_for_is_what_is_drawn(view, ways):
    assert {p.turned for p in drawn(view, 200)} == ways


def test_quarter_turns_are_numpys():
    """0, 3, 5, 6 are no turn, a half, and the two quarters: of a view that is not flipped."""
    image = noise(8, 8, 3)
    view = View(8, flip=0, scale=(1, 1), ratio=(1, 1), turns=True)
    want = {np.rot90(image, k).tobytes() for k in range(4)}
    rows = np.random.default_rng(0).random((40, DRAWS)).tolist()
    made = [render.render_view(image, view, view.params(row, 8, 8)) for row in rows]
    assert {m.transpose(1, 2, 0).tobytes() for m in made} == want


def test_boxes_and_corners_say_how_a_view_is_flipped():
    p = Params(2, 1, 3, 4, True, (), (1, 1, 1, 0), False, 0.0, False, vertical=True)
    assert p.box(10, 10) == (0.1, 0.2, 0.5, 0.5, 3.0)
    assert p.corners(11, 11) == (0.4, 0.4, 0.1, 0.2)


def test_boxes_of_a_batch_are_those_of_its_samples(engine):
    pipeline = Views((View(8, vertical=0.5, turns=True),) * 2, boxes=True)
    rngs = [sample_rng(0, 0, i) for i in range(8)]
    _, boxes = pipeline.batch([noise(20, 30, 3)] * 8, rngs)
    for i, found in enumerate(boxes):
        _, want = pipeline(noise(20, 30, 3), sample_rng(0, 0, i))
        assert np.array_equal(found, want)
    assert len(set(boxes[:, :, 4].flatten().tolist())) > 4


# --------------------------------------------------------------------------------------- erasing


def test_what_is_erased_is_zero_after_normalization_and_nothing_else_changes(engine):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    fill = tuple(round(255 * m) for m in mean)
    image = noise(60, 80, 3)
    views = {p: Views((View(32, erase=p, fill=fill, blur=1),)) for p in (0, 1)}
    for i in range(20):
        (plain,), (erased,) = (views[p](image, sample_rng(0, 0, i)) for p in (0, 1))
        (params,) = views[1].draw(sample_rng(0, 0, i), 60, 80)
        top, left, height, width = params.erased
        hole = np.zeros((32, 32), bool)
        hole[top : top + height, left : left + width] = True
        assert hole.any()
        assert np.array_equal(erased[:, ~hole], plain[:, ~hole])
        x = augment.normalize(torch.from_numpy(erased)[None], mean, std)[0]
        assert x[:, torch.from_numpy(hole)].abs().max() <= 0.5 / 255 / min(std) + 1e-6


def test_rectangles_are_distributed_as_torchvision_draws_them():
    n, size = 3000, 64
    ours = np.array([p.erased for p in drawn(View(size, erase=1), n)], float).T
    torch.manual_seed(0)
    eraser, x = v2.RandomErasing(p=1.0), torch.zeros(3, size, size)
    made = [eraser.make_params([x]) for _ in range(n)]
    theirs = np.array([[m[k] for k in ("i", "j", "h", "w")] for m in made], float).T
    for get in (
        lambda r: r[2] * r[3],
        lambda r: np.log(r[2] / r[3]),
        lambda r: r[0],
        lambda r: r[1],
    ):
        one, two = np.sort(get(ours)), np.sort(get(theirs))
        grid = np.concatenate((one, two))
        gap = np.searchsorted(one, grid, "right") - np.searchsorted(two, grid, "right")
        assert np.abs(gap).max() / n < 1.95 * math.sqrt(2 / n)  # Kolmogorov-Smirnov, 0.1 %


@pytest.mark.parametrize(("p", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_erasing_happens_as_often_as_asked_for(p, share):
    found = np.mean([q.erased[2] > 0 for q in drawn(View(32, erase=p), 2000)])
    assert abs(found - share) < 0.04


def test_a_view_of_one_pixel_has_nothing_to_erase(engine):
    (view,) = Views((View(1, erase=1),))(noise(5, 5, 3), sample_rng(0, 0, 0))
    assert view.shape == (3, 1, 1)


@pytest.mark.parametrize("channels", [1, 4])
def test_levels_are_one_or_one_a_channel(engine, channels):
    image = noise(20, 20, channels)
    (view,) = Views((View(8, erase=1, fill=(7,)),))(image, sample_rng(0, 0, 0))
    assert all((plane == 7).any() for plane in view)
    with pytest.raises(UserError, match="one, or one a channel"):
        Views((View(8, erase=1, fill=(7, 8)),))(image, sample_rng(0, 0, 0))


# --------------------------------------------------------------------------- what a user changes


def changed(views: Views, **asked: Any) -> tuple[View, ...]:
    return Changes(**asked)(views).views


DINO = augment.multicrop(32, 16, 2)


def test_local_crops_keep_their_scale():
    scales = [v.scale for v in changed(DINO, crop_scale=(0.2, 1.0))]
    assert scales == [(0.2, 1.0), (0.2, 1.0), (0.05, 0.4), (0.05, 0.4)]
    alike = augment.multicrop(32, 16, 1, (0.1, 1.0), (0.1, 1.0))
    assert [v.scale for v in changed(alike, crop_scale=(0.5, 0.6))][2] == (0.1, 1.0), "by size"
    same = augment.multicrop(32, 32, 1)
    assert [v.scale for v in changed(same, crop_scale=(0.5, 0.6))][2] == (0.05, 0.4), "by scale"


@pytest.mark.parametrize(
    ("flips", "want"),
    [("none", (0, 0)), ("horizontal", (0.5, 0)), ("vertical", (0, 0.5)), ("both", (0.5, 0.5))],
)
def test_flips_and_turns_are_of_all_views(flips, want):
    views = changed(DINO, flips=flips, quarter_turns=True)
    assert {(v.flip, v.vertical, v.turns) for v in views} == {(*want, True)}


@pytest.mark.parametrize(
    ("views", "wanted", "blurs"),
    [
        (augment.byol(32), 0.5, (0.5, 0.05)),
        (augment.byol(32), 0.0, (0.0, 0.0)),
        (DINO, 0.5, (0.5, 0.05, 0.25, 0.25)),
        (augment.simclr(32, blur=0.5), 1.0, (1.0, 1.0)),
        (augment.crop(32), 0.3, (0.3,)),
    ],
)
def test_unlike_views_keep_their_proportion(views, wanted, blurs):
    assert [v.blur for v in changed(views, gaussian_blur=wanted)] == pytest.approx(blurs)


def test_a_weak_view_stays_weak():
    strong = augment.moco(32).views[0]
    weak, strong = changed(Views((View(32), strong)), grayscale=0.4, color_jitter=2.0)
    assert (weak.gray, weak.jitter) == (0.0, (0.0,) * 4)
    assert (strong.gray, strong.jitter) == (0.4, (0.8, 0.8, 0.8, 0.2))


@pytest.mark.parametrize(
    ("views", "times", "jitter"),
    [
        (augment.simclr(32), 0.5, (0.4, 0.4, 0.4, 0.1)),
        (augment.simclr(32), 5.0, (4.0, 4.0, 4.0, 0.5)),
        (augment.moco_v1(32), 0.0, (0.0,) * 4),
        (augment.crop(32), 0.5, (0.4, 0.4, 0.4, 0.1)),
    ],
)
def test_jitter_is_a_multiple_of_the_methods_or_of_simclrs(views, times, jitter):
    assert changed(views, color_jitter=times)[0].jitter == pytest.approx(jitter)


def test_what_is_not_asked_for_stays():
    for views in (DINO, augment.byol(32), augment.crop(32)):
        assert Changes()(views) == views
        erased = changed(views, random_erasing=0.25, fill=(1, 2, 3))
        assert {(v.erase, v.fill) for v in erased} == {(0.25, (1, 2, 3))}
        assert tuple(replace(v, erase=0.0, fill=(128,)) for v in erased) == views.views


def make(name: str) -> Any:
    return CASES[name].make(name)


ALL = {
    "crop_scale": (0.3, 1.0),
    "flips": "both",
    "color_jitter": 0.5,
    "grayscale": 0.1,
    "gaussian_blur": 0.5,
    "random_erasing": 0.5,
}


@pytest.mark.parametrize("name", CASES)
def test_methods_that_ask_about_their_views_are_these(name):
    asks = methods.files()[name].parent.name in ("pretext", "masked", "predictive")
    assert (methods.find(name).needs.views == "own") == (asks or name == "cpc")


def test_nothing_is_asked_for_and_zero_is():
    method = make("moco_v2")
    assert views_of(method, 32, Settings()) == method.views(32)
    zero = Settings(color_jitter=0.0, grayscale=0.0, gaussian_blur=0.0, random_erasing=0.0)
    assert all(v.geometric for v in views_of(method, 32, zero).views)
    with pytest.raises(UserError, match=r"rotation asks about .* --gaussian-blur would change"):
        views_of(make("rotation"), 32, Settings(gaussian_blur=0.0))


@pytest.mark.parametrize("name", ["pixpro", "pixcontrast"])
def test_places_by_corners_go_with_flips_and_not_with_turns(name):
    one, other = views_of(make(name), 32, Settings(flips="both"))(
        noise(40, 40, 3), sample_rng(0, 0, 1)
    )[1]
    assert (one[1] > one[3], other[1] > other[3]) != (False, False), "top and bottom change places"
    with pytest.raises(UserError, match=r"--quarter-turns .* four corners"):
        views_of(make(name), 32, Settings(quarter_turns=True))


def test_boxes_are_the_same_places_however_views_are_turned():
    """Color is place: the middle of a box has the same color in both views."""
    y, x = np.mgrid[:200, :200]
    image = np.stack((x, y, 0 * x), -1).astype(np.uint8)
    method = SCRL(backbone("test_resnet", 32), boxes=4, jitter=0.0, blur=0.0)
    views = views_of(
        method,
        32,
        Settings(
            crop_scale=(0.5, 1), flips="both", quarter_turns=True, color_jitter=0, grayscale=0
        ),
    )
    for seed in range(20):
        (one, other), boxes = views(image, sample_rng(0, 0, seed))
        for a, b in zip(*boxes):
            colors = []
            for view, (left, top, right, bottom) in ((one, a), (other, b)):
                row, column = (int((p + q) / 2) for p, q in ((top, bottom), (left, right)))
                colors.append(view[:2, min(row, 31), min(column, 31)].astype(int))
            assert np.abs(colors[0] - colors[1]).max() <= 16  # two pixels of a crop of 200


def test_two_modalities_are_changed_each_with_its_own_mean():
    pair = Modalities(augment.moco(16), augment.crop(16), (0.25,), (0.5,))
    pair = replace(pair, first=Views(pair.first.views[:1]))
    own = pair.replaced(Changes(flips="both", quarter_turns=True, grayscale=0.5, random_erasing=1))
    assert [(v.vertical, v.turns, v.gray) for v in (*own.first.views, *own.second.views)] == [
        (0.5, True, 0.5),
        (0.5, True, 0.0),
    ]
    for seed in range(5):
        one, other = own((noise(20, 20, 3), noise(30, 20, 1)), sample_rng(0, 0, seed))
        assert one.shape == (3, 16, 16)
        assert (np.abs(other) < 0.5 / 255 / 0.5).any(), "zero after normalization"


def test_a_rectangle_is_erased_at_every_size_alike():
    small = augment.simclr(16, 0.0, 0.0)
    views = augment.Alike((small, augment.simclr(32, 0.0, 0.0))).replaced(
        Changes(random_erasing=1.0)
    )
    image = np.full((40, 40, 3), 255, np.uint8)
    for seed in range(10):
        (one, _), (large, _) = views(image, sample_rng(0, 0, seed))
        assert (one == 128).any()
        assert np.array_equal((one == 128).repeat(2, 1).repeat(2, 2), large == 128)


def test_colors_that_images_do_not_have_are_refused():
    method = SimCLR(backbone("test_resnet", 32, channels=4), hidden=8, dim=4)
    with pytest.raises(UserError, match=r"--grayscale drops the colors of three channels.*have 4"):
        views_of(method, 32, Settings(grayscale=0.2))
    views = views_of(method, 32, Settings(color_jitter=0.5, grayscale=0.0, random_erasing=1.0))
    one, _ = views(noise(40, 40, 4), sample_rng(0, 0, 0))
    assert one.shape == (4, 32, 32)


@pytest.mark.parametrize(
    "bad",
    [
        {"crop_scale": (0.0, 1.0)},
        {"flips": "diagonal"},
        {"color_jitter": -1.0},
        {"gaussian_blur": 1.5},
        {"random_erasing": -0.1},
        {"augmentation": 3},
    ],
    ids=str,
)
def test_impossible_values_are_named(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        Settings.of(**bad)
    changed = {name: value for name, value in bad.items() if name in Changes.__annotations__}
    if changed:  # by the class that Python has for them, likewise
        with pytest.raises(UserError, match=next(iter(bad))):
            Changes(**changed)


def test_a_function_is_given_pillow_images_or_arrays():
    with pytest.raises(UserError, match="given must be one of PIL, array, got 'tensor'"):
        Custom(crops, (8,), "tensor")  # type: ignore[arg-type]


def test_areas_in_the_wrong_order_are_named():
    with pytest.raises(UserError, match=r"crop_scale=1,0.2 must be .* the smaller one first"):
        Changes(crop_scale=(1.0, 0.2))


def test_help_shows_them_to_methods_that_take_them(capsys):
    for method, shown in (("simclr", True), ("rotation", False), ("mae", False), ("dino", True)):
        with pytest.raises(SystemExit):
            cli.request([method, "--help"])
        text = capsys.readouterr().out
        assert ("quarter-turns" in text, "--augmentation" in text) == (shown, shown), method


# ----------------------------------------------------------------------- functions of users' own


def crops(image: PIL.Image.Image, size: int) -> PIL.Image.Image:
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomVerticalFlip()])(image)


def test_a_function_is_called_for_each_view_with_what_it_asks_for():
    seen = []

    def mine(image: np.ndarray, rng: np.random.Generator, size: int, view: int) -> np.ndarray:
        seen.append((type(image), type(rng), size, view))
        return image[:size, :size]

    image = noise(20, 30, 3)
    views = Custom(mine, (16, 8), "array")(image, sample_rng(0, 0, 0))
    assert seen == [(np.ndarray, np.random.Generator, s, v) for v, s in enumerate((16, 8))]
    assert np.array_equal(views[1], image[:8, :8].transpose(2, 0, 1))


def test_randomness_is_the_samples_and_nobody_elses():
    pipeline, image = Custom(crops, (16, 16)), noise(40, 40, 3)

    def state() -> tuple:
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    before = state()
    first = pipeline(image, sample_rng(0, 1, 2))
    assert state() == before, "the training's generators are as they were"
    torch.rand(3)
    np.random.rand(3)
    again, other = (pipeline(image, sample_rng(0, 1, i)) for i in (2, 3))
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])
    assert pickle.loads(pickle.dumps(pipeline)) == pipeline


@pytest.mark.parametrize(
    "function",
    [
        lambda image: image.resize((8, 8)),
        lambda image: np.asarray(image.resize((8, 8))),
        lambda image: tv.to_image(image.resize((8, 8))),
        lambda image: tv.to_dtype(tv.to_image(image.resize((8, 8))), torch.float32, scale=True),
        lambda image: np.asarray(image.resize((8, 8))) / 255,
        lambda image: [image.resize((8, 8))] * 2,
        v2.Resize((8, 8), antialias=True),
    ],
)
def test_views_may_be_pictures_arrays_or_tensors_of_bytes_or_floats(function):
    image = noise(8, 8, 3)
    for view in Custom(function, (8, 8))(image, sample_rng(0, 0, 0)):
        assert np.array_equal(view, image.transpose(2, 0, 1))
        assert view.dtype == np.uint8


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            lambda image: image.resize((4, 9)),
            r"a Pillow image of 4 x 9 px \(RGB\).*\[8, 8, 3\].*`size`",
        ),
        (lambda image: image.convert("RGBA"), r"\(RGBA\).*channels as many, by convert"),
        (lambda image: image.convert("L"), r"\(L\).*channels as many"),
        (lambda image: torch.zeros(8, 8, 3), r"Tensor of shape \[8, 8, 3\].*\[3, 8, 8\].*order"),
        (lambda image: np.full((8, 8, 3), np.nan), "NaN"),
        (lambda image: np.zeros((8, 8, 3), np.int64), "int64"),
        (lambda image: torch.full((3, 8, 8), -2.0), "floats from -2 to -2, .*normalization"),
        (lambda image: np.full((8, 8, 3), 200.0), "floats from 200 to 200"),
        (lambda image: None, "gives NoneType.*: return the view"),
        (lambda image: [image] * 3, "gives 3 views and 2 are needed"),
        (lambda image: image.absent, r"fails for an image of 8 x 8 px: AttributeError.*line \d+"),
    ],
)
def test_what_is_wrong_with_a_view_is_named(function, words):
    with pytest.raises(UserError, match=words):
        Custom(function, (8, 8))(noise(8, 8, 3), sample_rng(0, 0, 0))


def test_images_that_pillow_has_not_go_to_functions_of_arrays():
    with pytest.raises(UserError, match=r"5 channels.*given='array'"):
        Custom(crops, (8,))(noise(8, 8, 5), sample_rng(0, 0, 0))
    (view,) = Custom(lambda image: image, (8,), "array")(noise(8, 8, 5), sample_rng(0, 0, 0))
    assert view.shape == (5, 8, 8)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("dcca", {}, "Halves"),
        ("pixpro", {}, "looks at where its views come from"),
        ("pirl", {}, "cuts them up"),
        ("jigsaw", {}, "asks about what is in its views"),
        ("simclr", {"flips": "both"}, "drop --augmentation"),
        ("simclr", {"augmentation": "nowhere.py:mine"}, "nowhere.py does not exist"),
        ("simclr", {"augmentation": "<Custom>"}, "was an object in Python"),
    ],
)
def test_functions_that_make_no_sense_are_refused(method, options, words):
    with pytest.raises(UserError, match=words):
        views_of(make(method), 32, Settings.of(**{"augmentation": crops, **options}))


def test_local_crops_and_masks_go_with_a_function():
    views, hidden = views_of(make("ibot"), 32, Settings.of(augmentation=crops))(
        noise(40, 40, 3), sample_rng(0, 0, 0)
    )
    plain, same = make("ibot").views(32)(noise(40, 40, 3), sample_rng(0, 0, 0))
    assert [v.shape for v in views] == [v.shape for v in plain]
    assert hidden.shape == same.shape


# -------------------------------------------------------------------------------------- training


IMAGES = noise(16, 40, 40, 3)
SMALL = {"hidden": 8, "dim": 4}
TRAINING = {"batch": 8, "epochs": 1, "evaluate": False, "workers": 0, "accelerator": "cpu"}


def planned(out: Path, **asked: Any) -> Plan:
    image = {"name": "test_resnet", "size": 32}
    return prepared("simclr", IMAGES, Settings.of(out=out, **(TRAINING | asked)), image, SMALL)


def test_what_is_asked_for_is_recorded_repeated_and_resumed(tmp_path):
    out = tmp_path / "run"
    Run(planned(out, quarter_turns=True, force=True, **ALL)).complete()
    content = config.load(out / "run.yaml")["training"]
    assert {n: content[n] for n in ALL} == ALL | {"crop_scale": [0.3, 1.0]}
    again = {name: content[name] for name in config.VIEWS}
    first = planned(tmp_path / "first", quarter_turns=True, **ALL).pipeline
    assert planned(tmp_path / "again", **again).pipeline == first
    assert planned(tmp_path / "plain").pipeline != first
    resumed = {"epochs": 2, "resume": True, **again}
    assert planned(out, **resumed).pipeline == first
    with pytest.raises(UserError, match=r"training\.flips: both -> vertical"):
        planned(out, **(resumed | {"flips": "vertical"}))
    # an earlier version had no such settings, and did what is now the default
    text = (out / "run.yaml").read_text().splitlines()
    kept = [row for row in text if row.split(":")[0].strip() not in config.VIEWS]
    (out / "run.yaml").write_text("\n".join(kept))
    planned(out, epochs=2, resume=True)
    with pytest.raises(UserError, match=r"training\.flips: null -> both"):
        planned(out, **resumed)


def test_workers_do_not_change_what_a_function_makes(tmp_path):
    plan = planned(tmp_path, augmentation=crops)
    assert plan.content["training"]["augmentation"].endswith("test_own_views:crops")
    views = ViewDataset(plan.samples, plan.pipeline, seed=3)
    keys = [[(0, i), (1, i)] for i in range(4)]
    with closing(Readers(views.__getitems__, keys, 1)) as beside:
        for key, item in zip(keys, beside, strict=True):
            for a, b in zip(views.__getitems__(key).views, item.views, strict=True):
                assert torch.equal(a, b)


def test_the_first_view_is_looked_at_before_anything_is_done(tmp_path):
    with pytest.raises(UserError, match="gives a Pillow image of 40 x 40 px"):
        planned(tmp_path / "run", augmentation=lambda image: image)
    assert not (tmp_path / "run").exists()


def test_a_file_of_a_run_names_a_function_that_somebody_must_have_looked_at(tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"method: simclr\ndata: photos\ntraining: {{augmentation: '{tmp_path}/mine.py:f'}}\n"
    )
    with pytest.raises(UserError, match=r"lies beside it: read it, then name it.*--augmentation"):
        cli.request(["--config", str(tmp_path / "run.yaml")])


def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parent.parent / "docs" / "views.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (text,) = (b for b in blocks if "def aerial" in b)
    (tmp_path / "of_the_page.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    views = views_of(make("dino"), 32, Settings.of(augmentation="of_the_page.py:aerial"))
    made, again = (views(noise(40, 40, 3), sample_rng(0, 0, 0)) for _ in range(2))
    assert [v.shape[1] for v in made] == [v.size for v in make("dino").views(32).views]
    assert all(map(np.array_equal, made, again))
