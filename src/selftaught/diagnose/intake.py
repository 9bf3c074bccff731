"""What a network receives in a step, beside the views that its method was handed, and what its
batch norms keep of that: nothing of it needs a word from the method."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selftaught.augment.pipeline import tensors
from selftaught.diagnose.hooks import keep_gradient
from selftaught.method import Method

NORMS = 4
"""Batch norms that are looked at, from the first to the last."""

FOUND = 0.9
"""Share of the images in what a network receives that must be found again among the views."""

SAME = 0.999
"""Correlation from which two channels show the same."""

SMALL = 8
"""Pixels that an image has at least."""

COMPARED = 16
"""Images whose channels are compared."""


@dataclass
class Intake:
    """What entered the first convolutions of a method in one step, and its batch norms.

    Args:
        handed: views [B, C, H, W] as the loss got them.
        received: inputs [N, C, H, W] of each call of a convolution on images, as they came.
        features: outputs [N, D] of the encoder, detached.
        slopes: gradients of the loss there, by the number of the output.
        followed: share of the way to the batch's mean that running means went in their first call.
        calls: of the batch norms in the step.
    """

    handed: list[Tensor]
    received: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    slopes: dict[int, Tensor] = field(default_factory=dict)
    followed: list[Tensor] = field(default_factory=list)
    calls: int = 0
    handles: list[Any] = field(default_factory=list)

    def close(self) -> None:
        """Stop listening."""
        for handle in self.handles:
            handle.remove()

    def facts(self, steps: int) -> dict[str, float]:
        """Fields of `Exam`, for a training of so many steps."""
        found = self.order() | self.twice() if len(self.handed) > 1 else {}
        if self.followed:
            least = torch.stack(self.followed).nan_to_num(1.0).amin().clamp(0, 1).item()
            found["left"] = (1 - least) ** (steps * self.calls / len(self.followed))
        return found | self.changed()

    def order(self) -> dict[str, float]:
        """How many images stand in another place than in the first view that is received."""
        size = len(self.handed[0])
        known = [(x.shape[1:], fingerprints(x)) for x in self.handed if len(x) == size]
        orders: list[Tensor] = []
        for x in self.received:
            if len(x) % size:
                continue
            for block in fingerprints(x).split(size):
                for shape, prints in known:
                    same = block[:, None] == prints
                    only = same.sum(1) == 1  # images that look alike tell nothing
                    if shape == x.shape[1:] and only.double().mean() >= FOUND:
                        orders.append(torch.where(only, same.int().argmax(1), -1))
                        break
        shifted = [((a != orders[0]) & (a >= 0) & (orders[0] >= 0)).double() for a in orders[1:]]
        return {"shifted": torch.stack(shifted).mean(1).amax().item()} if shifted else {}

    def twice(self) -> dict[str, float]:
        """Share of the images of a batch that are received twice, pixel by pixel."""
        size = len(self.handed[0])
        shares = []
        for x in self.received:
            for images in x.split(size) if len(x) % size == 0 else ():
                if images.shape[1:] in {v.shape[1:] for v in self.handed}:
                    # where all that is taken of it is one color, others may be as saturated
                    seen = _sampled(images).flatten(2)
                    prints = fingerprints(images[(seen != seen[..., :1]).flatten(1).any(1)])
                    shares.append((len(prints) - len(prints.unique())) / size)
        return {"twice": max(shares)} if shares else {}

    def two(self, rows: list[Tensor]) -> tuple[Tensor, Tensor] | None:
        """[B, D] of the first two views, of what was made of each view [N, D], in their order; None
        where it cannot be told which are whose."""
        size = len(self.handed[0]) if self.handed else 0
        whole = [x for x in self.handed if len(x) == size]
        if len(whole) < 2 or len(whole) < len(self.handed) or not rows or rows[0].ndim != 2:
            return None
        if sum(map(len, rows)) != size * len(whole) or len({x.shape[1:] for x in rows}) > 1:
            return None
        a, b, *_ = torch.cat(rows).split(size)
        return a, b

    def each(self, rows: Tensor, views: int = 1) -> Tensor:
        """One row of each image and view, of [views * B * K, D]."""
        parts = len(rows) // (views * len(self.handed[0])) if self.handed else 1
        return rows[:: max(1, parts)]

    def changed(self) -> dict[str, float]:
        """What was done to the channels of views on their way; nothing where they are as they were.

        Only of what still shows a view, image by image: a mixture or a mask is the method's affair.
        """
        for x in self.received:
            alike = [v for v in self.handed if v.shape[1:] == x.shape[1:] and len(v) <= len(x)]
            pairs = [(_sparse(x[: len(v)]), _sparse(v)) for v in alike]
            if any(a.equal(b) for a, b in pairs):
                continue
            for pair in pairs:
                a, b = (y.transpose(0, 1).flatten(1) for y in pair)
                between = torch.corrcoef(torch.cat([a, b]))[: len(a), len(a) :]
                best, own = between.amax(1), between.diagonal()
                if bool((best > SAME).all()):
                    ratio = a.std(1) / b[between.argmax(1)].std(1)
                    return {
                        "swapped": (own < SAME).sum().item(),
                        "rescaled": ratio.log10().abs().amax().item(),
                    }
        return {}


def listen(method: Method, views: Any) -> Intake:
    """Listen until `Intake.close` is called; nothing that is computed is changed."""
    floats = [x for x in tensors(views) if x.is_floating_point()]
    handed = [x for x in floats if x.ndim == 4 and x.shape[-1] >= SMALL]  # no boxes
    intake = Intake(handed)
    channels = {x.shape[1] for x in handed}

    def receive(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        intake.received.append(inputs[0].detach())

    def give(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 2:
            if output.requires_grad:
                keep_gradient(output, intake.slopes, len(intake.features))
            intake.features.append(output.detach())

    for module in method.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels in channels:
            intake.handles.append(module.register_forward_pre_hook(receive))
    intake.handles.append(method.encoder.register_forward_hook(give))
    norms = [m for m in method.encoder.modules() if isinstance(m, _BatchNorm) and _follows(m)]
    for norm in norms[:: -(-len(norms) // NORMS) or 1]:
        _follow(norm, intake)
    return intake


def _follows(norm: _BatchNorm) -> bool:
    """Whether it is to go towards the batch by a fixed share, in which it can be too slow."""
    return norm.training and norm.running_mean is not None and norm.momentum is not None


def _follow(norm: _BatchNorm, intake: Intake) -> None:
    before: list[Tensor] = []
    called: list[int] = []

    @torch.no_grad()
    def enter(module: Any, _: Any) -> None:
        intake.calls += 1
        if not called:
            before.append(module.running_mean.float().clone())

    @torch.no_grad()
    def leave(module: Any, inputs: tuple[Tensor, ...], _: Any) -> None:
        if called:
            return
        called.append(1)
        x = inputs[0].float()
        goal = x.mean([d for d in range(x.ndim) if d != 1]) - before[0]
        way = module.running_mean.float() - before[0]
        intake.followed.append((way @ goal) / (goal @ goal))

    intake.handles.append(norm.register_forward_pre_hook(enter))
    intake.handles.append(norm.register_forward_hook(leave))


def _sparse(images: Tensor) -> Tensor:
    """A few of [N, C, H, W] and of their pixels."""
    height, width = images.shape[-2:]
    return images[:COMPARED, :, :: -(-height // 32), :: -(-width // 32)].float().cpu()


def _sampled(images: Tensor) -> Tensor:
    """Some pixels of [N, C, H, W], all over each image."""
    height, width = images.shape[-2:]
    return images[..., height // 8 :: -(-height // 5), width // 8 :: -(-width // 5)]


def fingerprints(images: Tensor) -> Tensor:
    """[N, C, H, W] -> int64 [N], the same for the same image alone: of some of its pixels, exactly,
    whatever place it has in a batch."""
    bits = _sampled(images).flatten(1).float().contiguous().view(torch.int32).long()
    places = torch.arange(1, bits.shape[1] + 1, device=bits.device)
    return (bits * (places * 2654435761 + 1)).sum(1).cpu()


def outside(images: Tensor, mean: Any, std: Any) -> float:
    """Share of the pixels of normalized [N, C, H, W] that no image has: below 0 or above 1, by a
    tenth at least, before they were normalized. All of them where they never were: where they go
    from 0 to 1 and normalized ones would not. NaN where mean and std are for other channels."""
    if len(mean) not in (1, images.shape[1]):
        return math.nan
    low, high = (float(x) for x in images.aminmax())
    if 0 <= low < 0.02 and 0.9 < high <= 1 and min(mean) > 0.1:
        return 1.0
    mean, std = (torch.as_tensor(v, device=images.device).view(-1, 1, 1) for v in (mean, std))
    pixels = images.float() * std + mean
    return ((pixels < -0.1) | (pixels > 1.1)).double().mean().item()


def gap(trained: Tensor, evaluated: Tensor) -> float:
    """How far features [N, D] of a network in evaluation are from those in training of the same
    images, as a fraction of how far these are from their mean; NaN where they are all alike."""
    spread = (trained - trained.mean(0)).norm()
    return ((evaluated - trained).norm() / spread).item() if spread > 0 else math.nan
