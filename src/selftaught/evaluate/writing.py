"""Features and tables as files: .npz, .npy, .parquet, .csv."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import export, printable
from selftaught.data import Samples
from selftaught.errors import UserError

ENDINGS = (".npz", ".npy", ".parquet", ".csv")
ROWS = 8192
"""Of a table that are held as text, or as columns of their own, at once."""


def check(out: Path, columns: str = "auto") -> None:
    """Refuse a file that `write` cannot write: UserError."""
    if out.suffix not in ENDINGS:
        raise UserError(f"{out} must end in one of {', '.join(ENDINGS)}")
    if out.suffix == ".csv" and columns == "list":
        raise UserError(f"{out} has a column for each dimension; lists need a .parquet")
    if out.suffix in (".npz", ".npy") and columns != "auto":
        raise UserError(f"{out} holds arrays, which have no columns; name a .parquet or a .csv")


def write(
    out: Path,
    features: np.ndarray,
    columns: Mapping[str, Any],
    classes: Sequence[str] | None = None,
    form: str = "auto",
) -> None:
    """Write features, and what is known of their images beside them.

    Args:
        out: .npz and .npy hold the array as it is; .parquet and .csv a row an image, or a row a
            place of an image where features are of places.
        features: [N, D] or [N, h, w, L].
        columns: name, index and perhaps label, of N each.
        classes: names of the labels.
        form: of .parquet, list for one column `embedding`, wide for a column a dimension, `f0` and
            on, as .csv has them; auto for the usual one.
    """
    check(out, form)
    with export.atomic(out) as temporary:
        if out.suffix == ".npy":
            np.save(temporary, features)
        elif out.suffix == ".npz":
            arrays = {"features": features, "index": columns["index"]}
            arrays["names"] = np.array(columns["name"])
            if "label" in columns:
                arrays["labels"] = columns["label"]
            if classes is not None:
                arrays["classes"] = np.array(classes)
            np.savez(temporary, **arrays)
        else:
            flat, told = _rows(features, columns, classes)
            wide = form == "wide" or out.suffix == ".csv"
            write_blocks(temporary, _blocks(flat, told, wide))


def _rows(
    features: np.ndarray, columns: Mapping[str, Any], classes: Sequence[str] | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """[R, D] and columns of R each: a row a place where features are of places."""
    told = dict(columns)
    if "label" in told and classes is not None:
        told["class"] = [classes[i] if i >= 0 else None for i in told["label"]]
    if features.ndim == 2:
        return features, told
    count, height, width, _ = features.shape
    each = np.repeat(np.arange(count), height * width)
    told = {name: np.asarray(values, object)[each].tolist() for name, values in told.items()}
    row, column = np.divmod(np.tile(np.arange(height * width), count), width)
    return features.reshape(len(each), -1), {**told, "row": row, "column": column}


def _blocks(flat: np.ndarray, told: Mapping[str, Any], wide: bool) -> Iterable[dict[str, Any]]:
    """Some rows at a time: columns by name, the features in one of lists or in one a dimension."""
    for a in range(0, max(len(flat), 1), ROWS):
        some = np.ascontiguousarray(flat[a : a + ROWS])
        columns = {name: values[a : a + ROWS] for name, values in told.items()}
        if wide:
            columns |= {f"f{n}": some[:, n] for n in range(some.shape[1])}
        else:
            columns["embedding"] = some
        yield columns


def texts(samples: Samples, index: np.ndarray) -> list[str]:
    """Names of samples as any file format takes them: bytes that are no text become escapes."""
    names = (samples.name(int(i)) for i in index)
    return [n.encode("utf-8", "backslashreplace").decode() for n in names]


def write_table(
    out: Path, columns: Mapping[str, Any], about: Mapping[str, str] | None = None
) -> None:
    """Columns of equal length as .parquet or .csv, by the ending of `out`.

    In Parquet lists of dicts become structs, arrays [R, D] lists, and None is no value.

    Args:
        out: file.
        columns: by name.
        about: words by name that a Parquet file says of itself.
    """
    write_blocks(out, [columns], about)


def write_blocks(
    out: Path, blocks: Iterable[Mapping[str, Any]], about: Mapping[str, str] | None = None
) -> None:
    """Blocks of rows, one after the other, as `write_table`."""
    if out.suffix == ".csv":
        _csv(out, blocks)
    else:
        _parquet(out, blocks, about)


def _parquet(
    out: Path, blocks: Iterable[Mapping[str, Any]], about: Mapping[str, str] | None
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    writer = None
    try:
        for block in blocks:
            table = pa.table({name: _arrow(values) for name, values in block.items()})
            if writer is None:
                schema = table.schema if about is None else table.schema.with_metadata(dict(about))
                writer = parquet.ParquetWriter(out, schema)
            writer.write_table(table.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()


def _arrow(values: Any) -> Any:
    import pyarrow as pa

    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    found = pa.array(values)
    # classes of a block that has none are text all the same
    return found.cast(pa.string()) if pa.types.is_null(found.type) else found


def _csv(out: Path, blocks: Iterable[Mapping[str, Any]]) -> None:
    """Numbers as short as they are exact; text such that no spreadsheet computes it."""
    with out.open("w", encoding="utf-8", newline="") as file:
        for n, block in enumerate(blocks):
            if not n:
                file.write(printable.row(list(block)))
            columns = [_cells(values) for values in block.values()]
            file.writelines(",".join(row) + "\n" for row in zip(*columns, strict=True))


def _cells(values: Any) -> list[str]:
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return values.astype(str).tolist()
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    return [_cell(value) for value in listed]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return printable.row([value])[:-1] if isinstance(value, str) else str(value)


def read_table(file: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of numbers of a Parquet file.

    Raises:
        OSError, ValueError: it is none, or damaged.
    """
    from pyarrow import parquet

    table = parquet.read_table(file, columns=list(names))
    return {name: table.column(name).to_numpy() for name in names}
