"""Which precision `auto` stands for: by the network, and kept by a run that goes on."""

import pytest
import torch
from torch import nn

from selftaught import pretrain
from selftaught.backbones import Image, Wrapped
from selftaught.engine.plan import prepared
from selftaught.engine.precision import density, fastest
from selftaught.engine.settings import Settings
from selftaught.errors import UserError
from tests.test_engine import photos


def native(monkeypatch, has: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


def cells(groups: int, width: int = 16, channels: int = 3) -> Wrapped:
    layers = [nn.Conv2d(channels, width, 3, 2), nn.Conv2d(width, width, 3, groups=groups)]
    return Wrapped(nn.Sequential(*layers), size=32)


@pytest.mark.parametrize(
    ("encoder", "precision"),
    [
        (Image("tf_efficientnet_lite0", 64), "fp32"),
        (Image("mobilenetv3_small_050", 64), "fp32"),
        (Image("test_convnext", 32), "fp32"),
        (cells(groups=16), "fp32"),
        (cells(groups=4), "bf16"),  # sums of four channels are no depthwise ones
        (cells(groups=1, channels=1), "bf16"),
        (Image("convnext_atto", 64), "bf16"),
        (Image("test_resnet", 32), "bf16"),
        (Image("test_vit", 32), "bf16"),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_depthwise_convolutions_are_computed_in_float32_on_cpus(encoder, precision, monkeypatch):
    native(monkeypatch, True)
    assert fastest("cpu", encoder) == precision
    native(monkeypatch, False)
    assert fastest("cpu", encoder) == "fp32"


def test_multiplications_for_each_value_by_hand():
    """32 px -> 15 x 15 places of 16 channels, 27 each, -> 13 x 13 of 16, 9 each."""
    assert density(cells(groups=16)) == (15 * 15 * 16 * 27 + 13 * 13 * 16 * 9) / (13 * 13 * 16)
    assert density(cells(groups=1)) == float("inf")


def test_looking_at_a_network_changes_nothing():
    encoder = Image("test_convnext", 32).train()
    encoder.net.stem.eval()
    state, drawn = encoder.state_dict(), torch.get_rng_state()
    before = {name: x.clone() for name, x in state.items()}
    modes = [m.training for m in encoder.modules()]
    density(encoder)
    assert all(torch.equal(x, before[name]) for name, x in encoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [m.training for m in encoder.modules()] == modes
    assert not any(m._forward_hooks for m in encoder.modules())


def test_a_run_goes_on_in_the_precision_that_it_began_with(tmp_path, monkeypatch):
    small, image = {"hidden": 16, "dim": 8}, {"name": "test_resnet", "size": 32}
    training = {"batch": 8, "workers": 0, "accelerator": "cpu", "evaluate": False}
    out = tmp_path / "run"
    native(monkeypatch, False)
    given = {"backbone": "test_resnet", "size": 32} | small | training
    pretrain("simclr", photos(), out, epochs=1, **given)
    native(monkeypatch, True)

    def computed_in(**more) -> str:
        settings = Settings(epochs=2, **training, **more)
        return prepared("simclr", photos(), settings, image, small).content["training"]["precision"]

    assert computed_in(out=out, resume=True) == "fp32"
    assert computed_in(out=tmp_path / "new") == "bf16"
    with pytest.raises(UserError, match=r"training\.precision"):
        computed_in(out=out, resume=True, precision="bf16")
