"""What each stage of a pool did, as a page with pictures; and what is left, as list and tables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.curate import atlas, drawn
from selftaught.curate.clusters import entropy, gini
from selftaught.curate.dedup import CHAINED, chains
from selftaught.curate.pool import Pool, Record
from selftaught.curate.settings import Telling
from selftaught.data import BadSample
from selftaught.evaluate.writing import texts, write_table
from selftaught.export.files import atomic
from selftaught.report.html import Section, escape, figure, page, strip, table
from selftaught.report.image.pictures import THUMB, data_url

GROUPS = 10
"""The biggest groups of copies that are shown."""
CLUSTERS = 12
"""Clusters that are drawn to be shown."""
OF_EACH = 10
"""Images of a group or cluster that are shown."""


def write(pool: Pool, asked: Telling) -> Path:
    """Write report.html, datasheet.md, list.txt, rows.parquet and atlas.parquet into the pool.

    Args:
        pool: to be told of.
        asked: how.

    Returns:
        The page.
    """
    out = asked.out or pool.folder / "report.html"
    records = pool.records()
    rows = _rows(pool, records)
    with atomic(pool.folder / "rows.parquet") as temporary:
        write_table(temporary, rows)
    samples = pool.samples
    with atomic(pool.folder / "list.txt") as temporary:
        names = texts(samples, np.arange(len(samples)))
        temporary.write_text("".join(f"{name}\n" for name in names), "utf-8")
    with atomic(pool.folder / "datasheet.md") as temporary:
        temporary.write_text(_datasheet(pool, records), "utf-8")
    maker = Page(pool, asked)
    sections = [section for record in records for section in maker.sections(record)]
    if (mapped := atlas.section(pool, rows, asked)) is not None:
        sections.append(mapped)
    top = [
        "<h1>Pool</h1>",
        f'<p class="soft">{escape(str(pool.folder))}: {len(pool):,} of {pool.count:,} images are '
        "left</p>",
    ]
    with atomic(out) as temporary:
        text = page("selftaught curate", top, [maker.counts(records), *sections])
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
    return out


def _rows(pool: Pool, records: list[Record]) -> dict[str, Any]:
    """All that is known of each image: where it is, and which stage left it out, and why."""
    scan = pool.verdict("scan")
    names = ("name", "width", "height", "bytes", "hash")
    columns: dict[str, Any] = {"row": scan["row"], **{name: scan[name] for name in names}}
    source = np.searchsorted(np.cumsum([s["count"] for s in pool.about["sources"]]), scan["row"],
                             side="right")  # fmt: skip
    columns["data"] = np.array([s["data"] for s in pool.about["sources"]], object)[source]
    state = np.full(pool.count, "left", object)
    reason = np.full(pool.count, "", object)
    for record in records:
        told = pool.verdict(record.name)
        gone = told["reason"] != ""
        state[told["row"][gone]] = record.name
        reason[told["row"][gone]] = told["reason"][gone]
        for name, values in told.items():
            if name in ("row", "reason", "at", "pixels", *names):
                continue
            whole = np.full(pool.count, "" if values.dtype == object else -1, values.dtype)
            whole[told["row"]] = values
            columns[f"{record.name}_{name}"] = whole
    return columns | {"state": state, "reason": reason}


class Page:
    """Makes the sections of a pool's page."""

    def __init__(self, pool: Pool, asked: Telling):
        self.pool, self.asked = pool, asked
        self.samples = pool.everything

    def counts(self, records: list[Record]) -> Section:
        """What came and went, as a Sankey diagram and a table."""
        stages = [(r.name, r.came, r.reasons) for r in records]
        rows = [
            (r.name, f"{r.came:,}", f"{r.stays:,}", ", ".join(f"{n:,} {w}" for w, n in left),
             _told(r.options))
            for r in records
            for left in [sorted(r.reasons.items(), key=lambda item: -item[1])]
        ]  # fmt: skip
        heads = ["stage", "came", "stay", "left out", "options"]
        listed = f'<div class="counts">{table(heads, rows)}</div>'
        return Section("What came and went", drawn.flow(stages) + listed)

    def sections(self, record: Record) -> Iterator[Section]:
        """What is to be shown of a stage."""
        maker = getattr(self, f"_{record.name}", None)
        if maker is not None:
            yield maker(record, self.pool.verdict(record.name))

    def _scan(self, _: Record, told: dict[str, np.ndarray]) -> Section:
        short = np.minimum(told["width"], told["height"])
        body = _beside(
            ("shorter side, pixels", drawn.histogram(short, log=True)),
            ("bytes", drawn.histogram(told["bytes"], log=True)),
        )
        return Section("Scan", body)

    def _filter(self, record: Record, told: dict[str, np.ndarray]) -> Section:
        options = record.options
        body = _beside(
            ("sharpness", drawn.histogram(told["sharpness"], options["min_sharpness"], log=True)),
            ("contrast", drawn.histogram(told["contrast"], options["min_contrast"])),
        )
        for word in record.reasons:
            rows = told["row"][[str(r).startswith(word) for r in told["reason"]]]
            some = self._drawn(rows)
            body += strip([self._figure(i) for i in some], f"left out: {word}", "wrap")
        return Section("Filter", body)

    def _dedup(self, record: Record, told: dict[str, np.ndarray]) -> Section:
        threshold, alike = record.options.get("threshold"), told["similarity"]
        bound = threshold if threshold is not None else record.options["candidates"]
        body = _beside(
            ("cosine of each copy to what is kept of it", drawn.histogram(alike, bound)),
            ("images of a group", drawn.histogram(_sizes(told["group"]), log=True)),
        )
        copies = np.flatnonzero((told["keeps"] != told["row"]) & (told["reason"] != ""))
        near = copies[np.argsort(alike[copies], kind="stable")][: self.asked.shown]
        pairs = [
            self._figure(int(row), style="other" if not n else "same", caption=caption)
            for i in near
            for n, row in enumerate((told["row"][i], told["keeps"][i]))
            for caption in ["kept" if n else _short(alike[i], told["reason"][i])]
        ]
        body += strip(pairs, "copies that are least like what is kept of them", "wrap")
        for group, size in _biggest(told["group"]):
            rows = told["row"][told["group"] == group][:OF_EACH]
            kept = set(told["keeps"][told["group"] == group].tolist())
            figures = [self._figure(int(i), style="same" if i in kept else "") for i in rows]
            body += strip(figures, f"a group of {size:,}", "wrap")
        chained, lowest = chains(told)
        note = "Of each group the largest image is kept; green frames."
        if chained:
            note += (
                f" In {chained:,} groups a chain of copies leads to an image whose cosine to what "
                f"is kept is below {CHAINED:g} ({lowest:.2f} at the least): look at these."
            )
        return Section("Copies", body, note)

    def _retrieve(self, _: Record, told: dict[str, np.ndarray]) -> Section:
        stays = told["reason"] == ""
        body = _beside(("cosine to the query", drawn.histogram(told["similarity"][stays])))
        queries = np.unique(told["query"][stays].astype(str))
        rng = np.random.default_rng(self.asked.seed)
        for query in sorted(rng.permutation(queries)[:CLUSTERS]):
            own = np.flatnonzero(stays & (told["query"] == query))
            own = own[np.argsort(-told["similarity"][own], kind="stable")][:OF_EACH]
            figures = [
                self._figure(int(told["row"][i]), f"{told['similarity'][i]:.2f}") for i in own
            ]
            body += strip(figures, f"found by {query}", "wrap")
        return Section("Retrieved", body)

    def _balance(self, _: Record, told: dict[str, np.ndarray]) -> Section:
        stays, rows, body = told["reason"] == "", [], ""
        levels = sorted(name for name in told if name.startswith("cluster_"))
        for name in levels:
            k = int(told[name].max()) + 1
            before, after = (
                np.bincount(told[name][some], minlength=k) for some in (slice(None), stays)
            )
            values = (f"{f(x):.3f}" for f in (entropy, gini) for x in (before, after))
            rows.append((f"{k:,}", *values))
            if name == levels[0]:
                body = drawn.ranked(before, after)
        heads = ["clusters", "entropy before", "after", "Gini before", "after"]
        body = _beside(("", body), ("", table(heads, rows)))
        rng, finest = np.random.default_rng(self.asked.seed), told["cluster_1"]
        for cluster in sorted(rng.permutation(np.unique(finest))[:CLUSTERS].tolist()):
            own = np.flatnonzero(finest == cluster)
            some = own[np.argsort(~stays[own], kind="stable")][:OF_EACH]
            figures = [
                self._figure(int(told["row"][i]), style="same" if stays[i] else "") for i in some
            ]
            kept = int(stays[own].sum())
            body += strip(figures, f"a cluster of {len(own):,}, of which {kept:,} stay", "wrap")
        return Section("Balanced", body, "Entropy: 1 where all clusters give as many.")

    def _drawn(self, rows: np.ndarray) -> list[int]:
        rng = np.random.default_rng(self.asked.seed)
        return sorted(rng.permutation(rows)[: self.asked.shown].tolist())

    def _figure(self, i: int, caption: str = "", style: str = "") -> str:
        name = self.samples.name(i)
        try:
            image = self.samples.read(i, min_side=2 * THUMB).transpose(2, 0, 1)
        except BadSample:
            image = np.zeros((3, 2, 2), np.uint8)
        return figure(data_url(image), name, caption, style)


def _beside(*figures: tuple[str, str]) -> str:
    parts = [f"<div>{f'<h3>{escape(t)}</h3>' if t else ''}{body}</div>" for t, body in figures]
    return f'<div class="grid2">{"".join(parts)}</div>'


def _sizes(group: np.ndarray) -> np.ndarray:
    sizes = np.bincount(group[group >= 0]) if (group >= 0).any() else np.empty(0)
    return sizes[sizes > 0]


def _biggest(group: np.ndarray) -> list[tuple[int, int]]:
    if not (group >= 0).any():
        return []
    sizes = np.bincount(group[group >= 0])
    order = np.argsort(-sizes, kind="stable")[:GROUPS]
    return [(int(g), int(sizes[g])) for g in order if sizes[g] > 1]


def _short(cosine: float, reason: str) -> str:
    word = str(reason).partition(" ")[0]
    return word if np.isnan(cosine) else f"{word} {cosine:.2f}"


def _told(options: Any) -> str:
    given = {n: Path(v).name if n == "weights" and v else v for n, v in options.items()}
    return ", ".join(f"{n} {v}" for n, v in given.items() if v not in (None, "", [], False))


def _datasheet(pool: Pool, records: list[Record]) -> str:
    """What is known of the data, and what only its maker can say."""
    lines = ["# Datasheet", "", f"{len(pool):,} images of {pool.count:,} that were found.", ""]
    lines += ["## Sources", ""]
    lines += [f"- {s['data']}: {s['count']:,} images" for s in pool.about["sources"]]
    lines += ["", "## How it was made", ""]
    for record in records:
        left = ", ".join(f"{n:,} {why}" for why, n in record.reasons.items()) or "nothing"
        lines.append(
            f"- {record.name} ({_told(record.options) or 'no options'}): {record.came:,} came, "
            f"{record.stays:,} stay; left out: {left}"
        )
    lines += ["", "## To be filled in", ""]
    lines += [
        f"- {what}:"
        for what in (
            "Who collected the images, when, and for what",
            "Licenses, and whose consent was asked",
            "People who are to be seen, and how they can have an image removed",
            "What the data is not to be used for",
            "Who keeps it, and how to report a fault",
        )
    ]
    return "\n".join([*lines, ""])
