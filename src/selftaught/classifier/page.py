"""The page of a classifier: its scores beside floors, its mistakes, how sure it is."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught import kinds
from selftaught.classifier.judging import Judged, Mistake, plain
from selftaught.data import BadSample, Samples
from selftaught.evaluate.floors import ENCODER
from selftaught.kinds import Kind
from selftaught.report import charts
from selftaught.report.html import Missing, Section, figure, page, quote, strip, table
from selftaught.report.image.pictures import THUMB, data_url
from selftaught.sides import Size, both

if TYPE_CHECKING:
    from selftaught.classifier.model import Classifier

SHOWN = 40
"""Mistakes on the page."""

MOST = 30
"""Classes up to which all are in the table of what was taken for what."""

CONFUSED = 30
"""Pairs of classes that are listed where there are more."""


def pictures(judged: Judged, samples: Samples, size: Size) -> tuple[Mistake, ...]:
    """The worst mistakes, as they were seen.

    Args:
        judged: what was said.
        samples: which its positions are of.
        size: of the views.
    """
    kind, made = kinds.of(samples), []
    for row in judged.mistakes[:SHOWN].tolist():
        i = int(judged.index[row])
        try:
            shown = _seen(samples, kind, i, size)
        except BadSample:  # it could be read before
            continue
        words = kind.said(samples.read(i))
        made.append(Mistake(data_url(shown), samples.name(i), _said(judged, row), words))
    return tuple(made)


def _seen(samples: Samples, kind: Kind, i: int, size: Any) -> np.ndarray:
    """Sample `i` as the encoder sees it, as a picture."""
    if not kind.native:
        return kind.thumbnail(samples.read(i), THUMB)
    view = kind.plain(size)
    return view(samples.read(i, min_side=2 * max(both(getattr(view, "resize", 0)))))


def _said(judged: Judged, row: int) -> str:
    names, outputs, truth = judged.target.names, judged.outputs[row], judged.truth[row]
    if judged.target.kind == "regression":
        return f"is {float(truth):g}, said {outputs[0]:.4g}"
    if judged.target.kind == "multilabel":
        wrong = np.flatnonzero((outputs >= 0.5) != (truth > 0.5))
        parts = [
            f"{'no' if truth[c] < 0.5 else 'has'} {names[c]} ({100 * outputs[c]:.0f} %)"
            for c in wrong[np.argsort(-np.abs(outputs[wrong] - truth[wrong]))][:3]
        ]
        return ", ".join(parts)
    best = int(outputs.argmax())
    known = names[int(truth)] if truth >= 0 else "another class"
    return f"is {known}, said {names[best]} ({100 * outputs[best]:.0f} %)"


def text(made: "Classifier") -> str:
    """The whole page."""
    judged = made.judged
    assert judged is not None
    title, how = f"Classifier of {made.network.name}", str(made.about.get("how", ""))
    top = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(judged.target.said)}. {escape(how)}.</p>',
        _verdict(made),
    ]
    parts = [
        _beside(made),
        _confusion(judged),
        _mistakes(made),
        _sureness(judged),
        _of_each(judged),
    ]
    return page(title, top, parts)


def _verdict(made: "Classifier") -> str:
    rows = []
    for name, score in made.scores.items():
        low, high = score["interval"]
        rows.append(f"{name} {score['value']:.1f} % (95 % interval {low:.1f} to {high:.1f})")
    compared = made.compared
    kind, details = "unclear", ""
    if compared is not None:
        word = compared.verdict.partition(":")[0].lower()
        kind = {"learned": "above", "unclear": "unclear"}.get(word, "below")
        details = "".join(f"<li>{escape(d)}</li>" for d in compared.details)
    return (
        f'<div class="verdict {kind}"><strong>{escape("; ".join(rows))}</strong>'
        f"<ul>{details}</ul></div>"
    )


def _beside(made: "Classifier") -> Section | None:
    if made.compared is None:
        return None
    charted = []
    for score in made.compared.scores[ENCODER]:
        rows = []
        for name, scores in made.compared.scores.items():
            for s in scores:
                if s.name == score.name:
                    low, high = s.interval
                    rows.append(
                        (name, max(s.value, 0.0), (max(low, 0.0), max(high, 0.0)), name == ENCODER)
                    )
        charted.append(
            f"<div><h3>{escape(score.name)}, per cent {escape(score.measure)}</h3>"
            f"{charts.bars(rows)}</div>"
        )
    note = (
        "The same choice of classifiers was given the encoder and each floor, and judged on the "
        f"same held-out images: {made.compared.scores[ENCODER][0].protocol}."
    )
    return Section("Beside floors", f'<div class="grid2">{"".join(charted)}</div>', note)


def _confusion(judged: Judged) -> Section | None:
    if judged.target.kind != "classes":
        return None
    found, names = judged.confusion, judged.target.names
    title = "What was taken for what"
    if len(names) <= MOST:
        heads = ["", *names, "right"]
        rows = [_row(name, counts, c) for c, (name, counts) in enumerate(zip(names, found))]
        return Section(
            title,
            f'<div class="scroll">{table(heads, rows)}</div>',
            "Rows: what the held-out images are. Columns: what was said.",
        )
    off = found.copy()
    np.fill_diagonal(off, 0)
    pairs = [np.unravel_index(i, off.shape) for i in np.argsort(-off, axis=None)[:CONFUSED]]
    rows = [
        (names[a], names[b], str(off[a, b]), str(found[a].sum())) for a, b in pairs if off[a, b]
    ]
    note = f"The {len(rows)} pairs of {len(names)} classes that are mistaken most often."
    return Section(title, table(("is", "said", "images", "of"), rows), note)


def _row(name: str, counts: np.ndarray, own: int) -> Sequence[str]:
    total = int(counts.sum())
    right = f"{100 * counts[own] / total:.0f} %" if total else ""
    return (name, *("" if not n else str(n) for n in counts.tolist()), right)


def _mistakes(made: "Classifier") -> Section | Missing:
    title = "Worst mistakes"
    if not made.mistakes:
        return Missing(title, "none was made on the held-out images")
    note = (
        "Images that were held out, the farthest off first. Labels that are wrong stand here, too."
    )
    shown = (
        quote(m.words, m.name, m.said) if m.words else figure(m.url, f"{m.name}: {m.said}", m.said)
        for m in made.mistakes
    )
    return Section(title, strip(shown, "", "samples wrap"), note)


def _sureness(judged: Judged) -> Section | None:
    rows = [
        (f"{r['said']:.0f} %", f"{r['right']:.0f} %", f"{r['predictions']:,}")
        for r in judged.sureness
    ]
    if not rows:
        return None
    note = (
        "Held-out predictions by how sure they are. Were probabilities perfect, the first two "
        f"columns were alike; they differ by {judged.off:.1f} points on average. Where too many "
        "are wrong, let predict leave out what is less sure: --min."
    )
    return Section(
        "How sure it is", table(("probability said", "right", "predictions"), rows), note
    )


def _of_each(judged: Judged) -> Section | None:
    each: dict[str, Any] = plain(judged).get("precisions", {})
    if not each:
        return None
    rows = [
        (name, "" if v is None else f"{v:.1f}", f"{int(n):,}")
        for (name, v), n in zip(each.items(), judged.truth.sum(0), strict=True)
    ]
    heads = ("name", "average precision, per cent", "held-out images")
    return Section("Each name", f'<div class="scroll">{table(heads, rows)}</div>')


def summary(made: "Classifier") -> str:
    """A few lines for notebooks."""
    rows = [
        (name, f"{s['value']:.1f} %", "{:.1f} to {:.1f}".format(*s["interval"]))
        for name, s in made.scores.items()
    ]
    return f"<p>{escape(repr(made))}</p>{table(('', '', '95 %'), rows)}"
