"""Own augmentation: flips, turns and erasing, options that change a method's views, callables."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from selftaught import augment
from selftaught.augment import Params, View, Views, sample_rng
from selftaught.augment.image import native, render
from selftaught.augment.image.view import DRAWS
from selftaught.errors import UserError


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
