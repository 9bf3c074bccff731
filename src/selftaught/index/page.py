"""What was found, as a page with the pictures."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from selftaught import kinds
from selftaught.data import BadSample, Samples
from selftaught.export.files import atomic
from selftaught.index.found import Found
from selftaught.index.index import Index
from selftaught.index.queries import Query
from selftaught.report.html import Section, escape, figure, missing, page, strip
from selftaught.report.image.pictures import THUMB, data_url
from selftaught.report.image.pictures import shown as sample_figure

_NOTHING = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
"""A picture of nothing."""


def write(
    out: Path, index: Index, found: Sequence[Found], queries: Sequence[Query], shown: int
) -> None:
    """Write a page.

    Args:
        out: file.
        index: that was searched.
        found: what was found.
        queries: by which matches were found.
        shown: groups and outliers, at most.
    """
    makers = {"matches": _matches, "duplicates": _duplicates, "outliers": _outliers}
    parts = []
    for one in found:
        strips = list(makers[one.kind](index, one, queries, shown))
        body = "".join(strips) or missing("Nothing was found.")
        parts.append(Section(one.kind.capitalize(), body, one.note))
    title = ", ".join(one.kind for one in found).capitalize()
    top = [f"<h1>{title}</h1>", f'<p class="soft">{escape(str(index))}</p>']
    with atomic(out) as temporary:
        text = page("selftaught search", top, parts)
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def _matches(index: Index, found: Found, queries: Sequence[Query], _: int) -> Iterator[str]:
    rows: dict[str, list[dict[str, Any]]] = {query.name: [] for query in queries}
    for row in found:
        rows[row["query"]].append(row)
    for query in queries:
        first = _figure(query.image, 0, query.name, "query", "query")
        figures = [_shown(index, row, f"{row['similarity']:.3f}") for row in rows[query.name]]
        yield strip([first, *figures], query.name, "wrap")


def _duplicates(index: Index, found: Found, _: Sequence[Query], shown: int) -> Iterator[str]:
    for number, rows in groupby(found, lambda row: row["group"]):
        if number > shown:
            break
        figures = []
        for row in rows:
            size = f"{row['width']}x{row['height']}" if "width" in row else f"{row['size']:,}"
            caption = f"keep, {size}" if row["keep"] else f"{row['similarity']:.3f}, {size}"
            style = "same" if row["keep"] else ""
            figures.append(_shown(index, row, caption, style))
        yield strip(figures, f"group {number}", "wrap")


def _outliers(index: Index, found: Found, _: Sequence[Query], shown: int) -> Iterator[str]:
    rows = [row for row, _ in zip(found, range(shown))]
    if rows:
        yield strip([_shown(index, row, f"{row['distance']:.3f}") for row in rows], "", "wrap")


def _shown(index: Index, row: dict[str, Any], caption: str, style: str = "") -> str:
    return _figure(index.data, row["index"], row["path"], caption, style)


def _figure(samples: Samples, i: int, name: str, caption: str, style: str) -> str:
    """A sample as a figure; with an empty picture where it has just gone."""
    try:
        if not kinds.of(samples).native:
            return sample_figure(samples, i, name, caption, style)
        whole = samples.read(i, min_side=2 * THUMB).transpose(2, 0, 1)
        return figure(data_url(whole), name, caption, style)
    except BadSample:
        return figure(_NOTHING, name, caption, style)
