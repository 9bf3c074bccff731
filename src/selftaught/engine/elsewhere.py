"""What a training needs on machines that are not here, from what is counted of it on this one.

Weights, gradients, optimizer state and what the forward pass keeps are counted; the time follows
from the operations and the share of their peak that GPUs reach in such trainings, which is assumed
and said.
"""

import re
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from selftaught.backbones.blocks import blocks, recompute
from selftaught.engine.estimate import (
    PEAK,
    amount,
    gathered,
    optimizer_states,
    rehearsed,
    state_bytes,
    summed,
    watched,
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
"""Of the memory: the rest is the driver's, the libraries', and what lies between blocks."""


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
    """Of an image. activations: bytes that the forward pass keeps, in half precision. flops: of
    both passes."""

    activations: float
    flops: float


class Way(NamedTuple):
    """One way to lay a training out. state: bytes on each GPU, whatever the batch. room: images
    that a GPU has room for. traffic: bytes that a GPU sends in a step."""

    name: str
    state: float
    cost: Cost
    room: int
    traffic: int


def cost(method: Method, few: Batch, more: Batch) -> Cost:
    """Count an image, in bfloat16 as GPUs would; the method gets no gradient.

    Args:
        method: that is trained.
        few, more: images. What two batches keep alike, such as weights in half precision, belongs
            to no image.
    """
    counter = FlopCounterMode(display=False)
    with torch.autocast(few.index.device.type, torch.bfloat16):
        # fused attention of CPUs is not counted
        with counter, sdpa_kernel(SDPBackend.MATH):
            summed(method.loss(few)).backward()
        method.zero_grad(set_to_none=True)
    counts = len(few.index), len(more.index)
    each = (_kept(method, more) - _kept(method, few)) / (counts[1] - counts[0])
    return Cost(each, counter.get_total_flops() / counts[0])


def _kept(method: Method, batch: Batch) -> int:
    with watched(method) as kept, torch.autocast(batch.index.device.type, torch.bfloat16):
        loss = summed(method.loss(batch))  # which holds what is counted
    found = kept()
    del loss
    return found


def ways(method: Method, few: Batch, more: Batch, on: Machines, optimizer: str) -> list[Way]:
    """How the training may be laid out on these machines, the simplest way first.

    Args:
        method: what is trained, on any device; it is left as it is.
        few, more: images.
        on: the machines.
        optimizer: by its name.
    """
    every = sum(p.nbytes for p in method.parameters())
    learned = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    buffers = sum(b.nbytes for b in method.buffers())
    state = state_bytes(method, optimizer_states(optimizer))
    # autocast keeps a copy of each weight in half precision until the step is done
    whole = state + every / 2 + buffers
    parted = state / on.count + buffers + 1.5 * gathered(method)
    with rehearsed(method) as twin:
        twin.train()
        plain = cost(twin, few, more)
        again = cost(twin, few, more) if recompute(twin) else None
    found = []
    for name, held, sent in (("", whole, 2 * learned), ("--shard", parted, 3 * learned)):
        if name and (on.count == 1 or not (method.needs.shards and blocks(method))):
            continue
        for added, each in (("", plain), ("--recompute", again)):
            if each is not None:
                room = max(0, int((USABLE * on.memory - held) / each.activations))
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
        need = way.state + each * way.cost.activations
        fits = "fits" if each <= way.room else "does not fit"
        rows[way.name or "as it is"] = (
            f"{fits}: {amount(need)} a GPU for {each} {many} ({amount(way.state)}, and "
            f"{amount(way.cost.activations)} an image); room for {way.room:,}"
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
        return f"{amount(roomy.state)} of weights and state alone do not fit: use more GPUs"
    count, how = -(-batch // roomy.room), f" with {roomy.name}" if roomy.name else ""
    return (
        f"--batch {roomy.room * on.count:,}{how}, {count:,} GPUs for this batch, or --accumulate "
        f"{-(-count // on.count)}, which some losses are another with"
    )
