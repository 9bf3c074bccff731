"""Sounds in files: what a file holds is told by its content, and of a long one a part is read."""

import io
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

import numpy as np

from selftaught.data.files import FileSource
from selftaught.data.image.decode import BadSample
from selftaught.data.image.formats import words
from selftaught.data.source import Source, digest
from selftaught.errors import UserError

SOUND = words(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .w64 .m4a .aac .wma .webm"
    " .mka"
)
"""Endings of files that are taken as sounds."""

RATES = (100, 1_000_000)
"""Values a second that a recording may have: what a header says beyond these is no rate."""

LONGEST = 60.0
"""Seconds of a recording that are read, where nobody cuts it into windows."""
STRETCHES = 6
"""Parts, evenly spread, that those of a longer one are made of."""

SHORTEST = 0.01
"""Seconds below which nothing can be heard."""

LARGE = 8 << 20
"""Bytes of a file from which on only what is needed of it is read."""

_CONTAINERS = (
    (b"ftyp", 4, "MP4"),
    (b"\x1a\x45\xdf\xa3", 0, "Matroska or WebM"),
    (b"\x30\x26\xb2\x75", 0, "Windows Media"),
    (b"\xff\xf1", 0, "AAC"),
    (b"\xff\xf9", 0, "AAC"),
)
"""First bytes, where they lie, and names of formats that libsndfile does not read."""


class Opened(Protocol):
    """A recording of which parts can be read; frames: values of each channel."""

    rate: int
    frames: int

    def read(self, start: int, count: int) -> np.ndarray:
        """float32 [n, channels], n at most `count`."""
        ...


class Sndfile:
    """What libsndfile reads: WAV, FLAC, Ogg, Opus, MP3, AIFF and others."""

    def __init__(self, file: Any):
        self.file = file
        self.rate, self.frames = int(file.samplerate), int(file.frames)

    def read(self, start: int, count: int) -> np.ndarray:
        if start:
            self.file.seek(start)
        return self.file.read(count, dtype="float32", always_2d=True)


class Container:
    """What FFmpeg reads: the sound of MP4, WebM, AAC and Windows Media."""

    def __init__(self, container: Any):
        self.container, self.stream = container, container.streams.audio[0]
        self.rate = int(self.stream.rate or 0)
        told = self.stream.duration, self.stream.time_base
        if None not in told:
            self.frames = round(told[0] * told[1] * self.rate)
        elif container.duration:
            self.frames = round(container.duration / 1_000_000 * self.rate)
        else:  # nothing tells but the frames themselves
            self.frames = sum(f.samples for f in container.decode(self.stream))
            container.seek(0)

    def read(self, start: int, count: int) -> np.ndarray:
        av = import_module("av")
        convert = av.AudioResampler(format="fltp")
        base = self.stream.time_base
        self.container.seek(max(0, int((start / self.rate - 0.5) / base)), stream=self.stream)
        parts: list[np.ndarray] = []
        have = 0
        for frame in self.container.decode(self.stream):
            at = 0 if frame.pts is None else round(frame.pts * frame.time_base * self.rate)
            for plain in convert.resample(frame):
                part = plain.to_ndarray().T[max(0, start - at) if not have else 0 :]
                parts.append(part[: count - have])
                have += len(parts[-1])
            if have >= count:
                break
        return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


@contextmanager
def opened(raw: bytes | Path) -> Iterator[Opened]:
    """A recording, from the content of its file or from the file itself.

    Raises:
        BadSample: it is no sound, or damaged.
    """
    soundfile = needed()
    size = len(raw) if isinstance(raw, bytes) else os.path.getsize(raw)
    if not size:
        raise BadSample("is empty")
    with io.BytesIO(raw) if isinstance(raw, bytes) else open(raw, "rb") as file:
        head = file.read(16)
        file.seek(0)
        _whole(head, size)
        container = next((n for magic, at, n in _CONTAINERS if head[at:].startswith(magic)), None)
        if container:
            with _contained(file, container) as found:
                yield found
            return
        try:
            with soundfile.SoundFile(file) as sound:
                yield Sndfile(sound)
        except (soundfile.SoundFileError, TypeError) as error:
            raise BadSample(f"cannot be read as a sound: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What libsndfile says, without the words around it."""
    text = getattr(error, "error_string", None) or str(error)
    return text.removeprefix("Error : ").rstrip(".")


@contextmanager
def _contained(file: Any, name: str) -> Iterator[Opened]:
    try:
        av = import_module("av")
    except ImportError as error:
        raise BadSample(
            f'is {name}, which needs PyAV: pip install "selftaught[video]", or convert it to FLAC'
        ) from error
    try:
        with av.open(file) as container:
            if not container.streams.audio:
                raise BadSample(f"is {name} without a sound")
            yield Container(container)
    except (av.FFmpegError, OSError) as error:
        raise BadSample(f"cannot be read as a sound: {error.strerror or error}") from error


def _whole(head: bytes, size: int) -> None:
    """Refuse a file that ends before its header says so: libsndfile would read what is there."""
    told = None
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        told = struct.unpack("<I", head[4:8])[0] + 8
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        told = struct.unpack(">I", head[4:8])[0] + 8
    elif head[:4] == b".snd":
        start, length = struct.unpack(">II", head[4:12])
        told = start + length
    # sizes of streams, whose end their writers did not know, are 0 or the largest there is
    if told is not None and size + 1 < told < 0x7FFF0000:
        raise BadSample(f"ends early: {size:,} of {told:,} bytes are there")


def needed() -> Any:
    """The module that reads sounds; UserError where it, or that which resamples, is absent."""
    try:
        import_module("soxr")
        return import_module("soundfile")
    except ImportError as error:
        raise UserError(
            "sounds need soundfile and soxr, which are not installed: pip install "
            "'selftaught[sound]'"
        ) from error


class Span(NamedTuple):
    """Part of a recording, in seconds."""

    start: float
    seconds: float


def spread(seconds: float) -> list[Span]:
    """What is read of a recording: all of it, or evenly spread parts of a long one."""
    if seconds <= LONGEST:
        return [Span(0.0, seconds)]
    each = LONGEST / STRETCHES
    gap = (seconds - each) / (STRETCHES - 1)
    return [Span(i * gap, each) for i in range(STRETCHES)]


def wave(raw: Any, rate: int | None, spans: Sequence[Span] | None = None) -> np.ndarray:
    """One channel of a recording, float32 [n], the mean of those that it has.

    Args:
        raw: content of a file, or the file; or an array [n], [n, channels] or [channels, n] of what
            is already at `rate`.
        rate: values a second that it is brought to; its own where that is None.
        spans: parts of it, one behind the other; by default what `spread` says.

    Raises:
        BadSample: it cannot be read, or there is nothing to be heard.
    """
    if isinstance(raw, np.ndarray):
        mono = _finite(_mono(raw))
        if not rate:
            return mono
        _audible(len(mono), rate)
        places = spans or spread(len(mono) / rate)
        return np.concatenate([mono[round(a * rate) :][: round(s * rate)] for a, s in places])
    if not isinstance(raw, bytes | Path):
        raise BadSample(f"is a {type(raw).__name__}, no sound: bytes, a path or an array is needed")
    soundfile = needed()
    with opened(raw) as sound:
        found = sound.rate
        _rated(found)
        _audible(sound.frames, found)
        parts = []
        for start, seconds in spans or spread(sound.frames / found):
            first = round(start * found)
            count = min(round(seconds * found), sound.frames - first)
            try:
                part = sound.read(first, count)
            except soundfile.SoundFileError as error:
                raise BadSample(f"is damaged inside: {_reason(error)}") from error
            if len(part) < 0.95 * count:  # encoders pad, and players leave out, some at the ends
                raise BadSample(f"ends early: {len(part):,} of {count:,} values are there")
            parts.append(_brought(_finite(part.mean(1, dtype=np.float32)), found, rate))
    return np.concatenate(parts)


def _mono(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "if" or array.ndim not in (1, 2) or not array.size:
        raise BadSample(
            f"is an array {list(array.shape)} of {array.dtype}, no sound: [n] or [channels, n] of "
            "numbers is needed"
        )
    scale = 1.0 if array.dtype.kind == "f" else 1 / np.iinfo(array.dtype).max
    if array.ndim == 2:
        array = array.mean(int(np.argmin(array.shape)), dtype=np.float64)
    return (array * scale).astype(np.float32)


def _finite(mono: np.ndarray) -> np.ndarray:
    bad = int((~np.isfinite(mono)).sum())
    if bad:
        raise BadSample(f"has {bad:,} of {len(mono):,} values that are not finite")
    return mono


def _rated(rate: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise BadSample(
            f"says that it has {rate:,} values a second; sounds have {RATES[0]} to {RATES[1]:,}"
        )


def _audible(count: int, rate: int) -> None:
    if count < SHORTEST * rate:
        told = f"{count:,} values" if count != 1 else "1 value"
        raise BadSample(
            f"holds {told if count else 'no sound'}, at {rate:,} a second: nothing can be heard in "
            f"less than {SHORTEST * 1000:g} ms"
        )


def _brought(mono: np.ndarray, found: int, rate: int | None) -> np.ndarray:
    if rate in (None, found):
        return mono
    made: np.ndarray = import_module("soxr").resample(mono, found, rate)
    return made.astype(np.float32, copy=False)


def told(raw: Any) -> tuple[int, float]:
    """Rate, 0 for an array, and seconds of a recording, from its header; BadSample if not."""
    if isinstance(raw, np.ndarray):
        return 0, float(max(raw.shape, default=0))
    with opened(raw) as sound:
        _rated(sound.rate)
        return sound.rate, sound.frames / sound.rate


def header(source: Source, i: int) -> tuple[int, float]:
    """What `told` says of sample `i` of a source; of what is cut, the seconds of a window."""
    if not isinstance(source, Parts):
        return told(source.load(i))
    rate, seconds = told(source.raw(i))
    return rate, min(seconds, source.window or seconds)


def as_wav(mono: np.ndarray, rate: int, floats: bool = False) -> bytes:
    """float32 [n] as a WAV file: of floats, or of 16 bits, which all players take."""
    if floats:
        data, form, bits = mono.astype("<f4").tobytes(), 3, 32
    else:
        data, form, bits = (mono.clip(-1, 1) * 32767).round().astype("<i2").tobytes(), 1, 16
    layout = struct.pack("<HHIIHH", form, 1, rate, rate * bits // 8, bits // 8, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@final
class Parts(Source):
    """Recordings of which only what is needed is read, as the content of a small WAV file.

    Args:
        source: of whole recordings.
        window: seconds that each is cut into, one sample a window; None for one sample each, of
            long ones what `spread` says.
    """

    def __init__(self, source: Source, window: float | None = None):
        self.source, self.window = source, window
        counts = [1 if window is None else self._windows(i) for i in range(len(source))]
        self.of = np.repeat(np.arange(len(source)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        self.number = np.arange(len(self.of)) - first
        self.labels = None if source.labels is None else source.labels[self.of]
        self.classes, self.skipped = source.classes, source.skipped
        self.numbered = source.numbered

    def _windows(self, i: int) -> int:
        """Of a recording: one at least, and one of what is left over if it is half as long."""
        assert self.window is not None
        try:
            return max(1, round(told(_raw(self.source, i))[1] / self.window))
        except BadSample:  # whoever reads it is told why
            return 1

    def raw(self, i: int) -> Any:
        """The whole recording that sample `i` is of: a large file itself, else its content."""
        return _raw(self.source, int(self.of[i]))

    def __len__(self) -> int:
        return len(self.of)

    def load(self, i: int) -> Any:
        raw = self.raw(i)
        if isinstance(raw, np.ndarray):
            raise BadSample("is an array, which has no rate to be cut into seconds by")
        if self.window is None and not isinstance(raw, Path):
            return raw
        rate, seconds = told(raw)
        spans = None
        if self.window is not None:
            start = int(self.number[i]) * self.window
            spans = [Span(start, min(self.window, seconds - start))]
        return as_wav(wave(raw, None, spans), rate, floats=True)

    def name(self, i: int) -> str:
        name = self.source.name(int(self.of[i]))
        if self.window is None:
            return name
        return f"{name}@{int(self.number[i]) * self.window:g}"

    def fingerprint(self) -> str:
        return digest(self.source.fingerprint(), str(self.window))

    def stamp(self, i: int) -> str:
        return self.source.stamp(int(self.of[i]))


def _raw(source: Source, i: int) -> Any:
    if isinstance(source, FileSource):
        path = Path(source.path(i))
        if large(path):
            return path
    return source.load(i)


def large(path: Path) -> bool:
    """Whether a file is so large that only a part of it is to be read."""
    try:
        return path.is_file() and path.stat().st_size > LARGE
    except OSError:
        return False


def sparing(source: Source, window: float | None) -> Source:
    """Recordings as they are, or as `Parts` where some are large or all are to be cut."""
    if window is not None:
        return Parts(source, window)
    if not isinstance(source, FileSource):
        return source
    long = any(large(Path(source.path(i))) for i in range(len(source)))
    return Parts(source) if long else source
