"""Whether an export has the features of its encoder: 16 real images, through both."""

import copy
import logging
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught import kinds
from selftaught.backbones import Encoder, outputs
from selftaught.data import BadSample, Samples, open_data
from selftaught.data.opening import how_read
from selftaught.errors import SelftaughtError, TrainingError
from selftaught.export.targets import Features, Target, first_words

log = logging.getLogger("selftaught")

COUNT = 16
"""Images that are compared."""

_SPARE = 4
"""As many times more are tried, should some be broken."""


def images(settings: dict[str, Any], encoder: Encoder) -> tuple[Tensor, str, int | None]:
    """Images of the data that a run was trained on, filled up with photos of this package.

    Args:
        settings: content of run.yaml, or nothing.
        encoder: whose size, channels, mean and standard deviation they get.

    Returns:
        Normalized plain views [16, channels, size, size], where they are from, in words, and the
        number of images in the data, None where it could not be read.
    """
    kind = kinds.of(encoder)
    view = kind.plain(encoder.size)
    found: list[np.ndarray] = []
    count = None
    try:
        if not str(settings.get("data") or "<").startswith("<"):  # which was in memory alone
            samples = _open(settings, encoder)
            found = [view(x) for x in _some(samples)]
            count = len(samples)
    except (SelftaughtError, OSError) as error:
        log.info("the images of the run cannot be read: %s", error)
    source = f"{len(found)} {kind.many} of the training data"
    if kind.photos and len(found) < COUNT:
        photos = open_data(str(Path(str(files("selftaught"))) / "demo" / "test.parquet"))
        channels = np.arange(encoder.channels) % photos.channels
        shown = [view(np.ascontiguousarray(x[..., channels])) for x in _some(photos)]
        more = COUNT - len(found)
        source = f"{source} and {more} demo photos" if found else f"{more} demo photos"
        found += shown[:more]
    if not found:
        return (
            kind.prepare(kind.blank(COUNT, encoder), encoder),
            f"{COUNT} blank {kind.many}",
            count,
        )
    return kind.prepare(torch.from_numpy(np.stack(found)), encoder), source, count


@torch.inference_mode()
def features(encoder: Encoder, x: Tensor) -> Features:
    """What the encoder makes of normalized images x, on the CPU; it is left as it is."""
    ours = copy.deepcopy(encoder).to("cpu", memory_format=torch.contiguous_format).eval()
    return outputs(ours, x)


def compare(
    encoder: Encoder, target: Target, folder: Path, x: Tensor, wanted: Features, tolerance: float
) -> dict[str, float]:
    """Difference of each output of the export in `folder` from what is wanted of images x.

    It is the greatest in an image, relative to the greatest feature of that image. The images go
    in as a batch of one and a batch of the others.

    Raises:
        TrainingError: it cannot be read back, or a difference is above `tolerance`.
    """
    try:
        read = target.read(folder, encoder)
        with torch.inference_mode():
            parts = [read(x[:1]), read(x[1:])]
        found = {name: torch.cat([p[name] for p in parts]) for name in wanted}
        differences = {name: _difference(wanted[name], found[name]) for name in wanted}
    except Exception as error:  # each library has its own kinds, and all mean the same
        raise TrainingError(
            f"{target.library} cannot read back this {encoder.name} ({first_words(error)}); "
            "nothing was kept. Export it --to another target"
        ) from error
    for name, difference in differences.items():
        if not difference <= tolerance:
            raise TrainingError(
                f"{target.library} has other {name} features than this {encoder.name}: they "
                f"differ by {difference:.2g} of the greatest, and {tolerance:g} is allowed; "
                "nothing was kept. Export it --to another target, and without fp16"
            )
    return differences


def _difference(wanted: Tensor, found: Tensor) -> float:
    if wanted.shape != found.shape:
        raise ValueError(f"shape {list(found.shape)} instead of {list(wanted.shape)}")
    # features of weights that are not finite, which force lets through, are compared as zeros
    wanted, found = (t.double().nan_to_num(0, 0, 0).flatten(1) for t in (wanted, found))
    scale = wanted.abs().amax(1).clamp(min=1e-30)
    return ((wanted - found).abs().amax(1) / scale).max().item()


def _open(settings: dict[str, Any], encoder: Encoder) -> Samples:
    training = settings.get("training") or {}
    options = how_read(training) | {"labels": training.get("labels")}
    kind, channels = kinds.of(encoder), encoder.channels
    return open_data(str(settings.get("data")), channels=channels, kind=kind, **options)


def _some(samples: Samples) -> Iterator[Any]:
    """At most 16 samples from all over the data; others take the place of broken ones."""
    count = 0
    places = np.linspace(0, len(samples) - 1, _SPARE * COUNT).astype(int)
    for i in dict.fromkeys(places.reshape(COUNT, _SPARE).T.ravel().tolist()):
        if count == COUNT:
            return
        try:
            yield samples.read(i)
        except BadSample:
            continue
        count += 1
