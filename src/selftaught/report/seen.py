"""One look at the data through the encoder of a run: all that the page says about images."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import kinds
from selftaught.backbones import Encoder
from selftaught.data import Samples, open_data
from selftaught.data.opening import how_read
from selftaught.data.selection import select, without
from selftaught.errors import DataError, UserError
from selftaught.evaluate.features import device_for, one_pass, running
from selftaught.export import load
from selftaught.kinds import Kind
from selftaught.report.folder import RunFolder
from selftaught.report.image.pictures import THUMB, shown
from selftaught.sides import within
from selftaught.vectors import neighbors

NEAR = 8
"""Neighbors of each image."""
MOST = 10_000
"""Images a page can have: their thumbnails must fit into it."""
_USUAL, _LEAST, _SECONDS = 2000, 200, 15.0
"""Images that are looked at unless told otherwise; fewer where that would take longer."""


@dataclass(frozen=True)
class Seen:
    """Some images of a dataset, in a fixed order, and what the encoder makes of them.

    samples: those images, all readable; sample i is row i. total: images in the dataset.
    unit: [N, D] features of unit length. labels: [N], -1 where unknown, or None.
    small: [N, C, s, s] uint8, the encoder's own views, at most `THUMB` px.
    near: [N, k] the nearest others by falling cosine, with similarity [N, k].
    skipped: name of each sample that could not be read -> why.
    """

    network: Encoder
    samples: Samples
    total: int
    unit: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    small: np.ndarray
    near: np.ndarray
    similarity: np.ndarray
    skipped: dict[str, str]

    def __len__(self) -> int:
        return len(self.unit)

    def name(self, i: int) -> str:
        return self.samples.name(i)

    def figure(self, i: int, name: str = "", caption: str = "", style: str = "") -> str:
        """Image i as a figure, as `shown` says."""
        return shown(self.samples, i, name, caption, style)

    def label(self, i: int) -> str:
        """Class of image i in words, empty where it is unknown."""
        if self.labels is None or self.labels[i] < 0:
            return ""
        return self.classes[self.labels[i]] if self.classes else str(self.labels[i])


def look(
    run: RunFolder,
    data: Any = None,
    labels: str | None = None,
    images: int | None = None,
    device: str = "auto",
    module: nn.Module | None = None,
) -> Seen:
    """Embed a part of the data, drawn from a fixed seed.

    Args:
        run: with an encoder.
        data: as for `open_data`; by default the data of the run.
        labels: as for `open_data`; by default as the run has them.
        images: how many; by default as many of 2,000 as take a quarter of a minute.
        device: such as `cuda`; by default the best that the machine has.
        module: of an encoder that is a module of one's own; see `load`.

    Raises:
        SelftaughtError: the encoder or the data cannot be read.
    """
    network = load(run.path, module)
    samples = data if isinstance(data, Samples) else _open(run, data, labels, network)
    where = device_for(run.path, network, device)
    count = min(len(samples), images or _affordable(network, where))
    drawn = np.sort(np.random.default_rng(0).permutation(len(samples))[:count])
    some = select(samples, drawn)
    small: list[np.ndarray] = []
    with running(network, where, "fp32") as forward:

        def features(x: Tensor) -> Tensor:
            small.append(_small(x, kinds.of(network)))
            return forward(x)

        (found,), rest = one_pass([features], some, network.size)
    if len(found) < 2:
        raise DataError(f"only {len(found)} of {count} images can be read")
    unit = F.normalize(torch.from_numpy(found), dim=1)
    near = neighbors(unit, min(NEAR, len(unit) - 1))
    return Seen(
        network,
        select(some, rest.index),
        len(samples),
        unit.numpy(),
        rest.labels,
        rest.classes,
        np.concatenate(small),
        near.index.numpy(),
        near.similarity.numpy(),
        rest.skipped,
    )


def _open(run: RunFolder, data: Any, labels: str | None, network: Encoder) -> Samples:
    training = run.settings.get("training") or {}
    options = how_read(training)
    options |= {"channels": network.channels, "kind": kinds.of(network)}
    labels = labels or training.get("labels")
    if data is not None:
        return open_data(data, labels=labels, **options)
    given = run.settings.get("data")
    if not isinstance(given, str):
        raise UserError("run.yaml names no data; say where the images are with --data")
    try:
        samples = open_data(given, labels=labels, **options)
    except UserError as error:
        raise UserError(f"{error}; if the data has moved, say where it is with --data") from error
    listed = training.get("quarantine")
    return without(samples, listed) if listed and Path(listed).exists() else samples


def _affordable(network: Encoder, device: torch.device) -> int:
    """Images that are embedded in a quarter of a minute; halved until they do."""
    count, some = _USUAL, kinds.of(network).blank(8, network)
    with running(network, device, "fp32") as forward:
        # on a CPU its own time counts: other programs should not change what the page shows
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        forward(some).cpu()
        begun = clock()
        forward(some).cpu()
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    each = (clock() - begun) / len(some) / threads
    while count > _LEAST and count * each > _SECONDS:
        count //= 2
    return max(count, _LEAST)


def _small(x: Tensor, kind: Kind) -> np.ndarray:
    """Plain views as pictures, uint8 [B, C, s, s] of no more than `THUMB` pixels."""
    return _shrunk(kind.shown(x)).numpy()


def _shrunk(x: Tensor) -> Tensor:
    """uint8 [B, C, H, W] at no more than `THUMB` pixels a side."""
    if max(x.shape[-2:]) <= THUMB:
        return x
    small = F.interpolate(x.float(), within(x.shape[-2:], THUMB), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).byte()
