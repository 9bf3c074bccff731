"""A shard: a tar of images, and a table of what became of each address."""

import hashlib
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from selftaught.curate.fetch.address import Address, plain
from selftaught.curate.fetch.kept import SUFFIXES
from selftaught.curate.fetch.refused import Refused
from selftaught.curate.fetch.schedule import Outcome, Schedule
from selftaught.curate.fetch.settings import Fetching
from selftaught.curate.fetch.web import Image, Web
from selftaught.data.table import reading
from selftaught.errors import Unwritable, UserError
from selftaught.export import atomic


@dataclass(frozen=True)
class Counts:
    """What became of addresses.

    Args:
        addresses: all of them.
        kept: those whose image was kept.
        bytes: of these images.
        transient: those whose fault may pass: `transient` lists them.
        reasons: why the others were left, and how many for that.
    """

    addresses: int = 0
    kept: int = 0
    bytes: int = 0
    transient: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.addresses + other.addresses,
            self.kept + other.kept,
            self.bytes + other.bytes,
            self.transient + other.transient,
            self.reasons + other.reasons,
        )


class _Spooled(NamedTuple):
    """An image that lies in a file until all are there."""

    offset: int
    size: int


def shard(
    addresses: Sequence[Address],
    place: Path,
    asked: Fetching,
    told: Callable[[int, int], None] | None = None,
    web: Web | None = None,
) -> Counts:
    """Fetch images into `place`.tar, and what became of each address into `place`.parquet.

    Both are as the addresses and the servers' answers are, in the order of the addresses, whatever
    came first; nothing tells the time. The table is written last: with it the shard is whole. One
    that is there is not fetched again, one that was interrupted is.

    The columns are `url`, `page`, `text`, `final_url` (after redirects), `status` (of HTTP; null
    where none came), `reason` (why it was left; nothing where it was kept), `transient` (whether
    that may pass), `type` (format), `bytes`, `sha256` (of the image) and `key` (name of the member
    without its ending).

    Args:
        addresses: of one shard; of several the same, the first counts.
        place: path without an ending.
        asked: what may be fetched, and how.
        told: called with how many are done, and of how many, after each.
        web: one for several shards, so that a host is looked up, and its robots.txt read, once.

    Raises:
        UserError: the shard that is there is one of other addresses, or cannot be read.
        Unwritable: the files cannot be written.
    """
    distinct = [*{address.url: address for address in reversed(addresses)}.values()][::-1]
    table = place.with_name(place.name + ".parquet")
    if table.is_file():
        return _counted(_same(table, distinct))
    with _spool(place) as spool:
        rows, spooled = _fetched(distinct, web or Web(asked), spool, told)
        with atomic(place.with_name(place.name + ".tar")) as tar:
            _pack(tar, spool, rows, spooled)
    with atomic(table) as temporary:
        _write(temporary, rows)
    return _counted(rows)


def transient(place: Path) -> list[Address]:
    """The addresses of a shard that failed for a reason that may pass, to be fetched into another.

    Raises:
        UserError: there is no such shard, or it cannot be read.
    """
    rows = _read(place.with_name(place.name + ".parquet"))
    return [Address(r["url"], r["page"], r["text"]) for r in rows if r["transient"]]


@contextmanager
def _spool(place: Path) -> Iterator[IO[bytes]]:
    """A file without a name beside the shard: whoever is killed leaves nothing."""
    with ExitStack() as stack:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            spool = stack.enter_context(tempfile.TemporaryFile(dir=place.parent))
        except OSError as error:
            raise Unwritable.of(place, error) from error
        yield spool


def _fetched(
    addresses: Sequence[Address],
    web: Web,
    spool: IO[bytes],
    told: Callable[[int, int], None] | None,
) -> tuple[list[dict[str, Any]], list[_Spooled | None]]:
    rows: list[dict[str, Any]] = [{} for _ in addresses]
    spooled: list[_Spooled | None] = [None for _ in addresses]
    with closing(Schedule(addresses, web).outcomes()) as outcomes:
        for done, outcome in enumerate(outcomes, 1):
            rows[outcome.index] = _row(addresses[outcome.index], outcome)
            if outcome.image is not None:
                content = outcome.image.content
                spooled[outcome.index] = _Spooled(spool.tell(), len(content))
                try:
                    spool.write(content)
                except OSError as error:
                    raise Unwritable.of("the images of a shard", error) from error
            if told is not None:
                told(done, len(addresses))
    return rows, spooled


def _row(address: Address, outcome: Outcome) -> dict[str, Any]:
    image = outcome.image or Image("", None, "", b"")
    refused = outcome.refused or Refused("")
    kept = outcome.image is not None
    return {
        "url": plain(address.url),
        "page": plain(address.page),
        "text": plain(address.text),
        "final_url": plain(image.url or refused.url or address.url),
        "status": image.status if kept else refused.status,
        "reason": plain(refused.reason),
        "transient": refused.transient,
        "type": image.kind,
        "bytes": len(image.content),
        "sha256": hashlib.sha256(image.content).hexdigest() if kept else "",
        "key": address.key,
    }


def _pack(
    tar: Path,
    spool: IO[bytes],
    rows: Sequence[dict[str, Any]],
    spooled: Sequence[_Spooled | None],
) -> None:
    """The images in the order of their addresses, with nothing that tells when or by whom."""
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        for row, lies in zip(rows, spooled, strict=True):
            if lies is not None:
                member = tarfile.TarInfo(row["key"] + SUFFIXES[row["type"]])
                member.size, member.mode = lies.size, 0o644
                spool.seek(lies.offset)
                archive.addfile(member, spool)


def _write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"status": pa.int16(), "transient": pa.bool_(), "bytes": pa.int64()}
    names = (
        *("url", "page", "text", "final_url", "status", "reason", "transient", "type", "bytes"),
        *("sha256", "key"),
    )
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    parquet.write_table(pa.Table.from_pylist([*rows], schema=schema), file)


def _read(file: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    with reading(str(file), "a Parquet"):
        return parquet.read_table(file).to_pylist()


def _same(file: Path, addresses: Sequence[Address]) -> list[dict[str, Any]]:
    """The rows of the shard that is there; UserError where it is one of other addresses."""
    rows = _read(file)
    if [row["url"] for row in rows] != [plain(address.url) for address in addresses]:
        raise UserError(
            f"{file} is there already and has other addresses than those that were asked for; "
            "name another folder with --out, or move it away"
        )
    return rows


def _counted(rows: Sequence[dict[str, Any]]) -> Counts:
    return Counts(
        len(rows),
        sum(not row["reason"] for row in rows),
        sum(row["bytes"] for row in rows),
        sum(row["transient"] for row in rows),
        Counter(sorted(row["reason"] for row in rows if row["reason"])),
    )
