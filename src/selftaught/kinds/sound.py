"""Sounds: log-mel spectrograms as uint8 [bands, columns, 1], which all that takes images takes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.sound import files
from selftaught.data.sound.spectrogram import spectrogram, stretch
from selftaught.errors import UserError
from selftaught.kinds import Facts, Floor, Kind
from selftaught.kinds.image import Image
from selftaught.roles import Positive, Several
from selftaught.sides import both, one

if TYPE_CHECKING:
    from selftaught.backbones import Encoder
    from selftaught.data import Samples
    from selftaught.data.source import Source

RATE, BANDS, HOP = 16_000, 64, 0.01
"""Where nobody says otherwise: values a second at most, mel bands, seconds between columns."""
SECONDS = (0.3, 10.0)
"""Between which lies what is seen of recordings, where nobody says it."""
STEP = 16
"""Columns are a multiple of it: most networks halve them four times, or cut them into patches."""
LOOKED = 200
"""Recordings whose rates and lengths are looked at."""


class Recordings(Kind):
    """What sounds and waves share: where recordings are, how they are cut, what is known of them.

    Both have an option `window`: seconds that long ones are cut into, or None.
    """

    suffixes = files.SOUND
    blank_words = "are silent"
    columns = ("audio", "sound", "wav", "speech", "recording")
    extra = "sound"
    about_floors = (
        "Bands: the mean level of each band of pitch. Cepstra: of 20, mean, deviation and deviation"
        " of change. "
    )

    def open(
        self,
        source: Any,
        column: str | None = None,
        labels: str | None = None,
        path_column: str | None = None,
    ) -> "Source":
        files.needed()
        source = list(source) if isinstance(source, np.ndarray) else source
        found = super().open(source, column, labels, path_column)
        return files.sparing(found, self.config["window"])


@dataclass(frozen=True)
class Sound(Recordings):
    """Recordings in files of any format, of one channel or several, which are added up.

    Args:
        seconds: of a recording that are seen at a time: in training any part of it, in evaluation
            the loudest; shorter ones are repeated. By default the middle length, 10 at most.
        rate: values a second that recordings are brought to; by default what most have, 16,000 at
            most.
        window: seconds that long recordings are cut into, each a sample; by default a recording is
            one, of which a minute is read.

    Other Args:
        bands: of pitch, on the mel scale: rows of the spectrogram.
        hop: seconds from a column of the spectrogram to the next; 0.01 unless given.
        span: decibels below the loudest point that are told from silence.
    """

    seconds: Positive | None = None
    rate: Several | None = None
    window: Positive | None = None
    bands: Several | None = None
    hop: Positive | None = None
    span: Positive = 80.0

    word = "sound"
    one, many, unit, counted, axes = "sound", "sounds", "px", "columns of the spectrogram", 4
    encoder = "image.encoder:Image"
    native = translates = True

    bytes, prepare, inputs, blank, pictures = (
        Image.bytes,
        Image.prepare,
        Image.inputs,
        Image.blank,
        Image.pictures,
    )

    def decode(self, raw: Any, name: str) -> np.ndarray:
        if _decoded(raw):
            return raw
        rate = self.rate or RATE
        wave = files.wave(raw, rate)
        return spectrogram(wave, rate, self.bands or BANDS, self.hop or HOP, self.span)

    def heard(self, raw: Any) -> tuple[np.ndarray, int] | None:
        if _decoded(raw):
            return None
        return files.wave(raw, self.rate or RATE), self.rate or RATE

    def facts(self, sample: np.ndarray) -> Facts:
        return Facts(sample.shape[1], bool(np.ptp(sample) <= 1), sample.tobytes())

    def fill(self, given: dict[str, Any], samples: "Samples") -> tuple["Sound", dict[str, Any]]:
        given = {"channels": 1} | {k: v for k, v in given.items() if v is not None}
        if given["channels"] != 1:
            raise UserError(f"channels={given['channels']}: a spectrogram has one; drop --channels")
        rate, length = usual(samples, self)
        seconds = self.seconds or min(max(length, SECONDS[0]), SECONDS[1])
        if "size" in given:
            rows, columns = both(given["size"])
        else:
            rows = self.bands or BANDS
            columns = max(2 * STEP, STEP * round(seconds / (self.hop or HOP) / STEP))
        bands = self.bands or rows
        squeezed = self.seconds is not None or "size" in given
        hop = self.hop or (float(f"{seconds / columns:.6g}") if squeezed else HOP)
        seconds = float(f"{hop * columns:.6g}")
        found = replace(self, rate=rate, seconds=seconds, bands=bands, hop=hop)
        return found, given | {"size": one((rows, columns))}

    @property
    def length(self) -> int:
        """Columns that are seen at a time."""
        return max(1, round((self.seconds or SECONDS[1]) / (self.hop or HOP)))

    def plain(self, size: Any) -> "Plain":
        return Plain(both(size), self.length)

    def translate(self, node: Any) -> Any:
        from selftaught.augment import View, Views
        from selftaught.augment.sound import SoundViews, heard

        if isinstance(node, View):
            return heard(node)
        return SoundViews(node, self.length) if isinstance(node, Views) else node

    def build(self, **given: Any) -> "Encoder":
        from selftaught.backbones import build

        made: Any = build(**given)
        made.kind = self
        return made

    def floors(self) -> Mapping[str, Floor]:
        from selftaught.kinds.floors.sound import CEPSTRA, bands, bands_twice, cepstra

        return {
            "mean of bands": bands,
            "mean and deviation of bands": bands_twice,
            f"{CEPSTRA} cepstra": cepstra,
        }

    def thumbnail(self, sample: np.ndarray, side: int) -> np.ndarray:
        return squeezed(sample, (side, side))

    def at(self, size: Any) -> str:
        rows, columns = both(size)
        return f"{rows} bands x {columns} columns"


def _decoded(raw: Any) -> bool:
    """Whether a source gave a spectrogram, as one does that keeps samples in memory."""
    return isinstance(raw, np.ndarray) and raw.dtype == np.uint8 and raw.ndim == 3


@dataclass(frozen=True)
class Plain:
    """The loudest part of a spectrogram, `columns` wide, brought to `size`."""

    size: tuple[int, int]
    columns: int

    def __call__(self, sample: np.ndarray, rng: Any = None) -> np.ndarray:
        return squeezed(stretch(sample, self.columns), self.size)


def squeezed(sample: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [rows, columns, 1] -> [1, *size]."""
    if sample.shape[:2] == size:
        return np.ascontiguousarray(sample.transpose(2, 0, 1))
    import PIL.Image

    small = PIL.Image.fromarray(sample[:, :, 0]).resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    return np.asarray(small)[None].copy()


def usual(samples: "Samples", kind: Any) -> tuple[int, float]:
    """The rate that recordings are brought to, and the seconds of the middle one.

    Args:
        samples: of which some are looked at.
        kind: that says its own `rate` and `window`, or None.

    Raises:
        UserError: the data is one recording that is not cut.
    """
    rates, lengths, reasons = [], [], []
    for i in np.linspace(0, len(samples) - 1, min(LOOKED, len(samples))).astype(int).tolist():
        try:
            rate, seconds = files.header(samples.source, i)
        except BadSample as error:
            reasons.append(f"{samples.name(i)} {error}")
            continue
        rates.append(rate or RATE)
        lengths.append(seconds if rate else seconds / (kind.rate or RATE))
    if not rates:
        raise UserError(
            f"none of {len(reasons)} sounds looked at can be read; the first: {reasons[0]}"
        )
    middle = len(rates) // 2
    rate, length = kind.rate or min(RATE, sorted(rates)[middle]), sorted(lengths)[middle]
    if len(samples) == 1 and kind.window is None:
        long = f"{lengths[0]:,.0f}" if lengths[0] >= 10 else f"{lengths[0]:.2g}"
        raise UserError(
            f"this data is one recording of {long} seconds, and a set of them is needed: "
            f"cut it into windows, such as --window {max(1, min(10, round(lengths[0] / 100)))}"
        )
    return rate, float(f"{length:.6g}")
