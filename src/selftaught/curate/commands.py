"""What `selftaught curate` runs: a pool's verbs, each a command, and all of them by one file."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

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
        file: a section a stage, with its options: scan with its data and out, then filter, embed,
            dedup, retrieve, balance, report; those that are absent are left out.
    """
    from selftaught.curate.page import write

    asked = _sections(file)
    scanned = asked.pop("scan")
    data = scanned.pop("data")
    pool = Pool.scan(*([data] if isinstance(data, str) else data), **scanned)
    told = asked.pop("report", {})
    for name, options in asked.items():
        getattr(pool, name)(**options)
    return write(pool, Telling.of(**told))


SECTIONS = dict(zip(ORDER, (Scanning, Filtering, Embedded, Deduplicating, Retrieving, Balancing)))


def _sections(file: str) -> dict[str, dict[str, Any]]:
    """The stages of a file in their order, all options checked before the first is begun.

    Raises:
        UserError: the file cannot be read, or names what there is not.
    """
    try:
        found = yaml.safe_load(Path(file).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("scan"), dict):
        raise UserError(f"{file} needs a section scan with its data, such as: scan: {{data: x/}}")
    if not found["scan"].get("data"):
        raise UserError(f"{file} names no data below scan: a folder, or a list of several")
    known: dict[str, Any] = SECTIONS | {"report": Telling}
    for name, options in found.items():
        if name not in known:
            raise UserError(f"{file} has a section {name}{closest(str(name), known)}")
        given = dict(options or {})
        rest = {n: v for n, v in given.items() if (name, n) != ("scan", "data")}
        for option in rest:
            names = [f.name for f in fields(known[name])]
            if option not in names:
                raise UserError(f"{file}: {name} has no option {option}{closest(option, names)}")
        known[name].of(**rest)
        found[name] = given
    return {name: found[name] for name in (*ORDER, "report") if name in found}
