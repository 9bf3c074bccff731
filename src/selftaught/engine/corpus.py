"""The dataset as methods see it in a run, whose folder keeps what never changes."""

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from selftaught import dist
from selftaught.errors import Unwritable
from selftaught.export import atomic
from selftaught.feed.passes import DatasetPass

log = logging.getLogger("selftaught")

LARGEST = 4 * 2**30
"""Bytes of the largest file that is kept."""


class RunCorpus(DatasetPass):
    """A `DatasetPass` that leaves features of networks that never change in the run's folder.

    Each network has a file of its own, `features-*.safetensors`, named after its weights, the data
    and the size of its images. Where the file would be larger than `LARGEST`, or than half of the
    room that is left, it is not written: a run that goes on then computes them again.
    """

    folder: Path | None = None
    """Of the run; None where nothing is to be kept."""

    def embed(self, encoder: nn.Module, key: str = "") -> Tensor:
        if not key or self.folder is None:
            return super().embed(encoder)
        about: Any = encoder
        told = (key, self.samples.fingerprint, about.size, about.mean, about.std)
        name = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
        file = self.folder / f"features-{name}.safetensors"
        found = _read(file, (len(self), about.dim)) if dist.rank() == 0 else None
        if bool(dist.maximum(torch.tensor(int(found is not None), device=self.device))):
            found = torch.empty(len(self), about.dim) if found is None else found
            return dist.from_first(found.to(self.device)).cpu()
        log.info("%s looks at %s images once", about.name, f"{len(self):,}")
        found = super().embed(encoder)
        if dist.rank() == 0:
            _keep(file, found)
        return found


def _read(file: Path, shape: tuple[int, int]) -> Tensor | None:
    """The features in `file`; None where there are none that are whole."""
    if not file.exists():
        return None
    try:
        found = load_file(file)["features"]
        if found.shape != shape:
            raise ValueError(f"it holds {list(found.shape)} in place of {list(shape)}")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        log.warning("%s is damaged (%s): the features are computed again", file, error)
        return None
    return found


def _keep(file: Path, features: Tensor) -> None:
    size = features.numel() * features.element_size()
    room = min(LARGEST, shutil.disk_usage(file.parent).free // 2)
    if size > room:
        log.warning(
            "%.1f GiB of features are not kept in %s, where %.1f GiB would be written at most: "
            "if the run is stopped and resumed, they are computed again",
            size / 2**30,
            file.parent,
            room / 2**30,
        )
        return
    try:
        with atomic(file) as temporary:
            save_file({"features": features}, temporary)
    except Unwritable as error:
        log.warning("%s: if the run is resumed, the features are computed again", error)


class Blank:
    """A dataset of `count` images of which nothing is known: for an estimate of time and memory."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def embed(self, encoder: nn.Module, key: str = "") -> Tensor:
        width: Any = encoder
        return torch.zeros(1, width.dim).expand(self.count, -1)
