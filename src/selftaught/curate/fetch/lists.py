"""Lists of addresses: .txt, .csv, .tsv and .parquet, as data sets of links come."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selftaught.curate.fetch.address import Address, canonical, plain
from selftaught.data.table import reading
from selftaught.data.text.coding import extension, opened
from selftaught.errors import UserError
from selftaught.printable import longest_cell

LISTS = (".txt", ".csv", ".tsv", ".parquet")
"""Extensions of lists."""

URLS = ("url", "image_url", "img_url", "imageurl", "urls", "image", "img", "link", "src", "uri")
"""What a column of addresses is called, the likelier first."""
TEXTS = ("text", "caption", "alt", "alt_text", "top_caption", "title", "description")
"""What a column of texts is called."""
PAGES = ("page", "page_url", "source_page", "referrer", "page_title_url")
"""What a column of the pages that name the images is called."""

_ADDRESS = re.compile(r"\s*(https?:)?//", re.IGNORECASE)
_ROWS = 8192


def listed(file: Path, column: str | None) -> Iterator[Address]:
    """The addresses of a list in its order, those that cannot be requested as they stand there.

    Args:
        file: of the list.
        column: of the addresses; by default one that is called so, or holds them in the first line.

    Raises:
        UserError: it cannot be read, or has no such column.
    """
    kind = extension(file)
    rows = _table(file, column) if kind == ".parquet" else _lines(file, kind, column)
    for url, text, page in rows:
        if url:
            yield Address(canonical(url) or plain(url), plain(page), plain(text))


def _lines(file: Path, kind: str, column: str | None) -> Iterator[tuple[str, str, str]]:
    with longest_cell(1 << 24), opened(file) as text:
        if kind == ".txt":
            lines = (line.strip() for line in text)
            yield from ((line, "", "") for line in lines if line and not line.startswith("#"))
            return
        first = text.readline()
        mark = "\t" if kind == ".tsv" else max(",;\t", key=first.count)
        rows = csv.reader(_again(first, text), delimiter=mark)
        try:
            head = [cell.strip() for cell in next(rows, [])]
            headless = column is None and any(map(_ADDRESS.match, head))
            where = _unnamed(head) if headless else _columns(head, column, file)
            if headless:
                yield _picked(head, where)
            for row in rows:
                yield _picked(row, where)
        except csv.Error as error:
            raise UserError(f"{file} cannot be read as a table: {error}; save it again") from error


def _again(first: str, rest: Any) -> Iterator[str]:
    yield first
    yield from rest


def _unnamed(head: Sequence[str]) -> tuple[int | None, ...]:
    """Columns of a table without a line of names: of two, the other one is the text."""
    url = next(n for n, cell in enumerate(head) if _ADDRESS.match(cell))
    return url, (1 - url if len(head) == 2 else None), None


def _columns(head: Sequence[str], column: str | None, file: Path) -> tuple[int | None, ...]:
    """Where the address, the text and the page are; UserError where there is no address."""
    words = [re.sub(r"[ -]+", "_", cell.lower()) for cell in head]
    if column is not None and column not in head:
        raise UserError(f"{file} has no column {column}; its columns are {', '.join(head)}")
    url = head.index(column) if column is not None else _first(words, URLS)
    if url is None:
        raise UserError(
            f"{file} has no column of addresses: none is called {', '.join(URLS[:3])}; its columns "
            f"are {', '.join(head) or 'none'}; name one with --column"
        )
    return url, _first(words, TEXTS), _first(words, PAGES)


def _first(words: Sequence[str], names: Sequence[str]) -> int | None:
    return next((words.index(name) for name in names if name in words), None)


def _picked(row: Sequence[str], where: tuple[int | None, ...]) -> tuple[str, str, str]:
    url, text, page = (row[n].strip() if n is not None and n < len(row) else "" for n in where)
    return url, text, page


def _table(file: Path, column: str | None) -> Iterator[tuple[str, str, str]]:
    from pyarrow import parquet

    with reading(str(file), "a Parquet"), parquet.ParquetFile(file) as table:
        head = table.schema_arrow.names
        where = _columns(head, column, file)
        names = [head[n] for n in where if n is not None]
        for batch in table.iter_batches(_ROWS, columns=names):
            columns = [
                batch.column(head[n]).to_pylist() if n is not None else [None] * len(batch)
                for n in where
            ]
            for cells in zip(*columns):
                url, text, page = ("" if cell is None else str(cell).strip() for cell in cells)
                yield url, text, page
