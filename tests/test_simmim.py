"""SimMIM beyond the paper's numbers: which networks, which squares, what is refused."""

import numpy as np
import pytest
import torch

from selftaught import augment, export, masks
from selftaught.backbones import Image, backbone
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.masked.simmim import SimMIM

pytestmark = pytest.mark.usefixtures("shallow")

NETS = (
    "swin_tiny_patch4_window7_224",
    "beit_base_patch16_224",
    "test_vit",
    "swinv2_tiny_window8_256",
)


@pytest.mark.parametrize("name", NETS)
def test_hidden_pixels_are_never_seen(name):
    torch.manual_seed(0)
    method = SimMIM(Image(name, 32)).eval()
    shape = method.units(32)
    hidden = torch.rand(2, *shape) < 0.5
    images = torch.randn(2, 3, 32, 32)
    there = masks.enlarge(hidden, (32, 32))[:, None]
    other = torch.where(there, torch.randn_like(images), images)
    with torch.no_grad():
        painted = [method.reconstruct(x, hidden) for x in (images, other)]
        assert painted[0].shape == images.shape
        torch.testing.assert_close(*painted)
        assert not torch.allclose(painted[0], method.reconstruct(1 - images, hidden), atol=1e-3)
    loss = method.loss(Batch([images, hidden], torch.arange(2)))
    expected = (painted[0] - images).abs().mean(1)[there[:, 0]].mean()
    torch.testing.assert_close(loss, expected)


def test_a_beits_blocks_share_their_position_biases_and_export_keeps_them(tmp_path):
    method = SimMIM(Image("beit_base_patch16_224", 32))
    tables = [n for n, _ in method.named_parameters() if "bias_table" in n]
    assert tables == ["backbone.net.rel_pos_bias.relative_position_bias_table"]
    torch.nn.init.normal_(method.get_parameter(tables[0]))
    torch.nn.init.normal_(method.backbone.net.norm.weight)
    read = export.load(export.save(method.encoder, tmp_path / "encoder"))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(read(x), method.encoder.eval()(x), rtol=0, atol=0)
    assert "use_shared_rel_pos_bias" in (tmp_path / "encoder" / "encoder.json").read_text()


@pytest.mark.parametrize(
    ("name", "size", "units"),
    [("swin_tiny_patch4_window7_224", 224, 7), ("test_vit", 192, 6), ("test_vit", 96, 6)],
)
def test_squares_are_the_papers_where_images_are(name, size, units):
    assert SimMIM(backbone(name, size)).units(size) == (units, units)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": 6}, "unit=6 must be a multiple of the 4-px patches .* one of 4, 8, 16, 32, or"),
        ({"unit": 0}, "unit must be at least 1, got 0"),
        ({"unit": 12}, "unit=12 must .* divide 32 px"),
        ({"ratio": 0.0}, "ratio=0.0 hides 0 of 64 squares of 4 px"),
        ({"ratio": 1.0}, "ratio=1.0 hides 64 of 64"),
        ({"ratio": -0.5}, "ratio must be from 0 to 1, got -0.5"),
        ({"unit": 32}, "ratio=0.6 hides 1 of 1 squares of 32 px; .* smaller unit"),
    ],
)
def test_simmim_refuses(options, message):
    with pytest.raises(UserError, match=message):
        SimMIM(backbone("test_vit", 32), **options)


def test_simmim_refuses_networks_without_patches():
    with pytest.raises(UserError, match=r"ResNet, which does not begin with patches; .* swin_tiny"):
        SimMIM(backbone("test_resnet", 32))


def test_simmim_refuses_sizes_that_a_swin_rounds_up():
    with pytest.raises(UserError, match=r"one feature of 8 px, which 30 px is no multiple of; use"):
        SimMIM(backbone("swin_tiny_patch4_window7_224", 30))


def test_squares_follow_the_samples_own_generator():
    pipeline = SimMIM(backbone("test_vit", 32), unit=8).views(32)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    one, again, other = (pipeline(image, augment.sample_rng(0, 0, i))[1] for i in (5, 5, 6))
    assert one.shape == (4, 4)
    assert one.sum() == 10
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
