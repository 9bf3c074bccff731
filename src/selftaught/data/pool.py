"""What a pool keeps, as data: the rows that its stages have left, read from where they lie.

The stages themselves are in `selftaught.curate`; a folder of data is all that the rooms below see.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.image.formats import POOL
from selftaught.data.joined import Joined
from selftaught.data.selection import Selected
from selftaught.data.source import Source
from selftaught.errors import UserError

Opened = Callable[[str, None, str | None, str | None, str | None], Source]

KEPT = "kept.parquet"
"""Positions of the rows that are left, in order."""


def is_pool(path: Path) -> bool:
    """Whether a folder holds a pool."""
    return (path / POOL).is_file()


def about(path: Path) -> dict[str, Any]:
    """What a pool says of itself.

    Raises:
        UserError: it is none, or damaged.
    """
    try:
        found = json.loads((path / POOL).read_text("utf-8"))
        assert isinstance(found["sources"], list)
        return found
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"{path} is no pool ({error}); make one with: selftaught curate scan photos/ "
            f"--out {path}"
        ) from error


def everything(path: Path, opened: Opened) -> Joined:
    """All that a pool was made of.

    Args:
        path: of the pool.
        opened: opens each source, as `opening.raw_samples` does.

    Raises:
        UserError: a source is gone, or has changed since it was scanned.
    """
    found = []
    for told in about(path)["sources"]:
        place = path / told["data"]  # absolute ones stay as they are
        how = told.get("column"), told.get("labels"), told.get("path_column")
        source = opened(str(place), None, *how)
        if len(source) != told["count"] or source.fingerprint() != told["fingerprint"]:
            raise UserError(
                f"{place} has changed since {path} scanned it ({told['count']:,} images then, "
                f"{len(source):,} now): run selftaught curate scan {place} --out {path} again"
            )
        found.append(source)
    return Joined(found)


def kept(path: Path, opened: Opened) -> Source:
    """What the stages of a pool have left; see `everything`."""
    from pyarrow import parquet

    whole, file = everything(path, opened), path / KEPT
    if not file.exists():
        return whole
    return Selected(whole, parquet.read_table(file).column("row").to_numpy().astype(np.int64))
