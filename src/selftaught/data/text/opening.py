"""`open_texts`: one function from whatever holds texts to a `Source`."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selftaught.data import files, lists
from selftaught.data.absent import missing
from selftaught.data.image.formats import IMAGE
from selftaught.data.labels import as_text, warn_once
from selftaught.data.source import Source
from selftaught.data.text import rows
from selftaught.data.text.coding import PACKED, extension, opened
from selftaught.data.text.texts import Gathered, Texts
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

LINES = frozenset({".txt", ".text"})
"""Files whose lines are texts, or that are one text each where they lie in a folder."""
_READERS: dict[str, Callable[[Path, Gathered, str | None, str | None], None]] = {
    **dict.fromkeys((".csv", ".tsv"), rows.table),
    **dict.fromkeys((".jsonl", ".ndjson"), rows.json_lines),
}
_TABLES = (".parquet", ".arrow", *_READERS)
_HOLDS = (
    ".txt with a text a line, .csv, .tsv or .jsonl (each may be .gz), .parquet, .arrow, a folder "
    "of .txt, or a list of str"
)


def open_texts(source: Any, *, column: str | None = None, labels: str | None = None) -> Source:
    """Texts of a file, a folder, Hugging Face data or a list.

    Args:
        source: path of a file whose lines or rows are texts, or of a folder; list of str, or of
            (str, label); `datasets.Dataset`.
        column: of the texts in a table, where it is not found by itself.
        labels: column of labels; for a folder a CSV of path,label.

    Raises:
        UserError: when there is no text that can be read, saying what there was.
    """
    found = _open(source, column, labels)
    if len(found) == 0:
        shown = source if isinstance(source, str | Path) else f"the {type(source).__name__}"
        left = found.skipped.advice()
        raise UserError(f"{shown} holds no texts{f'; left out: {left}' if left else ''}")
    return found


def _open(source: Any, column: str | None, labels: str | None) -> Source:
    if isinstance(source, str | os.PathLike):
        return _path(Path(source), column, labels)
    if type(source).__module__.split(".")[0] == "datasets":  # known without importing it
        if isinstance(source, dict):
            raise UserError(f"the DatasetDict has the splits {', '.join(source)}: pass one of them")
        return _hub(source, column, labels)
    if isinstance(source, Sized) and callable(getattr(type(source), "__getitem__", None)):
        return _items(source)  # type: ignore[arg-type]
    if isinstance(source, Iterable):
        raise UserError(
            f"a {type(source).__name__} is a stream without length: samples are shuffled, and "
            "remembered, by their number; pass list(it)"
        )
    raise UserError(f"a {type(source).__name__} holds no texts that can be read: {_HOLDS}")


def _path(path: Path, column: str | None, labels: str | None) -> Source:
    if "://" in str(path) or ":/" in str(path)[1:]:
        raise UserError(f"{path} is not a local path: fetch the data first")
    if not path.exists():
        raise missing(path)
    if path.is_dir():
        return _folder(path, column, labels)
    kind = extension(path)
    if kind in (".parquet", ".arrow"):
        return _columnar([path], column, labels)
    if kind in _READERS:
        return _tables([path], column, labels)
    if kind in IMAGE or kind in (".zip", ".tar", ".zst", ".7z"):
        raise UserError(f"{path} holds no texts that can be read: needed is {_HOLDS}")
    if labels is not None or column is not None:
        named = f"labels={labels}" if labels is not None else f"column={column}"
        raise UserError(f"{path} is taken as lines of text, without columns, so {named} is none")
    return _listed(path) or _tables([path], None, None)


def _listed(path: Path) -> Source | None:
    """The files that a list names, where its lines are paths of text files; else None."""
    with opened(path) as file:
        some = [line.strip() for line in file.readlines(1 << 16) if line.strip()]
    endings = {os.path.splitext(line)[1].lower() for line in some}
    if some and endings <= IMAGE:
        raise UserError(
            f"{path} lists pictures ({some[0]}), and texts are needed: name a file with a text a "
            "line, or a method that learns from pictures"
        )
    if some and endings <= LINES and any(os.path.isfile(path.parent / line) for line in some):
        return lists.listed(path, None, None)
    return None


def _tables(paths: Sequence[Path], column: str | None, labels: str | None) -> Texts:
    gathered, of_lines = Gathered(), False
    for path in paths:
        reader = _READERS.get(extension(path))
        of_lines = reader is None
        if reader is None:
            rows.lines(path, gathered)
        else:
            reader(path, gathered, column, labels)
        gathered.close(path.name)
    return gathered.texts(":" if of_lines else "::", str(paths[0]))


def _folder(path: Path, column: str | None, labels: str | None) -> Source:
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        from selftaught.data.table import saved_files

        return _columnar([Path(p) for p in saved_files(path)], column, labels)
    source = files.walk(str(path), LINES, look_inside=False, classes=True)
    if not len(source):
        for kind in (k + packed for k in _TABLES for packed in ("", *PACKED)):
            inside = sorted(p for p in path.rglob(f"*{kind}") if p.is_file())
            if inside:
                log.info("reading %d %s files in %s", len(inside), kind, path)
                columnar = kind in (".parquet", ".arrow")
                return (_columnar if columnar else _tables)(inside, column, labels)
    if labels is not None and len(source):
        file = next((p for p in (path / labels, Path(labels)) if p.is_file()), None)
        if file is not None:
            lists.label_from(source, file, None)
        elif source.labels is None or Path(labels).suffix:
            raise UserError(f"labels={labels} is neither a file in {path} nor one here")
        else:  # the name of a column, which the other one of training and test data has
            warn_once(f"{path} has no columns, so {labels} is none of it: its folders are classes")
    return source


def _items(source: Sequence[Any]) -> Source:
    """Texts in a list, or (text, label); paths where all of them are of files."""
    found = [source[i] for i in range(len(source))]
    paths = [isinstance(s, os.PathLike) for s in found]
    if found and (all(paths) or all(isinstance(s, str) and _is_file(s) for s in found)):
        named = [Path(s) for s in found]
        if all(extension(p) in LINES for p in named):
            return files.from_paths([os.fspath(p) for p in named])
        return _tables(named, None, None)
    gathered = Gathered()
    for i, item in enumerate(found):
        pair = isinstance(item, tuple | list) and len(item) == 2
        text, label = item if pair else (item, None)
        gathered.add(text, i, as_text(label) if pair else None)
    gathered.close(type(source).__name__)
    return gathered.texts("::", "the list")


def _is_file(text: str) -> bool:
    return len(text) < 4096 and "\0" not in text and os.path.isfile(text)


# ----------------------------------------------------------------------------------- Arrow columns


def _columnar(paths: Sequence[Path], column: str | None, labels: str | None) -> Texts:
    from selftaught.data.table import arrow_table, reading

    tables: list[tuple[str, pa.Table]] = []
    for path in paths:
        text = str(path)
        if path.suffix.lower() == ".parquet":
            with reading(text, "a Parquet"):
                tables.append((path.name, pq.read_table(text)))
        else:
            with reading(text, "an Arrow"):
                table = arrow_table(text)
                table.validate(full=True)  # offsets are followed blindly later on
                tables.append((path.name, table))
    return _of_tables(tables, str(paths[0]), column, labels)


def _hub(dataset: Any, column: str | None, labels: str | None) -> Texts:
    table = dataset.with_format("arrow")[:]
    table = table.replace_schema_metadata(dataset.features.arrow_schema.metadata)
    return _of_tables([("row", table)], "the data set", column, labels)


def _of_tables(
    tables: Sequence[tuple[str, pa.Table]], where: str, column: str | None, labels: str | None
) -> Texts:
    from selftaught.data.table import label_column, labels_in

    text = _text_column(tables[0][1].schema, column, where)
    others = pa.schema(
        [f for f in tables[0][1].schema if f.name != text], tables[0][1].schema.metadata
    )
    label = label_column(others, labels, where)
    numbers, classes = None, None
    if label is not None:
        given = labels is not None
        numbers, classes = labels_in((t for _, t in tables), label, given, where)
    gathered, kept = Gathered(), []
    for name, table in tables:
        for i, value in enumerate(v for c in table.column(text).chunks for v in c.to_pylist()):
            gathered.add(value, i)
        gathered.close(name)
    found = gathered.texts("::", where)
    if numbers is not None:
        starts = np.cumsum([0, *(len(t) for _, t in tables)])
        counts = np.diff(found.ends, prepend=0)
        kept = np.concatenate([np.full(n, s) for n, s in zip(counts, starts)]) + found.numbers
        found.labels, found.classes = numbers[kept], classes
    return found


def _text_column(schema: pa.Schema, column: str | None, where: str) -> str:
    columns = f"its columns are {', '.join(f'{f.name} ({f.type})' for f in schema)}"
    if column is not None:
        if column not in schema.names:
            raise UserError(f"{where} has no column {column}; {columns}")
        if not _holds_texts(schema.field(column).type):
            raise UserError(f"column {column} of {where} does not hold texts; {columns}")
        return column
    candidates = [f.name for f in schema if _holds_texts(f.type)]
    named = [c for name in rows.COLUMNS for c in candidates if c.lower() == name]
    others = [c for c in candidates if c.lower() not in lists.LABEL_COLUMNS]
    if named or len(others) == 1:
        return (named or others)[0]
    if not others:
        raise UserError(f"{where} has no column of texts; {columns}")
    raise UserError(f"{where} has several columns of texts, name one with --column; {columns}")


def _holds_texts(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    of = pa.types
    return of.is_string(kind) or of.is_large_string(kind) or of.is_string_view(kind)
