"""What `selftaught curate` runs: a pool's verbs, each a command, and all of them by one file."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from selftaught.curate.fetch.settings import Fetching
from selftaught.curate.pool import ORDER, Pool
from selftaught.curate.settings import (
    Balancing,
    Deduplicating,
    Embedded,
    Filtering,
    Retrieving,
    Scanning,
    Telling,
)
from selftaught.data.absent import missing
from selftaught.errors import UserError
from selftaught.evaluate.settings import Searching
from selftaught.signature import closest, takes

if TYPE_CHECKING:
    from typing import Unpack

    from selftaught.index.commands import Searched
    from selftaught.options import (
        BalancingOptions,
        DeduplicatingOptions,
        EmbeddedOptions,
        FetchingOptions,
        FilteringOptions,
        RetrievingOptions,
        ScanningOptions,
        SearchingOptions,
        TellingOptions,
    )


@takes(Scanning)
def scan(data: tuple[str, ...], **options: "Unpack[ScanningOptions]") -> Pool:
    """Make a pool: what images there are, how large they are, and which have the same bytes.

    Args:
        data: folders, list files, Parquet, tar shards or arrays of images.
        options: fields of `Scanning`.
    """
    return Pool.scan(*data, **options)


@takes(Fetching)
def fetch_command(
    source: str,
    out: Path = Path("pool"),
    part: str | None = None,
    **options: "Unpack[FetchingOptions]",
) -> Any:
    """Fetch the images that pages or a list of addresses name, with leave, and scan them.

    Args:
        source: .warc, .html, folder of these, or .txt, .csv, .tsv, .parquet of addresses.
        out: folder of the pool.
        part: i/n fetches only every n-th shard, from the i-th on, counted from 0.
        options: fields of `Fetching`.
    """
    from selftaught.curate.fetched import fetched

    return fetched(Path(source), Path(out), Fetching.of(**options), part)


@takes(Filtering)
def filter_command(pool: str, **options: "Unpack[FilteringOptions]") -> Pool:
    """Leave out images that are too small, long, blurred or empty, or that a list forbids.

    Args:
        pool: folder that scan has made.
        options: fields of `Filtering`.
    """
    return Pool(pool).filter(**options)


@takes(Embedded)
def embed_command(pool: str, **options: "Unpack[EmbeddedOptions]") -> Pool:
    """Keep the features of all images that are left, for dedup, retrieve, balance and search.

    Args:
        pool: folder that scan has made.
        options: fields of `Embedded`.
    """
    return Pool(pool).embed(**options)


@takes(Deduplicating)
def dedup_command(pool: str, **options: "Unpack[DeduplicatingOptions]") -> Pool:
    """Of images that are copies of each other leave the largest.

    Args:
        pool: folder that scan has made.
        options: fields of `Deduplicating`.
    """
    return Pool(pool).dedup(**options)


@takes(Retrieving)
def retrieve_command(pool: str, **options: "Unpack[RetrievingOptions]") -> Pool:
    """Leave the images that are like those that somebody has chosen.

    Args:
        pool: folder that embed has worked on.
        options: fields of `Retrieving`.
    """
    return Pool(pool).retrieve(**options)


@takes(Balancing)
def balance_command(pool: str, **options: "Unpack[BalancingOptions]") -> Pool:
    """Leave so many images, spread evenly over all that there is to see.

    Args:
        pool: folder that embed has worked on.
        options: fields of `Balancing`.
    """
    return Pool(pool).balance(**options)


@takes(Searching)
def search_command(pool: str, **options: "Unpack[SearchingOptions]") -> "Searched":
    """Find images of a pool that embed has worked on, among those that are left.

    Args:
        pool: folder that embed has worked on.
        options: fields of `Searching`; those that tell an encoder are the pool's own.
    """
    from selftaught.curate.finding import search

    given: dict[str, Any] = dict(options)
    if given.keys() & {"query", "duplicates", "outliers"}:
        given.setdefault("out", (Path("search.html"),))
    return search(Pool(pool), **given)


def restore(pool: str, stage: str) -> Pool:
    """Take a stage back, and those after it: what they left out is in the pool again.

    Args:
        pool: folder that scan has made.
        stage: filter, embed, dedup, retrieve or balance.
    """
    return Pool(pool).restore(stage)


@takes(Telling)
def report(pool: str, **options: "Unpack[TellingOptions]") -> Path:
    """Write what each stage did as a page with pictures, and what is left as list and table.

    Args:
        pool: folder that scan has made.
        options: fields of `Telling`.
    """
    from selftaught.curate.page import write

    return write(Pool(pool), Telling.of(**options))


def run(file: str) -> Path:
    """Do all stages that a YAML file names, one after the other, and write the report.

    Args:
        file: a section a stage, with its options: fetch with its source, or scan with its data, or
            both, then filter, embed, dedup, retrieve, balance, report; those that are absent are
            left out.
    """
    from selftaught.curate.fetched import fetched
    from selftaught.curate.page import write

    asked = _sections(file)
    told = asked.pop("report", {})
    begun = {name: asked.pop(name) for name in BEGINS if name in asked}
    out = next((Path(given["out"]) for given in begun.values() if "out" in given), Scanning.out)
    for name, given in begun.items():
        what = given.pop(BEGINS[name])
        given.pop("out", None)
        if name == "fetch":
            fetched(Path(what), out, Fetching.of(**given), None)
        else:
            Pool.scan(*([what] if isinstance(what, str) else what), out=out, **given)
    pool = Pool(out)
    for name, options in asked.items():
        getattr(pool, name)(**options)
    return write(pool, Telling.of(**told))


BEGINS = {"fetch": "source", "scan": "data"}
"""Sections that a pool can begin with, and what each must name beside options; and its `out`."""
HELD = {"dedup": "against", "retrieve": "query"}
"""Sections that name other images."""
SECTIONS: dict[str, Any] = {
    "fetch": Fetching,
    **dict(zip(ORDER, (Scanning, Filtering, Embedded, Deduplicating, Retrieving, Balancing))),
    "report": Telling,
}


def _sections(file: str) -> dict[str, dict[str, Any]]:
    """The stages of a file in their order, all options checked before the first is begun.

    Raises:
        UserError: the file cannot be read, or names what there is not.
    """
    try:
        found = yaml.safe_load(Path(file).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(found, dict) or not BEGINS.keys() & found.keys():
        raise UserError(
            f"{file} needs a section scan with its data, such as: scan: {{data: x/}}, or fetch "
            "with its source"
        )
    for name, options in found.items():
        if name not in SECTIONS:
            raise UserError(f"{file} has a section {name}{closest(str(name), SECTIONS)}")
        if not isinstance(options, dict | None):
            raise UserError(
                f"{file}: {name} must have options, such as {name}: {{OPTION: VALUE}}, got "
                f"{options!r}"
            )
        found[name] = _checked(file, name, dict(options or {}))
    outs = {str(Path(found[n]["out"])) for n in BEGINS if "out" in found.get(n, {})}
    if len(outs) > 1:
        raise UserError(f"{file} fetches and scans into different pools: {', '.join(sorted(outs))}")
    return {name: found[name] for name in SECTIONS if name in found}


def _checked(file: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a section, where they can work."""
    own = (BEGINS[name], "out") if name in BEGINS else ()
    names = [f.name for f in fields(SECTIONS[name])]
    for option in given:
        if option not in (*own, *names):
            raise UserError(f"{file}: {name} has no option {option}{closest(option, names)}")
    rest = {n: v for n, v in given.items() if n in names}
    try:
        SECTIONS[name].of(**rest)
    except UserError as error:
        raise UserError(f"{file}: {name}: {error}") from error
    for word in own:
        if word == "out" and word not in given:
            continue
        several = given.get(word) if word == "data" else None
        values = several if isinstance(several, list) and several else [given.get(word)]
        if not all(isinstance(v, str) and v for v in values):
            kind = "a folder, or a list of several" if word == "data" else "a file or folder"
            raise UserError(f"{file} names no {word} below {name}: {kind}, as text")
    other = str(given.get(HELD.get(name, "")) or "")
    if other and not Path(other).exists() and not set("{*?[") & set(other):
        raise UserError(f"{file}: {name}: {missing(Path(other))}")  # now, not after hours of work
    return given
