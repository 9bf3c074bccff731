"""The images of a pool on a map, as a table that Embedding Atlas opens."""

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from selftaught import kinds
from selftaught.curate.embed import features
from selftaught.curate.pool import Pool
from selftaught.curate.settings import Telling
from selftaught.data import BadSample, Samples
from selftaught.evaluate.writing import write_table
from selftaught.export.files import atomic
from selftaught.report.html import Section, escape
from selftaught.report.image.pictures import THUMB, jpeg
from selftaught.report.plane import project

FILE = "atlas.parquet"


def section(pool: Pool, rows: Mapping[str, Any], asked: Telling) -> Section | None:
    """Write the map into the pool, and say how it is opened.

    Args:
        pool: whose features are projected.
        rows: all that is known of each image, as rows.parquet has it.
        asked: how many points there are.

    Returns:
        None where there is no map: the pool has no features, or all are the same.
    """
    file = pool.folder / FILE
    table = _table(pool, rows, asked)
    if table is None:
        file.unlink(missing_ok=True)  # of a stage that was taken back
        return None
    with atomic(file) as temporary:
        write_table(temporary, table)
    command = (
        f"uvx embedding-atlas {shlex.quote(str(file))} --x x --y y --image image "
        "--disable-projection"
    )
    body = (
        f'<p class="note">{FILE} has a place for each of {len(table["id"]):,} images that were '
        "embedded, by t-SNE of their features, with what became of it. Embedding Atlas, a viewer "
        f"that runs on your machine, opens it:</p><pre>{escape(command)}</pre>"
    )
    return Section("Map", body)


def _table(pool: Pool, rows: Mapping[str, Any], asked: Telling) -> dict[str, Any] | None:
    if "embed" not in {record.name for record in pool.records()} or not asked.points:
        return None
    found = features(pool, pool.alive(before="dedup"))
    rng = np.random.default_rng(asked.seed)
    some = np.sort(rng.permutation(len(found.rows))[: asked.points])
    if len(some) < 2:
        return None
    plane = project(found.vectors.at(some).numpy())
    if plane is None:
        return None
    chosen = found.rows[some]
    table = {
        "id": chosen,
        "path": rows["name"][chosen],
        "data": rows["data"][chosen],
        "x": plane[:, 0],
        "y": plane[:, 1],
        "state": rows["state"][chosen],
        "reason": rows["reason"][chosen],
    }
    coarsest = max((n for n in rows if n.startswith("balance_cluster_")), default=None)
    for name, column in (("cluster", coarsest), ("copies", "dedup_group")):
        if column in rows:
            values = rows[column][chosen].tolist()
            table[name] = [value if value >= 0 else None for value in values]
    samples = pool.everything
    return table | {"image": [{"bytes": _picture(samples, int(row))} for row in chosen]}


def _picture(samples: Samples, row: int) -> bytes | None:
    try:
        sample = samples.read(row, min_side=2 * THUMB)
    except BadSample:  # it could be read when it was embedded
        return None
    return jpeg(kinds.images().thumbnail(sample, THUMB))
