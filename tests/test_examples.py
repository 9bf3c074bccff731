"""The examples run, on photos small enough to be quick."""

import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from selftaught import evaluate, load

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in a folder with 64 photos in two classes; returns what it prints."""
    rng = np.random.default_rng(0)
    for name, color in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(32):
            noise = rng.integers(-40, 40, (36, 40, 3))
            Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8)).save(
                folder / f"{i}.png"
            )
    monkeypatch.chdir(tmp_path)
    real = timm.create_model

    def narrow(name: str, **options):
        """The network of the examples with its 512 features, and few channels before."""
        assert name == "resnet18"
        return real(name, layers=(1, 1, 1, 1), channels=(8, 8, 8, 512), **options)

    monkeypatch.setattr(timm, "create_model", narrow)

    def call(example: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [example, *words])
        runpy.run_path(str(EXAMPLES / example), run_name="__main__")
        return capsys.readouterr().out

    return call


def test_each_example_has_a_test():
    shown = {"plain_loop.py", "pretrain.py", "embed_and_knn.py", "own_method.py"}
    assert {file.name for file in EXAMPLES.glob("*.py")} == shown


def test_plain_loop(run, tmp_path):
    told = run("plain_loop.py", "photos", "2").splitlines()
    assert [line.split()[0] for line in told] == ["loss", "loss"]
    assert all(0 < float(line.split()[1]) < math.log(127) + 2 / 0.1 for line in told), "at 0.1"
    encoder = load(tmp_path / "encoder")
    assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, encoder.dim)
    fresh = evaluate.untrained(encoder)
    assert not torch.equal(next(encoder.parameters()), next(fresh.parameters()))


def test_pretrain_then_embed(run, tmp_path):
    run("pretrain.py", "photos", "1")
    page = (tmp_path / "runs" / "example" / "report.html").read_text()
    assert "<svg" in page, "the curves of the training"
    told = run("embed_and_knn.py", "runs/example", "photos")
    assert "64 photos, 512 features each" in told
    assert "16x16" in told


def test_own_method(run, tmp_path):
    run("own_method.py", "photos", "1")
    rows = (tmp_path / "runs" / "own" / "metrics.csv").read_text().splitlines()[1:]
    loss = [float(row.split(",")[3]) for row in rows]
    assert loss
    assert all(0 < value < 2 for value in loss), "1 - cos"
    encoder = load(tmp_path / "runs" / "own")
    assert encoder(torch.zeros(2, 3, encoder.size, encoder.size)).shape == (2, encoder.dim)
