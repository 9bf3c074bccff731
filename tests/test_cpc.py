"""What is particular to CPC: patches, a context that sees no row below, predictions across rows."""

import numpy as np
import pytest
import timm
import torch

from selftaught.augment import View, Views
from selftaught.backbones import backbone
from selftaught.errors import UserError
from selftaught.methods.contrastive.cpc import CPC, Patches, Summary


def method(net: str = "test_resnet", size: int = 32, **options) -> CPC:
    return CPC(backbone(net, size=size), context=8, blocks=2, **options)


def test_a_context_sees_its_row_and_those_above_alone():
    torch.manual_seed(0)
    summary = Summary(6, 8, 3)
    z = torch.randn(1, 7, 7, 6, requires_grad=True)
    for row in range(7):
        (seen,) = torch.autograd.grad(summary(z)[0, row, 3].sum(), z)
        rows = seen[0].abs().sum((1, 2)) > 0
        assert rows[row]
        assert not rows[row + 1 :].any()
        assert rows.sum() == min(row + 1, 4)  # one more row a block


@pytest.mark.parametrize("patch", [8, 64])
def test_patches_overlap_by_half_and_lie_row_by_row(patch: int):
    """Of a picture whose pixels tell their own places, as far as bytes can."""
    side = 4 * patch
    place = np.arange(side) * 255 // side
    image = np.stack(np.broadcast_arrays(place[:, None], place), 2).astype(np.uint8)
    view = Views((View(side, (1.0, 1.0), (1.0, 1.0), flip=0.0),))
    made = Patches(view, patch)(image, np.random.default_rng(0))
    assert made.shape == (49, 2, patch, patch)
    middle = made[:, :, patch // 2, patch // 2].reshape(7, 7, 2).astype(int)
    expected = (np.arange(7) + 1) * 255 // 8
    lost = patch // 16 * 255 / side + 1
    assert np.abs(middle[..., 0] - expected[:, None]).max() <= lost
    assert np.abs(middle[..., 1] - expected).max() <= lost
    if patch == 64:  # 60 pixels of it, the border repeated
        different = (np.diff(made.astype(int), axis=2) != 0).any((1, 3)).sum(1)
        assert different.max() <= 60
        again = Patches(view, patch)(image, np.random.default_rng(1))
        assert not np.array_equal(made, again)


@pytest.mark.parametrize(
    ("net", "size", "patch"),
    [("test_resnet", 32, 8), ("test_resnet", 256, 64), ("test_vit", 32, 8), ("test_vit", 192, 48)],
)
def test_patches_are_a_quarter_of_the_image_and_whole_for_a_vit(net: str, size: int, patch: int):
    pipeline = method(net, size).views(size)
    assert pipeline.patch == patch
    made = pipeline(np.zeros((50, 60, 3), np.uint8), np.random.default_rng(0))
    assert made.shape == (49, 3, patch, patch)


def test_a_perfect_context_is_found_and_a_wrong_one_is_not():
    """Contexts that are what follows, the matrices being the identity."""
    torch.manual_seed(0)
    model = method(negatives=0)
    z = torch.randn(4, 7, 7, model.backbone.dim) * 3
    for predictor in model.predictors:
        torch.nn.init.eye_(predictor.weight)
    losses = []
    for gap in range(2, 7):
        told = torch.zeros_like(z)
        told[:, :-gap] = z[:, gap:]
        expected, truth = told[:, :-gap].flatten(0, 2), z[:, gap:].flatten(0, 2)
        losses.append(model.find(expected, truth))
        assert model.find(expected.roll(1, 0), truth) > 10
    assert max(losses) < 1e-3


def test_negatives_are_drawn_from_all_of_the_batch():
    model = method(negatives=500)
    rows = model.draw(torch.arange(6), 6)
    assert rows.shape == (6, 500)
    assert rows.unique().tolist() == list(range(6))
    assert model.reference_losses(8)[0].value == pytest.approx(np.log(501))
    everything = method(negatives=0).reference_losses(8)[0].value
    assert everything == pytest.approx(np.mean([np.log(8 * 7 * n) for n in range(1, 6)]))


def test_what_cannot_work_is_said_in_words():
    with pytest.raises(UserError, match="rows 3 to 7 below, of 7 rows"):
        method(steps=5, skip=2)
    with pytest.raises(UserError, match="steps must be at least 1, got 0"):
        method(steps=0)
    with pytest.raises(UserError, match="negatives must be at least 0, got -1"):
        method(negatives=-1)
    with pytest.raises(UserError, match="images of 4 px have no 7 x 7 patches; use 8 or more"):
        method().views(4)


def test_the_network_without_batch_norms_that_is_named_exists():
    net = timm.create_model("resnetv2_50x1_bit", pretrained=False)
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in net.modules())
