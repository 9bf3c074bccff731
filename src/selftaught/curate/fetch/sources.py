"""Where the addresses of images come from: WARC files, pages, lists, and folders of them."""

import logging
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

from selftaught.curate.fetch.address import Address, canonical, plain
from selftaught.curate.fetch.lists import LISTS, listed
from selftaught.curate.fetch.pages import MAX_PAGE, read_page
from selftaught.curate.fetch.settings import Fetching
from selftaught.curate.fetch.warc import WARCS, archived
from selftaught.curate.fetch.web import Web
from selftaught.data.absent import missing
from selftaught.data.text.coding import extension
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

PAGES = (".html", ".htm", ".xhtml")
"""Extensions of pages."""


def addresses(source: Path, asked: Fetching) -> Iterator[Address]:
    """The images that a source names, each address once: the first page that names it counts.

    Files are read one after the other, WARC files record by record; what is kept of all is 16 bytes
    an address, and the addresses of one WARC. An image that lies in the WARC whose page names it is
    taken from there.

    Args:
        source: .warc or .warc.gz; .html; .txt with an address a line; .csv, .tsv or .parquet with a
            column of addresses; or a folder of WARC files and pages, or else of lists.
        asked: what may be fetched, and how.

    Returns:
        Addresses in the order of the files' names, then of their lines.

    Raises:
        UserError: it does not exist, cannot be read, or names no image.
    """
    web = Web(asked)
    if asked.base is not None and canonical(asked.base) is None:
        raise UserError(f"base must be an address such as https://example.org/, got {asked.base}")
    files, root = _files(source)
    seen: set[bytes] = set()
    relative = 0

    def tell(count: int) -> None:
        nonlocal relative
        relative += count

    for file in files:
        for address in _of(file, root, web, tell):
            mark = blake2b(address.url.encode("utf-8", "replace"), digest_size=16).digest()
            if mark not in seen:
                seen.add(mark)
                yield address
    if relative:
        log.warning(
            "%s relative addresses of images were left, as their pages do not say where they are "
            "from; --base says it",
            f"{relative:,}",
        )
    if not seen:
        raise UserError(f"{source} names no image: needed are pages with images, or addresses")


def _files(source: Path) -> tuple[list[Path], Path | None]:
    """The files of a source in their order, and the folder that it is, where it is one."""
    if source.is_file():
        if not _is(source, (*WARCS, *PAGES)) and extension(source) not in LISTS:
            raise UserError(
                f"{source} is neither a WARC nor a page nor a list: its name must end in one of "
                f"{', '.join((*WARCS, *PAGES, *LISTS))}"
            )
        return [source], None
    if not source.is_dir():
        raise missing(source)
    every = sorted(path for path in source.rglob("*") if path.is_file())
    files = [f for f in every if _is(f, (*WARCS, *PAGES))]
    files = files or [f for f in every if extension(f) in LISTS]
    if not files:
        raise UserError(f"{source} holds neither WARC files nor pages nor lists of addresses")
    return files, source


def _is(file: Path, endings: tuple[str, ...]) -> bool:
    return file.name.lower().endswith(endings)


def _of(file: Path, root: Path | None, web: Web, tell: Callable[[int], None]) -> Iterator[Address]:
    """The addresses of a file; `tell` is told how many are relative to nothing."""
    if _is(file, WARCS):
        yield from archived(file, web)
    elif _is(file, PAGES):
        yield from _page(file, root, web, tell)
    else:
        yield from listed(file, web.asked.column)


def _page(
    file: Path, root: Path | None, web: Web, tell: Callable[[int], None]
) -> Iterator[Address]:
    base = web.asked.base or ""
    if base and root is not None:  # a folder is the mirror of a site
        base = base.rstrip("/") + "/" + file.relative_to(root).as_posix()
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_PAGE)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    page = read_page(content, base, web.agent)
    tell(page.relative)
    refused = page.reserved if web.asked.opt_outs else ""
    for image in page.images:
        yield Address(image.url, base or plain(str(file)), image.text, None, refused)
