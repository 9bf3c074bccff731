"""Sections about the images: neighbors, near-duplicates and outliers, and what data there is."""

from collections import Counter
from html import escape

import numpy as np

from selftaught import kinds
from selftaught.report.folder import RunFolder
from selftaught.report.html import Missing, Section, strip, table
from selftaught.report.seen import Seen

_QUERIES = 12
_SHOWN = 12
"""Pairs and outliers that are shown."""
_SAME = 0.995
"""Cosine above which two images may be the same photo."""
_HEADERS = 300
"""Files whose sizes are looked at."""
_LISTED = 20
"""Unreadable files that are listed by name."""


def nearest(seen: Seen) -> Section:
    """A few images, each with its most similar ones."""
    rows, same, known = [], 0, 0
    for query in np.random.default_rng(0).permutation(len(seen))[:_QUERIES].tolist():
        mine = seen.label(query)
        figures = [seen.figure(query, caption=mine or "query", style="query")]
        for i, cosine in zip(seen.near[query].tolist(), seen.similarity[query], strict=True):
            theirs = seen.label(i)
            told = bool(mine and theirs)
            alike = told and mine == theirs
            known, same = known + told, same + alike
            style = ("same" if alike else "other") if told else ""
            caption = f"{cosine:.2f}{' ✓' if alike else ''}"
            figures.append(seen.figure(i, f"{seen.name(i)} {theirs}".strip(), caption, style))
        rows.append(strip(figures))
    note = (
        f"Left, an image drawn at random; then its most similar among {len(seen):,} of "
        f"{seen.total:,}, with their cosine."
    )
    if known:
        note += (
            f" Green with ✓: same class, red: another; {same} of these {known} neighbors have "
            "the class of their query."
        )
    if seen.similarity.min() > 0.98:
        note += " Cosines that are all near 1 mean features that have collapsed."
    return Section("Nearest neighbors", f'<div class="scroll">{"".join(rows)}</div>', note)


def pairs(seen: Seen) -> Section:
    """The most similar pairs, and the images that nothing resembles."""
    best = {tuple(sorted((i, int(j)))): float(s) for i, (j, s) in enumerate(_first(seen))}
    close = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    suspects = sum(s > _SAME for s in best.values())
    twins = "".join(
        strip(
            [
                seen.figure(a, caption=f"{cosine:.3f}"),
                seen.figure(b, caption=f"{cosine:.3f}"),
            ],
            style="sample",
        )
        for (a, b), cosine in close
    )
    lonely = seen.similarity.mean(1)
    far = np.argsort(lonely, kind="stable")[:_SHOWN].tolist()
    outliers = strip((seen.figure(i, caption=f"{lonely[i]:.2f}") for i in far), style="wrap")
    body = (
        f'<h3>Most similar pairs, with their cosine</h3><div class="samples">{twins}</div>'
        "<h3>Images that resemble no other, with the mean cosine of their neighbors</h3>"
        f"{outliers}"
    )
    note = (
        f"Among {len(seen):,} of {seen.total:,} images {suspects:,} "
        f"{'pair has' if suspects == 1 else 'pairs have'} a cosine above {_SAME}. Pairs may be "
        "copies (“selftaught check” finds exact ones), outliers may be files that do not belong "
        "here. That is what the encoder says: a poor one errs."
    )
    return Section("Near-duplicates and outliers", body, note)


def _first(seen: Seen) -> list[tuple[int, float]]:
    return list(zip(seen.near[:, 0].tolist(), seen.similarity[:, 0].tolist(), strict=True))


def data(run: RunFolder, seen: Seen | None) -> Section | Missing:
    """Counts: images, classes, sizes, and what could not be read."""
    rows: list[tuple[str, str]] = []
    given = run.settings.get("data")
    if isinstance(given, str):
        rows.append(("trained on", given))
    if seen is not None:
        rows += _counts(seen)
    training = run.settings.get("training")
    for name in ("quarantine", "value_range", "test"):
        value = training.get(name) if isinstance(training, dict) else None
        if value is not None:
            rows.append((name.replace("_", " "), str(value)))
    if not rows and not run.bad:
        return Missing("Data", "run.yaml does not say what it was trained on")
    if not run.bad:
        rows.append(("unreadable", "none: every file that was read could be read"))
    return Section("Data", table(("", ""), rows) + _bad(run))


def _counts(seen: Seen) -> list[tuple[str, str]]:
    rows = [(kinds.of(seen.samples).many, f"{seen.total:,}")]
    labels = seen.samples.labels
    if labels is not None and len(labels):
        sizes = Counter(seen.label(i) for i in range(len(seen)))
        unknown = sizes.pop("", 0)
        if sizes:
            common = ", ".join(f"{name} ({count:,})" for name, count in sizes.most_common(12))
            more = f" and {len(sizes) - 12} more" if len(sizes) > 12 else ""
            some = "" if len(seen) == seen.total else f", among {len(seen):,} images"
            rows.append((f"classes{some}", f"{len(sizes)}: {common}{more}"))
        if unknown:
            rows.append(("without a class", f"{unknown:,}"))
    some = np.random.default_rng(0).permutation(len(seen))[:_HEADERS].tolist()
    rows += kinds.of(seen.samples).described(seen.samples, some)
    if left := seen.samples.skipped.sentence():
        rows.append(("left out beside them", left))
    return rows


def _bad(run: RunFolder) -> str:
    if not run.bad:
        return ""
    common = Counter(run.bad.values()).most_common(_LISTED)
    by_reason = table(("reason", "files"), ((r, str(c)) for r, c in common))
    files = table(("file", "reason"), list(run.bad.items())[:_LISTED])
    more = f", the first {_LISTED} of them" if len(run.bad) > _LISTED else ""
    return (
        f"<h3>{len(run.bad):,} files could not be read; all are in bad_files.csv</h3>{by_reason}"
        f"<details><summary>the files{escape(more)}</summary>{files}</details>"
    )
