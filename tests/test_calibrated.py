"""Floors have looked at the images: what norm statistics alone give is no learning."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from selftaught import backbone, evaluate, export, pretrain
from selftaught.evaluate.floors import ENCODER, RECALIBRATED, STARTS
from selftaught.parts.norm import SyncBatchNorm, calibrating, keeping
from selftaught.verdict import START


class Frozen(nn.Module):
    """Statistics without a momentum, as torchvision's frozen batch norm has them."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (1, -1, 1, 1)
        return (x - self.running_mean.view(shape)) / self.running_var.view(shape).sqrt()


def net(norm: type[nn.Module], **options) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), norm(8, **options), nn.ReLU(), nn.Conv2d(8, 8, 3), norm(8, **options),
        nn.Dropout(0.5),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, SyncBatchNorm, nn.InstanceNorm2d])
def test_statistics_are_those_of_passes_in_train_mode(norm):
    options = {"track_running_stats": True}
    ours, theirs = net(norm, **options), net(norm, **options)
    batches = torch.randn(3, 4, 3, 12, 12) * 3 + 1
    with calibrating(ours.modules()), torch.no_grad():
        for x in batches:
            ours(x)
    for n, x in enumerate(batches, 1):
        for layer in keeping(theirs.modules()):
            layer.train()
            layer.momentum = 1 / n  # the cumulative average
        theirs(x)
    for a, b in zip(keeping(ours.modules()), keeping(theirs.modules()), strict=True):
        assert_close((a.running_mean, a.running_var), (b.running_mean, b.running_var))
        assert (a.momentum, a.training) == (0.1, False)
        assert not a._forward_pre_hooks
    assert not ours[-1].training


def test_a_smaller_batch_counts_less():
    whole, parts = (nn.BatchNorm1d(2).eval() for _ in range(2))
    x = torch.randn(12, 2)
    with calibrating(whole.modules()):
        whole(x)
    with calibrating(parts.modules()):
        for part in (x[:8], x[8:]):
            parts(part)
    assert_close(parts.running_mean, x.mean(0))
    assert_close(whole.running_mean, x.mean(0))
    assert_close(whole.running_var, x.var(0))


def test_what_is_frozen_or_never_passed_keeps_its_statistics():
    frozen, norm = Frozen(3), nn.BatchNorm2d(3).eval()
    with calibrating(nn.ModuleList([frozen, norm]).modules()):
        frozen(torch.randn(4, 3, 5, 5) + 7)
    assert_close(frozen.running_mean, torch.zeros(3))
    assert_close((norm.running_mean, norm.running_var), (torch.zeros(3), torch.ones(3)))


@pytest.fixture(scope="module")
def textures(tmp_path_factory) -> Path:
    """Noise in six directions, too fine for small pixels, in all brightnesses: a folder for each.

    That the images differ by their brightness is what fresh networks see before they have looked.
    """
    folder, rng = tmp_path_factory.mktemp("textures"), np.random.default_rng(0)
    across, down = np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32))
    fine = (np.hypot(across, down) > 0.38) & (np.hypot(across, down) < 0.5)
    for i in range(480):
        way = np.cos(np.arctan2(down, across) - i % 6 * np.pi / 6) ** 8 * fine
        wave = np.fft.ifft2(np.fft.fft2(rng.normal(size=(32, 32))) * way).real
        wave *= 12 * np.exp(rng.normal() / 2) / wave.std()
        image = 128 + 40 * rng.normal() + wave[..., None] + 12 * rng.normal(size=(32, 32, 3))
        path = folder / f"direction {i % 6}" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return folder


STILL = {
    "backbone": "test_resnet", "size": 32, "batch": 32, "epochs": 4, "optimizer": "adamw",
    "lr": 1e-9, "weight_decay": 0.0, "workers": 0, "accelerator": "cpu", "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_without_a_rate_is_not_told_that_it_learned(textures, tmp_path, begun):
    """Its weights move by 1e-8, its norms' statistics by all that there is."""
    given = {**STILL, "lora": 0} if begun else STILL
    if begun:
        torch.manual_seed(3)
        export.save(backbone("test_resnet", size=32).eval(), tmp_path / "start")
        given = {n: v for n, v in given.items() if n not in ("backbone", "size")}
        given["start"] = tmp_path / "start"
    done = pretrain("simclr", textures, tmp_path / "run", **given)
    assert done.verdict.word != "learned"


def test_a_start_is_a_floor_with_statistics_of_these_images_too(textures):
    encoder = backbone("test_resnet", size=32).eval()
    start = copy.deepcopy(encoder)
    same = evaluate.compare(encoder, textures, probes=["knn"], start=start)
    assert RECALIBRATED not in same.scores
    with calibrating(encoder.modules()), torch.no_grad():
        encoder(torch.randn(8, 3, 32, 32))
    found = evaluate.compare(encoder, textures, probes=["knn"], start=start)
    names = (ENCODER, START, RECALIBRATED, "untrained")
    assert tuple(found.scores)[:4] == names
    (gain,) = found.gains
    assert gain.floor_score.value == max(found.scores[name][0].value for name in STARTS)
    assert not keeping(start.modules())[0].running_mean.any()  # which stays as it was
    assert any(line.startswith("As it began, recalibrated") for line in found._notes())
