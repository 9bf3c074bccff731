"""Charts as SVG text: lines over steps, and scores as bars with their intervals."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]

_WIDTH, _HEIGHT = 400, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 8, 24
_POINTS = 400
"""Points a line has at most: more than a screen shows."""


def lines(series: Mapping[str, Sequence[Point]], kind: str = "", log: bool = False) -> str:
    """Lines over steps; values that are not finite are gaps.

    Args:
        series: name -> (step, value) in order.
        kind: such as `raw` or `smooth`, two series of that name: a faint line behind a strong one.
        log: whether steps are few, above 0, and their logarithms are drawn, with a mark at each.
    """
    finite = [p for points in series.values() for p in points if math.isfinite(p[1])]
    if not finite:
        return '<p class="missing">No finite value was recorded.</p>'
    scale = math.log10 if log else float
    x_low, x_high = _range([scale(p[0]) for p in finite])
    marks = ticks(*_range([p[1] for p in finite]))
    y_low, y_high = marks[0], marks[-1]

    def x(v: float) -> float:
        return _LEFT + (scale(v) - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(v: float) -> float:
        return _HEIGHT - _BOTTOM - (v - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for v in marks:
        parts.append(f'<path class="grid" d="M{_LEFT} {y(v):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="tick end" x="{_LEFT - 6}" y="{y(v) + 3.5:.1f}">{number(v)}</text>'
        )
    along = _powers(x_low, x_high) if log else ticks(x_low, x_high, 4)
    for v in [v for v in along if x_low <= scale(v) <= x_high]:
        parts.append(
            f'<text class="tick middle" x="{x(v):.1f}" y="{_HEIGHT - 6}">{number(v)}</text>'
        )
    for i, (name, points) in enumerate(series.items()):
        style = name if kind else f"s{i % 6}"
        for piece in _pieces(_thin(points)):
            if len(piece) == 1:
                px, py = piece[0]
                parts.append(f'<circle class="{style}" cx="{x(px):.1f}" cy="{y(py):.1f}" r="3"/>')
            else:
                d = "L".join(f"{x(px):.1f} {y(py):.1f}" for px, py in piece)
                parts.append(f'<path class="line {style}" d="M{d}"/>')
                parts += [
                    f'<circle class="{style}" cx="{x(px):.1f}" cy="{y(py):.1f}" r="3"/>'
                    for px, py in (piece if log else ())
                ]
    return "".join([*parts, "</svg>"])


def key(names: Sequence[str], numbers: Sequence[int] | None = None) -> str:
    """Names beside the colors of `lines`; numbers: which of its series these are, if not all."""
    items = "".join(
        f'<i class="s{n % 6}"></i>{escape(name)}'
        for n, name in zip(numbers or range(len(names)), names)
    )
    return f'<p class="key">{items}</p>' if names else ""


def bars(rows: Sequence[tuple[str, float, tuple[float, float], bool]]) -> str:
    """Percentages as bars from zero.

    Args:
        rows: name, value, interval, and whether it is the one that matters.
    """
    pitch, left, width = 30, 104, 400
    top = max(ticks(0, max(max(v, high) for _, v, (_, high), _ in rows))[-1], 1)
    span = width - left - 52

    def x(v: float) -> float:
        return left + v / top * span

    parts = [f'<svg viewBox="0 0 {width} {pitch * len(rows) + 6}" role="img">']
    for i, (name, value, (low, high), ours) in enumerate(rows):
        y = i * pitch + 6
        style = "ours" if ours else "floor"
        parts += [
            f'<text class="label end" x="{left - 8}" y="{y + 14}">{escape(name)}</text>',
            f'<rect class="{style}" x="{left}" y="{y + 1}" width="{x(value) - left:.1f}" '
            f'height="18" rx="2"><title>{escape(name)}: {value:.1f} %, 95 % interval '
            f"{low:.1f} to {high:.1f}</title></rect>",
            f'<path class="whisker" d="M{x(low):.1f} {y + 10}H{x(high):.1f}M{x(low):.1f} {y + 6}'
            f'v8M{x(high):.1f} {y + 6}v8"/>',
            f'<text class="value {style}" x="{x(high) + 7:.1f}" y="{y + 14}">{value:.1f}</text>',
        ]
    return "".join([*parts, "</svg>"])


def smooth(points: Sequence[Point]) -> list[Point]:
    """A running mean over a twentieth of the curve, from the past alone; gaps stay out of it."""
    keep = 1 - 1 / max(1.0, len(points) / 20)
    mean = weight = 0.0
    out = []
    for x, y in points:
        if math.isfinite(y):
            mean, weight = keep * mean + (1 - keep) * y, keep * weight + (1 - keep)
            out.append((x, mean / weight))
    return out


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that enclose low..high."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _powers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or the powers alone where those are many."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    return [m * 10.0**p for p in range(math.floor(low), math.ceil(high) + 1) for m in steps]


def number(v: float) -> str:
    """Short, for ticks and tiles: 12k, 0.05, 3e-05."""
    if v and abs(v) < 1e-3:
        return f"{v:.2g}"
    if abs(v) >= 1e6:
        return f"{v / 1e6:g}M"
    if abs(v) >= 1e4:
        return f"{v / 1e3:g}k"
    return f"{round(v, 4):g}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one point, or a constant
        pad = abs(low) / 2 or 1.0
        return low - pad, high + pad
    return low, high


def _thin(points: Sequence[Point]) -> list[Point]:
    """Means of runs of points, so that a long curve stays small; gaps stay gaps."""
    run = math.ceil(len(points) / _POINTS)
    if run <= 1:
        return list(points)
    groups = [points[i : i + run] for i in range(0, len(points), run)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _pieces(points: Sequence[Point]) -> list[list[Point]]:
    pieces: list[list[Point]] = [[]]
    for p in points:
        if math.isfinite(p[1]):
            pieces[-1].append(p)
        elif pieces[-1]:
            pieces.append([])
    return [p for p in pieces if p]
