"""Sections that follow from the files of a run folder alone, and the top of the page."""

import math
import platform
import shlex
from datetime import datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from selftaught import chosen
from selftaught.export.facts import TRAINED
from selftaught.report import charts
from selftaught.report.folder import RunFolder
from selftaught.report.html import (
    Missing,
    Section,
    dicts,
    figure,
    mapping,
    missing,
    passage,
    real,
    strip,
    table,
    texts,
)
from selftaught.report.image.gallery import load
from selftaught.report.image.pictures import data_url, url

_ROWS = 8
"""Samples whose views are shown."""
_VIEWS = 12
"""Views shown of each."""
_MARGINS = 4
"""Scores that have a tile."""
_OWN = ("epoch", "progress", "lr", "weight_decay", "gradient_norm", "images_per_second")
"""Columns of metrics.csv that are no term of the loss."""


def title(run: RunFolder) -> str:
    """What was trained on what."""
    method = run.settings.get("method")
    data = Path(str(run.settings.get("data", ""))).name
    return f"{method} on {data}" if method and data else run.path.resolve().name


def header(run: RunFolder) -> str:
    """Title, encoder, folder and date."""
    about = mapping(run.encoder.get("encoder") or run.settings.get("backbone"))
    size = about.get("size")
    size = tuple(size) if isinstance(size, list) else size
    facts = [
        f"{about['name']}, {run.kind.at(size)}" if "name" in about else "",
        f"run folder {run.path}",
        datetime.fromtimestamp(_modified(run.path)).strftime("%d %B %Y, %H:%M"),
    ]
    line = " · ".join(escape(f) for f in facts if f)
    return f'<h1>{escape(title(run))}</h1><p class="soft">{line}</p>'


def _modified(folder: Path) -> float:
    """When training last wrote: a report that is written again keeps its date."""
    files = [folder / name for name in TRAINED]
    return max(f.stat().st_mtime for f in files if f.exists())


def tiles(run: RunFolder) -> str:
    """The numbers that one looks for first."""
    tiles: list[tuple[str, str]] = []
    if run.scores:
        for kind, of in (("gains", "start"), ("margins", "floor")):
            for m in dicts(run.scores[0].get(kind))[:_MARGINS]:
                name = f"{m.get('score')} above {of}"
                tiles.append((name, f"{real(m.get('points')):+.1f} points"))
    last = {name: _last(points) for name, points in run.curves.items()}
    training = mapping(run.settings.get("training"))
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


def findings(run: RunFolder) -> str:
    """What the doctor found, with causes and remedies."""
    standing = texts(run.diagnosis, "standing")
    found = dicts(run.diagnosis.get("findings"))
    return "".join(_finding(f, f.get("name") in standing) for f in found)


def _finding(finding: dict[str, Any], stands: bool) -> str:
    causes = finding.get("causes")
    items = (
        "".join(f"<li>{escape(str(c))}</li>" for c in causes) if isinstance(causes, list) else ""
    )
    when = f"step {finding.get('step')}" + ("" if stands else ", and not at the end")
    return (
        f"<details{' open' if stands else ''}>"
        f"<summary>{escape(str(finding.get('name')))} ({escape(when)})</summary>"
        f"<p>{escape(str(finding.get('says')))}.</p>"
        + (f"<p>Likely causes, the likeliest first:</p><ol>{items}</ol>" if items else "")
        + (f"<p>What to do: {escape(str(finding['remedy']))}.</p>" if finding.get("remedy") else "")
        + "</details>"
    )


def curves(run: RunFolder) -> Section | Missing:
    """Loss, its terms, rates and speed over steps."""
    curves = {n: p for n, p in run.curves.items() if any(math.isfinite(y) for _, y in p)}
    if "loss" not in curves:
        return Missing("Curves", "there is no metrics.csv with a loss: no step was recorded")
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
        f"<div><h3>{escape(title)}</h3>{chart}{charts.key(names)}</div>"
        for title, chart, names in parts
    )
    note = f"Over steps; {len(loss)} rows in metrics.csv."
    if len(loss) == 1:
        note += " A single row makes a point, not a curve."
    return Section("Curves", f'<div class="grid2">{grid}</div>', note)


def learning(run: RunFolder) -> Section | None:
    """How the encoder did on held-out images while it trained, beside its floors."""
    curve = run.looks
    if curve is None or not curve.looks:
        return None  # of a run that was asked for none, or is older than curves
    parts = []
    for name in curve.looks[0].figures:
        across = (curve.looks[0].step, max(curve.looks[-1].step, 1))
        floors = {f: [(x, v[name]) for x in across] for f, v in curve.floors.items() if name in v}
        series = {"this encoder": curve.points(name), **floors}
        title = f"{name}, per cent right" if curve.labeled else name
        parts.append(
            f"<div><h3>{escape(title)}</h3>{charts.lines(series)}{charts.key(list(series))}</div>"
        )
    sizes = " and ".join(f"{n:,} ({what})" for what, n in curve.images.items())
    note = f"{len(curve.looks)} looks over steps, at the same images each time: {sizes}. "
    note += "Less exact than the scores above, which are of more images. " if curve.labeled else ""
    return Section(
        "While it trained", f'<div class="grid2">{"".join(parts)}</div>', note + curve.advice
    )


def tried(run: RunFolder) -> Section | None:
    """Candidates that were trained for a short while, and why this one was taken."""
    rounds = run.tried.get("rounds")
    rows = [
        (
            str(number),
            str(row.get("candidate")),
            *(
                f"{real(row.get(name)):,.{digits}f}"
                for name, digits in (("seconds", 1), ("images", 0))
            ),
            *(_score(row.get(name)) for name in ("figure", "floor")),
            " ".join(filter(None, (str(row.get("kept")), str(row.get("failed", ""))))),
        )
        for number, each in enumerate(rounds if isinstance(rounds, list) else [], 1)
        for row in dicts(each)
    ]
    if not rows:
        return None
    name = str(run.tried.get("figure"))
    heads = ("round", "candidate", "seconds", "images seen", name, "floor", "")
    note = (
        f"{name} on the same {real(run.tried.get('images')):,.0f} images after the same time; the "
        "floor is the same network before its first step. Another seed would move them, too, which "
        "nobody has looked at."
    )
    why = f"<p>{escape(str(run.tried.get('why', '')))}.</p>"
    return Section("What was tried", f'{why}<div class="scroll">{table(heads, rows)}</div>', note)


def _score(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else "-"


def views(run: RunFolder) -> Section | Missing:
    """Images as the method saw them."""
    if not run.views:
        return Missing("What it was trained on", "there is no views.npz: the views were not kept")
    shown = dict(list(run.views.items())[:_VIEWS])
    count = min(_ROWS, *(len(v) for v in shown.values()))
    strips = []
    for i in range(count):
        cells = (
            figure(data_url(v[i]), f"view {n} of image {i + 1}", f"view {n}")
            for n, v in enumerate(shown.values(), 1)
        )
        strips.append(strip(cells, style="sample"))
    sizes = ", ".join(sorted({f"{v.shape[3]} x {v.shape[2]} px" for v in run.views.values()}))
    note = (
        f"Each group is one image as the method saw it in the first epoch: {len(run.views)} "
        f"view{'s' if len(run.views) > 1 else ''} of {sizes}"
        + (f", of which {_VIEWS} are shown" if len(run.views) > _VIEWS else "")
        + _channels(next(iter(run.views.values())).shape[1])
        + ". If you cannot tell what an image is from its views, the views are too strong."
    )
    return Section("What it was trained on", f'<div class="samples">{"".join(strips)}</div>', note)


def _channels(count: int) -> str:
    if count in (1, 3):
        return ""
    return f"; of {count} channels {'the first 3' if count > 3 else 'the first'} shown"


def galleries(run: RunFolder) -> list[Section]:
    """What the method itself left to be shown."""
    sections = []
    for gallery in load(run.path):
        # rows with names have many pictures of one kind; the others are one image in many states
        named = any(name for name, _ in gallery.rows)
        rows = (
            strip(
                (
                    passage(c.data)
                    if c.kind == "words"
                    else figure(url(c.data, c.kind), c.name, _below(c.name, c.caption, named))
                    for c in cells
                ),
                name,
                "" if named else "sample",
            )
            for name, cells in gallery.rows
        )
        body = f'<div class="{"scroll" if named else "samples"}">{"".join(rows)}</div>'
        sections.append(Section(gallery.title, body, gallery.note))
    return sections


def _below(name: str, caption: str, named: bool) -> str:
    return caption if named else ": ".join(filter(None, (name, caption)))


def next_steps(run: RunFolder) -> Section:
    """Lines to copy: score, embed, repeat, load."""
    where = shlex.quote(str(run.path))
    data = shlex.quote(str(run.settings.get("data", "photos/")))
    commands = [
        ("score it on labeled images", f"selftaught evaluate {where} labeled/"),
        (
            "how many labels it saves; this page has the curve when it is written again",
            f"selftaught evaluate {where} labeled/ --probes lowshot",
        ),
        ("write the features of all images", f"selftaught embed {where} {data} --out f.parquet"),
        ("give it to other libraries", f"selftaught export {where} --to onnx --out exported/"),
        (
            "run it again, or something close to it",
            f"selftaught pretrain --config {where}/run.yaml --out another/",
        ),
    ]
    if not run.encoder:
        resume = f"selftaught pretrain --config {where}/run.yaml --out {where} --resume"
        commands = [("continue it", resume), *commands[3:]]
    listing = "\n".join(f"# {words}\n{command}" for words, command in commands)
    body = f"<pre>{escape(listing)}</pre>"
    if run.encoder:
        ours = f'import selftaught\n\nencoder = selftaught.load("{run.path}")  # a torch module'
        body += f"<h3>In Python</h3><pre>{escape(ours)}</pre>"
        if isinstance(run.encoder.get("timm"), str):
            body += (
                "<h3>Without selftaught, in the run folder</h3>"
                f"<pre>{escape(run.encoder['timm'].rstrip())}</pre>"
            )
    return Section("What to do next", body)


def picked(run: RunFolder) -> Section | None:
    """What the run was given where nobody said it, and why."""
    found = chosen.of(run.settings)
    if not found:
        return None
    note = f"Nobody gave these: they fit the data, the network and the machine. {chosen.PAPERS}."
    return Section("What was chosen", table(chosen.HEAD, [c.row for c in found]), note)


def settings(run: RunFolder) -> Section:
    """What it was made with: run.yaml, which is also the command, and versions."""
    made = mapping(run.settings.get("made_by"))
    now = {
        "python": platform.python_version(),
        **{name: version(name) for name in ("selftaught", "torch", "timm", "numpy", "pillow")},
        "system": f"{platform.system()} {platform.machine()}",
    }
    everything = [(f"trained with {k}", str(v)) for k, v in made.items()]
    everything += [(f"this page: {k}", v) for k, v in now.items()]
    text = f"<pre>{escape(run.text)}</pre>" if run.text else missing("There is no run.yaml.")
    return Section(
        "Settings and environment",
        f"<details><summary>run.yaml</summary>{text}</details>"
        f"<details><summary>environment</summary>{table(('', ''), everything)}</details>",
    )


def _last(points: list[charts.Point]) -> float | None:
    return next((y for _, y in reversed(points) if math.isfinite(y)), None)


def _median(points: list[charts.Point]) -> float | None:
    values = sorted(y for _, y in points if math.isfinite(y))
    return values[len(values) // 2] if values else None


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
