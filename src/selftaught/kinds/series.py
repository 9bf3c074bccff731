"""Series of numbers: float32 [channels, steps], standardized."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.series import files
from selftaught.errors import UserError
from selftaught.kinds import Facts, Floor, Kind
from selftaught.roles import Positive, Several

if TYPE_CHECKING:
    from torch import Tensor

    from selftaught.data import Samples
    from selftaught.data.source import Source

LEAST, MOST = 16, 512
"""Steps of a view, where nobody says how many: the middle length within these."""
LOOKED = 500
"""Series whose lengths and values are looked at."""


DRAWN = 192
"""Side of the picture of a view, as sharp as pages are."""


@dataclass(frozen=True)
class Series(Kind):
    """Measurements over time, of one channel or several.

    Args:
        window: steps that long recordings are cut into; by default each series is one sample.
        missing: whether series with missing values are refused, or have them on the line between
            their neighbors.

    Other Args:
        mean, std: of each channel, what values are standardized with; by default those of the data.
    """

    window: Several | None = None
    missing: Literal["refuse", "line"] = "refuse"
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None

    word = "series"
    one, many, unit, counted, axes = "series", "series", "steps", "steps", 3
    blank_words = "do not change"
    suffixes = frozenset({".csv", ".tsv", ".npy"})
    columns = ("series", "values", "signal", "x")
    encoder = "series.encoder:Series"
    backbone = "inception"
    translates = True
    about_floors = (
        "Random kernels: of 1,000, the share above a threshold and the maximum (ROCKET). "
    )

    def open(
        self,
        source: Any,
        column: str | None = None,
        labels: str | None = None,
        path_column: str | None = None,
    ) -> "Source":
        found = self._open(source, column, labels, path_column)
        if self.window is None:
            return found
        lengths = [parsed.shape[1] for parsed in map(self._parsed(found), range(len(found)))]
        cut = files.Windows(found, self.window, lengths)
        if not len(cut):
            raise UserError(
                f"the longest of {len(found)} series has {max(lengths, default=0)} steps, fewer "
                f"than a window of {self.window}: give a smaller --window"
            )
        return cut

    def _open(
        self, source: Any, column: str | None, labels: str | None, path_column: str | None
    ) -> "Source":
        if isinstance(source, np.ndarray):
            return files.SeriesSource(files.checked(source, "memory"))
        if isinstance(source, list | tuple) and source and not isinstance(source[0], str | Path):
            return files.listed(source)
        if isinstance(source, str | Path) and Path(source).is_file():
            path = Path(source)
            if path.suffix.lower() in files.ARRAYS:
                return files.array_file(path, column, labels)
        return super().open(source, column, labels, path_column)

    def _parsed(self, source: "Source") -> Any:
        return lambda i: files.parsed(source.load(i), source.name(i))

    def decode(self, raw: Any, name: str) -> np.ndarray:
        x = files.parsed(raw, name)
        bad = ~np.isfinite(x)
        if bad.any():
            x = self._filled(x, bad)
        if self.mean is None or self.std is None:
            return x
        if len(self.mean) not in (1, len(x)):
            raise BadSample(f"has {len(x)} channels, and the others have {len(self.mean)}")
        mean, std = (np.array(v, np.float32)[:, None] for v in (self.mean, self.std))
        return (x - mean) / std

    def _filled(self, x: np.ndarray, bad: np.ndarray) -> np.ndarray:
        if self.missing == "refuse" or bad.all(1).any():
            raise BadSample(
                f"has {int(bad.sum()):,} of {x.size:,} values that are missing or infinite; "
                "--missing line puts them on the line between their neighbors"
            )
        steps = np.arange(x.shape[1])
        return np.stack([np.interp(steps, steps[~b], row[~b]) for row, b in zip(x, bad)]).astype(
            np.float32
        )

    def facts(self, sample: np.ndarray) -> Facts:
        return Facts(sample.shape[1], bool(np.ptp(sample, axis=1).max() < 1e-6), sample.tobytes())

    def fill(self, given: dict[str, Any], samples: "Samples") -> tuple["Series", dict[str, Any]]:
        if len(samples) == 1 and self.window is None:
            steps = self._parsed(samples.source)(0).shape[1]
            raise UserError(
                f"this data is one series of {steps:,} steps, and a set of them is needed: cut it "
                f"into windows, such as --window {max(LEAST, min(MOST, steps // 100))}"
            )
        bare, found = replace(self, mean=None, std=None), []
        for i in np.linspace(0, len(samples) - 1, min(LOOKED, len(samples))).astype(int).tolist():
            try:
                found.append(bare.decode(samples.source.load(i), samples.name(i)))
            except BadSample:
                continue
        if not found:
            first = samples.seen_as(bare)
            first.read(0)  # says why
        channels = sorted(len(x) for x in found)[len(found) // 2]
        alike = [x for x in found if len(x) == channels]
        every = np.concatenate(alike, 1)
        mean, std = every.mean(1, dtype=np.float64), every.std(1, dtype=np.float64)
        told = {"mean": self.mean or _rounded(mean), "std": self.std or _rounded(std, 1.0)}
        steps = sorted(x.shape[1] for x in alike)[len(alike) // 2]
        usual = {"size": max(LEAST, min(MOST, steps // 8 * 8)), "channels": channels}
        return replace(self, **told), usual | {k: v for k, v in given.items() if v is not None}

    def plain(self, size: int) -> "Plain":
        return Plain(size)

    def translate(self, node: Any) -> Any:
        from selftaught.augment import Views
        from selftaught.augment.series import SeriesViews

        return SeriesViews(node.views) if isinstance(node, Views) else node

    def blank(self, count: int, encoder: Any) -> "Tensor":
        import torch

        return torch.zeros(count, encoder.channels, encoder.size)

    def floors(self) -> Mapping[str, Floor]:
        from selftaught.kinds.floors.series import kernels, values

        return {"random kernels": kernels, "raw values": values}

    def thumbnail(self, sample: np.ndarray, side: int) -> np.ndarray:
        """Its channels one above the other, as curves."""
        from selftaught.augment.series import resized

        return traced(resized(sample, 0, sample.shape[1], side), side)

    def pictures(self, view: np.ndarray) -> list[np.ndarray]:
        if view.ndim != 2 or view.dtype.kind != "f":
            return []
        from selftaught.augment.series import resized

        return [traced(resized(view, 0, view.shape[1], DRAWN), DRAWN)]


@dataclass(frozen=True)
class Plain:
    """All of a series, brought to `size` steps."""

    size: int

    def __call__(self, sample: np.ndarray, rng: Any = None) -> np.ndarray:
        from selftaught.augment.series import resized

        return resized(sample, 0, sample.shape[1], self.size)


def _rounded(values: np.ndarray, least: float | None = None) -> tuple[float, ...]:
    """To nine digits, as run.yaml has them; of a channel that never changes `least`."""
    found = [float(f"{v:.9g}") for v in values]
    return tuple(v if v > 0 or least is None else least for v in found)


def traced(x: np.ndarray, side: int) -> np.ndarray:
    """Series [C, side] as a picture, uint8 [1, side, side]: dark curves on white."""
    rows = x[: max(1, side // 8)]
    band = side // len(rows)
    out = np.full((side, side), 255, np.uint8)
    for n, row in enumerate(rows):
        low, high = float(row.min()), float(row.max())
        heights = (high - row) / ((high - low) or 1.0) * (band - 3) + 1 + n * band
        at = heights.round().astype(int)
        for column in range(side):
            one, other = at[max(0, column - 1)], at[column]
            out[min(one, other) : max(one, other) + 1, column] = 40
    return out[None]
