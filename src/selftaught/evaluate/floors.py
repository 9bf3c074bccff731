"""An encoder beside its floors: as it began, the same network untrained, and raw pixels."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from selftaught import export
from selftaught.evaluate.few_labels import Saving, savings
from selftaught.evaluate.scores import Score, difference
from selftaught.nouns import worded
from selftaught.sides import Size
from selftaught.verdict import RECALIBRATED, START, Kind, advice, by_margins

ENCODER, INTERVAL = "this encoder", "95 %"
UNTRAINED = "untrained"
"""The same network with fresh weights, its norms' statistics of crops of these images."""

PLACES = ("untrained", "color and place")
"""Floors of segmentation: the same network; mean and deviation of each channel, row and column."""

STARTS = (START, RECALIBRATED)
"""The encoder as its training began: who wants to know whether it gained asks the better one."""

FINE_TUNED = "fine-tuned"
"""How the names of scores begin for which all of the encoder was trained, not a head alone."""

FEW = 3
"""Scores up to which the verdict tells of each; beyond, of those that are not above their floor."""


@dataclass(frozen=True)
class Margin:
    """How far the encoder is above the highest floor, in points, with its 95 % interval.

    The interval is of the difference on the same test samples (`difference`; for what is no share
    of samples, over the same resampled ones): narrower than what the two scores' own suggest.
    """

    score: Score
    floor: str
    floor_score: Score

    @property
    def points(self) -> float:
        return self.score.value - self.floor_score.value

    @property
    def interval(self) -> tuple[float, float]:
        ours, theirs = self.score, self.floor_score
        if ours.correct is not None and theirs.correct is not None:
            return difference(ours.correct, theirs.correct)
        assert ours.resampled is not None
        assert theirs.resampled is not None
        half = 1.96 * float((ours.resampled - theirs.resampled).std())
        return self.points - half, self.points + half

    @property
    def verdict(self) -> Kind:
        """`unclear` where the interval holds zero."""
        low, high = self.interval
        return "above" if low > 0 else "below" if high < 0 else "unclear"

    def __str__(self) -> str:
        low, high = (round(v, 2) for v in self.interval)  # as files have it
        ours, theirs = (f"{s.value:.1f} %" for s in (self.score, self.floor_score))
        head = f"By {self.score.name}: {ours}, highest floor {theirs} ({self.floor}), "
        noise = f"95 % interval {low:+.1f} to {high:+.1f}, {self.score.n} test images"
        if self.floor in STARTS:
            head = f"By {self.score.name}: {ours}, {self.floor} {theirs}, "
            if self.verdict != "unclear":
                word = "better" if self.verdict == "above" else "worse"
                return f"{head}{word} by {abs(self.points):.1f} points ({noise})."
        if self.verdict == "above":
            return f"{head}which it clears by {self.points:.1f} points ({noise})."
        if self.verdict == "below":
            return f"{head}{-self.points:.1f} points above this encoder ({noise})."
        return f"{head}a difference of {self.points:+.1f} points, within the noise ({noise})."


@dataclass(frozen=True)
class Comparison:
    """Scores of an encoder and of its floors, on the same samples.

    scores: what was scored -> its scores, in one order; not every floor has all of them. skipped:
    samples that could not be read. seconds: all in all. images: fingerprints of the images and
    labels of `train` and `test`, the same where a part of one is held out. size: side of the views
    in pixels. about: how floors were made.
    """

    encoder: str
    scores: dict[str, tuple[Score, ...]]
    skipped: int
    seconds: float
    images: Mapping[str, str] = field(default_factory=dict)
    size: Size | None = None
    about: str = ""

    @property
    def margins(self) -> tuple[Margin, ...]:
        """Of each score that a floor has too."""
        return tuple(
            Margin(ours, *max(theirs.items(), key=lambda pair: pair[1].value))
            for ours in self.scores[ENCODER]
            if (theirs := self._floors(ours.name))
        )

    @property
    def gains(self) -> tuple[Margin, ...]:
        """How far each score is above that of the encoder as it began, where that was scored."""
        return tuple(
            Margin(ours, *max(theirs.items(), key=lambda pair: pair[1].value))
            for ours in self.scores[ENCODER]
            if (theirs := {n: s for n, s in self._floors(ours.name).items() if n in STARTS})
        )

    @property
    def savings(self) -> tuple[Saving, ...]:
        """How many labels the encoder saves, where it was scored with several numbers of them."""
        found: list[Saving] = []
        for tuned in (False, True):
            curves = [
                [s for s in scores if s.name.startswith(FINE_TUNED) == tuned]
                for scores in self.scores.values()
            ]
            found += savings(curves[0], curves[1:])
        return tuple(found)

    @property
    def verdict(self) -> str:
        """What the scores say, in sentences."""
        word, clause = by_margins(_plain(self.margins), _plain(self.gains))
        return worded(" ".join([f"{word.capitalize()}: {clause}.", *self.details]))

    @property
    def details(self) -> tuple[str, ...]:
        """How far scores are from their floors: of each, or of those that are not above theirs."""
        margins = self.margins
        told = [*self.gains, *(m for m in margins if m.floor not in STARTS)]
        todo = advice(_plain(self.gains))
        if len(margins) <= FEW:
            return tuple(worded(str(m)) for m in (*told, *todo))
        lost = [m for m in told if m.verdict != "above"]
        others = ", ".join(dict.fromkeys(m.score.name for m in lost[FEW:]))
        rest = [f"Nor do these clear theirs: {others}."] if others else []
        return tuple(worded(str(m)) for m in (*lost[:FEW], *rest, *todo))

    def joined(self, other: "Comparison") -> "Comparison":
        """The scores of both, of the same encoder."""
        names = dict.fromkeys((*self.scores, *other.scores))
        return replace(
            self,
            scores={n: self.scores.get(n, ()) + other.scores.get(n, ()) for n in names},
            skipped=max(self.skipped, other.skipped),
            seconds=self.seconds + other.seconds,
        )

    def _floors(self, name: str) -> dict[str, Score]:
        """The score called `name` of each floor that has it."""
        return {
            floor: score
            for floor, scores in self.scores.items()
            for score in scores
            if floor != ENCODER and score.name == name
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for YAML and JSON."""
        return {
            "encoder": self.encoder,
            "verdict": self.verdict,
            "details": list(self.details),
            "skipped": self.skipped,
            "seconds": round(self.seconds, 2),
            "images": dict(self.images),
            "size": self.size,
            "settings": {s.name: dict(s.settings) for s in self.scores[ENCODER] if s.settings},
            "margins": _plain(self.margins),
            "gains": _plain(self.gains),
            "scores": [
                {
                    "features": name,
                    "score": score.name,
                    "value": round(score.value, 2),
                    "interval": [round(v, 2) for v in score.interval],
                    "n": score.n,
                    "protocol": score.protocol,
                    "seconds": round(score.seconds, 2),
                    "measure": score.measure,
                    "parts": {part: round(value, 2) for part, value in score.parts.items()},
                    "labels": score.labels,
                }
                for name, scores in self.scores.items()
                for score in scores
            ],
            "savings": [
                {
                    "score": s.name,
                    "labels": s.labels,
                    "value": round(s.value, 2),
                    "needed": round(s.needed, 1),
                    "saved": round(s.saved, 1),
                    "at_least": s.bounded,
                    "utility": round(s.utility, 3),
                }
                for s in self.savings
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write `as_dict` as JSON, whole or not at all."""
        with export.atomic(path) as temporary:
            temporary.write_text(json.dumps(self.as_dict(), indent=2) + "\n", "utf-8")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.table
        yield self.verdict

    def _repr_html_(self) -> str:
        return f"{self.html}<p><b>{escape(self.verdict)}</b></p>"

    @property
    def table(self) -> Iterator[Table | str]:
        """Scores beside floors, and how they were made, without a verdict: parts for rich."""
        # with a start among the floors 80 columns just do
        table = Table(title=self.encoder, title_justify="left", pad_edge=START not in self.scores)
        headings, *rows = self._rows()
        table.add_column(headings[0])
        for name in headings[1:]:
            style = {ENCODER: "bold", INTERVAL: "dim"}.get(name, "")
            heading = name if name == INTERVAL else "\n".join(name.rsplit(" ", 1))  # narrow
            table.add_column(heading, justify="right", style=style, no_wrap=True)
        for row in rows:
            table.add_row(*row)
        yield table
        yield from self._notes()

    @property
    def html(self) -> str:
        """The same for a notebook."""
        headings, *rows = (map(escape, row) for row in self._rows())
        head = "".join(f"<th>{heading}</th>" for heading in headings)
        body = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
        notes = "<br>".join(map(escape, self._notes()))
        return (
            f"<table><caption>{escape(self.encoder)}</caption><tr>{head}</tr>"
            f"<tr>{'</tr><tr>'.join(body)}</tr></table><p><small>{notes}</small></p>"
        )

    def _rows(self) -> Iterator[list[str]]:
        """Cells of a table: headings, then each score of the encoder beside its floors."""
        floors = [name for name in self.scores if name not in (ENCODER, RECALIBRATED)]
        yield ["per cent", ENCODER, INTERVAL, *floors]
        for score in self.scores[ENCODER]:
            theirs = self._floors(score.name)
            yield [
                score.name,
                f"{score.value:.1f}",
                "{:.1f} to {:.1f}".format(*score.interval),
                *(f"{theirs[name].value:.1f}" if name in theirs else "" for name in floors),
            ]

    def _notes(self) -> Iterator[str]:
        """How the scores were made."""
        ours = self.scores[ENCODER]
        tasks = Counter(score.protocol.partition("; ")[0] for score in ours)
        common = tasks.most_common(1)[0][0]  # which is told once
        yield worded(f"Images: {common}.")
        for score in ours:
            how = score.protocol.removeprefix(f"{common}; ")
            yield worded(f"{score.name}, per cent {score.measure}: {how}.")
            if score.parts:
                parts = (f"{part} {value:.1f}" for part, value in score.parts.items())
                yield f"  {', '.join(parts)}"
        if again := self.scores.get(RECALIBRATED):
            values = (f"{score.name} {score.value:.1f}" for score in again)
            yield f"{RECALIBRATED.capitalize()} (norm statistics of crops of these images): " + (
                f"{', '.join(values)}."
            )
        for saving in self.savings:
            yield f"{saving}."
        yield f"{self.about}Intervals: 95 %. {self.seconds:.0f} s."


def _plain(margins: tuple[Margin, ...]) -> list[dict[str, Any]]:
    """Margins as YAML and JSON hold them."""
    return [
        {
            "score": m.score.name,
            "floor": m.floor,
            "points": round(m.points, 2),
            "interval": [round(v, 2) for v in m.interval],
            "verdict": m.verdict,
        }
        for m in margins
    ]
