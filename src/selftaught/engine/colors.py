"""Who makes colors and blur: the processes that read images, or the device. What is faster is
measured before the first step, and then a setting of the run like any other.
"""

import logging
import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from selftaught import augment, config, dist, kinds
from selftaught.augment import Deferred, finish_on_device
from selftaught.engine.estimate import rehearsed, summed, wait
from selftaught.engine.randomness import random_state, set_random_state
from selftaught.export.facts import SETTINGS
from selftaught.feed.readers import Readers
from selftaught.feed.views import ViewDataset
from selftaught.method import Batch, Method, Pipeline
from selftaught.signature import current

log = logging.getLogger("selftaught")

CHOICES = ("auto", "loader", "device")
GAIN = 0.95
"""A step must get at least that much shorter for colors to leave the loader."""
SOME = 16
"""Images in a measured batch of the loader."""
TURNS = 3
"""Such batches a process; its first is not counted."""


def split(pipeline: Pipeline) -> augment.Pipeline | None:
    """The pipeline with colors and blur left to the device, or None where that cannot be."""
    return pipeline.split() if isinstance(pipeline, augment.Pipeline) else None


def fed(views: ViewDataset, by: str) -> ViewDataset:
    """What the loader makes: all of `views`, or, where colors are made by the device, the rest."""
    raw = split(views.pipeline) if by == "device" else None
    return views if raw is None else ViewDataset(views.samples, raw, views.seed, views.reduced)


def settled(asked: str, pipeline: Pipeline, device: torch.device, before: Path | None) -> str:
    """What can be said without measuring: "loader" or "device", else "auto".

    Args:
        asked: one of `CHOICES`.
        pipeline: whose colors they are.
        device: of the training.
        before: folder of the run that goes on, which keeps what it has chosen.
    """
    if split(pipeline) is None:
        if asked == "device":
            log.warning(
                "these views have no colors or blur that could be left to the device, or need "
                "them at once: the loader makes them whole, as with --colors loader"
            )
        return "loader"
    if asked == "auto" and before is not None:
        asked = _recorded(before)
    if asked == "auto" and device.type != "cuda":
        return "loader"
    if asked == "device" and device.type == "cpu":
        log.info("colors and blur are made beside the steps, which is slower without a GPU")
    return asked


def _recorded(run: Path) -> str:
    if not (run / SETTINGS).is_file():
        return "auto"
    training = config.load(run / SETTINGS).get("training")
    found = current(training).get("colors", "loader") if isinstance(training, dict) else "auto"
    return found if found in CHOICES else "auto"


class Costs(NamedTuple):
    """Seconds an image: what decides.

    whole: of the loader, all of its processes together, with colors and blur.
    raw: of the loader without.
    step: of the device, forward and backward.
    developing: of the device, colors and blur.
    """

    whole: float
    raw: float
    step: float
    developing: float

    @property
    def loader(self) -> float:
        """An image of a training with colors in the loader: loader and device work side by side,
        and the slower one is waited for."""
        return max(self.whole, self.step)

    @property
    def device(self) -> float:
        """An image of a training with colors on the device."""
        return max(self.raw, self.step + self.developing)

    @property
    def best(self) -> str:
        return "device" if self.device < GAIN * self.loader else "loader"

    def sentence(self, batch: int) -> str:
        """What was chosen, and why, in milliseconds a step of `batch` images."""
        times = (1000 * batch * x for x in (*self, self.loader, self.device))
        whole, raw, step, developing, loader, device = (
            f"{ms:,.0f}" if ms >= 100 else f"{ms:.2g}" for ms in times
        )
        where, ms, other = (
            ("on the device", device, loader)
            if self.best == "device"
            else ("in the loader", loader, device)
        )
        return (
            f"colors and blur are made {where}: {ms} ms a step of {batch} there, {other} "
            f"elsewhere (loader {whole} ms with them and {raw} without, device {step} and "
            f"{developing} for them)"
        )


def choose(
    method: Method,
    views: ViewDataset,
    *,
    batch: int,
    makers: int,
    device: torch.device,
    context: Callable[[], Any],
    channels_last: bool,
    labels: Tensor | None,
) -> str:
    """Measure, tell, and say "loader" or "device", alike in all processes of the run.

    Every generator is left as it was. What cannot be measured for want of memory stays in the
    loader.

    Args:
        method: left as it is.
        views: the data, seen through a pipeline that can be split.
        batch: images at once on this device.
        makers: processes of the loader.
        device: of the method.
        context: of the forward pass (precision).
        channels_last: memory layout of images.
        labels: [N] of all samples, for supervised methods alone.
    """
    before, raw = random_state(device), fed(views, "device")
    try:
        computing = _computing(method, raw, batch, device, context, channels_last, labels)
    except torch.OutOfMemoryError:
        computing = 0.0, math.inf
    found = torch.tensor([*_making(views, raw, makers), *computing], device=device)
    costs = Costs(*dist.maximum(found).tolist())
    set_random_state(before, device)
    torch.cuda.empty_cache()
    if dist.rank() == 0 and math.isinf(costs.developing):
        log.warning(
            "too little memory to measure whether the device should make colors and blur: the "
            "loader does; choose with --colors"
        )
    elif dist.rank() == 0:
        log.info(costs.sentence(batch))
    return costs.best


class _Timed:
    """Seconds an image, whole and raw, for batches of keys; read once before, for the disk."""

    def __init__(self, *kinds: ViewDataset):
        self.kinds = kinds

    def __call__(self, keys: list[tuple[int, int]]) -> Tensor:
        spent = []
        for views in self.kinds * 2:
            begun = time.perf_counter()
            views.__getitems__(keys)
            spent.append((time.perf_counter() - begun) / len(keys))
        return torch.tensor(spent[len(self.kinds) :])


def _making(whole: ViewDataset, raw: ViewDataset, makers: int) -> tuple[float, float]:
    """Seconds an image of the loader, whole and raw, while all of its processes work."""
    each = max(1, makers)
    count = len(whole.samples)
    keys = [[(0, (b * SOME + i) % count) for i in range(SOME)] for b in range(TURNS * each)]
    with closing(Readers(_Timed(whole, raw), keys, makers)) as batches:
        spent = torch.stack(list(batches)[each:]).median(0).values / each
    return float(spent[0]), float(spent[1])


def _computing(
    method: Method,
    raw: ViewDataset,
    batch: int,
    device: torch.device,
    context: Callable[[], Any],
    channels_last: bool,
    labels: Tensor | None,
) -> tuple[float, float]:
    """Seconds an image of the device: a step, and colors. Images lie there, as in a training,
    where they are copied meanwhile."""
    image: Any = method.encoder
    item = raw.__getitems__([(0, i % len(raw.samples)) for i in range(batch)])
    views = _there(item.views, device)
    views = finish_on_device(views, device)
    images = kinds.of(image).prepare(views, image, channels_last)
    index, label = move_data_to_device(
        (item.index, None if labels is None else labels[item.index]), device
    )
    small = Batch(move_data_to_device(images, device), index, label)
    with rehearsed(method) as twin:

        def step() -> None:
            with context():
                loss = summed(twin.loss(small))
            loss.backward()

        seconds = _seconds(step, device) / batch
    return seconds, _seconds(lambda: finish_on_device(views, device), device) / batch


def _there(node: Any, device: torch.device) -> Any:
    """Images of raw views on the device, their settings where they are."""
    if isinstance(node, Deferred):
        return Deferred([x.to(device) for x in node.images], node.settings)
    if isinstance(node, dict):
        return {key: _there(value, device) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)([_there(value, device) for value in node])
    return node


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    for _ in range(2):  # warm up
        work()
    wait(device)
    begun = time.perf_counter()
    for _ in range(3):
        work()
    wait(device)
    return (time.perf_counter() - begun) / 3
