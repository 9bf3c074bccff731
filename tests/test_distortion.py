"""AET: the distortions, how they are drawn and told, and that Pillow distorts alike."""

import numpy as np
import PIL.Image
import pytest
import torch

from selftaught import augment
from selftaught.backbones import backbone
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.pretext.distortion import (
    CORNERS,
    DEVIATION,
    MEAN,
    Distortion,
    corners,
    homography,
    warp,
)


def drawn(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([homography(corners(rng, 0.125, (0.8, 1.2)), CORNERS) for _ in range(count)])


def blobs(side: int) -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (side // 4, side // 4, 3), np.uint8)
    picture = PIL.Image.fromarray(coarse).resize((side, side), PIL.Image.Resampling.BICUBIC)
    return np.array(picture)


def test_corners_go_where_they_were_drawn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        placed = corners(rng, 0.125, (0.8, 1.2))
        matrix = np.append(homography(placed, CORNERS), 1).reshape(3, 3)
        found = np.c_[placed, np.ones(4)] @ matrix.T
        np.testing.assert_allclose(found[:, :2] / found[:, 2:], CORNERS, atol=1e-9)
    assert np.allclose(homography(CORNERS, CORNERS), [1, 0, 0, 0, 1, 0, 0, 0])


def test_the_papers_constants_are_those_of_our_draws():
    found = drawn(4000)
    np.testing.assert_allclose(found.mean(0), MEAN, atol=0.03)
    np.testing.assert_allclose(found.std(0), DEVIATION, rtol=0.05)
    variance = (((found - MEAN) / DEVIATION) ** 2).mean()
    (trivial,) = Distortion(backbone("test_resnet", size=32)).reference_losses(8)
    assert trivial.value == pytest.approx(variance, rel=0.03)


def test_pillow_distorts_alike():
    side = 48
    image = blobs(side)
    images = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None]
    in_pixels = np.array([1, 1, side, 1, 1, side, 1 / side, 1 / side])
    for coefficients in drawn(4):
        theirs = PIL.Image.fromarray(image).transform(
            (side, side),
            PIL.Image.Transform.PERSPECTIVE,
            (coefficients * in_pixels).tolist(),
            PIL.Image.Resampling.BILINEAR,
            fillcolor=(128, 128, 128),
        )
        ours = warp(images, torch.from_numpy(coefficients)[None], torch.full((3, 1, 1), 128.0))
        assert np.abs(ours[0].permute(1, 2, 0).numpy() - np.asarray(theirs)).max() < 1


def test_a_distortion_without_change_shows_the_image():
    method = Distortion(backbone("test_resnet", size=32))
    x = torch.randn(2, 3, 32, 32)
    still = torch.from_numpy((np.array([1, 0, 0, 0, 1, 0, 0, 0]) - MEAN) / DEVIATION)
    shown = method.distorted(x, still.float().expand(2, 8))
    torch.testing.assert_close(shown, x, rtol=0, atol=1e-3)


def test_the_answer_that_is_right_costs_nothing(monkeypatch):
    method = Distortion(backbone("test_resnet", size=32))
    pipeline = method.views(32)
    view, true = pipeline(blobs(40), augment.sample_rng(0, 0, 0))
    x = augment.normalize(torch.from_numpy(view)[None], *2 * [(0.5, 0.5, 0.5)])
    batch = Batch((x, torch.from_numpy(true)[None]), torch.tensor([0]))
    assert method.loss(batch) > 0
    monkeypatch.setattr(method, "answer", lambda x, distorted: batch.views[1])
    assert method.loss(batch) == 0
    shown = method.show(batch).columns
    assert torch.equal(shown["distorted"], shown["as answered"])


@pytest.mark.parametrize("options", [{"shift": 0.2}, {"scale": (1.2, 0.8)}, {"shift": -0.1}])
def test_corners_that_could_pass_each_other_are_refused(options):
    with pytest.raises(UserError, match=r"corners could pass each other|shift must be at least 0"):
        Distortion(backbone("test_resnet", size=32), **options)
