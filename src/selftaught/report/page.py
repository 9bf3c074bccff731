"""The page of a run: verdict first, then what it was, what it learned, and what to do next."""

import logging
from pathlib import Path
from typing import Any

from torch import nn

from selftaught import export
from selftaught.errors import SelftaughtError, TrainingError, UserError
from selftaught.evaluate.features import usable
from selftaught.report import plane, scored, training
from selftaught.report.folder import RunFolder, read
from selftaught.report.html import Missing, Section, page
from selftaught.report.image import local
from selftaught.report.image import sections as pictures
from selftaught.report.seen import MOST, Seen, look
from selftaught.report.sound import players
from selftaught.report.video import previews

log = logging.getLogger("selftaught")

PAGE = "report.html"


def write(
    run: str | Path,
    data: Any = None,
    *,
    labels: str | None = None,
    images: int | None = None,
    device: str = "auto",
    module: nn.Module | None = None,
) -> Path:
    """Write `report.html` into a run folder: one file that opens from disk, without a network.

    Beside it goes `embeddings.parquet`, the map's points for an explorer.

    Args:
        run: folder of a run, finished or not; what is missing there is said on the page.
        data: where the images are, as for `open_data`; by default the run's data.
        labels: CSV of path,label or name of a column; by default as the run has them.
        images: how many to look at; by default as many of 2,000 as take a quarter of a minute.
        device: such as `cuda`; by default the best that the machine has.
        module: of an encoder that is a module of one's own, which gets the weights; see `load`.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder holds no run, or cannot be written to; `data` was given and cannot be
            read, or `images` is out of range.
    """
    if images is not None and not 2 <= images <= MOST:
        raise UserError(
            f"--images {images} must be from 2 to {MOST:,}: a page holds a thumbnail of each; for "
            "the features of all images use `selftaught embed`"
        )
    if device != "auto":
        usable(device)
    found = read(Path(run))
    seen, why = None, "no encoder was saved: the run is not finished"
    if found.encoder:
        try:
            seen = look(found, data, labels, images, device, module)
        except (SelftaughtError, OSError) as error:
            if isinstance(data, str | Path) and not isinstance(error, TrainingError):
                raise  # what was asked for cannot be had
            why = str(error)
    parts = [
        scored.scores(found),
        scored.kept(found),
        *scored.labels(found),
        training.tried(found),
        training.learning(found),
        training.curves(found),
        training.views(found),
        *training.galleries(found),
        *_seen(found, seen, why),
        pictures.data(found, seen),
        training.picked(found),
        training.next_steps(found),
        training.settings(found),
    ]
    top = [training.header(found), scored.verdict(found)]
    text = page(training.title(found), [*top, training.tiles(found)], parts)
    path = found.path / PAGE
    with export.atomic(path) as temporary:  # names of files may hold bytes that are no text
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
    return path


def _seen(run: RunFolder, seen: Seen | None, why: str) -> list[Section | Missing]:
    if seen is None:
        return [Missing("Map, neighbors, local features, near-duplicates and outliers", why)]
    return [
        plane.section(seen, run.path),
        *players.sections(seen),
        *previews.sections(seen),
        pictures.nearest(seen),
        local.section(seen),
        pictures.pairs(seen),
    ]
