"""Lists of files with labels: .txt, .csv, .tsv and .jsonl, as spreadsheets and contests write them.

Which column holds the paths is found by looking which names files, so that a line of column names
is never an image; a path may be relative to the list, of another machine, or an id without ending.
"""

import csv
import io
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from selftaught.data.files import FileSource, from_paths, walk
from selftaught.data.image.formats import IMAGE, extension
from selftaught.data.labels import as_text, encode, tell_unlabeled, warn_once
from selftaught.data.text.coding import encoding_of
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

LISTS = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".ndjson"})
"""Extensions of lists."""

PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "img", "name")
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "target", "fine_label", "category", "y"),
    *("class_id", "class_label", "label_id", "label_name", "diagnosis", "dx", "finding", "species"),
)
"""What a column of labels is called, the likelier first."""

_DELIMITERS = (",", ";", "\t", "|")
_LOOKED_AT = 50
"""Rows by which columns, delimiters and spellings are told apart."""

_ALONE = "labels are found by the names of files alone: {} lists {}, the folder has {}"

Find = Callable[[str], str | None]


class Places:
    """The files that a list may mean: those below `root`, or those of a source.

    folder: the one that the list lies in, where it is another than `root`. suffixes: endings that
    such files have.
    """

    def __init__(
        self,
        root: str,
        source: FileSource | None = None,
        folder: Path = Path(),
        suffixes: frozenset[str] = IMAGE,
    ):
        self.root, self.source, self.folder, self.suffixes = root, source, folder, suffixes

    def ends(self, cell: str) -> bool:
        """Whether a cell has the ending of such a file."""
        return extension(cell) in self.suffixes

    def ways(self) -> list[Find]:
        """How a path may be meant, the plainest first: cell -> name of a file or None."""
        return [
            self.direct,
            lambda cell: self.direct(cell.strip()),
            lambda cell: self.direct(cell.strip().replace("\\", "/")),
            self.alone,
        ]

    def direct(self, cell: str) -> str | None:
        """The file at this path."""
        if self.source is None:
            return cell if cell and os.path.isfile(os.path.join(self.root, cell)) else None
        seen = os.path.normpath(os.path.join(os.path.realpath(self.folder), cell))
        seen = seen.removeprefix(os.path.join(self._real, ""))
        return self._known.get(os.path.normpath(cell), self._known.get(seen))

    def alone(self, cell: str) -> str | None:
        """The one file of this name, whatever its folder or the ending that the list leaves out."""
        path = cell.strip().replace("\\", "/")
        return self._alone.get(path, self._alone.get(path.rpartition("/")[2])) if path else None

    @cached_property
    def _real(self) -> str:
        return os.path.realpath(self.root)

    @cached_property
    def _names(self) -> list[str]:
        source = self.source or walk(self.root, self.suffixes, look_inside=self.suffixes is IMAGE)
        return [source.name(i) for i in range(len(source))]

    @cached_property
    def _known(self) -> dict[str, str]:
        return {os.path.normpath(name): name for name in self._names}

    @cached_property
    def _alone(self) -> dict[str, str]:
        """What names one file: its path without ending, its name, its name without ending."""
        found: dict[str, str] = {}
        often: Counter[str] = Counter()
        for name in self._names:
            keys = {os.path.splitext(name)[0], os.path.basename(name)}
            keys.add(os.path.splitext(os.path.basename(name))[0])
            often.update(keys)
            found |= dict.fromkeys(keys, name)
        return {key: name for key, name in found.items() if often[key] == 1}


@dataclass(frozen=True)
class Listed:
    """What a list says.

    cells: the paths as they stand. labels: as text, None without a column of them. find: how its
    paths are meant, None where not one of those looked at is a file. columns: names of the columns,
    none where it has no line of them.
    """

    cells: list[str]
    labels: list[str] | None
    find: Find | None
    columns: list[str]


def read_list(path: Path, labels: str | None, column: str | None, places: Places) -> Listed:
    """Paths and labels of a list.

    Args:
        path: of the list.
        labels: column of labels; by default one whose name says so, or the second of two where
            the first has no name that paths have, or the list is one of labels beside a folder.
        column: of paths; by default the one that names files.
        places: where the files are.

    Raises:
        UserError: it cannot be read, is empty, or has no such column.
    """
    rows, named = _rows(path, places)
    if not rows:
        raise UserError(f"{path} is empty: it needs a line a file, as path,label")
    head = [cell.strip() for cell in rows[0]]
    words = [re.sub(r"[ -]+", "_", cell.lower()) for cell in head]
    called = [words.index(name) for name in PATHS if name in words]
    if column is not None:
        called, named = [_index(path, head, column)], True
    named = named or bool(called)
    looked = rows[1 : _LOOKED_AT + 1] if named else rows[: _LOOKED_AT + 1]
    asked = [words.index(labels.lower())] if labels and labels.lower() in words else []
    never = [*asked, *(c for c, word in enumerate(words) if word in LABEL_COLUMNS)]
    where, find = _column(looked, called, never, places)
    if where is None:
        where = called[0] if called else _by_ending(rows, places)
    if not named and not _path_like(rows[0], where, find, places):
        named = find is not None or any(_path_like(row, where, None, places) for row in rows[1:])
    if find is not None and named and not called:
        _tell_twins(path, head, looked, where, find, never)
    alone = places.source is None
    what = _labels(path, head, words, labels, where, named, alone, where in called)
    rows = rows[1:] if named else rows
    kept = [row for row in rows if len(row) > where and row[where].strip()]
    if not kept:
        raise UserError(
            f"{path} has the columns {', '.join(head)} and no line that names a file: it needs a "
            "line a file below them"
        )
    if len(kept) < len(rows):
        warn_once(f"{len(rows) - len(kept):,} rows of {path} name no file and are left out")
    longer = sum(len(row) > len(head) for row in kept)
    if longer:
        warn_once(
            f"{longer:,} rows of {path} have more than its {len(head)} columns: what holds the "
            "delimiter needs quotes around it"
        )
    values = None
    if what is not None:
        values = [row[what].strip() if len(row) > what else "" for row in kept]
    return Listed([row[where] for row in kept], values, find, head if named else [])


def _index(path: Path, head: list[str], column: str) -> int:
    """Position of a column that the user has named."""
    lower = [cell.lower() for cell in head]
    for names, name in ((head, column), (lower, column.lower())):
        if name in names:
            return names.index(name)
    raise UserError(f"{path} has no column {column}; it has {', '.join(head)}")


def _column(
    rows: list[list[str]], called: list[int], never: list[int], places: Places
) -> tuple[int | None, Find | None]:
    """The column that names the most files, one that is called so before others; and how.

    That a number is the name of a file without its ending may be chance: by bare names a column
    counts where half of its cells are, and none has the endings of images instead.
    """
    *ways, alone = places.ways()
    best: tuple[int, int | None, Find | None] = (0, None, None)
    for find in ways:
        hits = _hits(rows, find, never)
        for c in [c for c in called if hits[c]] or hits:
            best = max(best, (hits[c], c, find), key=lambda found: found[0])
    if best[1] is not None:
        return best[1], best[2]
    hits = _hits(rows, alone, never)
    ended = {c for row in rows for c, cell in enumerate(row) if places.ends(cell)}
    likely = called or sorted(ended) or [c for c, n in hits.items() if 2 * n >= len(rows)]
    where = max(likely, key=lambda c: hits[c], default=None)
    return (where, alone) if where is not None and hits[where] else (None, None)


def _hits(rows: list[list[str]], find: Find, never: Sequence[int] = ()) -> Counter[int]:
    """How many files each column names, those aside that are never of paths."""
    width = max((len(row) for row in rows), default=0)
    found = {
        c: {find(row[c]) for row in rows if len(row) > c} - {None}
        for c in range(width)
        if c not in never
    }
    return Counter({c: len(files) for c, files in found.items()})


def _path_like(row: list[str], where: int, find: Find | None, places: Places) -> bool:
    """Whether the first line names a file itself, which may be missing, and not its column."""
    cell = row[where] if len(row) > where else ""
    return places.ends(cell) or (find is not None and find(cell) is not None)


def _by_ending(rows: list[list[str]], places: Places) -> int:
    """The column that holds names with the endings of images, where no file is there."""
    ends = Counter(c for row in rows for c, cell in enumerate(row) if places.ends(cell))
    return ends.most_common(1)[0][0] if ends else 0


def _tell_twins(
    path: Path, head: list[str], rows: list[list[str]], where: int, find: Find, never: list[int]
) -> None:
    hits = _hits(rows, find, never)
    twins = [head[c] for c, n in hits.items() if c < len(head) and c != where and n == hits[where]]
    if twins:
        warn_once(
            f"the columns {', '.join([head[where], *twins])} of {path} all name files, and "
            f"{head[where]} is taken; name another one with --path-column"
        )


def _labels(
    path: Path,
    head: list[str],
    words: list[str],
    labels: str | None,
    where: int,
    named: bool,
    alone: bool,
    called: bool,
) -> int | None:
    """The column of labels, or None without one.

    A list that stands `alone`, and whose paths are `called` so, may have a width or a date beside
    them; one beside a folder is there for its labels.
    """
    if labels is not None:
        if not named:
            raise UserError(
                f"{path} has no line of column names, and labels={labels} is to be one of them: "
                "write one above the others, as path,label"
            )
        return _index(path, head, labels)
    others = [c for c in range(len(head)) if c != where]
    if not named:
        return others[0] if others else None
    found = [words.index(name) for name in LABEL_COLUMNS if name in words]
    found = [c for c in found if c != where]
    if not found and len(others) == 1 and not (alone and called):
        found = others
    if not found and others and alone:
        tell_unlabeled(path, head)
    return found[0] if found else None


# ------------------------------------------------------------------------------------------- rows


def _rows(path: Path, places: Places) -> tuple[list[list[str]], bool]:
    """The cells of each line that is not empty; and whether the first line is names of columns."""
    content = _text(path)
    kind = path.suffix.lower()
    if kind in (".jsonl", ".ndjson"):
        return _json_rows(path, content), True
    if kind == ".txt":
        return _plain_rows(content, places), False
    told = re.match(r"sep=(.)\r?\n", content)  # which spreadsheets write
    content = content[told.end() :] if told else content
    first = "\t" if kind == ".tsv" else ","
    delimiters = sorted(_DELIMITERS, key=lambda d: d != first)
    try:
        delimiter = told[1] if told else _delimiter(content, delimiters)
        return [row for row in _cells(content, delimiter) if any(c.strip() for c in row)], False
    except csv.Error as error:
        raise UserError(f"{path} is no table that can be read: {error}") from error


def _cells(content: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)


def _delimiter(content: str, delimiters: list[str]) -> str:
    """The first one that divides all lines alike; without one the first of all."""
    for delimiter in delimiters:
        widths = {len(row) for row in islice(_cells(content, delimiter), _LOOKED_AT) if row}
        if len(widths) == 1 and widths != {1}:
            return delimiter
    return delimiters[0]


def _plain_rows(content: str, places: Places) -> list[list[str]]:
    """Lines of paths; or of a path and a label, where the whole of a line is no file.

    A blank divides at the last one of a line: paths may hold some.
    """
    lines = [line for line in re.split(r"\r\n|\r|\n", content) if line.strip()]
    splits: list[Callable[[str], list[str]]] = [
        lambda line: [line],
        *(lambda line, d=d: next(_cells(line, d)) for d in ("\t", ",", ";")),
        lambda line: line.rsplit(None, 1),
    ]
    for ways in (places.ways()[:-1], places.ways()[-1:]):
        for split in splits:
            rows = [split(line) for line in lines[: _LOOKED_AT + 1]]
            if any(_hits(rows, find).total() for find in ways):
                return [split(line) for line in lines]
    return [[line] for line in lines]


def _json_rows(path: Path, content: str) -> list[list[str]]:
    """The fields of one JSON object a line, below a line of their names."""
    found: list[dict[str, object]] = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", content), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line, parse_int=str)  # a label may have any number of digits
        except (ValueError, RecursionError) as error:
            raise UserError(f"line {number} of {path} is no JSON: {error}") from error
        if not isinstance(item, dict):
            raise UserError(f'line {number} of {path} must be an object, as {{"path": "a.png"}}')
        found.append(item)
    names = list(dict.fromkeys(name for item in found for name in item))
    return (
        [names, *([as_text(item.get(name)) for name in names] for item in found)] if found else []
    )


def _text(path: Path) -> str:
    """The text of a file in UTF-8 or UTF-16; bytes that are no text stay as they are."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    encoding = encoding_of(data[:512])
    if encoding == "utf-8-sig":
        return data.decode(encoding, "surrogateescape")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} looks like UTF-16 and is damaged: save it as UTF-8") from error


# ----------------------------------------------------------------------------------------- sources


def listed(
    path: Path, labels: str | None, column: str | None, suffixes: frozenset[str] = IMAGE
) -> FileSource:
    """The files that a list names; see `read_list`. Paths are relative to where it lies."""
    root = str(path.parent)
    found = read_list(path, labels, column, Places(root, suffixes=suffixes))
    cells, find = found.cells, found.find
    if find is None and not any(os.path.exists(os.path.join(root, cell)) for cell in cells):
        told = f"; its columns are {', '.join(found.columns)}" if found.columns else ""
        if not any(os.path.splitext(cell)[1] for cell in cells[:_LOOKED_AT]):
            raise UserError(
                f"{path} is read as a list of files, and no line of it ends as a file does{told}: "
                "bert and causal_lm learn from texts; --path-column names the column of paths"
            )
        raise UserError(
            f"none of the {len(cells)} files in {path} exists; the first is "
            f"{cells[0] if cells else 'not named'}, looked for in {path.parent.absolute()}: paths "
            f"are taken relative to the list{told}; --path-column names that of the paths"
        )
    if find is not None and any(find(cell) not in (cell, None) for cell in cells[:_LOOKED_AT]):
        cells = [find(cell) or cell for cell in cells]
        log.info("%s lists %s, which is taken as %s", path, found.cells[0], cells[0])
    source = from_paths(cells, root)
    if found.labels is not None:
        source.labels, source.classes = encode(found.labels, str(path))
    return source


def label_from(
    source: FileSource, path: Path, column: str | None, suffixes: frozenset[str] = IMAGE
) -> None:
    """Give the files of a folder the labels that a list has for them."""
    places = Places(source.root, source, path.parent, suffixes)
    found = read_list(path, None, column, places)
    if found.labels is None:
        raise UserError(
            f"{path} has no column that is known to hold labels ({', '.join(found.columns)}): call "
            "it label in its first line, as in path,label"
        )
    if found.find is None:
        raise UserError(
            f"no file in {source.root} is listed in {path}: it lists "
            f"{found.cells[0] if found.cells else 'none'}, the folder has {source.name(0)}"
        )
    known: dict[str, set[str]] = {}
    strange = []
    for cell, label in zip(found.cells, found.labels, strict=True):
        if (name := found.find(cell)) is None:
            strange.append(cell)
        else:
            known.setdefault(name, set()).add(label)
    if strange:
        log.info(
            "%s of %s rows of %s name no image of %s, the first %s",
            f"{len(strange):,}",
            f"{len(found.cells):,}",
            path,
            source.root,
            strange[0],
        )
    doubtful = sum(len(each) > 1 for each in known.values())
    if doubtful:
        warn_once(
            f"{doubtful:,} of the images have more than one label in {path} and count as without"
        )
    if found.find == places.alone:
        warn_once(_ALONE.format(path, found.cells[0], source.name(0)))
    names = (source.name(i) for i in range(len(source)))
    own = [next(iter(each)) if len(each := known.get(n, set())) == 1 else "" for n in names]
    source.labels, source.classes = encode(own, str(path))
