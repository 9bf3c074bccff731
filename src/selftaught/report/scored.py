"""What a run was scored with: verdict, bars beside their floors, and the labels it saves."""

from html import escape
from pathlib import Path
from typing import Any

from selftaught.evaluate.depth import NAME as DEPTH
from selftaught.evaluate.floors import FINE_TUNED
from selftaught.report import charts
from selftaught.report.folder import RunFolder
from selftaught.report.html import Missing, Section, dicts, pair, real, table
from selftaught.report.training import findings
from selftaught.verdict import START, judge


def verdict(run: RunFolder) -> str:
    """Whether it learned, why, and what the doctor found with causes and remedies."""
    said = judge(run.diagnosis, run.scores, run.kept)
    style = {"learned": "above", "unclear": "unclear"}.get(said.word, "below")
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in said.reasons)
    head = escape(f"{said.word.capitalize()}: {said.because}")
    return (
        f'<div class="verdict {style}"><strong>{head}</strong><ul>{reasons}</ul>'
        f"{findings(run)}</div>"
    )


def scores(run: RunFolder) -> Section | Missing | None:
    """Bars of the encoder and of its floors, for each score; of training, then of evaluations."""
    parts = [_evaluation(found, i == 0) for i, found in enumerate(run.scores)]
    if not any(parts):
        if run.scores:
            return None
        return Missing(
            "Scores against floors", "the data had no labels, or evaluation was switched off"
        )
    names = {r.get("features") for found in run.scores for r in dicts(found.get("scores"))}
    begun = ", and with the weights that it began with" if START in names else ""
    known = [*run.kind.floors(), *run.kind.judges()]
    note = (
        f"Floors: {', '.join(known)}, and the same network untrained{begun}. "
        f"{run.kind.about_floors}Whiskers are 95 % intervals. An encoder that is not above all "
        "floors has learned nothing that is of use here."
    )
    return Section("Scores against floors", "".join(parts), note)


def kept(run: RunFolder) -> Section | None:
    """Which encoder was exported of a run that began with weights, beside what else there was."""
    if not run.kept:
        return None
    rows = [
        (
            str(r.get("name")),
            *(f"{real(r.get(name)):.1f}" for name in ("k-NN", "probe", "mean")),
            f"{real(r.get('above_end')):+.1f} ± {real(r.get('noise')):.1f}",
        )
        for r in dicts(run.kept.get("candidates"))
    ]
    heads = ("", "k-NN", "probe", "mean", "above the end")
    figures = f'<div class="scroll">{table(heads, rows)}</div>' if rows else ""
    note = (
        "Per cent right on labeled images of the training data, each classified by the others; ± "
        "is one standard error. They are for choosing: what the encoder is worth, the scores say, "
        "which are of other images. The checkpoints are those of the end."
    )
    why = f"<p>{escape(str(run.kept.get('why', '')))}</p>"
    return Section("What was kept", why + figures, note if rows else "")


def _evaluation(found: dict[str, Any], first: bool) -> str:
    """Bars of an evaluation, with its data and its verdict, which of the first is on top."""
    rows, parts = dicts(found.get("scores")), []
    rows = [r for r in rows if not _few_labels(r)]  # which are drawn as a curve
    for name in dict.fromkeys(str(r.get("score")) for r in rows):
        mine = [r for r in rows if str(r.get("score")) == name]
        chart = charts.bars(
            [
                (
                    str(r.get("features")),
                    real(r.get("value")),
                    pair(r.get("interval")),
                    i == 0,
                )
                for i, r in enumerate(mine)
            ]
        )
        if name == DEPTH:
            chart += _curve(mine)
        protocol = escape(str(mine[0].get("protocol", "")))
        measure = escape(str(mine[0].get("measure", "right")))
        parts.append(
            f"<div><h3>{escape(name)}, per cent {measure}</h3>{chart}"
            f'<p class="note">{protocol}</p></div>'
        )
    if not parts:
        return ""
    body = f'<div class="grid2">{"".join(parts)}</div>'
    head = f"<h3>On {escape(_where(found))}</h3>" if found.get("data") else ""
    said = "" if first else f"<p>{escape(str(found.get('verdict', '')))}</p>"
    return head + said + body


def _curve(rows: list[dict[str, Any]]) -> str:
    """The scores of each depth, from the first block or stage to the last, of all that have any."""
    series = {
        str(r.get("features")): [(i, real(v)) for i, v in enumerate(r["parts"].values(), 1)]
        for r in rows
        if isinstance(r.get("parts"), dict) and len(r["parts"]) > 1
    }
    if not series:
        return ""
    return charts.lines(series) + charts.key([*series])


def _few_labels(row: dict[str, Any]) -> bool:
    return bool(row.get("labels")) and not str(row.get("score")).startswith(FINE_TUNED)


def _where(found: dict[str, Any]) -> str:
    """Which images an evaluation was of."""
    names = [Path(str(found[n])).name for n in ("data", "test") if found.get(n)]
    return ", tested on ".join(names) or "the data of the training"


def labels(run: RunFolder) -> list[Section]:
    """How many labels the encoder saves, where it was scored with several numbers of them."""
    sections: dict[str, Section] = {}
    for found in run.scores:
        savings, rows = dicts(found.get("savings")), dicts(found.get("scores"))
        for tuned in (False, True):
            some, mine = (
                [e for e in entries if str(e.get("score")).startswith(FINE_TUNED) == tuned]
                for entries in (savings, rows)
            )
            if some and mine:
                section = _savings(found, some, mine, tuned)
                sections[section.title] = section  # the newest of the same data
    return list(sections.values())


def _savings(
    found: dict[str, Any], savings: list[dict[str, Any]], rows: list[dict[str, Any]], tuned: bool
) -> Section:
    curves: dict[str, list[charts.Point]] = {}
    for row in rows:
        if real(row.get("labels")) >= 1:
            point = (real(row.get("labels")), real(row.get("value")))
            curves.setdefault(str(row.get("features")), []).append(point)
    chart = charts.lines({name: sorted(p) for name, p in curves.items()}, log=True)
    told = [
        (
            str(s.get("score")),
            f"{real(s.get('labels')):,.0f}",
            f"{real(s.get('value')):.1f}",
            f"{'more than ' if s.get('at_least') else ''}{real(s.get('needed')):,.0f}",
            f"{'more than ' if s.get('at_least') else ''}{real(s.get('saved')):+,.0f}",
        )
        for s in savings
    ]
    heads = ("", "labels", "per cent right", "labels without it", "saved")
    without = "the best floor"
    if tuned:
        begun = START in curves
        without = "the same network trained from fresh weights"
        without += ", or from those that it began with" if begun else ""
    protocol = str(rows[0].get("protocol")).partition(";")[0]
    note = (
        f"{_best(savings)} Per cent right against the number of labels; {protocol}. "
        f"Without the encoder means {without}; between two numbers of labels its curve is taken as "
        "straight over their logarithm, and more labels never count as worse."
    )
    body = f'<div class="grid2"><div>{chart}{charts.key(list(curves))}</div>'
    body += f'<div class="scroll">{table(heads, told)}</div></div>'
    how = "by fine-tuning on" if tuned else "on"
    return Section(f"Labels saved {how} {_where(found)}", body, note)


def _best(savings: list[dict[str, Any]]) -> str:
    """A sentence on where the encoder saves the largest share of labels."""
    best = max(savings, key=lambda s: (real(s.get("utility")), real(s.get("labels"))))
    labels, needed = real(best.get("labels")), real(best.get("needed"))
    if needed <= labels and best.get("at_least"):
        return f"The encoder does more with {labels:,.0f} labels than {needed:,.0f} do without."
    if needed <= labels:
        return "The encoder saves no labels: without it as few give the same."
    more = "more than " if best.get("at_least") else ""
    return (
        f"At best {labels:,.0f} labels with the encoder do what {more}{needed:,.0f} do without: "
        f"{more}{needed - labels:,.0f} saved."
    )
