"""WARC files, in which crawlers keep pages and images as they came."""

import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selftaught.curate.fetch.address import Address, Held, canonical
from selftaught.curate.fetch.extra import needed
from selftaught.curate.fetch.kept import HEAD
from selftaught.curate.fetch.pages import MAX_PAGE, read_page
from selftaught.curate.fetch.refused import Refused
from selftaught.curate.fetch.web import Image, Web
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

WARCS = (".warc", ".warc.gz")
"""Endings of their names."""

_BLOCK = 64 << 10
_HTML = ("text/html", "application/xhtml+xml")


class Damaged(UserError):
    """A WARC that is none from some place on."""


def archived(file: Path, web: Web) -> Iterator[Address]:
    """The images that a WARC holds, and those that its pages name, each once, in their order.

    What it holds is taken from it, whichever comes first, the page or the image. Of one that is
    damaged, as a crawl that was killed leaves it, what comes before the damage is used.

    Raises:
        UserError: it cannot be read from its beginning.
    """
    found: dict[str, Address] = {}
    count = 0
    try:
        for records, record in _records(file):
            count += 1
            _note(found, file, records, record, web)
    except UserError as error:
        if count < 2:  # one that is compressed as a whole has one that can be read
            raise
        log.warning("%s; its first %s records are used", error, f"{count:,}")
    yield from found.values()


def _note(found: dict[str, Address], file: Path, records: Any, record: Any, web: Web) -> None:
    """Add what a record holds or names."""
    url = canonical(record.rec_headers.get_header("WARC-Target-URI") or "")
    if url is None or record.rec_type not in ("response", "resource") or _status(record) != 200:
        return
    kind, _, rest = _type(record).partition(";")
    if kind in _HTML:
        charset = re.search(r"charset\s*=\s*[\"']?([\w:.-]+)", rest)
        content = _read(file, record, MAX_PAGE)
        page = read_page(content, url, web.agent, charset[1] if charset else None)
        refused = page.reserved if web.asked.opt_outs else ""
        refused = refused or _reserved(record, web)
        for image in page.images:
            old = found.get(image.url, Address(image.url))
            if not old.page:  # the image may have come before the page
                found[image.url] = Address(image.url, url, image.text, old.held, refused)
    elif kind.startswith("image/") and kind != "image/svg+xml":
        old = found.get(url, Address(url))
        if old.held is None:
            with _reading(file):
                found[url] = old._replace(held=Held(str(file), records.get_record_offset()))


def held_image(held: Held, url: str, web: Web) -> Image:
    """An image out of its record, under the same bounds as one that is requested.

    Raises:
        Refused: it is none, or reserved, too large, or damaged.
        UserError: the file is not what it was.
    """
    web.check_ending(url)
    web.check_host(url)
    try:
        return _held(Path(held.file), held.offset, url, web)
    except Damaged as error:
        raise Refused("damaged in its WARC") from error


def _held(file: Path, offset: int, url: str, web: Web) -> Image:
    for _, record in _records(file, offset):
        headers = record.http_headers
        packed = headers.get_header("content-encoding", "") if headers else ""
        if reserved := _reserved(record, web):
            raise Refused(reserved, status=200)
        content = _read(file, record, web.asked.max_bytes + 1)
        kind = web.check_kind(content[:HEAD], _type(record), packed)
        web.check_size(len(content))
        if _cut(file, record):
            raise Refused("cut off in its WARC", status=200)
        return Image(url, 200, kind, content)
    raise UserError(f"{file} is not what it was: nothing lies at byte {offset}")


def _records(file: Path, offset: int = 0) -> Iterator[tuple[Any, Any]]:
    """Each record with what iterates over them, from a place in the file on."""
    with _reading(file), file.open("rb") as opened:
        opened.seek(offset)
        records = needed("warcio.archiveiterator").ArchiveIterator(opened)
        for record in records:
            yield records, record


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    failed = needed("warcio.exceptions").ArchiveLoadFailed
    try:
        yield
    except failed as error:
        if "non-chunked gzip" in str(error):
            raise UserError(
                f"{file} is compressed as a whole, not record by record; "
                "`warcio recompress` makes one that can be read at any place"
            ) from error
        raise Damaged(f"{file} is no WARC that can be read: {_line(error)}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {_line(error)}") from error
    except (EOFError, zlib.error, AttributeError, LookupError, TypeError, ValueError) as error:
        # all but the first two are warcio's own way to stumble over damage
        raise Damaged(f"{file} is no WARC that can be read: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _read(file: Path, record: Any, most: int) -> bytes:
    """The content unpacked, up to `most` bytes: of what unpacks to more no more is unpacked."""
    blocks, left = [], most
    with _reading(file):
        stream = record.content_stream()
        while left > 0 and (block := stream.read(min(left, _BLOCK))):
            blocks.append(block)
            left -= len(block)
    return b"".join(blocks)


def _cut(file: Path, record: Any) -> bool:
    """Whether the crawler, or the end of the file, cut a record whose content was read."""
    if record.rec_headers.get_header("WARC-Truncated"):
        return True
    with _reading(file):
        while record.raw_stream.read(_BLOCK):  # such as the end of what came in chunks
            pass
    limited = needed("warcio.limitreader").LimitReader
    return not isinstance(record.raw_stream, limited) or record.raw_stream.limit > 0


def _status(record: Any) -> int:
    """Of HTTP; a record of the thing itself counts as had."""
    if record.http_headers is None:
        return 200
    code = record.http_headers.get_statuscode() or ""
    return int(code) if code.isdecimal() else 0


def _type(record: Any) -> str:
    headers = record.http_headers or record.rec_headers
    return (headers.get_header("Content-Type") or "").strip().lower()


def _reserved(record: Any, web: Web) -> str:
    """Why an image, or those of a page, are left, by its headers."""
    if record.http_headers is None:
        return ""
    said = [(name.lower(), value) for name, value in record.http_headers.headers]
    try:
        web.check_header(
            [value for name, value in said if name == "x-robots-tag"],
            [value for name, value in said if name == "tdm-reservation"],
        )
    except Refused as error:
        return error.reason
    return ""
