"""Runs side by side, in a terminal and as a page."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from selftaught import export
from selftaught.errors import UserError
from selftaught.report import charts
from selftaught.report.folder import RunFolder, read
from selftaught.report.html import Missing, Section, dicts, mapping, page, pair, real, table
from selftaught.verdict import START, judge

_LINES = 6
"""Runs that a chart can tell apart."""
_CURVES = {
    "loss": "loss, smoothed",
    "lr": "learning rate",
    "gradient_norm": "gradient norm",
    "images_per_second": "images per second",
}
"""Columns of metrics.csv that are drawn over each other."""


@dataclass(frozen=True)
class Compared:
    """What was found. Tables of text, the first row their heads; page: the file that was written.

    overview: verdicts, scores and the like; settings: those that differ; both with a column a run.
    warning: why the scores cannot be compared, empty where they can.
    """

    overview: list[list[str]]
    settings: list[list[str]]
    warning: str
    page: Path

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _rich(self.overview, "")
        if self.warning:
            yield Text(self.warning, style="yellow")
        if len(self.settings) > 1:
            yield _rich(self.settings, "settings that differ")
        yield Text(str(self.page))


def _rich(rows: list[list[str]], title: str) -> Table:
    shown = Table(title=title or None, title_justify="left")
    for i, head in enumerate(rows[0]):
        shown.add_column(Text(head), overflow="fold", no_wrap=i == 0)
    for row in rows[1:]:
        shown.add_row(*map(Text, row))
    return shown


def compare(runs: Sequence[str | Path], out: Path = Path("compare.html")) -> Compared:
    """Read runs, compare them, write the page.

    Args:
        runs: folders of two or more.
        out: file to write.

    Raises:
        UserError: fewer than two, one twice, one that holds no run, or `out` cannot be written.
    """
    paths = [Path(r) for r in runs]
    if len(paths) < 2:
        raise UserError(
            f"a comparison needs two runs or more, got {len(paths)}, such as: "
            "selftaught compare runs/first runs/second"
        )
    if len({p.resolve() for p in paths}) < len(paths):
        raise UserError(f"{', '.join(map(str, paths))} names a run twice; name each once")
    if out.suffix != ".html":
        raise UserError(f"{out} is written as a page: its name must end in .html")
    found = dict(zip(_names(paths), map(read, paths), strict=True))
    compared = Compared(_overview(found), _settings(found), _warning(found), out)
    heading = f'<h1>{len(found)} runs</h1><p class="soft">{escape(", ".join(found))}</p>'
    overview = table(compared.overview[0], compared.overview[1:])
    parts = [
        Section("Overview", f'<div class="scroll">{overview}</div>', compared.warning),
        _scores(found),
        _different(compared.settings),
        _curves(found),
    ]
    with export.atomic(out) as temporary:
        text = page(f"{len(found)} runs", [heading], parts)
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
    return compared


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or all of it where two end alike."""
    names = [p.resolve().name for p in paths]
    return names if len(set(names)) == len(names) else [str(p) for p in paths]


def _overview(runs: dict[str, RunFolder]) -> list[list[str]]:
    columns = [_facts(run, scores) for run, scores in zip(runs.values(), _chosen(runs.values()))]
    names = list(dict.fromkeys(name for facts in columns for name in facts))
    return [["", *runs], *([name, *(facts.get(name, "–") for facts in columns)] for name in names)]


def _facts(run: RunFolder, scores: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What there is to say of a run and of its chosen scores, in words."""
    about, training = (mapping(run.settings.get(name)) for name in ("backbone", "training"))
    said = judge(run.diagnosis, run.scores, run.kept)
    facts = {
        "method": " ".join(_known(run.settings, "method")),
        "encoder": " ".join(_known(about, "name", "size")),
        "verdict": said.word,
        "beside its start": said.start or "",
        "kept": str(run.kept.get("kept", "")),
    }
    for name, found in scores.items():
        score = _of(found, "scores", name)[0]
        value, (low, high) = real(score.get("value")), pair(score.get("interval"))
        facts[f"{name} %"] = f"{value:.1f} ({low:.1f} to {high:.1f})"
        for margin in _of(found, "margins", name):
            points, (low, high) = real(margin.get("points")), pair(margin.get("interval"))
            facts[f"{name} floor %"] = f"{value - points:.1f} ({margin.get('floor')})"
            facts[f"{name} above floor"] = f"{points:+.1f} ({low:+.1f} to {high:+.1f})"
        for gain in _of(found, "gains", name):
            points, (low, high) = real(gain.get("points")), pair(gain.get("interval"))
            facts[f"{name} {START} %"] = f"{value - points:.1f}"
            facts[f"{name} above start"] = f"{points:+.1f} ({low:+.1f} to {high:+.1f})"
    losses = [y for _, y in run.curves.get("loss", []) if math.isfinite(y)]
    facts["last loss"] = f"{losses[-1]:.4g}" if losses else ""
    facts["epochs"] = " ".join(_known(training, "epochs"))
    speed = sorted(y for _, y in run.curves.get("images_per_second", []) if math.isfinite(y))
    facts["images per second"] = f"{speed[len(speed) // 2]:,.0f}" if speed else ""
    return {name: fact for name, fact in facts.items() if fact}


def _known(node: dict[str, Any], *names: str) -> Iterable[str]:
    return (str(node[n]) for n in names if n in node)


def _chosen(runs: Iterable[RunFolder]) -> list[dict[str, dict[str, Any]]]:
    """For each run: name of a score -> the newest evaluation of it, on what most runs share."""
    found: list[dict[str, dict[tuple[str, ...], dict[str, Any]]]] = []  # a run: score -> task
    for run in runs:
        found.append({})
        for scores in run.scores:
            for entry in dicts(scores.get("scores")):
                tasks = found[-1].setdefault(str(entry.get("score")), {})
                task = (_task(entry), _images(scores), _how(scores, entry))
                tasks.pop(task, None)  # the newest comes last
                tasks[task] = scores
    depths = (1, 2, 3)  # as many images, the same images, scored in the same way
    shared = Counter(
        key
        for one in found
        for key in {(name, t[:d]) for name, tasks in one.items() for t in tasks for d in depths}
    )

    def best(name: str, tasks: dict[tuple[str, ...], dict[str, Any]]) -> dict[str, Any]:
        newest_first = list(reversed(tasks))
        return tasks[max(newest_first, key=lambda t: [shared[name, t[:d]] for d in depths])]

    return [{name: best(name, tasks) for name, tasks in one.items()} for one in found]


def _task(entry: dict[str, Any]) -> str:
    """How many images and classes a score is of."""
    return str(entry.get("protocol")).partition(";")[0]


def _images(scores: dict[str, Any]) -> str:
    """Which images and labels they are; empty where the file is of a time that did not say."""
    return " ".join(str(v) for _, v in sorted(mapping(scores.get("images")).items()))


def _how(scores: dict[str, Any], entry: dict[str, Any]) -> str:
    """What was chosen for a score, in words; empty where the file does not say."""
    size, settings = scores.get("size"), mapping(scores.get("settings"))
    chosen = mapping(settings.get(str(entry.get("score"))))
    words = [f"{name} {value}" for name, value in chosen.items()]
    return ", ".join(([f"{size} px"] if size else []) + words)


def _of(found: dict[str, Any], kind: str, name: str) -> list[dict[str, Any]]:
    """The entries of a score in an evaluation; of its `scores` the encoder's stands first."""
    return [entry for entry in dicts(found.get(kind)) if str(entry.get("score")) == name]


def _warning(runs: dict[str, RunFolder]) -> str:
    """Scores of other images, or of other labels, say nothing about each other."""
    chosen = _chosen(runs.values())
    ways: dict[str, str] = {}
    for name in dict.fromkeys(name for found in chosen for name in found):
        rows = [(f[name], _of(f[name], "scores", name)[0]) for f in chosen if name in f]
        tasks = {_task(entry) for _, entry in rows}
        if len(tasks) > 1:
            told = " / ".join(sorted(tasks))
            return f"The scores are of different tests ({told}): they cannot be compared."
        if len({_images(scores) for scores, _ in rows} - {""}) > 1:
            return (
                f"The scores are of different images or labels, though of as many ({tasks.pop()}): "
                "they cannot be compared."
            )
        how = list(dict.fromkeys(_how(scores, entry) for scores, entry in rows))
        if len([h for h in how if h]) > 1:
            ways.setdefault(" / ".join(h or "unknown" for h in how), name)
    if not ways:
        return ""
    told = "; ".join(f"{name}: {how}" for how, name in ways.items())
    return f"The scores are of the same images, but made in different ways ({told})."


def _settings(runs: dict[str, RunFolder]) -> list[list[str]]:
    flat = [dict(_flat(run.settings)) for run in runs.values()]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    rows = [[key, *(one.get(key, "–") for one in flat)] for key in keys]
    return [["setting", *runs], *(row for row in rows if len(set(row[1:])) > 1)]


def _flat(node: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, yaml.safe_dump(node, default_flow_style=True).strip().removesuffix("\n...")


def _different(rows: list[list[str]]) -> Section | Missing:
    title = "Settings that differ"
    if len(rows) < 2:
        return Missing(title, "all settings are the same")
    return Section(title, f'<div class="scroll">{table(rows[0], rows[1:])}</div>')


def _scores(runs: dict[str, RunFolder]) -> Section | Missing:
    chosen = dict(zip(runs, _chosen(runs.values()), strict=True))
    names = dict.fromkeys(name for found in chosen.values() for name in found)
    if not names:
        return Missing("Scores", "no run was scored")
    parts = []
    for name in names:
        bars, measure = [], "right"
        for run_name, found in chosen.items():
            if name not in found:
                continue
            mine, *floors = _of(found[name], "scores", name)
            measure = str(mine.get("measure", measure))
            shown = [(_short(run_name), mine, True)]
            if floors:
                best = max(floors, key=lambda e: real(e.get("value")))
                starts = [e for e in floors if e.get("features") == START and e is not best]
                shown += [(str(e.get("features")), e, False) for e in (*starts, best)]
            bars += [(n, real(e.get("value")), pair(e.get("interval")), own) for n, e, own in shown]
        title = f"{escape(name)}, per cent {escape(measure)}"
        parts.append(f"<div><h3>{title}</h3>{charts.bars(bars)}</div>")
    note = (
        "Each run, and below it the highest of its floors, and the weights that it began with "
        "where they were no fresh draw. Whiskers are 95 % intervals."
    )
    return Section("Scores", f'<div class="grid2">{"".join(parts)}</div>', note)


def _short(name: str) -> str:
    return name if len(name) <= 15 else f"…{name[-14:]}"


def _curves(runs: dict[str, RunFolder]) -> Section | Missing:
    shown = dict(list(runs.items())[:_LINES])
    parts = []
    for column, title in _CURVES.items():
        series = {
            name: charts.smooth(run.curves[column]) if column == "loss" else run.curves[column]
            for name, run in shown.items()
            if any(math.isfinite(y) for _, y in run.curves.get(column, []))
        }
        if series:
            colors = {name: i for i, name in enumerate(shown)}
            ordered = {name: series.get(name, []) for name in colors}
            keys = charts.key(list(series), [colors[n] for n in series])
            parts.append(f"<div><h3>{escape(title)}</h3>{charts.lines(ordered)}{keys}</div>")
    if not parts:
        return Missing("Curves", "no run recorded a step")
    methods = {run.settings.get("method") for run in shown.values()}
    note = "Over steps."
    if len(methods) > 1:
        note += " Losses of different methods are different quantities: compare scores, not losses."
    if len(runs) > _LINES:
        note += f" The first {_LINES} of {len(runs)} runs."
    return Section("Curves", f'<div class="grid2">{"".join(parts)}</div>', note)
