"""`frames`: from clips to single frames with masks of what moves in them, once and for all."""

import io
import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from selftaught.data import quarantine
from selftaught.data.image.decode import BadSample
from selftaught.data.progress import bar
from selftaught.data.video.clips import Clip, Frame, find_clips, needed
from selftaught.data.video.flow import motion_mask
from selftaught.errors import DataError, UserError

BAD = "bad_clips.csv"
"""Clips that gave no frame, or not all, and why."""
MOVES = 0.7
"""Of full motion: above it a pixel counts as moving when frames are chosen."""
QUALITY = 92
"""Of frames that are written as JPEG."""


@dataclass(frozen=True)
class Frames:
    """What `frames` made. skipped: counts by reason. bad: clips by reason. done: made before."""

    out: Path
    clips: int
    done: int
    written: int
    skipped: dict[str, int] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        before = f" ({self.done} of them made before)" if self.done else ""
        lines = [
            f"{self.written:,} frames of {self.clips} clips{before} are in {self.out} "
            f"({self.seconds:.0f} s)"
        ]
        if self.skipped:
            left = ", ".join(f"{count:,} {why}" for why, count in sorted(self.skipped.items()))
            lines.append(f"left out: {left}")
        if self.bad:
            name, why = next(iter(self.bad.items()))
            lines.append(
                f"{len(self.bad)} clips gave no frames, or not all ({self.out / BAD}); the first: "
                f"{name}: {why}"
            )
        return "\n".join(lines)


def frames(
    data: Path,
    out: Path,
    *,
    every: int = 5,
    apart: int = 2,
    side: int = 256,
    share: tuple[float, float] = (0.01, 0.6),
    column: str | None = None,
    progress: bool = True,
) -> Frames:
    """Make single frames of clips, each with a mask of what moves in it, for the method motion.

    A clip is a video file, a folder of images, or the rows of a Parquet file with one `seq`. Each
    becomes a Parquet file of its own in `out`, with the columns image, mask, seq and frame, whole
    or not at all: stopped anywhere, the same command goes on where it was. A clip that cannot be
    read, or not to its end, is listed with the reason; the frames before the damage are kept.

    Args:
        data: video file, folder of videos or of folders of frames, or Parquet with seq and frame.
        out: folder for the frames.
        every: of as many frames one is kept; neighbors are nearly the same image.
        apart: frames between a frame and the two that its motion is seen from.
        side: short side in pixels that larger frames are reduced to.
        share: least and largest share of moving pixels of a frame that is kept: with fewer nothing
            moves, with more it is the camera, or a cut.
        column: column of a table that holds the images.
        progress: show a progress bar, where standard error is a terminal.

    Raises:
        UserError: a value that cannot work, no clips, or `out` made with other settings.
        DataError: no clip gives a single frame.
    """
    if min(every, apart, side) < 1 or not 0 <= share[0] < share[1] <= 1:
        raise UserError(
            f"every={every}, apart={apart}, side={side} must be at least 1, and share={share} two "
            "fractions, the first below the second"
        )
    needed("cv2", "OpenCV")
    start, out = time.monotonic(), Path(out)
    clips = find_clips(Path(data), column)
    settings = {"every": every, "apart": apart, "side": side, "share": list(share)}
    known = quarantine.load(out / BAD)
    skipped: Counter[str] = Counter()
    bad: dict[str, str] = {}
    written = done = 0
    with bar(len(clips), progress, "watching") as advance:
        for clip in clips:
            path = out / f"{clip.name}.parquet"
            if path.exists():
                written += _made_before(path, settings)
                done += 1
                bad |= {clip.name: known[clip.name].reason} if clip.name in known else {}
            else:
                rows = list(_watched(clip, every, apart, side, share, skipped, bad))
                if rows:
                    _write(path, rows, clip.name, settings)
                else:
                    bad.setdefault(clip.name, "no frame in which something moves by itself")
                written += len(rows)
            advance()
    ours = {clip.name for clip in clips}
    listed = {name: entry for name, entry in known.items() if name not in ours}
    listed |= {name: quarantine.Bad(why) for name, why in bad.items()}
    if listed or known:
        quarantine.save(out / BAD, listed)
    if not written:
        name, why = next(iter(bad.items()))
        raise DataError(f"none of {len(clips)} clips in {data} gives a frame; {name}: {why}")
    return Frames(out, len(clips), done, written, dict(skipped), bad, time.monotonic() - start)


def _watched(
    clip: Clip,
    every: int,
    apart: int,
    side: int,
    share: tuple[float, float],
    skipped: Counter[str],
    bad: dict[str, str],
) -> Iterator[dict[str, Any]]:
    """The rows of a clip; what is left out is counted, and the clip listed where it is broken."""
    window: deque[Frame] = deque(maxlen=2 * apart + 1)
    count = middle = 0
    try:
        for frame in clip.frames():
            if isinstance(frame, BadSample):
                skipped["frames that cannot be read"] += 1
                window.clear()
                continue
            count += 1
            if window and window[-1].pixels.shape != frame.pixels.shape:
                window.clear()
            window.append(frame)
            if len(window) < 2 * apart + 1:
                continue
            middle += 1
            if (middle - 1) % every:
                continue
            one, seen, other = window[0], window[apart], window[-1]
            mask = motion_mask(one.pixels, seen.pixels, other.pixels)
            moving = float((mask > MOVES * 255).mean())
            if not share[0] <= moving <= share[1]:
                much = moving > share[1]
                skipped[f"frames in which {'too much' if much else 'nothing'} moves"] += 1
                continue
            small = min(mask.shape) <= side
            kept = seen.encoded if small else None
            yield {
                "image": kept or _encoded(seen.pixels, "JPEG", side),
                "mask": _encoded(mask, "PNG", side),
                "seq": clip.name,
                "frame": seen.number,
            }
    except BadSample as error:
        bad[clip.name] = f"{error.reason}, after {count} frames" if count else error.reason
    else:
        if not middle:
            bad[clip.name] = (
                f"{count} frame{'s' * (count != 1)}, where motion needs {2 * apart + 1} of one "
                f"size in a row: one, and one {apart} before and after it"
            )


def _encoded(pixels: np.ndarray, kind: str, side: int) -> bytes:
    """As a file, with a short side of at most `side` pixels."""
    picture, file = PIL.Image.fromarray(pixels), io.BytesIO()
    scale = side / min(picture.size)
    if scale < 1:
        size = round(picture.width * scale), round(picture.height * scale)
        picture = picture.resize(size, PIL.Image.Resampling.BOX)
    picture.save(file, kind, quality=QUALITY)
    return file.getvalue()


def _write(path: Path, rows: list[dict[str, Any]], clip: str, settings: dict[str, Any]) -> None:
    """The rows as a file that is there as a whole or not at all."""
    table = pa.Table.from_pylist(
        rows,
        pa.schema(
            [
                ("image", pa.binary()),
                ("mask", pa.binary()),
                ("seq", pa.string()),
                ("frame", pa.int32()),
            ],
            {"selftaught.frames": json.dumps(settings)},
        ),
    )
    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, temporary, compression="zstd")
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _made_before(path: Path, settings: dict[str, Any]) -> int:
    """Number of frames in a file that an earlier call with the same settings wrote."""
    try:
        metadata = pq.read_metadata(path)
        before = json.loads((metadata.metadata or {})[b"selftaught.frames"])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is in the way: it was not written by selftaught frames; name another folder"
        ) from error
    unlike = [f"{k} was {before.get(k)}, is {v}" for k, v in settings.items() if before.get(k) != v]
    if unlike:
        raise UserError(
            f"{path.parent} holds frames that were made with other settings ({'; '.join(unlike)}): "
            "repeat these, or name another folder"
        )
    return metadata.num_rows
