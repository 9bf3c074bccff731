"""Anchors: terms around the loss of any method that keep its network near the one it began as."""

import copy
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selftaught.augment.pipeline import tensors
from selftaught.backbones import Encoder
from selftaught.errors import UserError
from selftaught.method import Batch, Method, terms_of
from selftaught.objectives import anchors

KINDS = ("cosine", "gram", "l2sp")


class Asked(NamedTuple):
    """weight: of an anchor. since: fraction of training done from which on it counts."""

    weight: float
    since: float = 0.0


def weights(asked: tuple[str, ...]) -> dict[str, Asked]:
    """What is asked of each kind of anchor, by `cosine:1.0,gram:2@0.25`.

    Raises:
        UserError: it is not written so, a kind is unknown or named twice.
    """
    found: dict[str, Asked] = {}
    for text in asked:
        word, at, last = text.strip().partition("@")
        kind, colon, number = word.partition(":")
        try:
            weight, share = float(number if colon else "1"), float(last if at else "1")
        except ValueError:
            weight = share = -1.0
        wrong = not 0 < weight < float("inf") or not 0 < share <= 1
        if kind not in KINDS or kind in found or wrong:
            raise UserError(
                f"an anchor is one of {', '.join(KINDS)} and its weight above 0, each kind once, "
                "and, where it begins late, @ and the share of training, its last part, in which "
                f"it counts, such as cosine:1.0,gram:2@0.25, got {text!r}"
            )
        found[kind] = Asked(weight, round(1 - share, 9))
    return found


def check(method: Method, asked: tuple[str, ...], begins: bool, in_parts: bool) -> None:
    """Refuse anchors that have nothing to hold to, or that a network has no features for.

    Args:
        method: to be trained.
        asked: as in `weights`.
        begins: whether there are weights to begin with.
        in_parts: whether one loss is computed of images that the backbone sees in parts.
    """
    found, image = weights(asked), method.encoder
    if not begins:
        raise UserError(
            f"an anchor ({', '.join(found)}) keeps a network near the weights that it begins with, "
            "and this one begins with random ones: name some with --start, --weights or "
            "--pretrained (a module of your own: Wrapped(module, trained=True)), or drop --anchor"
        )
    if "gram" in found and not image.has_local:
        raise UserError(
            f"the anchor gram compares features of places, and {image.name} gives pooled ones "
            "alone: use the anchor cosine, or a backbone that gives maps"
        )
    if "gram" in found and in_parts:
        raise UserError(
            "--effective-batch runs the backbone in parts for pooled features alone, and the "
            "anchor gram needs local ones: use --accumulate, or the anchor cosine"
        )


def anchored(
    method: Method, start: Encoder, asked: tuple[str, ...], device: torch.device
) -> Callable[[Batch], dict[str, Tensor]]:
    """The loss of `method` as it is now, with a term for each anchor.

    Features are those of the first images of a batch, by a pass of the backbone of their own, so
    that it does not matter what a method hides from it or cuts out.

    Args:
        method: whose backbone is kept near `start`.
        start: the encoder that training began with.
        asked: as in `weights`; what does not count yet is 0.
        device: of the training; `start` stays where it is.
    """
    kinds, inner = weights(asked), method.loss.__func__  # type: ignore[attr-defined]
    net: Any = copy.deepcopy(start)
    net.to(device)

    def loss(method: Method, batch: Batch) -> dict[str, Tensor]:
        terms = dict(terms_of(inner(method, batch)))
        now = {kind for kind, asked in kinds.items() if method.progress >= asked.since}
        found = {kind: batch.index.new_zeros((), dtype=torch.float32) for kind in kinds}
        if "l2sp" in now:
            found["l2sp"] = anchors.l2sp(_pairs(method.backbone, net))
        if now - {"l2sp"}:
            images, local = first_images(batch.views, net.channels), "gram" in now
            with torch.no_grad():
                goal = _features(net, images, local)
            ours = _features(method.backbone, images, local)
            pairs = zip(_OF_FEATURES, ours, goal)
            found |= {kind: f(a, b) for (kind, f), a, b in pairs if kind in now}
        return terms | {anchors.TERM + kind: kinds[kind].weight * x for kind, x in found.items()}

    return MethodType(loss, method)  # which is what Fabric takes for a method


_OF_FEATURES = (("cosine", anchors.cosine), ("gram", anchors.gram))
"""Of pooled and of local features."""


def _features(encoder: Any, images: Tensor, local: bool) -> tuple[Tensor, ...]:
    """Pooled features, and local ones where they are asked for."""
    return encoder.features(images)[:2] if local else (encoder(images),)


def _pairs(backbone: nn.Module, start: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """What is trained of the backbone, as its layers compute with it, beside the start."""
    for name, before in start.named_parameters():
        path, _, own = name.rpartition(".")
        weight: Tensor = getattr(backbone.get_submodule(path), own)
        if weight.requires_grad:
            yield weight, before


def first_images(views: Any, channels: int) -> Tensor:
    """The first images [N, channels, H, W] among the views of a batch."""
    for view in tensors(views):
        if view.ndim >= 4 and view.is_floating_point() and view.shape[-3] == channels:
            return view.flatten(0, -4)
    raise UserError("an anchor looks at images, and the views of this method have none")
