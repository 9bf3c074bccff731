"""The page: verdict first, then scores, curves, views, neighbours, files, commands."""

import logging
import math
import platform
import shlex
from collections.abc import Iterable
from datetime import datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from selftaught import export
from selftaught.errors import SelftaughtError
from selftaught.report import charts
from selftaught.report.folder import Run, read
from selftaught.report.pictures import Neighbour, data_url, neighbours

log = logging.getLogger("selftaught")

PAGE = "report.html"
_ROWS = 8
"""Samples whose views are shown."""
_VIEWS = 12
"""Views shown of each."""
_LISTED = 20
"""Unreadable files that are listed by name."""
_OWN = ("epoch", "progress", "lr", "weight_decay", "gradient_norm", "images_per_second")
"""Columns of metrics.csv that are no term of the loss."""

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head><body><main>
"""


def write(run: str | Path, data: Any = None) -> Path:
    """Write `report.html` into a run folder: one file that opens from disk, without a network.

    Args:
        run: folder of a run, finished or not; what is missing there is said on the page.
        data: where the neighbours are drawn from, as for `open_data`; by default the run's data.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder holds no run, or cannot be written to.
    """
    found = read(Path(run))
    body = [
        *_header(found),
        _doctor(found),
        _verdict(found),
        _scores(found),
        _curves(found),
        _views(found),
        _neighbours(found, data),
        _bad(found),
        _next(found),
        _settings(found),
    ]
    style = Path(__file__).with_name("style.css").read_text("utf-8")
    head = _HEAD.format(title=escape(_title(found)), style=style)
    page = head + "\n".join(body) + "</main></body></html>\n"
    path = found.path / PAGE
    with export.atomic(path) as temporary:  # names of files may hold bytes that are no text
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))
    return path


def _title(run: Run) -> str:
    method = run.settings.get("method")
    data = Path(str(run.settings.get("data", ""))).name
    return f"{method} on {data}" if method and data else run.path.resolve().name


def _header(run: Run) -> list[str]:
    about = (run.encoder or {}).get("encoder") or run.settings.get("backbone") or {}
    facts = [
        f"{about['name']}, {about.get('size')} px" if "name" in about else "",
        f"run folder {run.path}",
        datetime.fromtimestamp(_modified(run.path)).strftime("%d %B %Y, %H:%M"),
    ]
    line = " · ".join(escape(f) for f in facts if f)
    return [f'<h1>{escape(_title(run))}</h1><p class="soft">{line}</p>', _tiles(run)]


def _modified(folder: Path) -> float:
    """When training last wrote: a report that is written again keeps its date."""
    names = ("run.yaml", "metrics.csv", "encoder.json", "scores.json")
    files = [folder / name for name in names]
    return max(f.stat().st_mtime for f in files if f.exists())


def _tiles(run: Run) -> str:
    tiles: list[tuple[str, str]] = []
    if run.scores:
        for m in _dicts(run.scores.get("margins")):
            tiles.append(
                (f"{m.get('score')} above floor", f"{_float(m.get('points')):+.1f} points")
            )
    last = {name: _last(points) for name, points in run.curves.items()}
    training = run.settings.get("training") or {}
    for label, value in (
        ("final loss", last.get("loss")),
        ("epochs", training.get("epochs")),
        ("progress", None if last.get("progress") in (None, 1.0) else last["progress"]),
        ("images per second", _median(run.curves.get("images_per_second", []))),
    ):
        if isinstance(value, int | float) and math.isfinite(value):
            text = f"{value:.0%}" if label == "progress" else _short(value)
            tiles.append((label, text))
    if "batch" in training:
        tiles.append(("batch", str(training["batch"])))
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles
    )
    return f'<dl class="tiles">{cells}</dl>' if cells else ""


_SPOKEN = {
    "healthy": ("above", "The training is healthy."),
    "doubtful": ("unclear", "The training is doubtful."),
    "failed": ("below", "The training failed."),
}


def _doctor(run: Run) -> str:
    """What the doctor says: verdict, evidence, and what was found with causes and remedies."""
    said = run.diagnosis or {}
    if said.get("verdict") not in _SPOKEN:
        return ""
    style, words = _SPOKEN[said["verdict"]]
    points = "".join(f"<li>{escape(e[:1].upper() + e[1:])}.</li>" for e in _texts(said, "evidence"))
    standing = _texts(said, "standing")
    found = "".join(_finding(f, f.get("name") in standing) for f in _dicts(said.get("findings")))
    return f'<div class="verdict {style}"><strong>{words}</strong><ul>{points}</ul>{found}</div>'


def _finding(finding: dict[str, Any], stands: bool) -> str:
    causes = finding.get("causes")
    items = (
        "".join(f"<li>{escape(str(c))}</li>" for c in causes) if isinstance(causes, list) else ""
    )
    when = f"step {finding.get('step')}" + ("" if stands else ", and not at the end")
    return (
        f"<details><summary>{escape(str(finding.get('name')))} ({escape(when)})</summary>"
        f"<p>{escape(str(finding.get('says')))}.</p>"
        + (f"<p>Likely causes, the likeliest first:</p><ol>{items}</ol>" if items else "")
        + (f"<p>What to do: {escape(str(finding['remedy']))}.</p>" if finding.get("remedy") else "")
        + "</details>"
    )


def _verdict(run: Run) -> str:
    if not run.scores or not isinstance(run.scores.get("verdict"), str):
        return (
            '<div class="verdict"><strong>Not scored.</strong><p>Whether it learned cannot be said '
            "without labels: a falling loss alone is no evidence. A few hundred labelled images "
            "are enough; the command is below, under “What to do next”.</p></div>"
        )
    head, _, rest = run.scores["verdict"].partition(": ")
    first, _, others = rest.partition(". ")
    kinds = {m.get("verdict") for m in _dicts(run.scores.get("margins"))}
    style = "above" if kinds == {"above"} else "below" if kinds == {"below"} else "unclear"
    return (
        f'<div class="verdict {style}"><strong>{escape(head)}: {escape(first)}.</strong>'
        f"<p>{escape(others)}</p></div>"
    )


def _scores(run: Run) -> str:
    rows = _dicts((run.scores or {}).get("scores"))
    if not rows:
        return _section(
            "Scores against floors",
            _missing("No scores: the data had no labels, or evaluation was switched off."),
        )
    parts = []
    for name in dict.fromkeys(str(r.get("score")) for r in rows):
        mine = [r for r in rows if str(r.get("score")) == name]
        chart = charts.bars(
            [
                (
                    str(r.get("features")),
                    _float(r.get("value")),
                    _pair(r.get("interval")),
                    i == 0,
                )
                for i, r in enumerate(mine)
            ]
        )
        protocol = escape(str(mine[0].get("protocol", "")))
        parts.append(
            f"<div><h3>{escape(name)}, per cent right</h3>{chart}"
            f'<p class="note">{protocol}</p></div>'
        )
    note = (
        "Floors: raw pixels at 8x8 and 16x16 with the mean of each image removed, and the same "
        "network untrained. Whiskers are 95 % intervals. An encoder that is not above all floors "
        "has learned nothing that is of use here."
    )
    return _section("Scores against floors", f'<div class="grid2">{"".join(parts)}</div>', note)


def _curves(run: Run) -> str:
    curves = {n: p for n, p in run.curves.items() if any(math.isfinite(y) for _, y in p)}
    if "loss" not in curves:
        return _section("Curves", _missing("No metrics.csv with a loss: no step was recorded."))
    loss = curves["loss"]
    parts = [
        ("loss", charts.lines({"raw": loss, "smooth": charts.smooth(loss)}, "raw and smooth"), [])
    ]
    terms = {n: p for n, p in curves.items() if n not in (*_OWN, "loss", "data_wait")}
    if terms:
        parts.append(("terms of the loss", charts.lines(terms), list(terms)))
    waits = [(x, 100 * y) for x, y in curves.get("data_wait", [])]
    for title, points in (
        ("learning rate", curves.get("lr")),
        ("gradient norm", curves.get("gradient_norm")),
        ("images per second", curves.get("images_per_second")),
        ("time spent waiting for data, %", waits),
    ):
        if points:
            parts.append((title, charts.lines({title: points}), []))
    grid = "".join(
        f"<div><h3>{escape(title)}</h3>{chart}{_key(names)}</div>" for title, chart, names in parts
    )
    note = f"Over steps; {len(loss)} rows in metrics.csv."
    if len(loss) == 1:
        note += " A single row makes a point, not a curve."
    return _section("Curves", f'<div class="grid2">{grid}</div>', note)


def _key(names: list[str]) -> str:
    items = "".join(f'<i class="s{i % 6}"></i>{escape(n)}' for i, n in enumerate(names))
    return f'<p class="key">{items}</p>' if names else ""


def _views(run: Run) -> str:
    if not run.views:
        return _section(
            "What it was trained on", _missing("No views.npz: the views were not kept.")
        )
    shown = dict(list(run.views.items())[:_VIEWS])
    count = min(_ROWS, *(len(v) for v in shown.values()))
    strips = []
    for i in range(count):
        cells = "".join(
            f'<figure><img alt="view {n} of image {i + 1}" src="{data_url(v[i])}">'
            f"<figcaption>view {n + 1}</figcaption></figure>"
            for n, v in enumerate(shown.values())
        )
        strips.append(f'<div class="strip sample">{cells}</div>')
    sizes = ", ".join(sorted({f"{v.shape[3]} x {v.shape[2]} px" for v in run.views.values()}))
    note = (
        f"Each group is one image as the method saw it in the first epoch: {len(run.views)} "
        f"view{'s' if len(run.views) > 1 else ''} of {sizes}"
        + (f", of which {_VIEWS} are shown" if len(run.views) > _VIEWS else "")
        + _channels(next(iter(run.views.values())).shape[1])
        + ". If you cannot tell what an image is from its views, the views are too strong."
    )
    return _section("What it was trained on", f'<div class="samples">{"".join(strips)}</div>', note)


def _channels(count: int) -> str:
    if count in (1, 3):
        return ""
    return f"; of {count} channels {'the first 3' if count > 3 else 'the first'} shown"


def _neighbours(run: Run, data: Any) -> str:
    title = "Nearest neighbours"
    if run.encoder is None:
        return _section(title, _missing("No encoder was saved: the run is not finished."))
    try:
        found = neighbours(run, data)
    except (SelftaughtError, OSError) as error:
        return _section(title, _missing(f"They could not be computed: {error}"))
    strips = "".join(
        f'<div class="strip">{"".join(_figure(n, i) for i, n in enumerate(row))}</div>'
        for row in found.rows
    )
    known = [n.same for row in found.rows for n in row[1:] if n.same is not None]
    note = (
        f"Left, an image drawn at random; then its most similar among {found.among} of "
        f"{found.total}, with their cosine."
    )
    if known:
        note += (
            f" Green with ✓: same class, red: another; {sum(known)} of these {len(known)} "
            "neighbours have the class of their query."
        )
    note += (
        " Cosines that are all near 1 mean features that have collapsed."
        if min((n.similarity for row in found.rows for n in row[1:]), default=0) > 0.98
        else ""
    )
    return _section(title, f'<div class="scroll">{strips}</div>', note)


def _figure(n: Neighbour, place: int) -> str:
    style = {True: "same", False: "other", None: ""}[n.same] if place else "query"
    caption = f"{n.similarity:.2f}{' ✓' if n.same else ''}" if place else "query"
    name = escape(n.name)
    return (
        f'<figure class="{style}"><img alt="{name}" title="{name}" src="{n.url}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _bad(run: Run) -> str:
    title = "Files left out"
    if not run.bad:
        return _section(title, "<p>None: every file that was read could be read.</p>")
    reasons: dict[str, int] = {}
    for reason in run.bad.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    common = sorted(reasons.items(), key=lambda item: -item[1])[:_LISTED]
    by_reason = _table(("reason", "files"), ((r, str(c)) for r, c in common))
    files = _table(("file", "reason"), list(run.bad.items())[:_LISTED])
    more = f", the first {_LISTED} of them" if len(run.bad) > _LISTED else ""
    return _section(
        title,
        f"{by_reason}<details><summary>the files{more}</summary>{files}</details>",
        f"{len(run.bad)} files could not be read; all are in bad_files.csv.",
    )


def _next(run: Run) -> str:
    where = shlex.quote(str(run.path))
    data = shlex.quote(str(run.settings.get("data", "photos/")))
    commands = [
        ("score it on labelled images", f"selftaught evaluate {where} labelled/"),
        ("write the features of all images", f"selftaught embed {where} {data} --out f.parquet"),
        (
            "run it again, or something close to it",
            f"selftaught pretrain --config {where}/run.yaml --out another/",
        ),
    ]
    if run.encoder is None:
        resume = f"selftaught pretrain --config {where}/run.yaml --out {where} --resume"
        commands = [("continue it", resume), *commands[2:]]
    listing = "\n".join(f"# {words}\n{command}" for words, command in commands)
    body = f"<pre>{escape(listing)}</pre>"
    if run.encoder is not None:
        ours = f'import selftaught\n\nencoder = selftaught.load("{run.path}")  # a torch module'
        body += f"<h3>In Python</h3><pre>{escape(ours)}</pre>"
        if isinstance(run.encoder.get("timm"), str):
            body += (
                "<h3>Without selftaught, in the run folder</h3>"
                f"<pre>{escape(run.encoder['timm'].rstrip())}</pre>"
            )
    return _section("What to do next", body)


def _settings(run: Run) -> str:
    made = run.settings.get("made_by") or {}
    now = {
        "python": platform.python_version(),
        **{name: version(name) for name in ("selftaught", "torch", "timm", "numpy", "pillow")},
        "system": f"{platform.system()} {platform.machine()}",
    }
    everything = [(f"trained with {k}", str(v)) for k, v in made.items()]
    everything += [(f"this page: {k}", v) for k, v in now.items()]
    text = f"<pre>{escape(run.text)}</pre>" if run.text else _missing("There is no run.yaml.")
    return _section(
        "Settings and environment",
        f"<details open><summary>run.yaml</summary>{text}</details>"
        f"<details><summary>environment</summary>{_table(('', ''), everything)}</details>",
    )


def _section(title: str, body: str, note: str = "") -> str:
    lead = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{body}</section>"


def _missing(text: str) -> str:
    return f'<p class="missing">{escape(text)}</p>'


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    heads = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{heads}</tr>{body}</table>"


def _texts(node: dict[str, Any], name: str) -> list[str]:
    value = node.get(name)
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _pair(value: Any) -> tuple[float, float]:
    pair = value if isinstance(value, list) and len(value) == 2 else [0, 0]
    return _float(pair[0]), _float(pair[1])


def _last(points: list[charts.Point]) -> float | None:
    return next((y for _, y in reversed(points) if math.isfinite(y)), None)


def _median(points: list[charts.Point]) -> float | None:
    values = sorted(y for _, y in points if math.isfinite(y))
    return values[len(values) // 2] if values else None


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
