"""The Point Cloud Library's format, ascii and binary."""

import io
from typing import NoReturn

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.points.cloud import Cloud, of_columns

_HEADER = 4096
"""Bytes within which its lines end."""


def parsed(raw: bytes) -> Cloud:
    """The points of a .pcd; those that no beam came back from are NaN.

    Raises:
        BadSample: it is none, is cut short, or is compressed.
    """
    header, start = _header(raw)
    try:
        names = header["FIELDS"]
        sizes = [int(n) for n in header["SIZE"]]
        kinds = [{"F": "f", "I": "i", "U": "u"}[t] for t in header["TYPE"]]
        counts = [int(n) for n in header.get("COUNT", ["1"] * len(names))]
        points = int(header["POINTS"][0]) if "POINTS" in header else _area(header)
        fields = [
            (n, f"<{k}{s}", (c,)) for n, k, s, c in zip(names, kinds, sizes, counts, strict=True)
        ]
        unique = [
            (f"{n}{i}" if n in names[:i] else n, *rest) for i, (n, *rest) in enumerate(fields)
        ]
        kind = np.dtype([(n, t, shape) for n, t, shape in unique])
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise BadSample(f"has a header that is no PCD's: {error!r}") from error
    match header["DATA"][0].lower():
        case "ascii":
            return _ascii(raw[start:], names, counts, points)
        case "binary":
            if len(raw) - start < points * kind.itemsize:
                _short((len(raw) - start) // kind.itemsize, points)
            found = np.frombuffer(raw, kind, points, start)
            return of_columns({n: found[n][:, 0] for n in kind.names or ()})
        case other:
            raise BadSample(
                f"is a PCD of {other} data, which is not read: make it binary with "
                "`pcl_convert_pcd_ascii_binary`, or save its points as .npy"
            )


def _header(raw: bytes) -> tuple[dict[str, list[str]], int]:
    """Its lines by their first word, and where data begins."""
    found: dict[str, list[str]] = {}
    start = 0
    while start < min(len(raw), _HEADER):
        end = raw.find(b"\n", start)
        line = raw[start : end if end >= 0 else len(raw)].decode("ascii", "replace").strip()
        start = end + 1 if end >= 0 else len(raw)
        word, *rest = line.split() or [""]
        if word and not word.startswith("#"):
            found[word.upper()] = rest
        if word.upper() == "DATA" and rest:
            return found, start
    raise BadSample("has no line that begins with DATA: it is no PCD, or is cut short")


def _apart(names: list[str]) -> list[str]:
    """Padding is called `_`, each time; a table needs names that are not alike."""
    return [f"{name}{i}" if name in names[:i] else name for i, name in enumerate(names)]


def _area(header: dict[str, list[str]]) -> int:
    return int(header["WIDTH"][0]) * int(header["HEIGHT"][0])


def _ascii(data: bytes, names: list[str], counts: list[int], points: int) -> Cloud:
    try:
        found = np.loadtxt(io.BytesIO(data), np.float64, ndmin=2, max_rows=points)
    except ValueError as error:
        raise BadSample(f"has a line that is no point: {error}") from error
    if len(found) < points:
        _short(len(found), points)
    if found.size and found.shape[1] != sum(counts):
        raise BadSample(f"has {found.shape[1]} numbers a point, and names {sum(counts)}")
    at = np.cumsum([0, *counts])
    return of_columns({n: found[:, at[i]] for i, n in enumerate(names)})


def _short(there: int, promised: int) -> NoReturn:
    raise BadSample(f"is cut short: {there:,} of {promised:,} points are there")
