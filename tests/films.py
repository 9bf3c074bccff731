"""Tiny clips, made where tests need them."""

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np


def moving(count: int, way: int = 1, seed: int = 0, sides: tuple[int, int] = (32, 48)) -> list:
    """Frames, uint8 [H, W, 3], of a square that goes to the right, or to the left."""
    rng = np.random.default_rng(seed)
    color, top, left = rng.integers(60, 255, 3), rng.integers(sides[0] - 12), rng.integers(sides[1])
    frames = np.full((count, *sides, 3), 30, np.uint8)
    for t, frame in enumerate(frames):
        columns = (left + way * 2 * t + np.arange(10)) % sides[1]
        frame[top : top + 12, columns] = color
    return list(frames)


def film(
    frames: Iterable[np.ndarray],
    codec: str = "libx264",
    container: str = "mp4",
    pixels: str = "yuv420p",
    gop: int = 8,
    times: Sequence[int] | None = None,
    **options: str,
) -> bytes:
    """The bytes of a video file.

    Args:
        times: of the frames, in tenths of a second.
        options: of the container.
    """
    frames = list(frames)
    with TemporaryDirectory() as folder:
        path = Path(folder, "film")  # some options look at the file again
        _film(path, frames, codec, container, pixels, gop, times, options)
        return path.read_bytes()


def _film(path, frames, codec, container, pixels, gop, times, options) -> None:
    with av.open(str(path), "w", format=container, options=options) as made:
        stream = made.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.gop_size = pixels, gop
        for i, pixel in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixel, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 10)
            made.mux(stream.encode(frame))
        made.mux(stream.encode())


def hurt(content: bytes, place: float, count: int = 600) -> bytes:
    """An .mp4 whose pictures have zeros at `place`, a share of them."""
    start = content.index(b"mdat") + 4
    size = int.from_bytes(content[start - 8 : start - 4])
    at = start + int(place * (size - 8))
    return content[:at] + bytes(count) + content[at + count :]


def sound() -> bytes:
    """An .mp4 without pictures."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as made:
        stream = made.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        made.mux(stream.encode(frame))
        made.mux(stream.encode())
    return file.getvalue()


def folder(root: Path, count: int = 8, frames: int = 14) -> Path:
    """`root` with two classes of clips: what goes to the left, and what goes to the right."""
    for k, (name, way) in enumerate((("left", -1), ("right", 1))):
        (root / name).mkdir(parents=True)
        for i in range(count):
            content = film(moving(frames, way, 100 * k + i), "mpeg4")
            (root / name / f"{i}.mp4").write_bytes(content)
    return root
