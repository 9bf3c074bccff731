"""Figures of a pool's page, as SVG text."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from selftaught.report.charts import number

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 400, 150, 40, 20
BINS = 40


def flow(stages: Sequence[tuple[str, int, Mapping[str, int]]]) -> str:
    """What came into each stage, what stays, and what left for which reason, as a Sankey diagram.

    Args:
        stages: name, images that came, and reason -> images that left.
    """
    whole = max((came for _, came, _ in stages), default=1) or 1
    step, high, parts = 150, 160, []
    width = step * len(stages) + 90

    def tall(count: float) -> float:
        return high * count / whole

    for n, (name, came, reasons) in enumerate(stages):
        x, stays = 10 + n * step, came - sum(reasons.values())
        parts.append(
            f'<rect class="ours" x="{x}" y="20" width="8" height="{max(tall(came), 1):.1f}"/>'
            f'<text class="label" x="{x}" y="12">{escape(name)}</text>'
        )
        parts.append(_band(x + 8, 20, x + step, 20, tall(stays), "ours", f"{stays:,} stay"))
        at, below = 20 + tall(stays), 20 + tall(stays) + 26
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
            told = f"{count:,} {reason}"
            parts.append(_band(x + 8, at, x + 70, below, tall(count), "floor", told))
            parts.append(
                f'<text class="tick" x="{x + 74}" y="{below + tall(count) / 2 + 4:.1f}">'
                f"{escape(told)}</text>"
            )
            at, below = at + tall(count), below + max(tall(count), 14) + 4
    if stages:
        left = stages[-1][1] - sum(stages[-1][2].values())
        x = 10 + step * len(stages)
        parts.append(
            f'<rect class="ours" x="{x}" y="20" width="8" height="{max(tall(left), 1):.1f}"/>'
            f'<text class="label" x="{x}" y="12">{left:,} left</text>'
        )
    tallest = 60 + high + 22 * max((len(reasons) for _, _, reasons in stages), default=0)
    return f'<svg viewBox="0 0 {width} {tallest}" role="img">{"".join(parts)}</svg>'


def _band(x: float, y: float, to: float, down: float, tall: float, style: str, told: str) -> str:
    """A ribbon from one place to another."""
    middle, tall = (x + to) / 2, max(tall, 0.5)
    path = (
        f"M{x} {y:.1f}C{middle} {y:.1f} {middle} {down:.1f} {to} {down:.1f}V{down + tall:.1f}"
        f"C{middle} {down + tall:.1f} {middle} {y + tall:.1f} {x} {y + tall:.1f}Z"
    )
    color = "var(--accent)" if style == "ours" else "var(--floor)"
    return f'<path d="{path}" style="fill:{color};opacity:.45"><title>{escape(told)}</title></path>'


def histogram(values: np.ndarray, bound: float | None = None, log: bool = False) -> str:
    """How often each value occurs, with the bound drawn.

    Args:
        values: finite ones are counted.
        bound: where a line is drawn.
        log: whether values are above 0 and their logarithms are evenly divided.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not len(values):
        return '<p class="missing">There is nothing to count.</p>'
    scaled = np.log10(values) if log else values
    line = None if bound is None or (log and bound <= 0) else np.log10(bound) if log else bound
    low, high = float(scaled.min()), float(scaled.max())
    if line is not None:
        low, high = min(low, float(line)), max(high, float(line))
    high = high if high > low else low + 1
    counts, edges = np.histogram(scaled, BINS, (low, high))
    top, span = counts.max(), _WIDTH - _LEFT - 10

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * span

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for count, a, b in zip(counts.tolist(), edges, edges[1:]):
        tall = (_HEIGHT - _BOTTOM - 10) * count / top
        ends = [10**e if log else e for e in (a, b)]
        parts.append(
            f'<rect class="floor" x="{x(a):.1f}" y="{_HEIGHT - _BOTTOM - tall:.1f}" '
            f'width="{max(x(b) - x(a) - 1, 0.5):.1f}" height="{tall:.1f}"><title>{count:,} from '
            f"{number(ends[0])} to {number(ends[1])}</title></rect>"
        )
    for at in np.linspace(low, high, 5):
        shown = number(float(f"{10**at if log else at:.3g}"))
        parts.append(f'<text class="tick middle" x="{x(at):.1f}" y="{_HEIGHT - 5}">{shown}</text>')
    parts.append(f'<text class="tick end" x="{_LEFT - 4}" y="16">{top:,}</text>')
    if line is not None:
        where = x(float(line))
        parts.append(f'<path class="line s1" d="M{where:.1f} 4V{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{where + 4:.1f}" y="12">{bound:g}</text>')
    return "".join([*parts, "</svg>"])


def ranked(before: np.ndarray, after: np.ndarray) -> str:
    """Sizes of clusters from the largest down, before and after, both axes logarithmic."""
    from selftaught.report.charts import key, lines

    series = {}
    for name, sizes in (("before", before), ("after", after)):
        ordered = np.sort(sizes[sizes > 0])[::-1]
        at = np.unique(np.geomspace(1, max(len(ordered), 1), 60).astype(int))
        series[name] = [(float(i), float(np.log10(ordered[i - 1]))) for i in at if len(ordered)]
    return lines(series, log=True) + key(["before", "after: logarithm of the size by rank"])
