"""WARC files, in which crawlers keep pages and images as they came."""

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

WARCS = (".warc", ".warc.gz")
"""Endings of their names."""

_HTML = ("text/html", "application/xhtml+xml")


def archived(file: Path, web: Web) -> Iterator[Address]:
    """The images that a WARC holds, and those that its pages name, each once, in their order.

    What it holds is taken from it, whichever comes first, the page or the image.

    Raises:
        UserError: it cannot be read.
    """
    found: dict[str, Address] = {}
    for records, record in _records(file):
        url = canonical(record.rec_headers.get_header("WARC-Target-URI") or "")
        if url is None or record.rec_type not in ("response", "resource") or _status(record) != 200:
            continue
        kind, _, rest = _type(record).partition(";")
        if kind in _HTML:
            charset = re.search(r"charset\s*=\s*[\"']?([\w:.-]+)", rest)
            content = _read(record, MAX_PAGE)
            page = read_page(content, url, web.agent, charset[1] if charset else None)
            refused = page.reserved if web.asked.opt_outs else ""
            refused = refused or _reserved(record, web)
            for image in page.images:
                old = found.get(image.url)
                if old is None:
                    found[image.url] = Address(image.url, url, image.text, None, refused)
                elif not old.page:  # the image came before the page
                    found[image.url] = Address(image.url, url, image.text, old.held, refused)
        elif kind.startswith("image/") and kind != "image/svg+xml":
            held = Held(str(file), records.get_record_offset())
            old = found.get(url, Address(url))
            found[url] = old if old.held else old._replace(held=held)
    yield from found.values()


def held_image(held: Held, url: str, web: Web) -> Image:
    """An image out of its record, under the same bounds as one that is requested.

    Raises:
        Refused: it is none, or reserved, or too large.
        UserError: the file is not what it was.
    """
    web.check_ending(url)
    web.check_host(url)
    for _, record in _records(Path(held.file), held.offset):
        headers = record.http_headers
        packed = headers.get_header("content-encoding", "") if headers else ""
        reserved = _reserved(record, web)
        if reserved:
            raise Refused(reserved, status=200)
        content = _read(record, web.asked.max_bytes + 1)
        kind = web.check_kind(content[:HEAD], _type(record), packed)
        web.check_size(len(content))
        return Image(url, 200, kind, content)
    raise UserError(f"{held.file} is not what it was: nothing lies at byte {held.offset}")


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
        raise UserError(f"{file} is no WARC that can be read: {_line(error)}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _read(record: Any, most: int) -> bytes:
    """The content unpacked, up to `most` bytes: of what unpacks to more no more is unpacked."""
    stream, blocks, left = record.content_stream(), [], most
    while left > 0 and (block := stream.read(min(left, 1 << 16))):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)


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
