"""Colorization and split-brain beyond the contract: colors, gray images, halves that are apart."""

import math

import numpy as np
import pytest
import torch

from selftaught import augment
from selftaught.augment.image.colored import colored
from selftaught.backbones import Image, backbone
from selftaught.data.image.decode import BadSample
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.pretext.colorization import Colorization, boost, hue_and_chroma, painted
from selftaught.methods.pretext.split_brain import SplitBrain, lightness_bin
from selftaught.parts.colors import lab, rgb
from selftaught.parts.gamut import bins, nearest, prior


def gray_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 1), np.uint8).repeat(3, 2)


def test_lab_of_known_colors():
    """CIE Lab of sRGB's white, black, red, green, blue and a dark gray, under D65."""
    colors = torch.tensor(
        [[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.02, 0.02, 0.02]]
    )
    known = [
        [100, 0, 0],
        [0, 0, 0],
        [53.24, 80.09, 67.20],
        [87.73, -86.18, 83.18],
        [32.30, 79.19, -107.86],
        [1.40, 0, 0],
    ]
    found = lab(colors.T[:, None].double())[:, 0].T
    torch.testing.assert_close(found, torch.tensor(known).double(), atol=0.02, rtol=0)


def test_rgb_is_the_inverse_of_lab():
    x = torch.rand(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(rgb(lab(x)), x, atol=1e-6, rtol=0)


def test_bins_hold_all_colors():
    centers, shares = bins(), prior()
    assert centers.shape == (313, 2)
    assert abs(float(shares.sum()) - 1) < 1e-6
    assert (shares > 0).all()
    ab = lab(torch.rand(1, 3, 40, 40))[:, 1:]
    assert nearest(ab, centers)[0].max() < 12, "hardly farther than the corner of a bin"


def test_gray_photos_are_no_samples_and_gray_parts_are():
    assert not colored(gray_image().transpose(2, 0, 1))
    image = gray_image()
    image[0, 0] = 200, 20, 20
    assert colored(image.transpose(2, 0, 1))
    pipeline = Colorization(backbone("test_resnet", size=32), width=8).views(32)
    with pytest.raises(BadSample, match="gray"):
        pipeline(gray_image(), np.random.default_rng(0))
    for seed in range(5):
        assert pipeline(image, np.random.default_rng(seed)).shape == (3, 32, 32)


def test_gray_images_have_no_weight():
    ab = torch.zeros(2, 2, 4, 4)
    ab[1, 0, 0, 0] = 30
    which = torch.zeros(2, 1, 4, 4, dtype=torch.long)
    weight = boost(ab, which, torch.full((313,), 2.0))
    assert (weight[0] == 0).all()
    assert (weight[1] == 2).all()


@pytest.mark.parametrize("method", [Colorization, SplitBrain])
def test_one_channel_is_refused_in_words(method):
    with pytest.raises(UserError, match="3 channels"):
        method(backbone("test_resnet", size=32, channels=1), width=8)


@pytest.mark.parametrize("form", ["rebalanced", "plain", "regression", "hybrid"])
def test_each_form_learns_the_colors_of_one_image(form):
    torch.manual_seed(0)
    net = backbone("test_resnet", size=32)
    method = Colorization(net, form, width=16).train()
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16], image[16:] = (200, 40, 40), (40, 60, 160)
    x = torch.from_numpy(image.transpose(2, 0, 1)[None].repeat(2, 0))
    batch = Batch(augment.normalize(x, net.mean, net.std), torch.arange(2))
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = torch.stack(list(method.loss(batch).values())).sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    shown = method.eval().show(batch)
    assert all(x.shape == (2, 3, 32, 32) and x.isfinite().all() for x in shown.columns.values())


def test_hue_and_chroma_make_a_color():
    """Those of a network that is sure paint what they were made of, to half a bin of each."""
    torch.manual_seed(0)
    colors = torch.rand(1, 3, 40, 40)
    logits = torch.zeros(1, 64, 40, 40)
    red, green, blue = colors.unbind(1)
    chroma = colors.amax(1) - colors.amin(1)
    angle = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi) % 1
    for start, value in ((0, angle), (32, chroma)):
        logits.scatter_(1, start + (32 * value).long()[:, None], 50.0)
    found = painted(logits, colors.mean(1))
    assert (found - colors).abs().max() < 1 / 8
    assert (found - colors).abs().mean() < 1 / 32


def test_hue_and_chroma_of_pure_colors():
    colors = torch.eye(3)[..., None, None]  # red, green, blue
    right = torch.zeros(3, 64, 1, 1)
    for row, hue in enumerate((0, 10, 21)):
        right[row, hue] = right[row, 32 + 31] = 50
    hue, chroma = hue_and_chroma(right, colors)
    assert hue < 1e-6
    assert chroma < 1e-6
    hue, chroma = hue_and_chroma(torch.zeros(1, 64, 1, 1), torch.full((1, 3, 1, 1), 0.5))
    assert hue == 0, "gray has no hue"
    assert math.isclose(float(chroma), math.log(32), rel_tol=1e-6)


def test_bins_of_lightness():
    light = torch.tensor([[[0.0, 0.99, 1.0, 99.5, 100.0]]])
    assert lightness_bin(light, 100).tolist() == [[[0, 0, 1, 99, 99]]]


def test_colorization_sees_no_color_and_the_halves_see_apart():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 32, 32)
    changed = lab(x)
    changed[:, 1:] *= 0.5
    other = rgb(changed)
    mean, std = torch.tensor([backbone("test_resnet", 32).mean, backbone("test_resnet", 32).std])
    x, other = ((y - mean[:, None, None]) / std[:, None, None] for y in (x, other))
    with torch.no_grad():
        for input, alike in (("colors", 0), ("lightness", 1), ("halves", 0.5)):
            net = Image("test_resnet", 32, input=input).eval()
            one, two = net(x)[0], net(other)[0]
            same = torch.isclose(one, two, atol=1e-3, rtol=1e-3)
            first, second = same.chunk(2)
            assert bool(first.all()) == (alike > 0)
            assert bool(second.all()) == (alike == 1)


def test_halves_are_rebuilt_from_the_configuration_and_vits_have_none():
    net = Image("test_resnet", 32, input="halves").eval()
    again = Image(**net.config).eval()
    again.load_state_dict(net.state_dict())
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(x), again(x))
    with pytest.raises(UserError, match="ResNet"):
        Image("test_vit", 32, input="halves")
