"""An encoder beside its floors: raw pixels, and the same network untrained."""

import json
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from selftaught import export
from selftaught.backbones import Image
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.errors import UserError
from selftaught.evaluate.features import (
    Embeddings,
    Progress,
    device_for,
    one_pass,
    open_samples,
    resolve,
    running,
    small_pixels,
    untrained,
)
from selftaught.evaluate.scores import Score, knn, probe

ENCODER = "this encoder"
FLOORS = ("untrained", "pixels 8x8", "pixels 16x16")
"""The same network with fresh weights; raw pixels, the mean of each image removed."""


@dataclass(frozen=True)
class Margin:
    """How far the encoder is above the highest floor, in points, with its 95 % interval.

    The interval is of the difference on the same test samples (McNemar, 1947): narrower than what
    the two scores' own intervals suggest.
    """

    score: Score
    floor: str
    floor_score: Score

    @property
    def points(self) -> float:
        return self.score.value - self.floor_score.value

    @property
    def interval(self) -> tuple[float, float]:
        gained = int((self.score.correct & ~self.floor_score.correct).sum())
        lost = int((~self.score.correct & self.floor_score.correct).sum())
        n = self.score.n
        half = 196 / n * math.sqrt(gained + lost - (gained - lost) ** 2 / n)
        return self.points - half, self.points + half

    @property
    def verdict(self) -> Literal["above", "unclear", "below"]:
        """`unclear` where the interval holds zero."""
        low, high = self.interval
        return "above" if low > 0 else "below" if high < 0 else "unclear"

    def __str__(self) -> str:
        low, high = self.interval
        head = (
            f"By {self.score.name}: {self.score.value:.1f} %, highest floor "
            f"{self.floor_score.value:.1f} % ({self.floor}), "
        )
        noise = f"95 % interval {low:+.1f} to {high:+.1f}, {self.score.n} test images"
        if self.verdict == "above":
            return f"{head}which it clears by {self.points:.1f} points ({noise})."
        if self.verdict == "below":
            return f"{head}{-self.points:.1f} points more ({noise})."
        return f"{head}a difference of {self.points:+.1f} points, within the noise ({noise})."


@dataclass(frozen=True)
class Comparison:
    """Scores of an encoder and of its floors, on the same samples.

    scores: what was scored -> its k-NN and its probe. skipped: samples that could not be read.
    seconds: all in all.
    """

    encoder: str
    scores: dict[str, tuple[Score, Score]]
    skipped: int
    seconds: float

    @property
    def margins(self) -> tuple[Margin, ...]:
        """Of the k-NN and of the probe."""
        return tuple(
            Margin(ours, *max(zip(FLOORS, theirs), key=lambda pair: pair[1].value))
            for ours, *theirs in zip(*(self.scores[name] for name in (ENCODER, *FLOORS)))
        )

    @property
    def verdict(self) -> str:
        """What the scores say, in sentences."""
        kinds = {m.verdict for m in self.margins}
        if kinds == {"above"}:
            head = "It learned: both scores clear their floors."
        elif "above" in kinds:
            head = "It learned something: one of two scores clears its floor."
        elif kinds == {"below"}:
            head = "It did not learn: raw pixels or an untrained network do better."
        else:
            head = "It cannot be said to have learned: no score clears its floor."
        return " ".join([head, *map(str, self.margins)])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for YAML and JSON."""
        return {
            "encoder": self.encoder,
            "verdict": self.verdict,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 2),
            "margins": [
                {
                    "score": m.score.name,
                    "floor": m.floor,
                    "points": round(m.points, 2),
                    "interval": [round(v, 2) for v in m.interval],
                    "verdict": m.verdict,
                }
                for m in self.margins
            ],
            "scores": [
                {
                    "features": name,
                    "score": score.name,
                    "value": round(score.value, 2),
                    "interval": [round(v, 2) for v in score.interval],
                    "n": score.n,
                    "protocol": score.protocol,
                    "seconds": round(score.seconds, 2),
                }
                for name, pair in self.scores.items()
                for score in pair
            ],
        }

    def save(self, path: Path) -> None:
        """Write `as_dict` as JSON, whole or not at all."""
        with export.atomic(path) as temporary:
            temporary.write_text(json.dumps(self.as_dict(), indent=2) + "\n", "utf-8")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(title=self.encoder, title_justify="left")
        table.add_column("features")
        for score in self.scores[ENCODER]:
            table.add_column(f"{score.name} %", justify="right")
            table.add_column("95 %", justify="right", style="dim")
        for name, pair in self.scores.items():
            cells = [(f"{s.value:.1f}", "{:.1f} to {:.1f}".format(*s.interval)) for s in pair]
            style = "bold" if name == ENCODER else None
            table.add_row(name, *(c for cell in cells for c in cell), style=style)
        yield table
        for score in self.scores[ENCODER]:
            yield f"{score.name}: {score.protocol}."
        yield f"Pixels: the mean of each image removed. Intervals: 95 %. {self.seconds:.0f} s."
        yield self.verdict


def compare(
    encoder: Image | str | Path,
    train: Any,
    test: Any = None,
    *,
    labels: str | None = None,
    k: int = 20,
    temperature: float = 0.07,
    size: int | None = None,
    batch: int = 256,
    workers: int | None = None,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """k-NN and probe of an encoder and of three floors; each image is read once for all of them.

    Args:
        encoder, size, batch, workers, device, precision, progress: as of `embed`.
        train, test: labelled data, as of `embed`; without `test` a fifth of `train` is held out.
        labels: CSV of path,label or name of a column.
        k, temperature: of `knn`.
        seed: of the untrained network, and of the probe's choice of strength.

    Raises:
        UserError: labels are missing, or an argument cannot work.
        DataError: no sample can be read.
        TrainingError: features are not finite.
    """
    start = time.perf_counter()
    network = resolve(encoder, size)
    given = [open_samples(d, labels, network.channels) for d in (train, test) if d is not None]
    sets = [_labelled(samples) for samples in given]
    where = device_for(encoder, network, device)
    found: list[list[Embeddings]] = []
    with ExitStack() as stack:
        networks = [
            stack.enter_context(running(network, where, precision)),
            stack.enter_context(running(untrained(network, seed), where, precision)),
            small_pixels(8),
            small_pixels(16),
        ]
        for samples in sets:
            features, rest = one_pass(
                networks, samples, size or network.size, batch, workers, progress
            )
            found.append([Embeddings(f, *rest) for f in features])
    scores = {
        name: (knn(*data, k=k, temperature=temperature), probe(*data, seed=seed))
        for name, *data in zip((ENCODER, *FLOORS), *found)
    }
    origin = "" if isinstance(encoder, Image) else f" from {encoder}"
    return Comparison(
        encoder=f"{network.name}, {size or network.size} px{origin}",
        scores=scores,
        skipped=sum(len(f[0].skipped) for f in found),
        seconds=time.perf_counter() - start,
    )


def _labelled(samples: Samples) -> Samples:
    """The samples that have labels; no others are read."""
    known = [] if samples.labels is None else np.flatnonzero(np.asarray(samples.labels) >= 0)
    if not len(known):
        raise UserError(
            "scores need labels, and this data has none: sort the images into one folder a class, "
            "or name a column or a CSV of path,label with labels"
        )
    return samples if len(known) == len(samples) else select(samples, known)
