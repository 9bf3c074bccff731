"""A take: a video in memory, of which those frames are decoded that somebody asks for."""

import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.video.clips import needed

FORMATS = "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,flv,gif,ogg,asf"
"""What containers may be: others, such as playlists, would open what they name."""


@final
class Take:
    """The bytes of a video file, and where its frames lie.

    Its packets are looked at, not decoded. Frames are told by their numbers: where their times are
    uneven, a frame is a frame.

    Args:
        raw: the file.

    Attributes:
        count: frames.
        sides: rows and columns, as they are shown.

    Raises:
        BadSample: it holds no moving pictures, or ends before its own end.
    """

    def __init__(self, raw: bytes):
        if not raw:
            raise BadSample("the file is empty")
        self.raw = raw
        av = needed("av", "PyAV")
        try:
            with self._opened() as container:
                stream = container.streams.video[0]
                packets = [p for p in container.demux(stream) if p.size]
                promised = stream.frames
                shaky = "avi" in container.format.name  # whose times are those of decoding
        except (av.FFmpegError, OSError) as error:
            raise _unreadable(error) from error
        if len(packets) < promised or any(p.is_corrupt for p in packets):
            told = f"{len(packets):,} of {promised:,} frames" if promised else "not all its frames"
            raise BadSample(f"is cut short: {told} are there")
        shown = [p for p in packets if not p.is_discard]
        self.count = len(shown)
        if self.count < 2:
            what = "no frame" if not shown else "one frame, a still image"
            raise BadSample(f"holds {what}, and a clip needs 2 at least")
        times = [p.pts for p in shown]
        keys = [p.pts for p in shown if p.is_keyframe]
        unclear = shaky or None in times or len(set(times)) < self.count
        self._times = None if unclear else np.sort(np.array(times))
        self._keys = np.zeros(1, int)
        if self._times is not None and keys:
            self._keys = np.searchsorted(self._times, np.sort(np.array(keys)))

    def read(self, start: int, frames: int, stride: int = 1) -> np.ndarray:
        """uint8 [frames, H, W, 3] from frame `start` on, every `stride`-th; see `frames`."""
        return np.stack(list(self.frames(range(start, start + frames * stride, stride))))

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames, uint8 [H, W, 3], upright, decoded from the key frame before the first of them.

        Args:
            numbers: of frames, none below the one before it; one may be asked for again.

        Raises:
            BadSample: one of them, or what it is decoded from, is damaged.
            IndexError: there are fewer frames.
        """
        if not 0 <= numbers[0] <= numbers[-1] < self.count:
            raise IndexError(f"frames {numbers[0]} to {numbers[-1]} of {self.count}")
        done, since = 0, self._keys[max(0, np.searchsorted(self._keys, numbers[0], "right") - 1)]
        if since > 0:
            try:
                for frame in self._decoded(numbers, int(since)):
                    yield frame
                    done += 1
            except BadSample:  # not every file can be entered at each of its key frames
                pass
        if done < len(numbers):
            yield from self._decoded(numbers[done:])

    @cached_property
    def sides(self) -> tuple[int, int]:
        rows, columns, _ = next(self.frames([0])).shape
        return rows, columns

    def verify(self) -> None:
        """Decode all frames; BadSample where one is damaged."""
        for _ in self.frames(range(self.count)):
            pass

    def _decoded(self, numbers: Sequence[int], since: int = 0) -> Iterator[np.ndarray]:
        """`frames`, decoded from the key frame number `since` on."""
        av, wanted = needed("av", "PyAV"), iter(numbers)
        asked, seen, shape = next(wanted), 0, None
        try:
            with self._opened() as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1
                stream.codec_context.options = {"err_detect": "explode"}  # or it repeats frames
                if since:
                    assert self._times is not None
                    container.seek(int(self._times[since]), stream=stream)
                for place, frame in enumerate(container.decode(stream)):
                    if frame.is_corrupt:
                        raise BadSample(f"is damaged at frame {place} of {self.count:,}")
                    seen = self._number(frame.pts) if since else place
                    if seen > asked:
                        raise BadSample(f"has lost frame {asked} of {self.count:,}")
                    if seen < asked:
                        continue
                    pixels = _upright(frame)
                    shape = shape or pixels.shape
                    if pixels.shape != shape:
                        raise BadSample(f"changes its size from {shape} to {pixels.shape}")
                    while asked == seen:
                        yield pixels
                        following = next(wanted, None)
                        if following is None:
                            return
                        asked = following
        except (av.FFmpegError, OSError) as error:
            raise BadSample(
                f"is damaged after frame {seen} of {self.count:,}: {error.strerror or error}"
            ) from error
        raise BadSample(f"ends after frame {seen} of {self.count:,}")

    def _number(self, time: int | None) -> int:
        assert self._times is not None
        if time is None:
            raise BadSample("has frames without a time")
        number = int(np.searchsorted(self._times, time))
        if number == self.count or self._times[number] != time:
            raise BadSample("has frames of other times than its container says")
        return number

    def _opened(self) -> Any:
        av = needed("av", "PyAV")
        try:
            container = av.open(io.BytesIO(self.raw), options={"format_whitelist": FORMATS})
        except (av.FFmpegError, OSError) as error:
            raise _unreadable(error) from error
        if not container.streams.video:
            others = "sound alone" if container.streams.audio else "no pictures"
            container.close()
            raise BadSample(f"holds {others}")
        return container


@final
class Shown:
    """Frames that are decoded already, uint8 [T, C, H, W], as a take."""

    def __init__(self, frames: np.ndarray):
        self._frames, self.count = frames, len(frames)

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """As of `Take`."""
        return (self._frames[n].transpose(1, 2, 0) for n in numbers)


def _unreadable(error: Any) -> BadSample:
    return BadSample(
        f"is no video that can be read, or its end is missing: {error.strerror or error}"
    )


def _upright(frame: Any) -> np.ndarray:
    """Pixels of a frame, turned as it is to be shown."""
    pixels = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels
