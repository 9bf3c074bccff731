"""What was fetched into a pool: shards of images, and where each is from."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selftaught import voice
from selftaught.curate import fetch
from selftaught.curate.fetch.settings import Fetching
from selftaught.curate.pool import Pool
from selftaught.data.selection import share
from selftaught.data.source import digest
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

FETCHED = "fetched"
"""The folder of shards in a pool."""
BLOCK = 1000
"""Addresses of a shard: what is fetched again, at most, after a process was killed."""


def fetched(source: Path, out: Path, asked: Fetching, part: str | None) -> Pool | None:
    """Fetch the images that a source names into a pool, and scan them.

    Args:
        source: WARC, HTML, folder of these, or list of addresses.
        out: folder of the pool.
        asked: how.
        part: which of how many jobs this is.

    Returns:
        The pool; None where shards are left to other parts.

    Raises:
        UserError: the source names no image, or none could be had.
    """
    own, of = share(part)
    addresses = list(fetch.addresses(source, asked))
    if not addresses:
        raise UserError(f"{source} names no image: needed are pages, or a list of addresses")
    count = -(-len(addresses) // BLOCK)
    mark = digest(*(address.url for address in addresses))[:8]
    # dealt in turn, as neighbors are often of one host, which is asked slowly
    shards = {n: out / FETCHED / f"{mark}-{n:06d}" for n in range(count)}
    web, counts = fetch.Web(asked), fetch.Counts()
    with voice.heard():
        mine = [n for n in shards if n % of == own]
        with voice.counted("fetching") as show:
            done, total = 0, sum(len(addresses[n::count]) for n in mine)
            for n in mine:
                block = addresses[n::count]
                counts += fetch.shard(
                    block, shards[n], asked, lambda i, _, d=done: show(d + i, total), web
                )
                done += len(block)
        reasons = ", ".join(f"{n:,} {why}" for why, n in counts.reasons.most_common(8))
        log.info(
            "fetch: %s of %s images kept%s",
            f"{counts.kept:,}", f"{counts.addresses:,}", f"; left: {reasons}" if reasons else "",
        )  # fmt: skip
        if counts.transient:
            log.info(
                "%s faults may pass: remove %s to have its addresses asked once more",
                f"{counts.transient:,}", out / FETCHED / "NAME.parquet",
            )  # fmt: skip
        left = [n for n, place in shards.items() if not place.with_suffix(".parquet").exists()]
        if left:
            log.info(
                "fetch: %s of %s shards are there; the others are those of other parts, and "
                "whichever ends last goes on", f"{count - len(left):,}", f"{count:,}",
            )  # fmt: skip
            return None
        if not any(map(kept, tables(out))):
            raise UserError(f"no image of {source} could be had: {reasons}")
        return Pool.scan(out / FETCHED / "*.tar", out=out)


def tables(pool: Path) -> list[Path]:
    """The tables of shards, which say what became of each address."""
    return sorted((pool / FETCHED).glob("*.parquet"))


def kept(table: Path) -> int:
    """Images of a shard."""
    reasons = pq.read_table(table, columns=["reason"]).column("reason")
    return sum(not reason for reason in reasons.to_pylist())


def provenance(pool: Path) -> dict[str, dict[str, Any]]:
    """Where each image that was fetched is from, by its key: url, final_url, page, text."""
    names = ["key", "url", "final_url", "page", "text"]
    found: dict[str, dict[str, Any]] = {}
    for file in tables(pool):
        table: pa.Table = pq.read_table(file, columns=[*names, "reason"])
        found |= {row["key"]: row for row in table.to_pylist() if not row["reason"]}
    return found


def key_of_image(name: str) -> str:
    """The key of an image that was fetched, by its name in the pool: `SHARD.tar::KEY`."""
    return name.rpartition("::")[2].partition(".")[0]
