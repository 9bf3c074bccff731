"""Inpainting beyond the paper's numbers: what is seen, who moves whom, what is refused."""

import numpy as np
import pytest
import torch

from selftaught import augment
from selftaught.backbones import backbone
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.pretext import inpainting
from selftaught.methods.pretext.inpainting import ContextEncoder


def method(net: str = "test_resnet", size: int = 32, **options) -> ContextEncoder:
    torch.manual_seed(0)
    return ContextEncoder(backbone(net, size), width=16, **options)


def batch(images: torch.Tensor, *rest: torch.Tensor) -> Batch:
    return Batch([images, *rest], torch.arange(len(images)))


@pytest.mark.parametrize("size", [32, 50, 72])
@pytest.mark.parametrize("region", ["center", "random"])
def test_what_is_missing_is_not_seen(size, region):
    network = method(size=size, region=region).eval()
    images, other = torch.randn(2, 2, 3, size, size)
    masks = [torch.rand(2, size, size) < 0.3] if region == "random" else []
    truth, missing = network.truth(batch(images, *masks))
    changed, _ = network.truth(batch(torch.where(missing[:, None], other, images), *masks))
    with torch.no_grad():
        painted = network.paint(truth, missing)
        torch.testing.assert_close(network.paint(changed, missing), painted)
    side = size // 2 if region == "center" else size
    assert painted.shape == (2, 3, side, side)
    shown = network.show(batch(images, *masks)).columns
    torch.testing.assert_close(shown["true"], images)
    same = ~missing[:, None].expand_as(images)
    torch.testing.assert_close(shown["painted"][same], images[same])


def test_generator_and_discriminator_do_not_move_each_other():
    network = method(adversarial=0.5)
    terms = network.loss(batch(torch.randn(4, 3, 32, 32)))
    for term, moved in (("fooling", False), ("telling", True)):
        network.zero_grad()
        terms[term].backward(retain_graph=True)
        grads = {
            n.startswith("discriminator")
            for n, p in network.named_parameters()
            if p.grad is not None and p.grad.abs().sum() > 0
        }
        assert grads == {moved}


def test_squares_alone_have_no_discriminator():
    network = method()
    assert network.discriminator is None
    assert set(network.loss(batch(torch.randn(4, 3, 32, 32)))) == {"squared", "border"}


@pytest.mark.parametrize(
    ("fill", "color"),
    [("mean", (0.485, 0.456, 0.406)), ("reference", (117 / 255, 104 / 255, 123 / 255))],
)
def test_the_reference_mixes_up_the_channels_of_its_fill(fill, color, monkeypatch):
    network, seen = method(fill=fill).eval(), []
    monkeypatch.setattr(network.backbone, "features", lambda x: seen.append(x) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network.loss(batch(torch.randn(1, 3, 32, 32)))
    mean, std = (torch.tensor(v) for v in (network.backbone.mean, network.backbone.std))
    torch.testing.assert_close(seen[0][0, :, 16, 16] * std + mean, torch.tensor(color))


def test_random_holes_cover_a_fifth_to_three_tenths_and_follow_the_samples_generator():
    pipeline = method(region="random").views(32)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    holes = [pipeline(image, augment.sample_rng(0, 0, i))[1] for i in (*range(40), 0)]
    shares = np.array([h.mean() for h in holes])
    assert np.mean((shares > 0.2) & (shares < 0.3)) > 0.9
    assert np.all((shares > 0) & (shares < 1))
    np.testing.assert_array_equal(holes[0], holes[-1])
    nothing = inpainting.holes(np.random.default_rng(0), np.zeros((64, 64), bool), 32)
    assert nothing.mean() == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 8}, r"overlap=8 leaves nothing of the missing 16 px .* in \[0, 8\)"),
        ({"overlap": -1}, "overlap must be .*, got -1"),
        ({"adversarial": 1.0}, "adversarial must be .*, got 1.0"),
    ],
)
def test_inpainting_refuses(options, message):
    with pytest.raises(UserError, match=message):
        method(**options)
