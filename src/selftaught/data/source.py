"""What a dataset is made of: a `Source` yields raw samples, `Samples` turns them into pixels, or
into what else their kind has."""

import copy
import hashlib
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np

from selftaught.data.image.decode import (
    MAX_PIXELS,
    BadSample,
    Header,
    Layout,
    NoWhite,
    Raw,
    decode,
    from_array,
    from_image,
    header_of,
    inspect,
)
from selftaught.data.image.picture import Picture, Ready
from selftaught.data.skipped import Skipped
from selftaught.errors import UserError

if TYPE_CHECKING:
    from selftaught.kinds import Kind

NEAR = 256
"""Samples that count as neighbors where nothing tells which are."""

LOOKED = 32
"""Images whose values are looked at before a range is advised."""


class Source(ABC):
    """Raw samples by position. Picklable; what is open belongs to the process that opened it."""

    labels: np.ndarray | None = None  # int64 [N], -1 where unknown
    classes: list[str] | None = None  # names of the labels; None where they are the digits
    skipped: Skipped = Skipped()
    held: int | None = None
    """Blocks that a process can have in use at once; None where they are no matter."""
    fetched: int = 0
    """Bytes that come from afar, block by block; 0 for what is here."""
    numbered: bool = False
    """Whether samples have no names but their positions, as rows of tables and arrays."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, i: int) -> Raw:
        """Encoded bytes, an array [H, W] or [H, W, C], or a Pillow image; BadSample if it fails."""

    @abstractmethod
    def name(self, i: int) -> str:
        """Path, `shard.tar::key` or row: unique, and the same in every run."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of what tells this data from other data without reading it: names and sizes."""

    def stamp(self, i: int) -> str:
        """What changes where sample `i` does, told without reading it; "" where nothing is known
        of one sample alone."""
        return ""

    def blocks(self) -> np.ndarray:
        """Where each run of samples ends that is read together: int64 [blocks], ascending."""
        return np.append(np.arange(NEAR, len(self), NEAR), len(self)).astype(np.int64)

    def content(self, i: int) -> str:
        """Hash of what `load` gives; "unreadable" where it fails."""
        try:
            raw = self.load(i)
        except BadSample:
            return "unreadable"
        return digest(raw if isinstance(raw, bytes) else np.asarray(raw))


@final
class Samples:
    """A map-style dataset: `len(samples)`, `samples.read(i)`.

    Picklable for worker processes, which open files on their own; names are kept in Arrow arrays,
    so that a million of them do not grow in each worker.

    Attributes:
        labels: int64 [N] with -1 where unknown, or None.
        classes: the names that labels stand for; None where a label's name is its digits.
        left: what was found and left out.
        kind: what a sample is; None for images.
    """

    def __init__(
        self,
        source: Source,
        *,
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
        truncated: Literal["skip", "keep"] = "skip",
        max_pixels: int = MAX_PIXELS,
        nodata: float | None = None,
        layout: Layout | None = None,
        kind: "Kind | None" = None,
    ):
        if channels < 1:
            raise UserError(f"channels={channels}: an image has at least one channel")
        if value_range is not None and not value_range[0] < value_range[1]:
            raise UserError(f"value_range={value_range}: the first value must be below the second")
        if truncated not in ("skip", "keep"):
            raise UserError(f"truncated={truncated!r} must be one of skip, keep")
        if layout not in (None, "HWC", "CHW"):
            raise UserError(f"layout={layout!r} must be HWC or CHW: the order of an array's axes")
        self.source = source
        self.channels = channels
        self.value_range = value_range
        self.truncated: Literal["skip", "keep"] = truncated
        self.max_pixels = max_pixels
        self.nodata = nodata
        self.layout: Layout | None = layout
        self.kind = kind
        self._limits: tuple[int, float, float] | None = None
        self._fingerprint: str | None = None

    def over(self, source: Source) -> "Samples":
        """Another source, read as this one."""
        found = copy.copy(self)
        found.source, found._limits, found._fingerprint = source, None, None
        return found

    def seen_as(self, kind: "Kind", channels: int | None = None) -> "Samples":
        """The same source, of which samples are made in another way, or of other channels."""
        found = self.over(self.source)
        found.kind, found.channels = kind, channels or self.channels
        found._fingerprint = self._fingerprint
        return found

    def __len__(self) -> int:
        return len(self.source)

    def __repr__(self) -> str:
        return f"Samples({len(self):,} from {type(self.source).__name__})"

    @property
    def labels(self) -> np.ndarray | None:
        return self.source.labels

    @property
    def classes(self) -> list[str] | None:
        return self.source.classes

    @property
    def skipped(self) -> Skipped:
        return self.source.skipped

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits from the count, names and sizes; alike where the data is alike."""
        if self._fingerprint is None:
            self._fingerprint = self.source.fingerprint()
        return self._fingerprint

    def name(self, i: int) -> str:
        """What sample `i` is called in messages, CSV files and the quarantine list."""
        return self.source.name(i)

    def stamp(self, i: int) -> str:
        """What changes where sample `i` does: its file's size and time, or all of the dataset."""
        return self.source.stamp(i) or self.fingerprint

    def read(self, i: int, min_side: int | None = None) -> Any:
        """Sample `i` as uint8 [H, W, channels], upright, or as its kind has it; BadSample with the
        reason if it cannot.

        With `min_side` a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as its shorter
        side stays at least that long: several times faster for large photos.
        """
        return self.decode(self.source.load(i), self.source.name(i), min_side)

    def open(self, i: int) -> Any:
        """Sample `i`, whose `read` gives it: of an image only the size is known yet where that
        suffices, as `Picture` says; BadSample if not.

        Its pixels may be those of the dataset itself, without a copy.
        """
        raw = self.source.load(i)
        if self.kind is not None:
            raw = self.kind.decode(raw, self.source.name(i))
            if not self.kind.native:
                return Ready(raw)
            return Picture(raw, lambda: raw, raw.shape[2], self.max_pixels, "HWC")
        whole = partial(self.decode, raw, self.source.name(i))
        return Picture(raw, whole, self.channels, self.max_pixels, self.layout)

    def decode(self, raw: Raw, name: str, min_side: int | None = None) -> Any:
        """What `source.load` gave, as uint8 [H, W, channels], or as its kind has it."""
        if self.kind is not None:
            return self.kind.decode(raw, name)
        try:
            return self._decode(raw, name, min_side)
        except NoWhite as error:  # one image's range would clip the others
            count, low, high = self._range(error)
            told = "" if count == 1 else f", the range of {count} of {len(self):,} images"
            raise BadSample(NoWhite(error.what, low, high, told).reason) from error

    def _decode(self, raw: Raw, name: str, min_side: int | None = None) -> np.ndarray:
        if isinstance(raw, bytes):
            return decode(
                raw,
                channels=self.channels,
                value_range=self.value_range,
                truncated=self.truncated,
                max_pixels=self.max_pixels,
                nodata=self.nodata,
                min_side=min_side,
                name=name,
                layout=self.layout,
            )
        options: dict[str, Any] = {"value_range": self.value_range, "nodata": self.nodata}
        if isinstance(raw, np.ndarray):
            return from_array(raw, channels=self.channels, layout=self.layout, **options)
        return from_image(raw, channels=self.channels, **options)

    def _range(self, one: NoWhite) -> tuple[int, float, float]:
        """Of how many images, from all over the dataset, the values go from where to where."""
        if self._limits is None:
            found = []
            for i in np.linspace(0, len(self) - 1, min(LOOKED, len(self))).astype(int):
                try:
                    self._decode(self.source.load(i), self.source.name(i))
                except NoWhite as error:
                    found.append((error.low, error.high))
                except BadSample:
                    continue
            low, high = np.array(found).T if found else (np.inf, -np.inf)
            self._limits = len(found), float(np.min(low)), float(np.max(high))
        count, low, high = self._limits
        return max(count, 1), min(low, one.low), max(high, one.high)

    def header(self, i: int) -> Header:
        """Size, bands, depth, format and frames of sample `i` without decoding it."""
        return self.header_of(self.source.load(i), self.source.name(i))

    def header_of(self, raw: Raw, name: str) -> Header:
        """Header of what `source.load` gave."""
        if isinstance(raw, bytes):
            return inspect(raw, name=name, channels=self.channels, layout=self.layout)
        if isinstance(raw, np.ndarray):
            return header_of(raw, channels=self.channels, layout=self.layout)
        return Header(raw.width, raw.height, len(raw.getbands()), 8, raw.format or "Pillow image")


def digest(*parts: bytes | str | int | np.ndarray) -> str:
    """16 hexadecimal digits over the parts and their lengths."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, np.ndarray):
            part = np.ascontiguousarray(part).tobytes()
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        state.update(len(data).to_bytes(8))
        state.update(data)
    return state.hexdigest()


__all__ = ["BadSample", "Header", "Raw", "Samples", "Skipped", "Source"]
