"""Text from outside, such as names of files and classes, for terminals and spreadsheets."""

import csv
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

_JOINERS = "\u200c\u200d"
"""Invisible, and part of how several scripts and emoji are spelled."""
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""What a cell begins with that spreadsheets compute, some after they have dropped white space."""
_ESCAPE = re.compile(r"\\(?:[\\nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def printable(text: str, keep: str = "") -> str:
    r"""`text` with what a terminal would obey instead of show written as in Python: \x1b, \u202e.

    That is controls, marks that turn the direction of text, line separators, and bytes that are no
    text.

    Args:
        text: from anywhere.
        keep: characters that stay, such as a newline.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(c) if _obeyed(c) and c not in keep else c for c in text)


def lines(text: str) -> str:
    """`printable`, with its lines; those after the first are indented, so that none passes for a
    message of its own."""
    first, *others = printable(text, "\n").split("\n")
    return "\n".join([first, *(line if line[:1] in ("", " ") else f"  {line}" for line in others)])


def cell(text: str) -> str:
    """`text` as a cell of a CSV file that no spreadsheet computes and no terminal obeys.

    Where that takes a change, the cell begins with an apostrophe; `from_cell` undoes it. Bytes that
    are no text stay.
    """
    odd = any(_obeyed(c) and not _byte(c) for c in text)
    if not odd and not text.lstrip().startswith(_FORMULA) and text[:1] != "'":
        return text
    escaped = (_escaped(c) if c == "\\" or (_obeyed(c) and not _byte(c)) else c for c in text)
    return "'" + "".join(escaped)


def from_cell(written: str) -> str:
    """What `cell` was given; a cell that it did not write stays as it is."""
    if written[:1] != "'":
        return written
    text = _ESCAPE.sub(lambda m: m[0].encode().decode("unicode_escape"), written[1:])
    return text if cell(text) == written else written


@contextmanager
def longest_cell(characters: int) -> Iterator[None]:
    """What the csv module takes for a cell, and not for a mistake, until the block ends.

    Its limit is one for the whole process: who reads says what it is, and no reader leaves its own
    behind.
    """
    before = csv.field_size_limit(characters)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def row(texts: list[str]) -> str:
    """A line of a CSV file; quoted also where spreadsheets of other languages part cells."""
    cells = (cell(text) for text in texts)
    return (
        ",".join('"' + c.replace('"', '""') + '"' if re.search('[",;]', c) else c for c in cells)
        + "\n"
    )


def _obeyed(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in _JOINERS


def _byte(c: str) -> bool:
    """Whether it stands for a byte of a file name that is no text."""
    return "\udc80" <= c <= "\udcff"


def _escaped(c: str) -> str:
    return c.encode("unicode_escape").decode()
