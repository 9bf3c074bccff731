"""Series in files: arrays of many (.npy, .npz, UCR's .ts), and recordings, a file each (.csv)."""

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from selftaught.data.image.decode import BadSample, npy_header
from selftaught.data.labels import as_text, encode
from selftaught.data.source import Source, digest
from selftaught.errors import UserError

ARRAYS = (".npy", ".npz", ".ts")
"""Endings of files that hold many series."""
RECORDINGS = (".csv", ".tsv")
"""Endings of files that hold one: a column a channel, a row a step."""
LOOKED_AT = 50
"""Rows, the last ones, by which the delimiter is told."""
_VALUES = ("x", "x_train", "data", "series", "values", "arr_0")
_LABELS = ("y", "y_train", "label", "labels", "target", "targets", "arr_1")


@final
class SeriesSource(Source):
    """Series in memory, or mapped: an array [N, T] or [N, C, T], or a list of arrays [C, T].

    Args:
        values: of all series; of a file that was mapped each process maps it anew.
        label: what the data is called.
        path: of the mapped file.
    """

    numbered = True

    def __init__(self, values: Any, label: str = "array", path: str | None = None):
        self.label, self.path, self.count = label, path, len(values)
        self._values: Any = values

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None if self.path else self._values}

    @property
    def values(self) -> Any:
        if self._values is None:
            self._values = np.load(str(self.path), mmap_mode="r")
        return self._values

    def __len__(self) -> int:
        return self.count

    def load(self, i: int) -> np.ndarray:
        if not 0 <= i < self.count:
            raise IndexError(i)
        return np.asarray(self.values[i])

    def name(self, i: int) -> str:
        return f"{self.label}::{i}"

    def fingerprint(self) -> str:
        some = np.linspace(0, self.count - 1, min(64, self.count)).astype(int)
        parts = [np.asarray(self.values[i]) for i in some.tolist()]
        return digest(self.label, self.count, *(str(p.shape) for p in parts), *parts)


@final
class Windows(Source):
    """Series cut into windows of equal length, one behind the other; what is left over is not used.

    Args:
        source: of whole series.
        window: steps of each.
        lengths: of the whole series, in steps.
    """

    def __init__(self, source: Source, window: int, lengths: list[int]):
        each = np.array([n // window for n in lengths])
        self.source, self.window = source, window
        self.of = np.repeat(np.arange(len(lengths)), each)
        self.start = window * (np.arange(len(self.of)) - np.repeat(np.cumsum(each) - each, each))
        self.labels = None if source.labels is None else source.labels[self.of]
        self.classes, self.skipped = source.classes, source.skipped
        self._kept: tuple[int, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def __len__(self) -> int:
        return len(self.of)

    def load(self, i: int) -> np.ndarray:
        of, start = int(self.of[i]), int(self.start[i])
        if self._kept is None or self._kept[0] != of:
            self._kept = of, parsed(self.source.load(of), self.source.name(of))
        return self._kept[1][:, start : start + self.window]

    def name(self, i: int) -> str:
        return f"{self.source.name(int(self.of[i]))}@{int(self.start[i])}"

    def fingerprint(self) -> str:
        return digest(self.source.fingerprint(), self.window)


def parsed(raw: Any, name: str) -> np.ndarray:
    """What a source of series gave, as numbers [C, T]; BadSample where it is none.

    Args:
        raw: an array [T] or [C, T], or the content of a file.
        name: of the file, whose ending tells what it holds.
    """
    if isinstance(raw, bytes):
        raw = _array(raw) if name.lower().endswith(".npy") else _columns(raw)
    found = np.asarray(raw)
    if found.dtype.kind not in "buif" or found.ndim not in (1, 2):
        raise BadSample(
            f"is an array {list(found.shape)} of {found.dtype}, no series: [T] or [C, T] of numbers"
        )
    found = found[None] if found.ndim == 1 else found
    if not found.size:
        raise BadSample(f"is empty: {found.shape[0]} channels of {found.shape[1]} steps")
    if found.shape[1] < 2:
        raise BadSample("has one step, and a series needs 2 at least")
    return found.astype(np.float32, copy=False)


def _array(data: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadSample(f"cannot be read as an array: {error}") from error


def _columns(data: bytes) -> np.ndarray:
    """The columns of numbers of a CSV, as channels; those of words, such as of times, are none."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSample(f"is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadSample("is empty")
    delimiter = max(",;\t ", key=lambda d: _numbers_over_words(lines[-LOOKED_AT:], d))
    cells = _cells(lines, delimiter)
    kept = [column for column in cells if None not in column]
    if not kept or not kept[0]:
        raise BadSample("has no column of numbers")
    return np.array(kept, np.float64)


def _numbers_over_words(lines: list[str], delimiter: str) -> tuple[int, int]:
    """How many more columns of numbers than of words some lines have, cut at a delimiter; then how
    alike they are in their number of cells."""
    more = sum(-1 if None in column else 1 for column in _cells(lines, delimiter))
    return more, -len({len(row) for row in csv.reader(lines, delimiter=delimiter)})


def _cells(lines: list[str], delimiter: str) -> list[list[float | None]]:
    """The numbers of each column, as `_number` has them; names above them are left out."""
    point = "," if delimiter != "," else "."
    rows = [
        [_number(cell, point) for cell in row] for row in csv.reader(lines, delimiter=delimiter)
    ]
    rows = rows if any(number is not None for number in rows[0]) else rows[1:]
    width = max(map(len, rows), default=0)
    return [[row[c] if c < len(row) else np.nan for row in rows] for c in range(width)]


def _number(cell: str, point: str = ".") -> float | None:
    """Of a cell; NaN where it is empty, None where it is a word.

    Args:
        point: what may stand for the decimal point.
    """
    text = cell.strip().replace(point, ".")
    if text.lower() in ("", "na", "nan", "null", "?"):
        return float("nan")
    try:
        return float(text)
    except ValueError:
        return None


def array_file(path: Path, column: str | None, labels: str | None) -> SeriesSource:
    """The series in a .npy, .npz or .ts, with labels where the file has them.

    Raises:
        UserError: it cannot be read, or holds no series.
    """
    try:
        match path.suffix.lower():
            case ".npy":
                return SeriesSource(
                    checked(np.load(path, mmap_mode="r"), path), path.name, str(path)
                )
            case ".npz":
                with np.load(path, allow_pickle=False) as archive:
                    return _from_npz(path, archive, column, labels)
        return _from_ts(path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not an array that can be read: {error}") from error


def checked(values: np.ndarray, path: Any) -> np.ndarray:
    """`values`, where they are a set of series; UserError otherwise.

    Args:
        values: of any array.
        path: of it, or what it is called.
    """
    if values.ndim not in (2, 3) or values.dtype.kind not in "buif":
        raise UserError(
            f"an array of shape {values.shape} and type {values.dtype} in {path} is no set of "
            "series: [N, T] or [N, C, T] of numbers is needed"
        )
    return values


def _from_npz(path: Path, archive: Any, column: str | None, labels: str | None) -> SeriesSource:
    names = {n.lower(): n for n in archive.files}
    chosen = column or next((names[n] for n in _VALUES if n in names), None)
    if chosen is None or chosen not in archive.files:
        raise UserError(
            f"{path} has no array {column or 'of series'}; it has {', '.join(archive.files)}: name "
            "one with --column"
        )
    found = SeriesSource(checked(archive[chosen], path), path.name)
    label = labels or next((names[n] for n in _LABELS if n in names), None)
    if label is None and chosen.lower().endswith("_x"):  # several sets in one file
        label = next((n for n in archive.files if n.lower() == f"{chosen[:-2].lower()}_y"), None)
    if label is not None:
        if label not in archive.files:
            raise UserError(f"{path} has no array {label}; it has {', '.join(archive.files)}")
        given = archive[label].reshape(-1)
        if len(given) != len(found):
            raise UserError(
                f"array {label} of {path} has {len(given)} values for {len(found)} series"
            )
        found.labels, found.classes = encode(map(as_text, given.tolist()), f"{label} in {path}")
    return found


def _from_ts(path: Path) -> SeriesSource:
    """UCR's and UEA's text format: dimensions apart by colons, values by commas, the class last."""
    series: list[np.ndarray] = []
    classes: list[str] = []
    labeled = started = False
    text = path.read_text("utf-8-sig", errors="strict")
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("@"):
            word, _, rest = line[1:].partition(" ")
            labeled |= word.lower() == "classlabel" and rest.strip().lower().startswith("true")
            if word.lower() == "timestamps" and rest.strip().lower() == "true":
                raise UserError(
                    f"{path} has a time beside each value, which is not read: save values"
                )
            started |= word.lower() == "data"
            continue
        if not started:
            raise UserError(f"line {number} of {path} comes before @data: it is no .ts file")
        parts = line.split(":")
        if labeled:
            classes.append(parts.pop().strip())
        rows = [[_number(cell) for cell in part.split(",")] for part in parts]
        if len({len(row) for row in rows}) != 1 or any(None in row for row in rows):
            raise UserError(
                f"line {number} of {path} is no series: its channels must be numbers, of one length"
            )
        series.append(np.array(rows, np.float32))
    found = SeriesSource(series, path.name)
    if labeled and series:
        found.labels, found.classes = encode(classes, str(path))
    return found


def listed(rows: Sequence[Any]) -> SeriesSource:
    """Arrays, or pairs of an array and its label, which may be any word or number."""
    pairs = [isinstance(r, tuple) and len(r) == 2 and np.ndim(r[1]) == 0 for r in rows]
    if not any(pairs):
        return SeriesSource(list(rows), "list")
    if not all(pairs):
        raise UserError(
            f"item {pairs.index(False)} of the list is no pair of a series and its label, as "
            f"{sum(pairs):,} others are"
        )
    found = SeriesSource([row for row, _ in rows], "list")
    found.labels, found.classes = encode([as_text(label) for _, label in rows], "the list")
    return found


def shape_of(path: Path) -> tuple[tuple[int, ...], str]:
    """Shape, and kind of numbers (`f` for fractions), of what is most likely the data of a file;
    nothing of it is read. Empty where that cannot be told."""
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".npy":
                shape, _, dtype = npy_header(file)
                return shape, dtype.kind
        with zipfile.ZipFile(path) as archive:
            names = {n.lower().removesuffix(".npy"): n for n in archive.namelist()}
            name = next((names[n] for n in _VALUES if n in names), next(iter(names.values()), ""))
            with archive.open(name) as member:
                shape, _, dtype = npy_header(member)
                return shape, dtype.kind
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
        return (), ""
