"""The list of files that cannot be read."""

import csv
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selftaught.data.source import Samples
from selftaught.errors import UserError
from selftaught.printable import from_cell, longest_cell, row

FILE = "bad_files.csv"
_COLUMNS = ["path", "reason", "first_step"]


@dataclass(frozen=True)
class Bad:
    """Why a sample cannot be read, and the training step that met it first; None if no step did."""

    reason: str
    first_step: int | None = None


def load(path: str | Path) -> dict[str, Bad]:
    """The quarantine list by sample name; empty where there is no such file.

    Names are those that were saved, whatever a spreadsheet would have made of them.
    """
    try:
        with (
            longest_cell(1 << 17),
            open(path, newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            rows = list(csv.reader(file))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path} cannot be read or written: {error.strerror}") from error
    except csv.Error as error:
        raise UserError(f"{path} is no quarantine list: {error}") from error
    if not rows or rows[0] != _COLUMNS:
        raise UserError(f"{path} is no quarantine list: its first line is not {','.join(_COLUMNS)}")
    return {
        from_cell(name): Bad(
            from_cell(reason), int(step) if re.fullmatch("[0-9]{1,18}", step) else None
        )
        for name, reason, step in (r for r in rows[1:] if len(r) == 3)
    }


def save(path: str | Path, bad: Mapping[str, Bad]) -> None:
    """Write the whole list, atomically: a reader sees the old list or the new one."""
    path = Path(path)
    text = row(_COLUMNS)
    for name, entry in bad.items():
        text += row([name, entry.reason, "" if entry.first_step is None else str(entry.first_step)])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with open(handle, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def append(path: str | Path, new: Mapping[str, Bad]) -> dict[str, Bad]:
    """Add samples to the list and return all of it; what is listed keeps its reason and step."""
    merged = {**new, **load(path)}
    save(path, merged)
    return merged


def positions(samples: Samples, bad: Mapping[str, Bad]) -> np.ndarray:
    """int64 positions of the listed samples, ascending; names that are gone are passed over."""
    if not bad:
        return np.zeros(0, dtype=np.int64)
    found = [i for i in range(len(samples)) if samples.name(i) in bad]
    return np.array(found, dtype=np.int64)
