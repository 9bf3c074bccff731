"""Exemplar CNN: its distortions, the loss over surrogate classes, and triplets in their place."""

import inspect
from typing import Any

import numpy as np
import torch
from torch import nn

from selftaught.method import Batch
from selftaught.methods.pretext import exemplar_cnn
from selftaught.methods.pretext.exemplar_cnn import ExemplarCNN, change_tones, deform_colors
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    arrays = golden.arrays
    deformed = deform_colors(
        arrays["color.patches"].astype(float), arrays["color.eigvec"], arrays["color.deform"]
    )
    close(torch.from_numpy(deformed), golden["color.out"])
    powers, mults = (
        np.stack([arrays[f"hsv.{c}_{kind}"] for c in "vs"], 1) for kind in ("power", "mult")
    )
    shifts = np.stack([arrays[f"hsv.{c}_add"] for c in "vsh"], 1)
    toned = change_tones(arrays["hsv.in"], powers, mults, shifts)
    close(torch.from_numpy(toned), golden["hsv.out"])
    _check_ranges(golden)
    _check_classes(golden)
    for axis, objective in ((0, "triplet_reference"), (1, "triplet")):
        _check_triplets(golden, axis, objective)


def _check_ranges(golden: Golden) -> None:
    """What is drawn for a patch: the bounds of the generator's calls, in their order."""
    bounds: list[Any] = []

    class Middle:
        def uniform(self, low: float, high: float, size: int | None = None) -> Any:
            bounds.append((low, high))
            return (low + high) / 2 if size is None else np.full(size, (low + high) / 2)

        def standard_normal(self, size: int) -> Any:
            return np.zeros(size)

    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    exemplar_cnn.Distorted(8, 0.5, 1)(image, Middle())  # type: ignore[arg-type]
    close(bounds[:3], golden["geom.ranges"])
    assert int(golden["geom.counts"][2]) == 32, "a third of STL-10's 96 pixels"
    default = inspect.signature(ExemplarCNN).parameters["patch"].default
    assert round(default * 96) == int(golden["geom.counts"][2])


class Given(nn.Module):
    """Stands for the backbone: whatever it sees, its features are the golden ones."""

    def __init__(self, features: torch.Tensor):
        super().__init__()
        self.features, self.dim = features, features.shape[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert len(x) == len(self.features)
        return self.features


def _method(features: torch.Tensor, copies: int, **options: Any) -> tuple[Any, Batch]:
    method: Any = ExemplarCNN(Given(features), copies=copies, **options)  # type: ignore[arg-type]
    method.classifier = nn.Identity()
    count = len(features) // copies
    return method, Batch([torch.rand(count, copies, 3, 4, 4)], torch.arange(count))


def _check_classes(golden: Golden) -> None:
    logits, labels = golden.leaf("ce.logits"), golden["ce.labels"]
    method, batch = _method(logits, 1, samples=logits.shape[1], surrogates=logits.shape[1])
    loss = method.loss(batch._replace(index=labels))
    close(loss, golden["ce.loss"])
    close(torch.autograd.grad(loss, logits)[0], golden["ce.grad"])


def _check_triplets(golden: Golden, axis: int, objective: str) -> None:
    labels = golden["google.labels"]
    embedding = golden.leaf("google.emb")
    copies = int((labels == labels[0]).sum())
    assert torch.equal(labels, labels.unique().repeat_interleave(copies))
    method, batch = _method(
        embedding,
        copies,
        samples=len(labels),
        objective=objective,
        margin=golden.hyper["margin"],
    )
    loss = method.loss(batch)
    close(loss, golden[f"google.loss_axis{axis}"])
    close(torch.autograd.grad(loss, embedding)[0], golden[f"google.grad_axis{axis}"])
