"""Rotation, Jigsaw and DenseCL beyond the contract: what makes their tasks well posed."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught import augment
from selftaught.backbones import backbone
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.dense import densecl
from selftaught.methods.dense.scrl import SCRL
from selftaught.methods.pretext.counting import Counting
from selftaught.methods.pretext.exemplar_cnn import Distorted
from selftaught.methods.pretext.jigsaw import Jigsaw, lay, permutations, standardize
from selftaught.methods.pretext.rotation import rotations
from selftaught.objectives.contrastive import info_nce


@pytest.fixture
def net():
    return backbone("test_resnet", size=32)


# Rotation.


def test_rotations_are_a_cycle():
    x = torch.rand(2, 3, 6, 6)
    turned = rotations(x).unflatten(0, (2, 4))
    again = rotations(turned[:, 1]).unflatten(0, (2, 4))
    assert torch.equal(again, turned.roll(-1, 1)), "turning once more moves on by one"
    assert torch.equal(turned[:, 1], x.flip(3).transpose(2, 3)), "counter-clockwise"


# Jigsaw.


def greedy(count: int, tiles: int, rule: str, first: int) -> list[tuple[int, ...]]:
    """The definition, word by word."""
    left = list(itertools.permutations(range(tiles)))
    chosen = [left.pop(first)]
    while len(chosen) < count:
        apart = [[sum(a != b for a, b in zip(p, c)) for c in chosen] for p in left]
        scores = [sum(d) if rule == "max_avg" else min(d) for d in apart]
        chosen.append(left.pop(scores.index(max(scores))))
    return chosen


@settings(max_examples=20, deadline=None)
@given(st.data(), st.integers(1, 4), st.sampled_from(["max_avg", "max_min"]))
def test_orders_are_chosen_greedily(data, tiles, rule):
    count = data.draw(st.integers(1, math.factorial(tiles)))
    first = data.draw(st.integers(0, math.factorial(tiles) - 1))
    chosen = permutations(count, tiles, rule, first)
    assert [tuple(p) for p in chosen.tolist()] == greedy(count, tiles, rule, first)


def test_orders_are_the_same_object_and_cannot_be_changed():
    orders = permutations(50, 9, "max_avg")
    assert permutations(50, 9, "max_avg") is orders
    with pytest.raises(ValueError, match="read-only"):
        orders[0] = 0
    assert len(np.unique(orders, axis=0)) == 50


@pytest.mark.parametrize(
    ("count", "tiles", "rule", "message"),
    [
        (25, 4, "max_avg", "between 1 and 24"),
        (0, 9, "max_avg", "no 0 orders"),
        (2, 10, "max_avg", "1 to 9"),
        (2, 9, "max_sum", "not by 'max_sum'"),
    ],
)
def test_impossible_orders_are_refused(count, tiles, rule, message):
    with pytest.raises(UserError, match=message):
        permutations(count, tiles, rule)


def test_jigsaw_refuses_more_orders_than_there_are(net):
    with pytest.raises(UserError, match="362880"):
        Jigsaw(net, count=400_000)


def test_lay_puts_each_tile_in_its_place():
    x = torch.arange(2 * 4 * 3.0).view(2, 4, 3)
    orders = torch.tensor([[[3, 1, 0, 2], [0, 1, 2, 3]], [[1, 0, 2, 3], [2, 3, 0, 1]]])
    laid = lay(x, orders).view(2, 2, 4, 3)
    for i, p, place in itertools.product(range(2), range(2), range(4)):
        assert torch.equal(laid[i, p, place], x[i, orders[i, p, place]])


def test_standardized_tiles_do_not_tell_their_brightness():
    tiles = torch.rand(2, 9, 3, 8, 8, dtype=torch.float64)
    brightness = torch.rand(2, 9, 3, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(
        standardize(tiles * (1 + brightness) - brightness), standardize(tiles)
    )


def test_several_puzzles_of_an_image_cost_one_encoding_and_average(net):
    method = Jigsaw(net, count=6, tile_dim=8, puzzles=3).double().eval()
    tiles, which = torch.rand(4, 9, 3, 9, 9).double(), torch.randint(6, (4, 3))
    index = torch.arange(4)
    seen = []
    hook = net.register_forward_hook(lambda *a: seen.append(len(a[1][0])))
    together = method.loss(Batch([tiles, which], index))
    assert seen == [4 * 9]
    hook.remove()
    alone = [method.loss(Batch([tiles, which[:, [i]]], index)) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_puzzles_draw_every_order_from_their_generator_alone(net):
    pipeline = Jigsaw(net, count=6, tile_dim=8, puzzles=2).views(32)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    drawn = [pipeline(image, augment.sample_rng(0, 0, i))[1] for i in range(50)]
    assert {d.shape for d in drawn} == {(2,)}
    assert set(np.concatenate(drawn).tolist()) == set(range(6))


@pytest.mark.parametrize("size", [32, 96, 224])
def test_tiles_are_whole_patches_of_a_transformer(size):
    vit = backbone("test_vit", size=size)
    method = Jigsaw(vit, count=4, tile_dim=8)
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    tiles, which = method.views(size)(image, augment.sample_rng(0, 0, 0))
    assert tiles.shape[-1] % vit.patch == 0
    views = [torch.from_numpy(tiles)[None].repeat(2, 1, 1, 1, 1) / 255]
    views.append(torch.from_numpy(which)[None].repeat(2, 1))
    assert method.loss(Batch(views, torch.arange(2))).isfinite()


# DenseCL.


def small(net, **options) -> densecl.DenseCL:
    return densecl.DenseCL(net, dim=8, hidden=16, queue=10, **options).double().eval()


def test_cells_match_themselves(net):
    method, x = small(net), torch.rand(2, 3, 32, 32).double()
    with torch.no_grad():
        cells = densecl.project(method.online, densecl.features(net, x)).features
    places = torch.arange(cells.shape[1])
    assert torch.equal(densecl.match(cells, cells), places.expand(2, -1))
    assert torch.equal(densecl.match(cells, cells.roll(1, 1)), places.roll(-1).expand(2, -1))


def test_weight_shares_the_loss_between_image_and_cells(net):
    views = [torch.rand(4, 3, 32, 32).double() for _ in range(2)]
    terms = []
    for weight in (0.0, 0.3, 1.0):
        torch.manual_seed(0)
        method = small(net, weight=weight)
        terms.append(method.loss(Batch(views, torch.arange(4))))
    assert terms[0]["dense"] == 0
    assert terms[2]["whole"] == 0
    torch.testing.assert_close(terms[1]["whole"], 0.7 * terms[0]["whole"])
    torch.testing.assert_close(terms[1]["dense"], 0.3 * terms[2]["dense"])


@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_loss_by_blocks_is_the_loss(block, monkeypatch):
    monkeypatch.setattr(densecl, "BLOCK", block)
    q, k, negatives = (torch.randn(n, 4, dtype=torch.float64) for n in (30, 30, 14))
    results = []
    for loss in (densecl.by_blocks, info_nce):
        leaf = q.clone().requires_grad_()
        value = loss(leaf, k, negatives, 0.2)
        results.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-15)


# Too small.


def test_images_too_small_for_nine_tiles_or_four_quarters_are_refused(net):
    with pytest.raises(UserError, match="do not fit the 1-pixel cells of a 3 x 3 puzzle"):
        Jigsaw(net, count=6, tile_dim=8).views(2)
    with pytest.raises(UserError, match="images of 2 px have quarters of 1 px"):
        Counting(net, counts=4, hidden=(8,)).views(2)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto"])
def test_tiles_that_a_backbone_cannot_take_are_refused(name):
    method = Jigsaw(backbone(name, 64), count=6, tile_dim=8)
    with pytest.raises(UserError, match=f"{name}, made for images of 64 px, cannot take parts of"):
        method.backbone(torch.zeros(2, 3, 17, 17))
    with pytest.raises(RuntimeError, match="channels"):  # a fault of another kind stays one
        method.backbone(torch.zeros(2, 5, 64, 64))


def test_cells_may_be_of_another_width_than_images():
    method = densecl.DenseCL(backbone("mobilenetv3_small_050", 32), dim=4, hidden=8, queue=8)
    views = [torch.rand(2, 3, 32, 32) for _ in range(2)]
    terms = method.loss(Batch(views, torch.arange(2)))
    assert all(term.isfinite() for term in terms.values())


def test_boxes_fit_views_of_any_size():
    pipeline = SCRL(backbone("test_resnet", 32), least=223, boxes=2).views(32)
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for seed in range(20):
        _, boxes = pipeline(image, np.random.default_rng(seed))
        assert boxes.shape == (2, 2, 4)


# Exemplar CNN.


@pytest.mark.parametrize(("low", "high"), [(0, 256), (150, 190), (60, 80), (235, 255)])
@pytest.mark.parametrize("gray", [False, True])
def test_seeds_of_little_contrast_keep_what_they_show(low, high, gray):
    """However dark or bright an image is, distortions of it are no patches of one color."""
    image = np.random.default_rng(0).integers(low, high, (24, 24, 3), dtype=np.uint8)
    image = image[..., :1].repeat(3, 2) if gray else image
    rng = np.random.default_rng(1)
    views = np.stack([Distorted(16, 1.0, 1)(image, rng)[0][0] for _ in range(20)])
    assert (views.std((2, 3)).max(1) > 8).all()
