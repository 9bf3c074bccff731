"""Rows of pictures that a training leaves in its run folder, in `pictures/`, for the page."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftaught.errors import UserError
from selftaught.export import atomic

log = logging.getLogger("selftaught")

FOLDER, INDEX = "pictures", "pictures.json"
_KINDS = ("png", "jpeg", "words")


@dataclass(frozen=True)
class Cell:
    """A picture, encoded. kind: png or jpeg; or words, whose data is JSON: a list of pieces, as of
    `Passages`. name: what it is. caption: what is said of it."""

    data: bytes
    kind: str
    name: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures under one heading, in rows; each row has a name, which may be empty."""

    title: str
    note: str
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def save(run: Path, galleries: Sequence[Gallery]) -> None:
    """Put `galleries` into the run folder, in place of those of before."""
    folder = run / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    if not galleries:
        return
    folder.mkdir(parents=True)
    content = []
    for g, gallery in enumerate(galleries):
        rows = []
        for r, (name, cells) in enumerate(gallery.rows):
            files = [f"{g}-{r:02d}-{c}.{cell.kind}" for c, cell in enumerate(cells)]
            for file, cell in zip(files, cells, strict=True):
                (folder / file).write_bytes(cell.data)
            shown = zip(files, cells, strict=True)
            told = [{"file": f, "name": c.name, "caption": c.caption} for f, c in shown]
            rows.append({"name": name, "cells": told})
        content.append({"title": gallery.title, "note": gallery.note, "rows": rows})
    with atomic(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def load(run: Path) -> list[Gallery]:
    """The galleries in a run folder; none where there are none, or where they are damaged."""
    folder = run / FOLDER
    if not (folder / INDEX).is_file():
        return []
    try:
        content = json.loads((folder / INDEX).read_text("utf-8"))
        return [
            Gallery(
                str(g["title"]),
                str(g["note"]),
                tuple(
                    (str(row["name"]), tuple(_cell(folder, cell) for cell in row["cells"]))
                    for row in g["rows"]
                ),
            )
            for g in content
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError) as error:
        log.warning("%s is damaged (%s); the report leaves it out", folder, error)
        return []


def _cell(folder: Path, cell: dict[str, Any]) -> Cell:
    name = Path(str(cell["file"]))
    if len(name.parts) != 1 or name.suffix[1:] not in _KINDS:
        raise UserError(f"{name} is no picture of this folder")
    data = (folder / name).read_bytes()
    return Cell(data, name.suffix[1:], str(cell["name"]), str(cell["caption"]))
