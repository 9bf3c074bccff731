"""Views: equal to torchvision, the right distributions, and nothing that depends on the machine."""

import logging
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from selftaught import augment
from selftaught.augment import Params, View, Views, sample_rng
from selftaught.augment.image import cells, device, native, render
from selftaught.augment.image.view import DRAWS
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.methods.correlation.barlow_twins import BarlowTwins
from selftaught.methods.correlation.vicreg import VICReg
from selftaught.methods.correlation.w_mse import WMSE
from selftaught.methods.distillation.dino import DINO
from selftaught.methods.distillation.msn import MSN


@pytest.fixture(autouse=True)
def reference(monkeypatch):
    """The pipeline in torch; what is native is compared with it in test_native.py."""
    monkeypatch.setattr(native, "library", lambda: None)


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth colors, noise, black, white and gray areas: [H, W, C]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [
        128 + 100 * np.sin(x / (9 + 5 * c) + c) + 60 * np.cos(y / (7 + 3 * c))
        for c in range(channels)
    ]
    image = np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, channels))
    image[: height // 6, : width // 5] = 0
    image[-(height // 6) :, : width // 5] = 255
    image[: height // 5, width // 2 :] = np.arange(width - width // 2)[None, :, None] % 256
    return np.clip(image, 0, 255).astype(np.uint8)


def by_hand(image: np.ndarray, view: View, p: Params) -> np.ndarray:
    """The same view by torchvision's own functions on a uint8 tensor."""
    x = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    x = tv.resized_crop(
        x, p.top, p.left, p.height, p.width, [view.size] * 2, view.interpolation, antialias=True
    )
    if p.flip:
        x = tv.horizontal_flip(x)
    jitter = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for k in p.order:
        x = jitter[k](x, p.factors[k])
    if p.gray:
        x = tv.rgb_to_grayscale(x, 3)
    if p.sigma:
        radius = math.ceil(5 * p.sigma) if view.blur_radius is None else view.blur_radius
        x = tv.gaussian_blur(x, [2 * radius + 1] * 2, [p.sigma] * 2)
    if p.solarize:
        x = tv.solarize(x, 128)
    return x.numpy()


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(int) - b.astype(int))


# ------------------------------------------------------------------ each operation by itself

EXACT: list[tuple[str, Callable, Callable, list[float]]] = [
    ("brightness", render.brightness, tv.adjust_brightness, [0.0, 0.2, 0.7, 1.0, 1.33, 1.8]),
    ("contrast", render.contrast, tv.adjust_contrast, [0.0, 0.2, 0.7, 1.0, 1.33, 1.8]),
    ("saturation", render.saturation, tv.adjust_saturation, [0.0, 0.2, 0.7, 1.0, 1.33, 1.8]),
    ("hue", render.hue, tv.adjust_hue, [-0.5, -0.2, -0.013, 0.0, 1e-8, -1e-8, 0.1, 0.4, 0.5]),
    ("gray", lambda x, _: render.grayscale(x), lambda x, _: tv.rgb_to_grayscale(x, 3), [0.0]),
    ("solarize", lambda x, _: render.solarize(x), lambda x, _: tv.solarize(x, 128), [0.0]),
]


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case[0])
def test_operation_equals_torchvision_on_photo_and_on_random_colors(case):
    _, ours, theirs, values = case
    noise = np.random.default_rng(1).integers(0, 256, (97, 111, 3), dtype=np.uint8)
    for image in (photo(64, 80), noise, noise[:1, :1], noise // 64 * 85):
        x = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        for value in values:
            got = ours(x.float(), value).to(torch.uint8)
            assert torch.equal(got, theirs(x, value)), value


@pytest.mark.parametrize("case", EXACT[:2], ids=lambda case: case[0])
def test_brightness_and_contrast_of_one_channel_equal_torchvision(case):
    _, ours, theirs, values = case
    x = torch.from_numpy(photo(40, 50, 1)).permute(2, 0, 1).contiguous()
    for value in values:
        assert torch.equal(ours(x.float(), value).to(torch.uint8), theirs(x, value))


def test_every_color_survives_solarize_and_gray_as_in_torchvision():
    levels = torch.arange(0, 256, 5, dtype=torch.uint8)
    x = torch.cartesian_prod(levels, levels, levels).T.reshape(3, 52, -1).contiguous()
    assert torch.equal(render.grayscale(x.float()).to(torch.uint8), tv.rgb_to_grayscale(x, 3))
    for turn in (-0.2, 0.07):
        assert torch.equal(render.hue(x.float(), turn).to(torch.uint8), tv.adjust_hue(x, turn))


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("radius", [1, 4, 11, None])
def test_blur_is_within_one_level_of_torchvision(sigma, radius):
    x = torch.from_numpy(photo(96, 80)).permute(2, 0, 1).contiguous()
    size = 2 * (11 if radius is None else radius) + 1
    want = tv.gaussian_blur(x, [size, size], [sigma, sigma])
    off = differences(render.blur(x.float(), sigma, radius).numpy(), want.numpy())
    assert off.max() <= 1
    assert off.mean() < 1e-3


def test_blur_of_images_smaller_than_its_reach_keeps_a_constant():
    for height, width in ((1, 1), (1, 7), (2, 3)):
        x = torch.full((2, height, width), 93.0)
        assert torch.equal(render.blur(x.clone(), 2.0), x)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_and_resize_equal_torchvision(channels, interpolation):
    image = photo(150, 210, channels)
    view = View(48, interpolation=interpolation)
    for seed in range(8):
        p = view.params(np.random.default_rng(seed).random(DRAWS).tolist(), 150, 210)
        assert np.array_equal(render.render_view(image, view, p), by_hand(image, view, p))


# ------------------------------------------------------------------ whole views

RECIPES = {
    "simclr": augment.simclr(64),
    "simclr 32": augment.simclr(32, 0.5, 0.0),
    "moco": augment.moco(64),
    "moco_v1": augment.moco_v1(64),
    "byol": augment.byol(64),
    "dino": augment.multicrop(64, 32, 3),
    "swav": augment.multicrop(64, 32, 3, (0.14, 1.0), (0.05, 0.14), family="swav"),
    "crop": augment.crop(64),
}


@pytest.mark.parametrize("name", RECIPES)
def test_views_equal_torchvision_by_hand(name):
    pipeline = RECIPES[name]
    image = photo(130, 170)
    for index in range(6):
        params = pipeline.draw(sample_rng(0, 0, index), 130, 170)
        for view, p, got in zip(pipeline.views, params, pipeline.render(image, params)):
            assert got.dtype == np.uint8
            assert got.shape == (3, view.size, view.size)
            off = differences(got, by_hand(image, view, p))
            if p.sigma == 0:
                assert off.max() == 0
            else:  # a rounding tie of the blur, which solarize cannot widen
                assert off.max() <= 1
                assert off.mean() < 1e-3


@pytest.mark.parametrize("shape", [(150, 210), (210, 150), (64, 64), (500, 130)])
def test_plain_equals_torchvision(shape):
    image = photo(*shape)
    x = torch.from_numpy(image).permute(2, 0, 1)
    for size, resize in ((224, 256), (96, 110), (32, 32)):
        chain = v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(size)])
        got = augment.plain(size)(image)
        assert np.array_equal(got, chain(x).numpy())


def test_plain_bounds_what_a_strip_costs():
    strip = np.tile(np.arange(3, dtype=np.uint8)[None, :, None], (20000, 1, 3))
    got = augment.plain(224)(strip)
    assert got.shape == (3, 224, 224)
    dot = augment.plain(32)(np.full((1, 1, 1), 7, np.uint8), None)
    assert np.array_equal(dot, np.full((1, 32, 32), 7))


# ------------------------------------------------------------------ what is drawn


def draws(view: View, n: int, height: int, width: int) -> list[Params]:
    rows = np.random.default_rng(5).random((n, DRAWS)).tolist()
    return [view.params(row, height, width) for row in rows]


def test_crops_are_distributed_as_torchvision_draws_them():
    height, width, n = 300, 400, 4000
    ours = [(p.top, p.left, p.height, p.width) for p in draws(View(32), n, height, width)]
    torch.manual_seed(0)
    crop, empty = v2.RandomResizedCrop(32), torch.empty(3, height, width)
    made = [crop.make_params([empty]) for _ in range(n)]
    theirs = [(p["top"], p["left"], p["height"], p["width"]) for p in made]
    a, b = np.array(ours, float).T, np.array(theirs, float).T
    for get in (
        lambda q: q[2] * q[3] / (height * width),
        lambda q: np.log(q[3] / q[2]),
        lambda q: q[0],
        lambda q: q[1],
    ):
        one, two = np.sort(get(a)), np.sort(get(b))
        grid = np.concatenate((one, two))
        gap = np.searchsorted(one, grid, "right") - np.searchsorted(two, grid, "right")
        # Kolmogorov-Smirnov: 1.95 * sqrt(2 / n) is the 0.1 % level.
        assert np.abs(gap).max() / n < 1.95 * math.sqrt(2 / n)
    area = a[2] * a[3] / (height * width)
    assert area.min() > 0.075
    assert area.max() <= 1.0


def test_crops_of_strips_fall_back_to_the_center_as_torchvision():
    for height, width in ((400, 3), (3, 400), (1, 50), (100, 7)):
        view = View(8, scale=(0.9, 1.0))
        want = v2.RandomResizedCrop(8, scale=(0.9, 1.0)).make_params(
            [torch.empty(3, height, width)]
        )
        for p in draws(view, 20, height, width):
            got = {"top": p.top, "left": p.left, "height": p.height, "width": p.width}
            assert got == want


def test_crops_stay_inside_images_of_any_shape():
    for height, width in ((1, 1), (1, 2), (3, 2), (400, 3), (7, 5000), (20000, 20000)):
        for p in draws(View(8), 200, height, width):
            assert p.height >= 1
            assert p.width >= 1
            assert 0 <= p.top <= height - p.height
            assert 0 <= p.left <= width - p.width


def test_probabilities_and_ranges():
    view = View(
        8,
        flip=0.3,
        jitter=(0.4, 1.5, 0.2, 0.1),
        jitter_p=0.8,
        gray=0.2,
        blur=0.5,
        blur_sigma=(0.1, 2.0),
        solarize=0.1,
    )
    n = 8000
    drawn = draws(view, n, 50, 50)
    for share, want in (
        (np.mean([p.flip for p in drawn]), 0.3),
        (np.mean([bool(p.order) for p in drawn]), 0.8),
        (np.mean([p.gray for p in drawn]), 0.2),
        (np.mean([p.sigma > 0 for p in drawn]), 0.5),
        (np.mean([p.solarize for p in drawn]), 0.1),
    ):
        assert abs(share - want) < 4 * math.sqrt(want * (1 - want) / n)
    orders = [p.order for p in drawn if p.order]
    counts = np.unique([str(order) for order in orders], return_counts=True)[1]
    assert len(counts) == 24
    assert np.abs(counts - len(orders) / 24).max() < 5 * math.sqrt(len(orders) / 24)
    factors = np.array([p.factors for p in drawn if p.order])
    ranges = np.array([(0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1)])
    width = ranges[:, 1] - ranges[:, 0]
    assert (factors >= ranges[:, 0]).all()
    assert (factors <= ranges[:, 1]).all()
    assert (np.abs(factors.mean(0) - ranges.mean(1)) < 0.02 * width).all()
    assert (np.abs(factors.std(0) - width / math.sqrt(12)) < 0.02 * width).all()
    sigmas = np.array([p.sigma for p in drawn if p.sigma])
    assert sigmas.min() > 0.1
    assert sigmas.max() < 2.0
    assert abs(sigmas.mean() - 1.05) < 0.04


def test_operations_of_strength_zero_are_not_applied():
    view = View(8, jitter=(0.4, 0.0, 0.2, 0.0), jitter_p=1.0)
    assert {p.order for p in draws(view, 50, 9, 9)} == {(0, 2), (2, 0)}


@pytest.mark.parametrize(
    "change",
    [
        {"blur": 0.0},
        {"blur": 1.0, "blur_sigma": (1.0, 5.0)},
        {"gray": 0.9},
        {"jitter_p": 0.0},
        {"solarize": 1.0},
        {"flip": 0.0},
        {"jitter": (0.1, 0.0, 0.9, 0.0)},
        {"vertical": 0.5},
        {"turns": True},
        {"erase": 0.5},
    ],
    ids=str,
)
def test_one_setting_moves_no_other_draw(change):
    view = View(8, jitter=(0.4, 0.4, 0.4, 0.1), gray=0.2, blur=0.5, solarize=0.2)
    own = {
        "blur": {"sigma"},
        "gray": {"gray"},
        "jitter_p": {"order", "factors"},
        "solarize": {"solarize"},
        "flip": {"flip"},
        "jitter": {"order", "factors"},
        "vertical": {"vertical"},
        "turns": {"flip", "vertical", "transpose"},
        "erase": {"erased"},
    }[next(iter(change))]
    before, after = draws(view, 200, 60, 50), draws(replace(view, **change), 200, 60, 50)
    moved = {
        name
        for p, q in zip(before, after)
        for name in Params._fields
        if getattr(p, name) != getattr(q, name)
    }
    assert moved == own


def test_more_views_leave_the_first_ones_alone():
    two = augment.multicrop(32, 16, 0).draw(sample_rng(1, 2, 3), 90, 80)
    ten = augment.multicrop(32, 16, 8).draw(sample_rng(1, 2, 3), 90, 80)
    assert ten[:2] == two


# ------------------------------------------------------------------ randomness of a sample


def test_sample_rng_is_fixed_for_ever():
    assert sample_rng(0, 0, 0).random() == np.random.default_rng([0, 0, 0]).random()
    same = sample_rng(7, 3, 11).random(4)
    assert np.array_equal(same, sample_rng(7, 3, 11).random(4))
    others = {sample_rng(s, e, i).random() for s in range(4) for e in range(4) for i in range(4)}
    assert len(others) == 64
    # Golden: changing how samples are seeded would change every run that is resumed.
    assert sample_rng(7, 3, 11).random() == 0.4847509170453994
    with pytest.raises(UserError, match="from 0 on"):
        sample_rng(0, -1, 0)


def test_views_repeat_with_the_sample_and_differ_without():
    image, pipeline = photo(60, 70), augment.byol(32)
    one, again = (pipeline(image, sample_rng(0, 1, 5)) for _ in range(2))
    other = pipeline(image, sample_rng(0, 2, 5))
    assert all(np.array_equal(a, b) for a, b in zip(one, again))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other))


class Photos(Dataset):
    """Twelve images that a loader reads, each with the generator of its index."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int):
        return augment.simclr(16)(photo(20, 30, seed=index), sample_rng(0, 4, index))


def test_worker_count_changes_nothing():
    alone = list(DataLoader(Photos(), batch_size=4))
    shared = list(DataLoader(Photos(), batch_size=4, num_workers=2))
    assert all(torch.equal(a, b) for p, q in zip(alone, shared) for a, b in zip(p, q))


PIPELINES = {
    **RECIPES,
    "boxes": augment.moco(32, boxes=True),
    "plain": augment.plain(64),
    "tiles": augment.tiles(32),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_pickle_compare_and_collate(name):
    pipeline = PIPELINES[name]
    copy = pickle.loads(pickle.dumps(pipeline))
    assert copy == pipeline
    assert hash(copy) == hash(pipeline)
    batch = default_collate([copy(photo(40, 50, seed=i), sample_rng(0, 0, i)) for i in range(3)])
    alone = default_collate([pipeline(photo(40, 50), sample_rng(0, 0, 0))])
    for got, want in zip(leaves(batch), leaves(alone)):
        assert len(got) == 3
        assert torch.equal(got[:1], want)


def leaves(node: Any) -> list[torch.Tensor]:
    return [node] if isinstance(node, torch.Tensor) else [x for part in node for x in leaves(part)]


# ------------------------------------------------------------------ any image


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("shape", [(1, 1), (400, 3), (3, 400), (2, 2), (33, 40)])
def test_any_shape_and_channel_count(channels, shape):
    image = photo(*shape, channels)
    image.flags.writeable = False  # as PIL hands it out
    before = image.copy()
    for pipeline in (augment.byol(24), augment.multicrop(24, 8, 2), augment.crop(24)):
        for index in range(4):
            views = pipeline(image, sample_rng(0, 0, index))
            for view, got in zip(pipeline.views, views):
                assert got.shape == (channels, view.size, view.size)
                assert got.dtype == np.uint8
                assert got.flags.c_contiguous
                assert got.flags.writeable
    assert np.array_equal(image, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_never_shares_memory_with_its_image(channels):
    image = photo(24, 24, channels)
    view = View(24, (1, 1), (1, 1), flip=0)
    for got in (*Views((view,))(image, sample_rng(0, 0, 0)), augment.plain(24)(image)):
        assert np.array_equal(got, image.transpose(2, 0, 1))
        assert not np.shares_memory(got, image)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_other_channel_counts_get_what_makes_sense_and_one_warning(channels, caplog):
    render._warn_color.cache_clear()
    image = photo(40, 40, channels)
    view = View(40, (1, 1), (1, 1), flip=0, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=1, gray=1)
    with caplog.at_level(logging.WARNING, "selftaught"):
        for index in range(5):
            (got,) = Views((view,))(image, sample_rng(0, 0, index))
            (p,) = Views((view,)).draw(sample_rng(0, 0, index), 40, 40)
            x = torch.from_numpy(image).permute(2, 0, 1).float()
            for k in p.order:
                if k == 0:
                    x = (x * p.factors[0]).clamp(0, 255).floor()
                if k == 1:
                    x = (x * p.factors[1] + (1 - p.factors[1]) * x.mean()).clamp(0, 255).floor()
            assert differences(got, x.numpy()).max() <= 1  # the mean is summed in another order
    assert [r.message for r in caplog.records] == [
        f"Saturation, hue and grayscale need 3 channels: images with {channels} get the other "
        "operations of their views only"
    ]


def test_no_warning_where_no_color_is_asked_for(caplog):
    render._warn_color.cache_clear()
    augment.crop(16)(photo(20, 20, 4), sample_rng(0, 0, 0))
    assert not caplog.records


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 0), np.uint8),
        PIL.Image.new("RGB", (4, 4)),
    ],
    ids=["2-D", "float", "no rows", "no channels", "PIL"],
)
@pytest.mark.parametrize("pipeline", [augment.moco(8), augment.plain(8), augment.tiles(32)])
def test_what_is_no_image_is_a_worded_error(pipeline, image):
    with pytest.raises(UserError, match=r"uint8 array|no pixels"):
        pipeline(image, sample_rng(0, 0, 0))


@pytest.mark.parametrize(
    "bad",
    [
        {"size": 0},
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 0.2)},
        {"scale": (0.5, 1.2)},
        {"ratio": (0.0, 1.0)},
        {"interpolation": "nearest"},
        {"flip": 1.5},
        {"gray": -0.1},
        {"blur": float("nan")},
        {"jitter": (0.1, 0.1, 0.1, 0.6)},
        {"jitter": (0.1, 0.1, 0.1)},
        {"blur_sigma": (0.0, 1.0)},
        {"blur_radius": -1},
        {"vertical": 1.5},
        {"erase": -0.1},
        {"fill": ()},
        {"fill": (0, 256)},
    ],
    ids=str,
)
def test_impossible_views_are_worded_errors(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        View(**{"size": 8, **bad})


# ------------------------------------------------------------------ boxes


def test_boxes_say_where_a_view_came_from():
    """Color is position: red counts columns, green rows; so pixels tell their crop."""
    height, width, size = 200, 250, 64
    y, x = np.mgrid[:height, :width]
    image = np.stack((x, y, x * 0), axis=-1).astype(np.uint8)
    pipeline = Views((View(size, (0.2, 1.0)),) * 4, boxes=True)
    flips = set()
    for index in range(10):
        result = pipeline(image, sample_rng(0, 0, index))
        assert isinstance(result, tuple)
        views, boxes = result
        assert boxes.shape == (4, 5)
        assert boxes.dtype == np.float32
        for view, (left, top, right, bottom, flip) in zip(views, boxes):
            center = (np.arange(size) + 0.5) / size
            columns = (left + (right - left) * center) * width - 0.5
            rows = (top + (bottom - top) * center) * height - 0.5
            flips.add(bool(flip))
            seen = view[0, size // 2, ::-1] if flip else view[0, size // 2]
            inner = slice(3, -3)  # the filter is one-sided at the border
            assert np.abs(seen[inner] - columns[inner]).max() <= 1
            assert np.abs(view[1, inner, 5] - rows[inner]).max() <= 1
    assert flips == {False, True}


def test_boxes_leave_the_views_alone():
    image = photo(50, 60)
    views = augment.moco(32)(image, sample_rng(0, 0, 1))
    boxed = augment.moco(32, boxes=True)(image, sample_rng(0, 0, 1))[0]
    assert all(np.array_equal(a, b) for a, b in zip(views, boxed))


# ------------------------------------------------------------------ recipes


def test_recipes_are_the_papers():
    one, two = augment.simclr(224).views
    assert (
        one
        == two
        == View(224, (0.08, 1.0), jitter=(0.8, 0.8, 0.8, 0.2), gray=0.2, blur=0.5, blur_radius=11)
    )
    assert augment.simclr(32, 0.5, 0.0).views[0].jitter == (0.4, 0.4, 0.4, 0.1)
    moco = View(224, (0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), gray=0.2, blur=0.5)
    assert augment.moco(224).views == augment.simsiam(224).views == (moco, moco)
    old = View(224, (0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, gray=0.2)
    assert augment.moco_v1(224).views == (old, old)
    first = View(
        224, interpolation="bicubic", jitter=(0.4, 0.4, 0.2, 0.1), gray=0.2, blur=1.0, solarize=0.0
    )
    assert augment.byol(224).views == (first, replace(first, blur=0.1, solarize=0.2))
    dino = augment.multicrop(224).views
    first, second = replace(first, scale=(0.4, 1)), replace(first, scale=(0.4, 1), blur=0.1)
    assert dino[:2] == (first, replace(second, solarize=0.2))
    assert dino[2:] == (replace(first, size=96, scale=(0.05, 0.4), blur=0.5),) * 8
    swav = augment.multicrop(224, 96, 6, (0.14, 1.0), (0.05, 0.14), family="swav").views
    assert len(set(swav[:2])) == 1
    assert swav[0].jitter == (0.8, 0.8, 0.8, 0.2)
    assert {v.blur for v in swav} == {0.5}
    assert {v.interpolation for v in swav} == {"bilinear"}
    sharp = augment.multicrop(32, 14, 2, blur=(0.3, 0.2, 0.1), solarize=0.0).views
    assert [v.blur for v in sharp] == [0.3, 0.2, 0.1, 0.1]
    assert {v.solarize for v in sharp} == {0.0}
    assert augment.crop(224).views == (View(224, (0.2, 1.0), interpolation="bicubic"),)
    assert (augment.plain(224).resize, augment.plain(96).resize) == (256, 110)
    assert augment.plain(32).resize == 32


def test_methods_have_their_papers_views_and_not_those_of_ports():
    net, vit, small = (Image(n, 32) for n in ("test_resnet", "test_vit", "test_vit"))
    for method in (VICReg(net, hidden=8, dim=8), BarlowTwins(net, hidden=8, dim=8)):
        one, two = method.views(224).views
        assert (one.blur, two.blur, one.solarize, two.solarize) == (1.0, 0.1, 0.0, 0.2)
    assert {v.blur for v in WMSE(net).views(224).views} == {0.0}
    msn = MSN(vit, prototypes=4, hidden=8).views(224).views
    assert {v.jitter for v in msn} == {(0.4, 0.4, 0.4, 0.1)}
    assert len(msn) == 12
    assert len(DINO(small, prototypes=4, hidden=8).views(224).views) == 2 + 8
    assert BarlowTwins.recipe.bias_lr == pytest.approx(0.0048 / 0.2)


# ------------------------------------------------------------------ tiles


def test_tiles_of_the_reference_implementation():
    """VISSL's tiles run down the columns: tile (i, j) lies i cells to the right, j cells down."""
    golden = np.load(Path(__file__).parent / "golden" / "jigsaw.npz")
    image, jitter, want = (golden[f"tiles.{name}"] for name in ("image", "jitter", "patches"))
    ours = augment.cut_tiles(image, jitter[::-1].swapaxes(1, 2), 7)
    assert np.array_equal(ours.reshape(3, 3, 1, 7, 7).swapaxes(0, 1).reshape(9, 1, 7, 7), want)


def test_tiles_come_in_reading_order_from_their_cells():
    y, x = np.mgrid[:256, :256]
    image = np.stack((x, y, x * 0), axis=-1).astype(np.uint8)
    pipeline = augment.tiles(225, scale=(1.0, 1.0), flip=0.0, gray=0.0)
    assert (pipeline.view.size, pipeline.tile) == (255, 64)
    seen = set()
    for index in range(30):
        tiles = pipeline(image, sample_rng(0, 0, index))
        assert tiles.shape == (9, 3, 64, 64)
        for k, tile in enumerate(tiles):
            row, column = int(tile[1, 0, 0]) - k // 3 * 85, int(tile[0, 0, 0]) - k % 3 * 85
            seen |= {row, column}
    assert min(seen) in (0, 1)  # levels are the places before resizing 256 to 255
    assert max(seen) in (21, 22)


def test_tiles_can_shift_channels_and_be_gray_together():
    image = np.repeat(photo(100, 100)[..., :1], 3, axis=2)
    together = augment.tiles(60, gray=0.0)(image, sample_rng(0, 0, 0))
    assert np.array_equal(together[:, 0], together[:, 1])
    apart = augment.tiles(60, gray=0.0, channel_shift=2)(image, sample_rng(0, 0, 0))
    assert not np.array_equal(apart[:, 0], apart[:, 1])
    grays = 0
    for index in range(60):
        tiles = augment.tiles(30)(photo(40, 40), sample_rng(0, 0, index))
        gray = [np.array_equal(t[0], t[1]) and np.array_equal(t[1], t[2]) for t in tiles]
        assert len(set(gray)) == 1
        grays += gray[0]
    assert 28 <= grays <= 52


def test_impossible_tiles_are_worded_errors():
    with pytest.raises(UserError, match="a view of 100 pixels has no 3 x 3 whole cells"):
        cells.Tiles(View(100), 3, 20)
    with pytest.raises(UserError, match="a view of 90 x 61 pixels has no 3 x 3 whole"):
        cells.Tiles(View((90, 61)), 3, 20)
    with pytest.raises(UserError, match="do not fit the 20-pixel cells"):
        cells.Tiles(View((90, 60)), 3, (20, 21))
    with pytest.raises(UserError, match="do not fit the 33-pixel cells"):
        cells.Tiles(View(99), 3, 33, channel_shift=1)
    with pytest.raises(UserError, match=r"0\.\.3"):
        augment.cut_tiles(np.zeros((1, 30, 30), np.uint8), np.full((2, 3, 3), 4), 7)


# ---------------------------------------------------------------------- rectangles


def test_crops_have_the_shape_of_their_view_and_nothing_is_squeezed():
    view = View((30, 120), scale=(0.2, 1.0), ratio=(1.0, 1.0))
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = view.params(rng.random(DRAWS).tolist(), 400, 1600)
        assert p.width / p.height == pytest.approx(4, rel=0.02)
    # an image that is higher than wide cannot give a fifth of itself so: what is widest there
    p = view.params(rng.random(DRAWS).tolist(), 400, 100)
    assert (p.height, p.width) == (25, 100)
    free = View((30, 120))
    ratios = [
        p.width / p.height
        for p in (free.params(rng.random(DRAWS).tolist(), 4000, 16000) for _ in range(500))
    ]
    assert min(ratios) == pytest.approx(3, rel=0.02)
    assert max(ratios) == pytest.approx(16 / 3, rel=0.02)


def test_a_view_that_is_no_square_is_not_turned():
    with pytest.raises(UserError, match="turns must be off"):
        View((30, 40), turns=True)
    with pytest.raises(UserError, match="at least 1 pixel"):
        View((30, 0))


@pytest.mark.parametrize("shape", [(50, 200), (200, 50), (64, 64), (7, 3000), (3000, 7)])
@pytest.mark.parametrize("size", [(16, 64), (64, 16), (32, 32)])
def test_a_plain_rectangle_is_covered_and_cut_from_the_middle(shape, size):
    (height, width), whole = render.covering(shape, size)
    assert min(n - k for n, k in zip(whole, size)) == 0  # one side fits, the other covers
    assert max(n / k for n, k in zip(whole, size)) <= render.LONGEST + 1
    assert all(n <= side for n, side in zip((height, width), shape))
    assert whole[0] / whole[1] == pytest.approx(height / width, rel=0.1, abs=1)
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 2 :, :, 0] = image[:, shape[1] // 2 :, 1] = 200
    view = render.render_plain(image, size, size)
    assert view.shape == (3, *size)
    down, across = (np.diff(view[c].astype(int), axis=c).sum(c) for c in (0, 1))
    least = 200 if min(shape) > 7 else 160  # seven pixels, enlarged, end nowhere sharply
    assert least <= down.min() == down.max() <= 200
    assert least <= across.min() == across.max() <= 200


# ------------------------------------------------------------------ device stage


def test_normalize_touches_image_batches_only():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 8, 9), dtype=torch.uint8, generator=generator)
    tiles = torch.randint(0, 256, (2, 9, 3, 4, 4), dtype=torch.uint8, generator=generator)
    boxes, index, mask = torch.rand(2, 5), torch.arange(2), torch.ones(2, 4, 4, 4).bool()
    small = torch.zeros(3, 8, 8, dtype=torch.uint8)
    views = {"a": [images, (tiles, boxes)], "b": index, "c": mask, "d": small, "e": "words"}
    out = device.normalize(views, mean, std)

    def want(x: torch.Tensor) -> torch.Tensor:
        m, s = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (mean, std))
        return ((x.double() / 255 - m) / s).float()

    torch.testing.assert_close(out["a"][0], want(images), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out["a"][1][0], want(tiles), rtol=1e-5, atol=1e-6)
    assert isinstance(out["a"][1], tuple)
    assert out["a"][1][1] is boxes
    assert out["b"] is index
    assert out["c"] is mask
    assert out["d"] is small
    assert out["e"] == "words"


def test_normalize_memory_layout_and_single_numbers():
    x = torch.full((2, 13, 4, 4), 255, dtype=torch.uint8)
    out = device.normalize(x, (0.5,), (0.25,), channels_last=True)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, torch.full((2, 13, 4, 4), 2.0))
    with torch.inference_mode():
        device.normalize(x, (0.1,), (0.3,))
    scale = torch.nn.Parameter(torch.ones(()))
    (device.normalize(x, (0.1,), (0.3,)) * scale).sum().backward()
    assert scale.grad is not None


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.5, 0.5), (0.2, 0.2)), ((0.5,), (0.2, 0.2)), ((), ()), ((0.5,), (0.0,))],
)
def test_normalize_that_does_not_fit_is_a_worded_error(mean, std):
    with pytest.raises(UserError, match="channel"):
        device.normalize(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), mean, std)


# ------------------------------------------------------------------ for plain torch users


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_transform_takes_pil_images(mode):
    image = PIL.Image.fromarray(photo(30, 40)).convert(mode)
    views = augment.moco(16).transform(seed=0)(image)
    assert [tuple(v.shape) for v in views] == [(1 if mode == "L" else 3, 16, 16)] * 2
    assert all(v.dtype == torch.uint8 for v in views)


def test_transform_follows_torchs_generator():
    image, transform = photo(30, 40), augment.moco(16).transform(seed=0)
    torch.manual_seed(3)
    one, two = transform(image), transform(image)
    torch.manual_seed(3)
    again = pickle.loads(pickle.dumps(transform))(image)
    torch.manual_seed(3)
    other = augment.moco(16).transform(seed=1)(image)
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], two[0])
    assert not torch.equal(one[0], other[0])


def test_importing_the_package_does_not_import_torch():
    code = "import sys, selftaught.augment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_loads():
    for name in augment.__all__:
        assert getattr(augment, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        augment.nothing  # noqa: B018
