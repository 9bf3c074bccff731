"""Selfie beyond the numbers: patches, pictures, what is refused."""

import pytest
import torch

from selftaught.backbones import backbone
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.predictive.selfie import Selfie, patches, whole

SMALL = {"depth": 1, "heads": 2, "hidden": 16}


def test_patches_and_back():
    images = torch.randn(2, 3, 12, 8)
    cut = patches(images, 4)
    assert cut.shape == (32, 3, 3, 2)
    torch.testing.assert_close(cut[5], images[0, :, 3:6, 2:4])
    torch.testing.assert_close(whole(cut.unflatten(0, (2, 16)), 4), images)


def test_a_network_that_knows_puts_all_patches_right():
    method = Selfie(backbone("test_resnet", 32), **SMALL).eval()
    method.scores = lambda embedded, noise: torch.eye(4).expand(len(noise), -1, -1)  # type: ignore
    images = torch.randn(2, 3, 32, 32)
    shown = method.show(Batch([images, torch.rand(2, 16)], torch.arange(2)))
    torch.testing.assert_close(shown.columns["put"], images)
    assert shown.captions["put"] == ["4 of 4 right ✓"] * 2
    assert not torch.equal(shown.columns["seen"], images)


def test_images_of_most_sizes_have_a_grid():
    grids = {size: Selfie(backbone("test_resnet", size), **SMALL).cells for size in (64, 96, 224)}
    assert grids == {64: 4, 96: 4, 224: 7}
    with pytest.raises(UserError, match="images of 37 px cannot be cut into patches of one size"):
        Selfie(backbone("test_resnet", 37), **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 5}, "grid=5 does not divide images of 32 px; use one of 2, 4, 8"),
        ({"grid": 0}, "grid must be at least 1, got 0"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"ratio": 1.0}, "ratio=1.0 of 16 patches leaves 0 to see"),
        ({"ratio": 0.0}, "leaves 16 to see; at least 1 must be seen and 2 hidden"),
        ({"heads": 7}, "heads=7 must divide the width of test_resnet"),
    ],
)
def test_selfie_refuses(options, message):
    with pytest.raises(UserError, match=message):
        Selfie(backbone("test_resnet", 32), **SMALL | options)
