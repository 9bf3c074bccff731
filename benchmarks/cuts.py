"""Labeled clips cut out of videos: which video, whether it plays backward, and how fast it plays.

    parts(folder of videos, folder to write into) -> data to learn from, training, test

Each clip is a file of `FRAMES` frames, `SIDE` pixels at its shorter side, without losses. Training
clips are of the first `EARLY` of a video, test clips of what comes after a gap, so that no frame is
in both. What is learned from plays forward, at the video's own speed.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FRAMES, SIDE = 8, 56
SPEEDS = (1, 2, 4)
"""Frames from one that is kept to the next."""
EARLY, GAP = 0.6, 4
"""Share of a video that is trained on; frames between the parts."""
LEARNED, TRAINED, TESTED = 40, 36, 24
"""Clips of a video: to learn from, with labels to train on, and to test on."""
MOST = 300
"""Frames of a video that are decoded."""


def frames(path: Path) -> list[np.ndarray]:
    """The first frames of a video, uint8 [H, W, 3]; those before it breaks off."""
    found: list[np.ndarray] = []
    try:
        with av.open(str(path)) as video:
            for frame in video.decode(video=0):
                scale = SIDE / min(frame.height, frame.width)
                width, height = (2 * round(scale * s / 2) for s in (frame.width, frame.height))
                found.append(frame.to_ndarray(width=width, height=height, format="rgb24"))
                if len(found) == MOST:
                    break
    except av.FFmpegError:
        pass
    return found


def film(pictures: list[np.ndarray]) -> bytes:
    """A file of frames, without losses."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as made:
        stream = made.add_stream("ffv1", rate=10)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for picture in pictures:
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(stream.encode())
    return file.getvalue()


def cut(part: list[np.ndarray], count: int, plain: bool) -> Iterator[tuple[bytes, str, str]]:
    """`count` clips from all over a part, their direction and their speed.

    Args:
        plain: whether all play forward at the video's own speed.
    """
    for i in range(count):
        speed = 1 if plain else SPEEDS[i % len(SPEEDS)]
        backward = not plain and i // len(SPEEDS) % 2 == 1
        room = len(part) - (FRAMES - 1) * speed
        start = int((i + 0.5) / count * room)
        pictures = part[start : start + (FRAMES - 1) * speed + 1 : speed]
        shown = pictures[::-1] if backward else pictures
        yield film(shown), "backward" if backward else "forward", f"{speed}x"


def parts(videos: Path, out: Path) -> tuple[Path, Path, Path]:
    """Parquet files with columns video, clip, direction and speed; of videos that are long enough
    for clips of the highest speed in both parts."""
    tables: dict[str, list[tuple[bytes, str, str, str]]] = {"learn": [], "train": [], "test": []}
    least = (FRAMES - 1) * max(SPEEDS) + 2
    files = sorted(f for f in videos.iterdir() if f.suffix not in (".json", ".md"))
    for path in {f.stem: f for f in files}.values():  # one of a video in two containers
        found = frames(path)
        border = int(EARLY * len(found))
        early, late = found[:border], found[border + GAP :]
        if min(len(early), len(late)) < least:
            continue
        for name, part, count in (
            ("learn", early, LEARNED),
            ("train", early, TRAINED),
            ("test", late, TESTED),
        ):
            clips = cut(part, count, name == "learn")
            tables[name] += [(clip, path.stem, *about) for clip, *about in clips]
    made = []
    for name, rows in tables.items():
        columns = dict(zip(("video", "clip", "direction", "speed"), zip(*rows)))
        if name == "learn":
            columns = {"video": columns["video"]}
        pq.write_table(pa.table({n: list(v) for n, v in columns.items()}), out / f"{name}.parquet")
        made.append(out / f"{name}.parquet")
    return made[0], made[1], made[2]
