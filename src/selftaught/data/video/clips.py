"""Clips: frames in their order, from video files, folders of frames, or tables."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from selftaught.data import files
from selftaught.data.absent import missing
from selftaught.data.image.decode import BadSample, decode, read_bytes
from selftaught.data.image.formats import IMAGE, VIDEO
from selftaught.errors import UserError


class Frame(NamedTuple):
    """One frame: its number in the clip, uint8 [H, W, 3], and its file where it has one."""

    number: int
    pixels: np.ndarray
    encoded: bytes | None


class Clip(ABC):
    """Frames of one take. `name` is a relative path, unique among the clips of a source."""

    name: str

    @abstractmethod
    def frames(self) -> Iterator[Frame | BadSample]:
        """All frames in order; what is wrong with one takes its place.

        Raises:
            BadSample: the clip cannot be opened, or not be read on.
        """


@final
class Video(Clip):
    """A video file, read by PyAV."""

    def __init__(self, path: str, name: str):
        self.path, self.name = path, name

    def frames(self) -> Iterator[Frame | BadSample]:
        av = needed("av", "PyAV")
        try:
            with av.open(self.path) as container:
                if not container.streams.video:
                    raise BadSample("holds no pictures")
                stream = container.streams.video[0]
                stream.codec_context.options = {
                    "err_detect": "explode"
                }  # or it repeats what it had
                for number, frame in enumerate(container.decode(stream)):
                    if frame.is_corrupt:
                        raise BadSample("is damaged inside")
                    yield Frame(number, frame.to_ndarray(format="rgb24"), None)
        except (av.FFmpegError, OSError) as error:
            raise BadSample(f"cannot be read as a video: {error.strerror or error}") from error


@final
class Stills(Clip):
    """Image files of one folder, in the order of their names; 2 comes before 10."""

    def __init__(self, paths: list[str], name: str):
        self.paths, self.name = sorted(paths, key=_natural), name

    def frames(self) -> Iterator[Frame | BadSample]:
        for number, path in enumerate(self.paths):
            yield _decoded(number, lambda path=path: read_bytes(path))


@final
class Rows(Clip):
    """Rows of a table."""

    def __init__(self, source: Any, rows: list[int], numbers: list[int], name: str):
        self.source, self.rows, self.numbers, self.name = source, rows, numbers, name

    def frames(self) -> Iterator[Frame | BadSample]:
        for number, row in zip(self.numbers, self.rows, strict=True):
            yield _decoded(number, lambda row=row: self.source.load(row))


def find_clips(data: Path, column: str | None = None) -> list[Clip]:
    """The clips of a video file, a folder, or a Parquet file; sorted by name.

    In a folder each video file is a clip, and so are the images of each folder below it. In a
    Parquet file those with the same `seq` are one, in the order of `frame`.

    Raises:
        UserError: there are none.
    """
    if not data.exists():
        raise missing(data)
    if data.is_file() and data.suffix.lower() == ".parquet":
        return _table(data, column)
    if data.is_file() and data.suffix.lower() in VIDEO:
        return [Video(str(data), data.name)]
    if data.is_file():
        raise UserError(
            f"{data} holds no clips that can be read: needed is a video, a folder of videos or of "
            "folders of frames, or a .parquet with the columns image, seq and frame"
        )
    found: list[Clip] = []
    videos = files.walk(str(data), VIDEO, look_inside=False)
    found += [Video(videos.path(i), videos.name(i)) for i in range(len(videos))]
    stills: dict[str, list[str]] = {}
    images = files.walk(str(data), IMAGE - VIDEO, look_inside=False)
    for i in range(len(images)):
        stills.setdefault(os.path.dirname(images.name(i)), []).append(images.path(i))
    found += [Stills(paths, folder or data.name) for folder, paths in stills.items()]
    if not found:
        raise UserError(f"{data} holds no clips: neither videos nor folders of frames")
    return sorted(found, key=lambda clip: _natural(clip.name))


def needed(module: str, name: str) -> Any:
    """A module of the extra `video`."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f'clips need {name}, which is not installed; pip install "selftaught[video]"'
        ) from error


def _table(path: Path, column: str | None) -> list[Clip]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from selftaught.data.table import parquet

    source = parquet([str(path)], column, None)
    names = pq.read_schema(path).names
    if "seq" not in names:
        raise UserError(
            f"{path} has no column seq, which tells the clip of each image; its columns are "
            f"{', '.join(names)}"
        )
    kept = [n for n in ("seq", "frame") if n in names]
    try:
        columns = pq.read_table(path, columns=kept).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    numbers = columns.get("frame") or list(range(len(source)))
    if any(n is None for n in numbers):
        raise UserError(f"{path} has rows without a number in the column frame")
    clips: dict[str, list[tuple[int, int]]] = {}
    for row, (clip, number) in enumerate(zip(columns["seq"], numbers, strict=True)):
        clips.setdefault(str(clip), []).append((int(number), row))
    return [
        Rows(source, [row for _, row in sorted(rows)], [n for n, _ in sorted(rows)], name)
        for name, rows in sorted(clips.items(), key=lambda item: _natural(item[0]))
    ]


def _decoded(number: int, load: Any) -> Frame | BadSample:
    try:
        encoded = load()
        return Frame(number, decode(encoded), encoded)
    except BadSample as error:
        return error


def _natural(name: str) -> list[Any]:
    """Numbers in names compare as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
