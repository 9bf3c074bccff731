"""What a training will need, told before its first step: measured on a small batch of a copy."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from selftaught import dist
from selftaught.backbones.blocks import blocks, not_compiled, uncompiled
from selftaught.data import Samples
from selftaught.engine.convolution import lay_channels_last
from selftaught.engine.corpus import Blank
from selftaught.engine.counting import Course, counted, course, summed
from selftaught.engine.randomness import random_state, set_random_state
from selftaught.errors import DataError
from selftaught.feed.views import Fetched, ViewDataset, collate
from selftaught.method import Batch, Method, prepared

PROBE, MORE, QUICK = 8, 64, 0.5
"""Images in the small batch, unless a method compares more at least; and in a second one, where the
first took fewer seconds than this: small networks are faster by the dozen."""

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
PEAK |= {"4090": 165e12, "3090": 71e12, "V100": 125e12, "T4": 65e12, "A10G": 70e12}
"""Dense half-precision FLOP/s that the makers state."""


class Estimate(NamedTuple):
    """memory: bytes on the device at the peak of a step; seconds: of the whole training; flops: of
    one step; each: bytes that an image adds to those of a part of the batch."""

    memory: float
    seconds: float
    flops: float
    each: float = 0.0


def measure(
    method: Method,
    half: Batch | None,
    small: Batch,
    context: Callable[[], Any],
    *,
    batch: int,
    accumulate: int,
    steps: int,
    seconds_per_view: float,
    makers: int,
    optimizer_states: int,
    shards: int = 1,
) -> Estimate:
    """Run forward and backward of a few images on a copy of `method`, and scale up.

    What is in shards has no copy: it runs itself, in all processes together, and is put back.

    Args:
        method: left as it is.
        half: fewer images; None where the method takes no fewer.
        small: a batch of a few images, on the device.
        context: of the forward pass (precision).
        batch: images a step on this device.
        accumulate: parts that the batch is computed in.
        steps: of the training.
        seconds_per_view: to make the views of one image.
        makers: processes that make views.
        optimizer_states: tensors that the optimizer keeps for each parameter.
        shards: processes that weights are divided among.
    """
    device, alone = small.index.device, dist.world() == 1
    images = batch // accumulate
    with rehearsed(method) as twin:
        parts = (small,) if half is None else (half, small)
        # which warms up, too
        seen = [counted(twin, part, context, alone) for part in parts]
        wait(device)
        begun = time.perf_counter()
        with context():
            loss = summed(twin.loss(small))
        loss.backward()
        wait(device)
        seconds = time.perf_counter() - begun
    many, (most, flops) = len(small.index), seen[-1]
    if half is None:  # nothing tells what of it is of an image
        found = Course(0 * most, most / many)
    else:
        found = course(seen[0][0], most, (len(half.index), many))
    memory = standing(method, optimizer_states, alone) / shards + sum(map(_bytes, method.buffers()))
    memory += found.at(images) + (2 * gathered(method) if shards > 1 else 0)
    compute = seconds / many * batch
    making = seconds_per_view * batch / max(makers, 1)
    step = max(compute, making) if device.type != "cpu" else compute + making
    return Estimate(memory, step * steps, flops / many * batch, found.image(images))


def standing(method: Method, optimizer_states: int, alone: bool) -> int:
    """Bytes of weights and what the optimizer keeps for them, whole; those of gradients, too,
    unless the process is alone, in which they come one by one."""
    trainable = sum(_bytes(p) for p in method.parameters() if p.requires_grad)
    return sum(map(_bytes, method.parameters())) + trainable * (optimizer_states + (not alone))


@contextmanager
def rehearsed(method: Method) -> Iterator[Method]:
    """A block with a method like this one, that may be trained without consequences."""
    if not dist.sharded(method.parameters()):
        twin = copy.deepcopy(method)
        not_compiled(twin)  # for batches of another size than all that come
        yield twin
        return
    kept = [
        (m, n, b, b.clone())
        for m in method.modules()
        for n, b in m._buffers.items()
        if b is not None
    ]
    try:
        with uncompiled(method):
            yield method
    finally:
        method.zero_grad(set_to_none=True)
        for module, name, buffer, before in kept:
            module._buffers[name] = buffer
            buffer.copy_(before)


def optimizer_states(optimizer: str) -> int:
    """Tensors that an optimizer keeps for each parameter."""
    return 1 if optimizer in ("sgd", "lars", "lars_tf", "larc") else 2


def gathered(method: Method) -> int:
    """Bytes of weights that are whole at once in shards: what is in no block, one and the next."""
    sizes = [sum(map(_bytes, block.parameters())) for block in blocks(method)]
    outside = sum(map(_bytes, method.parameters())) - sum(sizes)
    return outside + sum(sorted(sizes)[-2:])


def needed(
    method: Method,
    views: ViewDataset,
    fabric: Fabric,
    *,
    batch: int,
    accumulate: int,
    steps: int,
    makers: int,
    optimizer: str,
    shards: int = 1,
) -> Estimate:
    """What `steps` steps on `views` will need.

    It is measured on a copy of `method`, and every generator is left as it was: a run draws the
    same numbers whether or not somebody has asked.

    Args:
        batch: images a step, over all processes.
        accumulate, steps, makers: as of `measure`.
        optimizer: by its name.
        shards: processes that weights are divided among.
    """
    before = random_state(fabric.device)
    part = batch // fabric.world_size // accumulate
    least = max(PROBE, method.needs.batch)
    readable(views, 0)  # the first one loads libraries and opens files
    need = Estimate(0.0, 0.0, 0.0)
    more = min(MORE, part // method.needs.group * method.needs.group)
    # processes that gather weights from each other measure as many times
    once = more <= least or dist.sharded(method.parameters())
    for count in (least,) if once else (least, more):
        begun = time.perf_counter()
        items = [readable(views, i % len(views.samples)) for i in range(count)]
        each = (time.perf_counter() - begun) / count
        fewer = count // 2 // method.needs.group * method.needs.group
        half = None
        if fewer >= max(1, method.needs.batch):
            half = small_batch(method, views, items[:fewer], fabric)
        begun = time.perf_counter()
        need = measure(
            method,
            half,
            small_batch(method, views, items, fabric),
            fabric.autocast,
            batch=batch // fabric.world_size,
            accumulate=accumulate,
            steps=steps,
            seconds_per_view=each,
            makers=makers,
            optimizer_states=optimizer_states(optimizer),
            shards=shards,
        )
        if time.perf_counter() - begun > QUICK:
            break
    set_random_state(before, fabric.device)
    return need


def small_batch(method: Method, views: ViewDataset, items: list[Fetched], fabric: Fabric) -> Batch:
    """A batch of what was fetched, on the device."""
    item = collate(items)
    moved, index = fabric.to_device((item.views, item.index))
    labels = cast(Samples, views.samples).labels
    label = torch.from_numpy(labels)[item.index] if method.needs.labels else None
    return Batch(prepared(method, moved), index, fabric.to_device(label))


USED, LEAST_USED = 0.85, 0.5
"""Of a time that was asked for, what its steps take at most, and at least: the rest is for scores,
figures and the report."""

SEEN, MAPPED, MAP = 3000, 2000, 8.0
"""Images that looks and the report see at most; those on its map, and the seconds that it takes."""


def room(whole: float, each: float, images: int, scored: int) -> float:
    """Seconds for the steps of a training that is to end after `whole` of them.

    Args:
        whole: seconds that were asked for.
        each: seconds that an image takes in training. Where it is only looked at, or scored beside
            the untrained network, it takes half as long.
        images: in the data.
        scored: of them and of the test data.
    """
    end = 0.5 * each * (min(images, SEEN) + scored) + MAP * min(images, MAPPED) / MAPPED
    return min(USED * whole, max(LEAST_USED * whole, whole - end))


def of_step(method: Method, views: ViewDataset, fabric: Fabric, **asked: Any) -> Estimate:
    """What a step of a training that has not begun will need.

    Args:
        method: what is trained, wherever it is: it stays as it is.
        views: of the data.
        asked: batch, accumulate, makers and optimizer, as of `needed`.
    """
    twin = copy.deepcopy(method)
    lay_channels_last(twin)
    twin.to(fabric.device)
    twin.on_start(Blank(len(views.samples)))
    return needed(twin, views, fabric, steps=1, **asked)


def amount(size: float) -> str:
    """Of memory, in words."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{max(1, size / 2**20):.0f} MiB"


def readable(views: ViewDataset, i: int) -> Fetched:
    """Sample `i` of the first epoch; DataError where neither it nor others can be read."""
    item = views[0, i]
    if item.views is None:
        raise DataError(
            f"none of {len({bad.index for bad in item.bad})} images that were looked at can be "
            f"used, the last for this reason: {item.bad[-1].reason}; run `selftaught check` on the "
            "data"
        )
    return item


def peak_flops(device: torch.device) -> float:
    """Of the device in half precision; 0 when unknown."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((v for k, v in PEAK.items() if k in name), 0.0)


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
