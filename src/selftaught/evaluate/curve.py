"""What looks at an encoder while it trained say: how it rose, where it was best, when to stop."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from selftaught import export
from selftaught.evaluate.scores import difference

log = logging.getLogger("selftaught")

FILE = "curve.jsonl"
"""In the run folder: a line with how it was looked, then one a look."""

BEST = "best"
"""Folder in the run folder: the encoder where its k-NN was highest."""

KNN, RANK = "k-NN", "RankMe"
"""Figure that chooses where labels are; figure that stands first where there are none."""

SURE = 3.0
"""Standard errors beyond which looks differ: they are many, and the best of them is compared."""

LEAST = 4
"""Looks without which nothing is said about when to stop."""


class Look(NamedTuple):
    """An encoder after some steps.

    figures: name -> value; scores in per cent. right: [M] bool, the held-out images that k-NN gets
    right; None without labels.
    """

    step: int
    figures: dict[str, float]
    right: np.ndarray | None = None


@dataclass
class Curve:
    """Looks at an encoder while it trains, on the same held-out images.

    Args:
        steps: of the training.
        at: steps after which it is looked at, 0 for before the first.
        most: images that were asked for.
        images: how many there are, by what they are for.
        floors: name -> figures of what an encoder is to be better than.
        began: whether the first look was at weights that knew something.
        looks: in the order of steps.
    """

    steps: int
    at: tuple[int, ...]
    most: int = 0
    images: Mapping[str, int] = field(default_factory=dict)
    floors: dict[str, dict[str, float]] = field(default_factory=dict)
    began: bool = False
    looks: list[Look] = field(default_factory=list)

    @property
    def labeled(self) -> bool:
        """Whether labels were there to look with."""
        return bool(self.looks) and self.looks[0].right is not None

    @property
    def best(self) -> Look | None:
        """The look with the highest k-NN, the first of equals; None where no figure can choose.

        Fresh weights are not among them: whoever began with those wants what was trained.
        """
        some = [x for x in self.looks if x.right is not None and (x.step or self.began)]
        return max(some, key=lambda x: x.figures[KNN], default=None)

    @property
    def label_free(self) -> tuple[float, float] | None:
        """RankMe at first and at the end; None where labels say more, or nothing can be said."""
        if self.labeled or len(self.looks) < 2 or self.looks[0].step:
            return None
        return self.looks[0].figures[RANK], self.looks[-1].figures[RANK]

    def points(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of a figure."""
        return [(x.step, x.figures[name]) for x in self.looks if name in x.figures]

    @property
    def advice(self) -> str:
        """When to stop, in a sentence or two; empty where there is nothing to say."""
        if len(self.looks) < 2:
            return ""
        first, last, best = self.looks[0], self.looks[-1], self.best
        if best is None:
            dims = f"from {first.figures[RANK]:.0f} to {last.figures[RANK]:.0f}"
            return (
                f"Without labels no figure can tell when to stop: the effective rank of the "
                f"features went {dims}; a few hundred labeled images (--labels) make a curve that "
                "can."
            )
        now = last.figures[KNN]
        way = f"k-NN went from {first.figures[KNN]:.1f} to {now:.1f} %"
        if len(self.looks) < LEAST:
            return f"{way} in {len(self.looks)} looks, too few to say when to stop."
        if sure(last, best) < 0:
            fell = f"k-NN was {best.figures[KNN]:.1f} % there and is {now:.1f} % now"
            if not best.step:
                return (
                    f"Worse than where it began: {fell}. The start is kept in {BEST}/; a lower "
                    "rate (--lr), --freeze or --anchor loses less of it."
                )
            return (
                f"Falling since step {best.step}: {fell}. Take the encoder in {BEST}/, or train "
                "again for so many steps, or with a lower rate (--lr), --freeze or --anchor."
            )
        if sure(last, first) < 0:  # fresh weights, which nobody would take
            return (
                f"Worse than untrained: {way}. What training has learned is not what these labels "
                "differ by; the doctor's findings and the views say more."
            )
        early = (x for x in self.looks if x.step <= 0.75 * self.steps)
        before = max(early, key=lambda x: x.step, default=first)
        if sure(last, before) > 0:
            return (
                f"Still rising: the last {1 - before.step / self.steps:.0%} of training gave "
                f"{now - before.figures[KNN]:+.1f} points of k-NN, which is {now:.1f} % now. Train "
                "longer: a larger --epochs with --resume."
            )
        flat = next(x for x in self.looks if sure(last, x) == 0)
        if not flat.step:
            return (
                f"Flat from the start: {way}, no more than noise on {len(last.right)} images. "  # type: ignore[arg-type]
                "Training has given nothing that they can tell."
            )
        return (
            f"Flat since step {flat.step}: {way}, and {now - flat.figures[KNN]:+.1f} points since "
            "then, no more than noise. Training longer gives little; so many steps would have done."
        )

    # file -----------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        head = {
            "steps": self.steps,
            "at": self.at,
            "most": self.most,
            "images": dict(self.images),
            "began": self.began,
            "floors": self.floors,
        }
        rows = [json.dumps(row, allow_nan=False) for row in (_finite(head), *map(_row, self.looks))]
        with export.atomic(path) as temporary:
            temporary.write_text("\n".join(rows) + "\n", "utf-8")


def read(path: Path) -> Curve | None:
    """What `save` wrote; None where it did not, or where that is damaged, which is told."""
    if not path.is_file():
        return None
    try:
        head, *rows = map(json.loads, path.read_text("utf-8").splitlines())
        floors = {str(n): _figures(f) for n, f in head["floors"].items()}
        at = tuple(map(int, head["at"]))
        looks = [_look(row) for row in rows]
        if len({None if x.right is None else len(x.right) for x in looks}) > 1:
            raise ValueError("its looks are not of the same images")
        if any((KNN if x.right is not None else RANK) not in x.figures for x in looks):
            raise ValueError("a look has no figure")
        return Curve(
            int(head["steps"]),
            at,
            int(head["most"]),
            {str(n): int(count) for n, count in head["images"].items()},
            floors,
            bool(head["began"]),
            looks,
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        log.warning("%s is damaged (%s) and is left out", path, error)
        return None


def sure(one: Look, other: Look, errors: float = SURE) -> float:
    """Points of k-NN that `one` is above `other` at least, negative where it is below; 0 where the
    difference is noise, or there are no labels.

    Args:
        errors: standard errors of the difference on the same images that are noise.
    """
    if one.right is None or other.right is None or len(one.right) != len(other.right):
        return 0.0
    low, high = difference(one.right, other.right, errors)
    return max(low, 0.0) + min(high, 0.0)


def _row(look: Look) -> dict[str, Any]:
    row: dict[str, Any] = {"step": look.step, **_finite(look.figures)}
    if look.right is not None:  # which images: differences are taken on the same ones
        row["right"] = [len(look.right), np.packbits(look.right).tobytes().hex()]
    return row


def _look(row: dict[str, Any]) -> Look:
    right, step = row.pop("right", None), int(row.pop("step"))
    if right is not None:
        count, text = right
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
        if not 0 < count <= len(bits):
            raise ValueError(f"{count} images in {len(bits)} bits")
        right = bits[:count].astype(bool)
    return Look(step, _figures(row), right)


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    return {str(n): math.nan if v is None else float(v) for n, v in row.items()}


def _finite(node: Any) -> Any:
    """With None for what JSON has no number for."""
    if isinstance(node, float) and not math.isfinite(node):
        return None
    if isinstance(node, dict):
        return {k: _finite(v) for k, v in node.items()}
    return node
