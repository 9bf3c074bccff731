"""What stands beside the samples of a table, or of arrays, and may name other files."""

import csv
import json
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selftaught.data.labels import without_labels
from selftaught.data.lists import PATHS
from selftaught.data.source import Samples
from selftaught.data.text import rows
from selftaught.data.text.coding import extension, opened
from selftaught.data.text.opening import open_texts
from selftaught.errors import UserError

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


def columns(where: Any, samples: Samples) -> Iterator[tuple[str, dict[str, str]]]:
    """Columns of words: the name of each, and its cell by the name of the sample beside it.

    Those that are called as columns of paths come first, then the others, then labels.

    Args:
        where: what `samples` were opened from.
        samples: rows of a table, or of an array in a .npz.
    """
    path = Path(where) if isinstance(where, str | Path) else None
    if path is not None and path.is_file() and samples.source.numbered:
        names = sorted(_heads(path), key=lambda n: n.lower() not in PATHS)
        for name in names:
            cells = _cells(path, name)
            if cells:
                yield name, cells
    labels, classes = samples.labels, samples.classes
    if labels is not None and classes is not None:  # a table without names of its columns
        every = np.asarray(labels).tolist()
        yield "labels", {samples.name(i): classes[c] for i, c in enumerate(every) if c >= 0}


def _heads(path: Path) -> list[str]:
    """Names of the columns that may hold words."""
    kind = extension(path)
    if kind == ".parquet":
        schema = pq.read_schema(path)
        of = pa.types
        return [f.name for f in schema if of.is_string(f.type) or of.is_large_string(f.type)]
    if kind == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                return list(archive.files)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile):
            return []
    if kind not in TABLES:
        return []
    with opened(path) as file:
        some = list(islice(file, rows.LOOKED_AT))
    if not some:
        return []
    if kind in (".jsonl", ".ndjson"):
        try:
            first = json.loads(some[0])
        except ValueError:
            return []
        return [str(key) for key in first] if isinstance(first, dict) else []
    how = rows.dialect(some, "\t" if kind == ".tsv" else ",")
    return [cell.strip() for cell in next(csv.reader(some, **how), [])]


def _cells(path: Path, name: str) -> dict[str, str]:
    """The words of a column, by the names of samples; empty where it holds none."""
    if extension(path) == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                found = archive[name]
        except (ValueError, OSError, EOFError, KeyError):
            return {}
        if found.ndim != 1 or found.dtype.kind not in "US":
            return {}
        return {f"{path.name}::{i}": str(cell) for i, cell in enumerate(found.tolist())}
    try:
        with without_labels():
            source = open_texts(path, column=name)
    except UserError:  # a column of nothing, say
        return {}
    cells = (source.load(i) for i in range(len(source)))
    return {
        source.name(i): cell.decode("utf-8", "replace")
        for i, cell in enumerate(cells)
        if isinstance(cell, bytes)
    }
