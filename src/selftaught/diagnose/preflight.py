"""What is known of a training before its first step."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import nn

from selftaught import kinds
from selftaught.augment import View
from selftaught.choose import is_transformer
from selftaught.data import Samples
from selftaught.diagnose.before import REFUSED, Before, Movement
from selftaught.diagnose.images import look, others
from selftaught.errors import UserError
from selftaught.masks import average_distance
from selftaught.method import Method, Recipe
from selftaught.sides import Size, both, short
from selftaught.signature import valued

PROBED, FEWEST = 200, 80
"""Images that are read: a hundredth of those that the training reads, from the second of these
numbers to the first. It depends on no clock, so that the same data gives the same findings."""

DRAWN = 16
"""Masks that are drawn to tell how far apart hidden and seen pixels are."""

RATES = 1000
"""Steps whose learning rate is looked at."""


class Rates(Protocol):
    """What a training's rates are made of; see `engine.optim.Rates`."""

    recipe: Recipe

    def lr(self, step: int) -> float:
        """Of a step, counted from 0."""
        ...

    def weight_decay(self, step: int) -> float:
        """Of a step, counted from 0."""
        ...


def known(
    method: Method,
    rates: Rates,
    *,
    images: int,
    size: Size,
    batch: int,
    steps: int,
    views: Any = None,
    paper_lr: tuple[float, float] | None = None,
) -> Before:
    """Gather what rules before the first step look at, but for the images: none is read.

    Args:
        method: that will be trained.
        rates: of each step.
        images: samples in the dataset.
        size: of the views in pixels.
        batch: samples that are compared at once.
        steps: of the training.
        views: the pipeline that makes them.
        paper_lr: the paper's peak rate, its own and for this batch; None for another optimizer.
    """
    at = np.linspace(0, steps - 1, min(steps, RATES)).astype(int)
    lrs = [rates.lr(int(step)) for step in at]
    half = sum(p.numel() for p in method.parameters() if p.element_size() < 4)
    made = [*_views(views)]
    return Before(
        method=type(method).__name__,
        settings=tuple(valued(method)),
        images=images,
        batch=batch,
        compares=method.needs.batch > 1,
        steps=steps,
        optimizer=str(rates.recipe.optimizer),
        transformer=is_transformer(str(getattr(method.backbone, "name", ""))),
        lr=max(lrs),
        paper_lr=paper_lr,
        top=float(at[int(np.argmax(lrs))]) / steps,
        movement=movement(method, rates, at, steps),
        copy=bool(method.insight.copies),
        size=short(size),
        crop=min(
            (v.scale[1] for v in made if all(a >= b for a, b in zip(v.shape, both(size)))),
            default=1.0,
        ),
        jitter=max((max(v.jitter[:3]) for v in made), default=0.0),
        dropped=max(map(_dropped, method.modules()), default=0.0),
        half=half / max(1, sum(p.numel() for p in method.parameters())),
        apart=apart(method, size),
    )


def apart(method: Method, size: Size) -> float | None:
    """How far what is hidden lies from what is seen, as a share of the shorter side, or None."""
    if not method.insight.hides:
        return None
    draws = np.random.default_rng(0)
    masks = np.stack([getattr(method, method.insight.hides)(draws) for _ in range(DRAWN)])
    height, width = both(size)
    cell = max(1, height // masks.shape[1]), max(1, width // masks.shape[2])
    return average_distance(masks, cell) / short(size)


def preflight(samples: Samples, facts: Before) -> Before:
    """What is known of the settings, and what the images show; at most `PROBED` are read."""
    most = min(PROBED, max(FEWEST, facts.steps * facts.batch // 100))
    kind = kinds.of(samples)
    looks = look(samples, most) if kind.photos else others(samples, kind, most)
    return replace(facts, looks=looks, shares=shares(samples.labels))


def refuse(facts: Before) -> None:
    """Raise UserError where the settings cannot train anything."""
    for rule in REFUSED:
        if rule.broken(facts):
            found = rule.finding(facts)
            raise UserError(f"{found.says}: {'; '.join(found.causes)}; {found.remedy}")


def shares(labels: np.ndarray | None) -> tuple[float, ...]:
    """Of the labeled images, those of each class, the largest first."""
    counts = np.bincount(labels[labels >= 0]) if labels is not None else np.zeros(0)
    return tuple(sorted((counts[counts > 0] / max(1, counts.sum())).tolist(), reverse=True))


def movement(method: Method, rates: Rates, at: np.ndarray, steps: int) -> Movement:
    """How far a training can take the weights, by what its optimizer does; see `Movement`.

    Args:
        method, rates: of the training.
        at: steps to look at, evenly over all of them.
        steps: of the training.
    """
    recipe, weights = rates.recipe, [p for p in method.parameters() if p.requires_grad]
    count = sum(p.numel() for p in weights)
    length = math.sqrt(sum(float(p.detach().float().square().sum()) for p in weights))
    if not (count and length and isinstance(recipe.optimizer, str)):
        return Movement()
    each = length / math.sqrt(count)
    lr = np.array([rates.lr(int(step)) for step in at])
    decay = np.array([rates.weight_decay(int(step)) for step in at])
    long = 1 / max(1e-3, 1 - recipe.momentum)  # momentum adds up steps
    match recipe.optimizer:
        case "sgd":
            away, clip = lr * decay * long, recipe.clip
            most = lr * long * clip / length if clip else None
        case "adamw" | "adamw_bert":
            away, most = lr * decay, lr / each  # no weight goes further than the rate in a step
        case "adam":  # whose decay is a gradient like others
            away, most = np.where(decay > 0.1, lr / each, 0.0), lr / each
        case "lamb":
            away, most = np.zeros(len(lr)), lr
        case _:  # LARS: in proportion to the weights
            away = np.where(decay > 0.1, lr * recipe.eta * long, 0.0)
            most = lr * recipe.eta * long
    tiny = recipe.clip / math.sqrt(count) if recipe.clip and "adam" in recipe.optimizer else None
    return Movement(
        decay=float(away.max()),
        left=math.exp(-float(away.mean()) * steps),
        way=None if most is None else float(most.mean()) * steps,
        clipped=tiny,
    )


def _views(made: Any) -> Iterator[View]:
    """Every declared view in a pipeline."""
    if isinstance(made, View):
        yield made
    elif isinstance(made, tuple | list):
        for each in made:
            yield from _views(each)
    elif is_dataclass(made):
        for field in fields(made):
            yield from _views(getattr(made, field.name))


def _dropped(module: nn.Module) -> float:
    """Share that a module drops: of numbers, or of branches."""
    rate = module.p if isinstance(module, nn.modules.dropout._DropoutNd) else 0.0
    return float(getattr(module, "drop_prob", None) or rate)
