"""What a training needs on machines that are not here, from what is counted of it on this one.

Weights, gradients, optimizer state and what both passes have at their peak are counted; the time
follows from the operations and the share of their peak that GPUs reach in such trainings, which is
assumed and said.
"""

import re
from typing import NamedTuple

import torch

from selftaught.backbones.blocks import blocks, recompute
from selftaught.engine.counting import Course, counted, course
from selftaught.engine.estimate import (
    PEAK,
    amount,
    gathered,
    optimizer_states,
    rehearsed,
    standing,
)
from selftaught.engine.progress import duration
from selftaught.errors import UserError
from selftaught.method import Batch, Method

MEMORY = {"H100": 80, "H200": 141, "A100": 80, "L40S": 48, "L4": 24, "4090": 24, "3090": 24}
MEMORY |= {"V100": 32, "T4": 16, "A10G": 24}
"""GiB, where nobody says how many."""
REACHED = 0.4
"""Of the peak: what well-fed trainings of transformers reach."""
USABLE = 0.9
"""Of the memory: the rest is the driver's, the libraries', what kernels take for themselves, and
what lies between blocks."""


class Machines(NamedTuple):
    """GPUs of one kind. memory: bytes of each."""

    count: int
    gpu: str
    memory: int

    @classmethod
    def of(cls, text: str) -> "Machines":
        """From such as 64xH100-80G, 8xA100, L4.

        Raises:
            UserError: it is nothing of the kind.
        """
        match = re.fullmatch(r"(?:(\d+)x)?([A-Za-z0-9]+?)(?:-(\d+)G[Bi]*)?", text)
        kind = None if match is None else match[2].upper()
        if match is None or kind not in PEAK or match[1] == "0":
            raise UserError(
                f"--for is such as 64xH100-80G: GPUs, their kind ({', '.join(PEAK)}) and the "
                f"memory of each, got {text!r}"
            )
        return cls(int(match[1] or 1), kind, int(match[3] or MEMORY[kind]) * 2**30)


class Cost(NamedTuple):
    """activations: bytes of a step beside weights and their state, in half precision. flops: of
    both passes of an image."""

    activations: Course
    flops: float


class Way(NamedTuple):
    """One way to lay a training out. state: bytes on each GPU before a step, and of gradients that
    are there all the time. room: images that a GPU has room for. traffic: bytes that a GPU sends in
    a step."""

    name: str
    state: float
    cost: Cost
    room: int
    traffic: int

    def need(self, images: int) -> float:
        """Bytes on a GPU at the peak of a step."""
        return self.state + self.cost.activations.at(images)


def cost(method: Method, few: Batch, more: Batch, alone: bool) -> Cost:
    """Count an image, in bfloat16 as GPUs would; the method is left without gradients.

    Args:
        method: that is trained.
        few, more: images.
        alone: as of `counted`.
    """

    def context() -> torch.autocast:
        return torch.autocast(few.index.device.type, torch.bfloat16)

    less, _ = counted(method, few, context, alone)
    most, flops = counted(method, more, context, alone)
    images = len(few.index), len(more.index)
    return Cost(course(less, most, images), flops / images[1])


def ways(method: Method, few: Batch, more: Batch, on: Machines, optimizer: str) -> list[Way]:
    """How the training may be laid out on these machines, the simplest way first.

    Args:
        method: what is trained, on any device; it is left as it is.
        few, more: images.
        on: the machines.
        optimizer: by its name.
    """
    alone = on.count == 1
    learned = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    buffers = sum(b.nbytes for b in method.buffers())
    state = standing(method, optimizer_states(optimizer), alone)
    # of weights that are whole for a moment, gradients are, too
    parted = state / on.count + buffers + 2 * gathered(method)
    whole = state + buffers
    with rehearsed(method) as twin:
        twin.train()
        plain = cost(twin, few, more, alone)
        again = cost(twin, few, more, alone) if recompute(twin) else None
    found = []
    for name, held, sent in (("", whole, 2 * learned), ("--shard", parted, 3 * learned)):
        if name and (alone or not (method.needs.shards and blocks(method))):
            continue
        for added, each in (("", plain), ("--recompute", again)):
            if each is not None:
                room = each.activations.images(USABLE * on.memory - held)
                words = " ".join(w for w in (name, added) if w)
                found.append(Way(words, held, each, room, sent))
    return found


def told(
    found: list[Way],
    on: Machines,
    *,
    batch: int,
    steps: int,
    making: float,
    many: str,
) -> dict[str, str]:
    """What is found, by name, in words.

    Args:
        found: ways to lay the training out.
        on: the machines.
        batch: images a step, over all GPUs.
        steps: of the training.
        making: seconds that a core needs to make the views of an image.
        many: what samples are called.
    """
    each = -(-batch // on.count)
    rows = {"machines": f"{on.count} x {on.gpu} with {amount(on.memory)} each"}
    for way in found:
        need, image = way.need(each), way.cost.activations.image(each)
        fits = "fits" if each <= way.room else "does not fit"
        rows[way.name or "as it is"] = (
            f"{fits}: {amount(need)} a GPU for {each} {many} ({amount(need - each * image)}, and "
            f"{amount(image)} an image); room for {way.room:,}"
        )
    fitting = [way for way in found if each <= way.room]
    best = fitting[0] if fitting else found[-1]
    second = each * best.cost.flops / (REACHED * PEAK[on.gpu])
    rows["time"] = (
        f"about {duration(steps * second)}: {steps:,} steps of {second:.3g} s at {REACHED:.0%} of "
        f"the peak, {best.cost.flops / 1e12:.3g} TFLOP an image"
        + (f", with {best.name}" if best.name else "")
    )
    if on.count > 1:
        rows["traffic"] = (
            f"{best.traffic / 1e9:.3g} GB a GPU and step, hidden behind it from "
            f"{8 * best.traffic / 1e9 / second:,.0f} Gbit/s on"
        )
    rows["views"] = (
        f"{batch / second:,.0f} {many}/s, which {max(1, batch / second * making):,.0f} cores like "
        "those here make"
    )
    if not fitting:
        rows["to do"] = _advice(found, on, batch)
    return rows


def _advice(found: list[Way], on: Machines, batch: int) -> str:
    """What fits instead."""
    roomy = max(found, key=lambda way: way.room)
    if not roomy.room:
        return f"{amount(roomy.need(0))} of weights and state alone do not fit: use more GPUs"
    count, how = -(-batch // roomy.room), f" with {roomy.name}" if roomy.name else ""
    return (
        f"--batch {roomy.room * on.count:,}{how}, {count:,} GPUs for this batch, or --accumulate "
        f"{-(-count // on.count)}, which some losses are another with"
    )
