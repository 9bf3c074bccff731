"""What a pool keeps, as data: the rows that its stages have left, read from where they lie.

The stages themselves are in `selftaught.curate`; a folder of data is all that the rooms below see.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.blurred import Blurred
from selftaught.data.image.formats import POOL
from selftaught.data.joined import Joined
from selftaught.data.selection import Selected
from selftaught.data.source import Source
from selftaught.errors import UserError

Opened = Callable[[str, None, str | None, str | None, str | None], Source]

KEPT = "kept.parquet"
"""Positions of the rows that are left, in order; and whether faces are to be blurred."""
FACES, BLUR = "faces.parquet", "blur_faces"
SIDES = ("left", "top", "right", "bottom")
"""A row a face, its sides as shares of the image's."""


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


def there(place: Path) -> bool:
    """Whether a source is where it was scanned; of patterns of shards that is told by whoever opens
    them."""
    return place.exists() or bool(set("{*?[") & set(str(place)))


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
        if not there(place):
            raise UserError(
                f"{place}, which {path} was made of, is not there: put it back, or scan the place "
                f"to which it was moved: selftaught curate scan PLACE --out {path}"
            )
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
    """What the stages of a pool have left; see `everything`.

    Raises:
        UserError: nothing is left.
    """
    from pyarrow import parquet

    whole, file = everything(path, opened), path / KEPT
    if not file.exists():
        return whole
    table = parquet.read_table(file)
    if not len(table):
        raise UserError(
            f"{path} has left none of its {len(whole):,} images: selftaught curate report {path} "
            "shows why; take a stage back with selftaught curate restore, or run it with other "
            "bounds"
        )
    seen = blurred(path, whole) if BLUR.encode() in (table.schema.metadata or {}) else whole
    return Selected(seen, table.column("row").to_numpy().astype(np.int64))


def blurred(path: Path, whole: Source) -> Source:
    """All that a pool was made of, with the faces blurred that its filter has found."""
    from pyarrow import parquet

    table = parquet.read_table(path / FACES)
    rows = table.column("row").to_numpy()
    boxes = np.stack([table.column(side).to_numpy() for side in SIDES], 1)
    return Blurred(whole, {int(row): boxes[rows == row] for row in np.unique(rows)})
