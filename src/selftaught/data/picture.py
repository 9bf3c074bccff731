"""A sample whose size is known before its pixels are: so that only what is needed is decoded.

Ordinary JPEG files (8 bits, grey or YCbCr, upright) are read by torchvision's decoder, which gives
the same pixels as Pillow's in three quarters of the time. Everything else, and everything that it
refuses, is `decode`'s business.
"""

import struct
from typing import final

import numpy as np

from selftaught.data.decode import _open, _quiet
from selftaught.data.source import Raw, Samples

SCALES = (8, 4, 2)
"""Reductions at which a JPEG can be decoded: each pixel is then the mean of a square."""


@final
class Picture:
    """One sample, opened.

    Attributes:
        height, width: in pixels, upright, before any reduction.
        pixels: uint8 [H, W, C] where they are known already (arrays, formats other than JPEG).
    """

    def __init__(self, samples: Samples, raw: Raw, name: str):
        self._samples, self._raw, self._name = samples, raw, name
        self.pixels: np.ndarray | None = None
        size = jpeg_size(raw) if isinstance(raw, bytes) else None
        if size is None or size[0] * size[1] > samples.max_pixels:
            self.pixels = self._decoded()
            size = self.pixels.shape[:2]
        self.height, self.width = size

    def read(self, scale: int = 1) -> tuple[np.ndarray, int]:
        """Pixels, uint8 [H, W, C], at 1 / `scale` or larger, and the scale that they have.

        Raises:
            BadSample: it cannot be decoded, with the reason.
        """
        if self.pixels is not None:
            return self.pixels, 1
        pixels = None
        if self._samples.channels == 3:
            pixels = self._fast() if scale == 1 else self._reduced(scale)
        if pixels is None:
            return self._decoded(), 1
        return pixels, scale

    def _decoded(self) -> np.ndarray:
        raw, samples = self._raw, self._samples
        if (
            isinstance(raw, np.ndarray)
            and raw.dtype == np.uint8
            and raw.ndim == 3
            and raw.shape[2] == samples.channels
            and raw.size
        ):
            return raw
        return samples.decode(raw, self._name)

    def _fast(self) -> np.ndarray | None:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        encoded = torch.frombuffer(bytearray(self._raw), dtype=torch.uint8)  # type: ignore
        try:
            pixels = decode_jpeg(encoded, ImageReadMode.RGB).permute(1, 2, 0).numpy()
        except RuntimeError:  # damaged or cut short: `decode` says how, or keeps what there is
            return None
        return pixels if pixels.shape[:2] == (self.height, self.width) else None


    def _reduced(self, scale: int) -> np.ndarray | None:
        try:
            with _quiet():
                image = _open(self._raw, "JPEG", self._samples.max_pixels)  # type: ignore
                image.draft("RGB", (self.width // scale, self.height // scale))
                pixels = np.asarray(image)
        except Exception:
            return None
        size = (-(-self.height // scale), -(-self.width // scale), 3)
        return pixels if pixels.shape == size else None


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
            bits, height, width, colours = struct.unpack_from(">BHHB", data, at + 4)
            ordinary = bits == 8 and colours in (1, 3) and height and width
            return (height, width) if ordinary else None
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8) or kind in (0xD9, 0xDA):
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
