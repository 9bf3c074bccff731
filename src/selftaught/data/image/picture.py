"""A sample whose size is known before its pixels are: so that only what is needed is decoded.

Ordinary JPEG files (8 bits, gray or YCbCr, upright) are read by simplejpeg: the same library as
Pillow's, hence the same pixels, without Pillow's copies. Everything else, and everything that it
refuses, is `decode`'s business.
"""

import struct
import threading
from collections.abc import Callable
from typing import Any, final

import numpy as np

from selftaught.data.image import jpeg
from selftaught.data.image.decode import Layout, Raw, guard, layout_of

SCALES = (8, 4, 2)
"""Reductions at which a JPEG can be decoded: each pixel is then the mean of a square."""


@final
class Picture:
    """One sample, opened.

    Args:
        raw: what its source holds.
        decode: all of it, uint8 [H, W, channels]; raises BadSample.
        channels, max_pixels, layout: as of `open_data`.

    Attributes:
        height, width: in pixels, upright, before any reduction.
        pixels: uint8 [H, W, C] where they are known already (arrays, formats other than JPEG).
        jpeg: the file, where it is an ordinary JPEG that becomes three channels.
    """

    def __init__(
        self,
        raw: Raw,
        decode: Callable[[], np.ndarray],
        channels: int,
        max_pixels: int,
        layout: Layout | None,
    ):
        self._raw, self._decode, self._channels, self._layout = raw, decode, channels, layout
        self.pixels: np.ndarray | None = None
        if isinstance(raw, bytes) and (size := jpeg_size(raw)) is not None:
            guard(size[1], size[0], max_pixels, len(raw))
        else:
            self.pixels = self._decoded()
            size = self.pixels.shape[:2]
        self.height, self.width = size
        whole = isinstance(raw, bytes) and self.pixels is None and channels == 3
        self.jpeg: bytes | None = raw if whole else None

    def read(self, scale: int = 1, memory: "DecodeBuffer | None" = None) -> tuple[np.ndarray, int]:
        """Pixels, uint8 [H, W, C], at 1 / `scale` or larger, and the scale that they have.

        Args:
            scale: 1, or one of `SCALES`.
            memory: where pixels may be put; then they are only good until it is used again.

        Raises:
            BadSample: it cannot be decoded, with the reason.
        """
        if self.pixels is not None:
            return self.pixels, 1
        if self.jpeg is not None:
            pixels = self._fast(self.jpeg, scale, memory)
            if pixels is not None:
                return pixels, scale
        return self._decoded(), 1

    def _decoded(self) -> np.ndarray:
        raw = self._raw
        if (
            isinstance(raw, np.ndarray)
            and raw.dtype == np.uint8
            and raw.ndim == 3
            and raw.shape[2] == self._channels
            and raw.size
            and layout_of(raw.shape, self._channels, self._layout) == "HWC"
        ):
            return raw
        return self._decode()

    def _fast(self, data: bytes, scale: int, memory: "DecodeBuffer | None") -> np.ndarray | None:
        height, width = -(-self.height // scale), -(-self.width // scale)
        place = None if memory is None else memory.at_least(3 * height * width)
        try:
            return jpeg.read(data, "RGB", height, width, scale, place)
        except jpeg.Damaged:  # `decode` says how, or keeps what there is
            return None


@final
class Ready:
    """A sample that is there already: pixels of one picture, or of several in a tuple."""

    def __init__(self, pixels: Any):
        self.pixels = pixels

    def read(self) -> tuple[Any, int]:
        """The pixels, uint8 [H, W, C] each, and their scale, 1."""
        return self.pixels, 1


@final
class DecodeBuffer(threading.local):
    """Memory of a thread, used again and again: fresh pages cost a tenth of decoding into them."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def at_least(self, size: int) -> np.ndarray:
        if self._bytes.size < size:
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size]


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of an ordinary JPEG; None for anything else, turned images among it."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:  # padding
            at += 1
            continue
        if kind in (0xC0, 0xC1, 0xC2):
            bits, height, width, colors = struct.unpack_from(">BHHB", data, at + 4)
            ordinary = bits == 8 and colors in (1, 3) and height and width
            return (height, width) if ordinary else None
        if (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8)) or kind in (0xD9, 0xDA):
            return None
        length = data[at + 2] << 8 | data[at + 3]
        if kind == 0xE1 and not _upright(data[at + 4 : at + 2 + length]):
            return None
        at += 2 + length
    return None


def _upright(segment: bytes) -> bool:
    """Whether an APP1 segment surely leaves the image as it is."""
    if not segment.startswith(b"Exif\0\0"):
        return b"Orientation" not in segment  # XMP
    tiff = segment[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return False
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, at)
        for k in range(entries):
            tag, kind, count, value = struct.unpack_from(order + "HHIH", tiff, at + 2 + 12 * k)
            if tag == 0x0112:
                return kind == 3 and count == 1 and value == 1
    except struct.error:
        return False
    return True
