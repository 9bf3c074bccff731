"""Stanford's polygon format, ascii and binary: its vertices are points."""

import io

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.points.cloud import Cloud, of_columns

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}


def parsed(raw: bytes) -> Cloud:
    """The vertices of a .ply.

    Raises:
        BadSample: it is none, is cut short, or its vertices do not come first.
    """
    end = raw.find(b"end_header")
    start = raw.find(b"\n", end) + 1
    if end < 0 or not start:
        raise BadSample("has no end of its header: it is cut short")
    form, count, properties = _vertices(raw[:end].decode("ascii", "replace").splitlines())
    if form == "ascii":
        try:
            found = np.loadtxt(
                io.BytesIO(raw[start:]), np.float64, ndmin=2, max_rows=count,
                usecols=range(len(properties)),
            )  # fmt: skip
        except ValueError as error:
            raise BadSample(f"has a line that is no vertex: {error}") from error
        columns = {n: found[:, i] for i, n in enumerate(properties)} if found.size else {}
        there = len(found)
    else:
        if form not in _ORDERS:
            raise BadSample(f"is a PLY in the format {form}; ascii and binary ones are read")
        kind = np.dtype([(n, _ORDERS[form] + t) for n, t in properties.items()])
        there = (len(raw) - start) // kind.itemsize
        table = np.frombuffer(raw, kind, min(count, there), start)
        columns = {n: table[n] for n in properties}
    if there < count:
        raise BadSample(f"is cut short: {there:,} of {count:,} vertices are there")
    return of_columns(columns)


def _vertices(lines: list[str]) -> tuple[str, int, dict[str, str]]:
    """Format, number of vertices, and what each has: types by names."""
    form, count = "", -1
    properties: dict[str, str] = {}
    for line in lines:
        match line.split():
            case ["format", form, *_]:
                pass
            case ["element", "vertex", number, *_] if number.isdigit():
                count = int(number)
            case ["element", name, *_]:
                if count < 0:
                    raise BadSample(f"has {name}s before its vertices, which is not read")
                break
            case ["property", "list", *_]:
                raise BadSample("has vertices of lists, which are no points")
            case ["property", kind, name] if kind in _TYPES:
                properties[name] = _TYPES[kind]
            case ["property", kind, *_]:
                raise BadSample(f"has vertices with values of type {kind}, which PLY does not know")
    if count < 0 or not properties:
        raise BadSample("has no vertices")
    return form, count, properties
