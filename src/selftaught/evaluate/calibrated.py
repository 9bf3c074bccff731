"""What a trained network is set beside, with statistics of norms that have seen its images.

Fresh batch norms have seen nothing: passes in train mode without a gradient alone raise their k-NN
by up to 18 points. To look at images is not to learn of them, so that floors have looked, too.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from selftaught import kinds
from selftaught.augment import sample_rng
from selftaught.backbones import Encoder
from selftaught.data import Samples
from selftaught.data.arrays import ArraySource
from selftaught.evaluate.features import readers, running, untrained
from selftaught.evaluate.finding import evenly
from selftaught.evaluate.floors import UNTRAINED
from selftaught.evaluate.held import BATCH, ROOM, batches, plain
from selftaught.feed.views import ViewDataset
from selftaught.parts.norm import calibrating, keeping
from selftaught.sides import Size, one
from selftaught.verdict import RECALIBRATED, START

IMAGES = 256
"""Images that norms take their statistics of."""


def references(
    network: Encoder,
    start: Encoder | None,
    samples: Samples,
    *,
    size: Size,
    device: torch.device,
    workers: int | None = None,
    seed: int = 0,
) -> dict[str, Encoder]:
    """Networks that `network` is to be better than, by the names of the floors.

    Args:
        network: that is scored.
        start: as its training began, where that was with weights; with statistics of these images
            it is a floor too, where training has changed those of `network`.
        samples: that it is scored on.
        size: side of the views in pixels.
        device: where they run.
        workers: processes that read.
        seed: of the weights of the untrained one.
    """
    found: dict[str, Encoder] = {}
    if start is not None:
        found[START] = start
        if _moved(network, start):
            found[RECALIBRATED] = copy.deepcopy(start)
    found[UNTRAINED] = untrained(network, seed)
    wanted = [n for name, n in found.items() if name != START and keeping(n.modules())]
    if wanted:
        count = max(1, min(IMAGES, ROOM // kinds.of(network).bytes(size, samples.channels)))
        rows = evenly(len(samples), count).numpy()
        images, _ = plain(samples, rows, size, readers(len(rows), workers))
        for each in wanted:
            with running(each, device, "fp32") as forward:
                calibrate(each, forward, images)
    return found


def calibrate(network: Encoder, forward: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """Give the norms of `network` their statistics, by `forward`, as training would.

    That is of crops with other colors: such statistics are other ones than those of plain views,
    and can be worth more.

    Args:
        network: of which other layers stay as they are.
        forward: uint8 [B, C, S, S] -> anything, through `network`.
        images: uint8 [N, C, S, S] plain views.
    """
    if not keeping(network.modules()):
        return
    with calibrating(network.modules()):
        for views in _again(images, network):
            for view in views:
                forward(view)


def _again(images: Tensor, network: Encoder) -> Iterator[Any]:
    """Two random views of plain ones, batch by batch."""
    kind = kinds.of(network)
    if kind.native:
        pipeline = kind.alike(one(images.shape[-2:]))
        keys = [(0, i) for i in range(len(images))]
        pixels = images.permute(0, 2, 3, 1).numpy()
        seen = Samples(ArraySource(pixels), channels=images.shape[1], layout="HWC")
        views = ViewDataset(seen, pipeline, 0)
        yield from (item.views for item in batches(views, keys, 0))
        return
    pipeline = kind.alike(network.size)
    for part in range(0, len(images), BATCH):
        rows = range(part, min(part + BATCH, len(images)))
        found = [kind.again(images[i].numpy()) for i in rows]
        yield default_collate([pipeline(x, sample_rng(0, 0, i)) for x, i in zip(found, rows)])


def _moved(network: Encoder, start: Encoder) -> bool:
    """Whether the norms of the two have other statistics."""
    ours, theirs = ([m.running_mean.cpu() for m in keeping(n.modules())] for n in (network, start))
    return len(ours) != len(theirs) or not all(map(torch.equal, ours, theirs))
