"""Texts in the lines of a file, in tables of text, and in lines of JSON."""

import csv
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from selftaught.data.labels import as_text, tell_unlabeled
from selftaught.data.lists import LABEL_COLUMNS
from selftaught.data.text.coding import opened
from selftaught.data.text.texts import Gathered
from selftaught.errors import UserError
from selftaught.printable import longest_cell

log = logging.getLogger("selftaught")

COLUMNS = ("text", "sentence", "caption", "content", "document", "review", "description", "title")
"""What a column of texts is called, the likelier first."""
LOOKED_AT = 50
"""Rows by which columns and delimiters are told apart."""
_DELIMITERS = (",", ";", "\t", "|")


def lines(path: Path, gathered: Gathered) -> None:
    """Each line is a text; numbers are those of editors, from 1."""
    with opened(path) as file:
        for number, line in enumerate(_broken(file), 1):
            gathered.add(line, number)


def _broken(file: IO[str]) -> Iterator[str]:
    r"""Lines that end with \n, \r\n or, where a file has no other, \r."""
    for line in file:
        yield from re.split(r"\r(?!\n)", line) if "\r" in line[:-2] else (line,)


def table(path: Path, gathered: Gathered, column: str | None, labels: str | None) -> None:
    """Rows of a .csv or .tsv, with names of the columns above them or without."""
    with _fields_of_any_length(path), opened(path) as file:
        first = list(islice(file, LOOKED_AT + 1))
    if not first:
        return
    with _fields_of_any_length(path), opened(path) as file:
        how = dialect(first, "\t" if ".tsv" in path.name.lower() else ",")
        rows = (row for row in csv.reader(file, **how) if row)
        looked = list(islice(rows, LOOKED_AT + 1))
        text, label, named = _columns(looked, column, labels, path)
        for number, row in enumerate(_chained(looked, rows)):
            if number or not named:
                known = label is not None and len(row) > label
                value = "" if label is None else row[label].strip() if known else ""
                cell = row[text] if len(row) > text else ""
                gathered.add(cell, number - named, None if label is None else value)


def _chained(looked: list[list[str]], rows: Iterator[list[str]]) -> Iterator[list[str]]:
    yield from looked
    yield from rows


@contextmanager
def _fields_of_any_length(path: Path) -> Iterator[None]:
    """A text may be longer than what the csv module takes for a mistake."""
    try:
        with longest_cell(2**31 - 1):
            yield
    except csv.Error as error:
        raise UserError(f"{path} is no table that can be read: {error}") from error


def dialect(first: list[str], usual: str) -> dict[str, Any]:
    """Delimiter and quoting under which the first lines are alike in their number of cells.

    Quotes in a .tsv may be letters of the text: they are so where they would swallow lines, and
    so they are between commas where they do not end where a cell does.
    """
    for delimiter in sorted(_DELIMITERS, key=lambda d: d != usual):
        plain = [len(r) for r in csv.reader(first, delimiter=delimiter, quoting=csv.QUOTE_NONE)]
        quoted = [len(r) for r in csv.reader(first, delimiter=delimiter)]
        fewer = len(quoted) < len(plain) and _alike(plain)
        swallowed = fewer and (delimiter == "\t" or not _enclose(first, delimiter))
        if _alike(quoted[:-1] or quoted) and not swallowed:  # the last may go on
            return {"delimiter": delimiter}
        if _alike(plain):
            return {"delimiter": delimiter, "quoting": csv.QUOTE_NONE}
    if usual not in first[0] and any(len(row) > 1 for row in csv.reader(first)):
        return {
            "delimiter": "\x1f",
            "quoting": csv.QUOTE_NONE,
        }  # one column, whose texts have commas
    return {"delimiter": usual}


def _enclose(first: list[str], delimiter: str) -> bool:
    """Whether quotes stand around cells, also around some that go on in the next line."""
    rows = csv.reader(first, delimiter=delimiter, strict=True)
    whole, end = 0, 0
    try:
        for _ in rows:
            whole, end = whole + 1, rows.line_num
    except csv.Error:  # the last row may go on beyond what was looked at
        if rows.line_num < len(first):
            return False
    return whole < end


def _alike(widths: list[int]) -> bool:
    return len({*widths}) == 1 and widths[0] > 1


def _columns(
    rows: list[list[str]], column: str | None, labels: str | None, path: Path
) -> tuple[int, int | None, bool]:
    """Positions of text and label, and whether the first row is names of columns."""
    head = [cell.strip() for cell in rows[0]]
    words = [cell.lower() for cell in head]
    called = [words.index(name) for name in COLUMNS if name in words]
    marked = [words.index(name) for name in LABEL_COLUMNS if name in words]
    named = bool(called or marked or column is not None or labels is not None)
    if column is not None:
        called = [_position(path, head, column)]
    if labels is not None:
        marked = [_position(path, head, labels)]
    body = rows[1:] if named else rows
    width = max(len(row) for row in rows)
    cells = {c: [row[c] for row in body if len(row) > c] for c in range(width)}
    lengths = {c: sum(map(len, each)) / max(len(each), 1) for c, each in cells.items()}
    if not (texts := called or sorted({*lengths} - {*marked}, key=lambda c: -lengths[c])):
        raise UserError(f"{path} has labels alone ({', '.join(head)}): a column of texts is needed")
    text = texts[0]
    others = [c for c in range(width) if c != text]
    if not named and len(others) > 1:  # names of classes come again and again
        others = [c for c in others if 2 * len({*cells[c]}) <= len(cells[c])]
    label = next((c for c in marked if c != text), None)
    if label is None and not named and len(others) == 1:
        label = others[0]
    if label is None and others:
        tell_unlabeled(path, head if named else [f"without names, {width} of them"])
    if not called and width > 1:
        shown = head[text] if named else f"number {text + 1}"
        log.info("texts of %s are those of column %s, the longest", path, shown)
    return text, label, named


def _position(path: Path, head: list[str], name: str) -> int:
    lower = [cell.lower() for cell in head]
    if name.lower() not in lower:
        raise UserError(f"{path} has no column {name}; it has {', '.join(head)}")
    return head.index(name) if name in head else lower.index(name.lower())


def json_lines(path: Path, gathered: Gathered, column: str | None, labels: str | None) -> None:
    """One JSON object a line."""
    text, label, number = column, labels, -1
    with opened(path) as file:
        for line, content in enumerate(file, 1):
            if not content.strip():
                continue
            try:
                item = json.loads(content, parse_int=str)  # a label may have any number of digits
            except (ValueError, RecursionError) as error:
                raise UserError(f"line {line} of {path} is no JSON: {error}") from error
            if not isinstance(item, dict):
                raise UserError(f'line {line} of {path} must be an object, as {{"text": "..."}}')
            number += 1
            if number == 0:
                text, label = _keys(path, item, column, labels)
            gathered.add(item.get(text), number, label and as_text(item.get(label)))


def _keys(
    path: Path, item: dict[str, object], column: str | None, labels: str | None
) -> tuple[str, str | None]:
    """The fields of text and label, by the first object."""
    lower = {key.lower(): key for key in item}
    texts = [key for key, value in item.items() if isinstance(value, str)]
    for asked in (column, labels):
        if asked is not None and asked not in item:
            raise UserError(f"{path} has no field {asked}; it has {', '.join(item)}")
    label = labels or next((lower[name] for name in LABEL_COLUMNS if name in lower), None)
    named = [lower[name] for name in COLUMNS if name in lower] if column is None else [column]
    texts = named or [key for key in texts if key != label]
    if not texts or (len(texts) > 1 and not named):
        raise UserError(
            f"{path} has the fields {', '.join(item)}: name that of the texts with --column"
        )
    return texts[0], label
