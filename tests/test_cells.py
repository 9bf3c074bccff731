"""Patches, cells and boxes beyond the contract: what makes their tasks well posed."""

import numpy as np
import pytest
import torch

from selftaught import augment
from selftaught.augment import Params
from selftaught.backbones import backbone
from selftaught.errors import UserError
from selftaught.methods.dense.pixcontrast import contrast
from selftaught.methods.dense.pixpro import PixPro, regression
from selftaught.methods.dense.scrl import SCRL, Boxed, Boxes, consistency, listed
from selftaught.methods.pretext.counting import Counting, quarters
from selftaught.methods.pretext.relative_patch import (
    PLACES,
    Patches,
    RelativePatch,
    lay_grid,
    neighbors,
    one_channel,
)
from selftaught.objectives.cells import centers, near


@pytest.fixture
def net():
    return backbone("test_resnet", size=32)


def whole(**changed: int | bool) -> Params:
    """All of an image of 100 x 100, but for what is given."""
    return Params(0, 0, 100, 100, False, (), (1, 1, 1, 0), False, 0.0, False)._replace(**changed)


# Patches.


def test_the_grid_fits_wherever_it_starts():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        corners = lay_grid(rng, 3 * 15 + 9, 3 * 15 + 9, 10, 5, 1)
        assert corners.shape == (3, 3, 2)
        assert corners.min() >= 0
        assert corners.max() <= 3 * 15 + 9 - 10
        assert (np.diff(corners[..., 0], axis=1) > 10).all(), "there is a gap"


def test_an_image_without_room_has_no_patches():
    assert lay_grid(np.random.default_rng(0), 5, 5, 10, 5, 0).size == 0


def test_a_neighbor_of_a_neighbor_lies_on_the_opposite_side():
    pairs, places = neighbors(3, 4)
    found = {tuple(p): k for p, k in zip(pairs.tolist(), places.tolist())}
    assert len(found) == 2 * (3 * 3 + 4 * 2 + 2 * 3 * 2), "across, down, and both diagonals"
    for (one, other), place in found.items():
        right, down = PLACES[place]
        assert (one % 4 + right, one // 4 + down) == (other % 4, other // 4)
        assert found[other, one] == 7 - place


def test_one_channel_stays_and_plain_patches_give_no_noise_that_is_not_small():
    x = torch.rand(2, 3, 8, 8) * 255
    kept = torch.tensor([0, 2])
    seen = one_channel(x, kept, torch.rand_like(x), 1.0)
    assert torch.allclose(seen.square().mean((1, 2, 3)), torch.ones(2), atol=1e-4)
    dropped = seen[0, 1:].abs().max()
    assert dropped < 0.05, "what replaces the others is noise of half a byte"
    assert not torch.allclose(one_channel(x + 9, kept, torch.zeros_like(x), 1.0), seen)
    gray = one_channel(
        torch.full((1, 1, 4, 4), 7.0), torch.tensor([0]), torch.rand(1, 1, 4, 4), 1.0
    )
    assert gray.abs().max() == 0


def test_patches_of_an_image_of_one_pixel_are_plain():
    patches, kept = Patches(3, 14, 7, 1, 0.5)(
        np.full((1, 1, 3), 77, np.uint8), np.random.default_rng(0)
    )
    assert patches.shape == (9, 3, 14, 14)
    assert (patches == 77).all()
    assert kept.shape == (9,)


def test_patches_are_refused_in_words(net):
    for wrong in ({"grid": 1}, {"gap": -0.5}, {"gap": 0.1, "jitter": 0.2}):
        with pytest.raises(UserError, match=r"neighbor|gap must be at least 0, got -0\.5"):
            RelativePatch(net, hidden=8, **wrong)


# Counting.


def test_quarters_make_the_whole():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    upper_left, lower_left, upper_right, lower_right = quarters(x)
    upper, lower = torch.cat([upper_left, upper_right], 3), torch.cat([lower_left, lower_right], 3)
    assert torch.equal(torch.cat([upper, lower], 2), x)


def test_counting_needs_a_margin_and_makes_halves(net):
    with pytest.raises(UserError, match="margin"):
        Counting(net, margin=0)
    pipeline = Counting(net, counts=4, hidden=()).views(32)
    image = np.add.outer(np.arange(0, 120, 3), np.arange(0, 100, 2))[..., None].repeat(3, 2)
    image = image.astype(np.uint8)
    for seed in range(6):  # of all rules
        view, small = pipeline(image, np.random.default_rng(seed))
        assert view.shape == (3, 32, 32)
        assert small.shape == (3, 16, 16)
        mean = view.reshape(3, 16, 2, 16, 2).mean((2, 4))
        assert np.abs(mean - small).mean() < 2


# Cells.


def test_cells_of_the_same_view_are_near_themselves_alone():
    corners = torch.tensor([[0.2, 0.1, 0.6, 0.9]], dtype=torch.float64)
    assert torch.equal(near(corners, corners, (3, 4), 0.3)[0], torch.eye(12, dtype=torch.bool))
    flipped = corners[:, [2, 1, 0, 3]]
    same = near(corners, flipped, (3, 4), 0.3)[0].view(3, 4, 3, 4)
    for row in range(3):
        for column in range(4):
            assert same[row, column, row, 3 - column]
    assert same.sum() == 12
    assert torch.equal(centers(corners, (1, 1)), torch.tensor([[[0.4, 0.5]]], dtype=torch.float64))


def test_views_without_anything_in_common_cost_nothing():
    p, z = torch.randn(2, 4, 3, requires_grad=True), torch.randn(2, 4, 3)
    none = torch.zeros(2, 4, 4, dtype=torch.bool)
    for loss in (regression(p, z, none), contrast(p, z, none, 0.3)):
        assert loss == 0
        (grad,) = torch.autograd.grad(loss, p)
        assert (grad == 0).all()
    some = none.clone()
    some[0, 1, 2] = True
    (grad,) = torch.autograd.grad(contrast(p, z, some, 0.3), p)
    assert grad.isfinite().all()
    assert (grad[1] == 0).all()
    apart = torch.tensor([[0.0, 0, 0.1, 0.1]]), torch.tensor([[0.8, 0.8, 1.0, 1.0]])
    assert not near(*apart, (4, 4), 0.7).any()


def test_crops_of_one_pixel_have_corners():
    assert whole(width=1, height=1).corners(1, 1) == (0, 0, 0, 0)
    point = torch.zeros(1, 4)
    assert not near(point, point, (2, 2), 0.7).any(), "no size, so nothing to be near by"


def test_pixpro_is_refused_in_words(net):
    with pytest.raises(UserError, match="layers=3"):
        PixPro(net, layers=3)
    with pytest.raises(UserError, match="above 0"):
        PixPro(net, power=0.0)


# Boxes.


def test_boxes_are_the_same_part_of_the_image_in_both_views():
    rule = Boxes(10, 56, 8, 0.5, True, 0.0)
    one, other = whole(left=10, width=60, flip=True), whole(top=20, left=30, height=70, width=70)
    boxes = rule.draw(np.random.default_rng(0), one, other)
    assert boxes is not None
    places = []
    for crop, found in zip((one, other), boxes):
        if crop.flip:
            found = np.stack([56 - found[:, 2], found[:, 1], 56 - found[:, 0], found[:, 3]], 1)
        scale = np.array([crop.width, crop.height] * 2) / 56
        places.append(found * scale + np.array([crop.left, crop.top] * 2))
    np.testing.assert_allclose(*places)
    assert (boxes >= 0).all()
    assert (boxes <= 56).all()


def test_crops_without_intersection_have_no_boxes_and_are_drawn_again():
    rule = Boxes(3, 56, 8, 0.5, True, 0.0)
    corner = whole(width=40, height=40)
    assert rule.draw(np.random.default_rng(0), corner, whole(left=50, width=50)) is None
    assert rule.draw(np.random.default_rng(0), corner, whole(left=38, width=62)) is None
    view = augment.View(56, (0.01, 0.02))  # of 10 x 10 px, which never meet
    image = np.random.default_rng(1).integers(0, 256, (100, 100, 3), np.uint8)
    for seed in range(5):
        views, boxes = Boxed(augment.Views((view, view)), rule)(image, np.random.default_rng(seed))
        assert boxes.shape == (2, 3, 4)
        assert (boxes[..., 2:] > boxes[..., :2]).all()
        assert len(views) == 2


def test_boxes_stay_apart():
    rule = Boxes(4, 224, 32, 0.2, False, 0.0)
    boxes = rule.draw(np.random.default_rng(0), whole(), whole())
    assert boxes is not None
    for i in range(4):
        for j in range(i):
            a, b = boxes[0, i], boxes[0, j]
            common = np.clip(np.minimum(a, b)[2:] - np.maximum(a, b)[:2], 0, None).prod()
            assert common / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common) < 0.2


def test_boxes_are_listed_with_the_number_of_their_image():
    boxes = torch.arange(2 * 2 * 3 * 4.0).view(2, 2, 3, 4)
    rows = listed(boxes)
    assert rows[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert torch.equal(rows[3:6, 1:], boxes[1, 0]), "the second image of the first view"
    assert torch.equal(rows[6:9, 1:], boxes[0, 1]), "the first image of the second view"


def test_boxes_that_agree_cost_nothing():
    z = torch.randn(6, 5, dtype=torch.float64)
    other = torch.cat([z[3:], z[:3]])
    assert consistency(3 * other, z).abs() < 1e-12
    assert abs(float(consistency(-other, z)) - 8) < 1e-9


def test_scrl_is_refused_in_words(net):
    for wrong in ({"boxes": 0}, {"least": 224}, {"overlap": 0.0}, {"jitter": 1.0}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))}.* must be "):
            SCRL(net, hidden=8, dim=8, **wrong)
