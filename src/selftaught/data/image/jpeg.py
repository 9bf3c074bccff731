"""JPEG without repairs: libjpeg mends what it can and only warns; here a warning is a refusal.

What it warns of and what leaves all pixels right is tidied away first: bytes between the segments
of the header, versions and parameters that nothing depends on, a little padding before the end.
"""

import re

import numpy as np
import simplejpeg

END = b"\xff\xd9"
PADDING = 8
"""Zero bytes before the end marker, below which they are padding: cameras fill up words."""


class Damaged(ValueError):
    """What a JPEG lacks, as a sentence part."""


def read(
    data: bytes,
    space: str,
    height: int,
    width: int,
    scale: int = 1,
    memory: np.ndarray | None = None,
) -> np.ndarray | None:
    """Pixels of a sound JPEG, equal to Pillow's; None where it is for another decoder to judge.

    Args:
        data: the file.
        space: RGB, GRAY or CMYK; CMYK is as stored, which is mostly inverted.
        height: rows at `scale`.
        width: columns at `scale`.
        scale: 1, or 2, 4, 8: the image is decoded that much smaller.
        memory: uint8 that the pixels are put into.

    Returns:
        uint8 [height, width, channels of `space`].

    Raises:
        Damaged: some of its pixels would be invented.
    """

    def decoded(data: bytes, strict: bool = True) -> np.ndarray:
        return simplejpeg.decode_jpeg(
            data,
            space,
            min_height=height,
            min_width=width,
            min_factor=scale,
            buffer=memory,
            strict=strict,
        )

    try:
        pixels = decoded(data)
    except ValueError as error:
        data = _tidied(data, str(error))
        try:
            pixels = decoded(data)
        except ValueError as error:
            try:
                decoded(data, strict=False)
            except ValueError:  # nothing can be had, or it is no kind of JPEG for this decoder
                return None
            raise Damaged(_words(str(error))) from error
    if pixels.shape[:2] != (height, width):
        return None
    _check_end(data, space)
    return pixels


def check(data: bytes) -> None:
    """Raise Damaged where `read` would, of a JPEG whose size and colors do not matter."""
    for space in ("RGB", "CMYK"):
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        except ValueError:
            return
        if read(data, space, int(height), int(width)) is not None:
            return


def _check_end(data: bytes, space: str) -> None:
    """Refuse a scan that has bytes left when all pixels are there: codes have slipped.

    libjpeg has taken up to seven of them by then, and says nothing. Hence the question whether it
    could do without the last one, asked at 1/8 of the size, which is cheap. Nor does it mind where
    the last scans of a progressive file are missing, whole.
    """
    header = _Header(data)
    begin = header.scans
    if header.progressive and not _complete(data, header):
        raise Damaged("is truncated (its last scans are missing)")
    end = data.find(END, begin)
    while data[end - 1] == 0xFF:  # fills up
        end -= 1
    padding = next((n for n in range(2 * PADDING) if data[end - 1 - n]), 0)
    last = end - padding - 1
    shorter = data[: last - (data[last - 1] == 0xFF)] + END
    try:
        simplejpeg.decode_jpeg(shorter, space, min_height=1, min_width=1, min_factor=8)
    except ValueError:
        return
    raise Damaged("is damaged inside (bytes are left when all pixels are there)")


def _complete(data: bytes, header: "_Header") -> bool:
    """Whether the scans of a progressive file tell each coefficient to its last bit."""
    components = {c for kind, s in header.segments if kind == 0xC2 for c in s[10::3]}
    missing = {(c, k) for c in components for k in range(64)}
    scan = data.find(b"\xff\xda", header.scans - len(header.segments[-1][1]))
    while scan >= 0:
        count = data[scan + 4]
        first, last, bits = data[scan + 5 + 2 * count : scan + 8 + 2 * count]
        if bits & 15 == 0:
            told = data[scan + 5 : scan + 5 + 2 * count : 2]
            missing -= {(c, k) for c in told for k in range(first, last + 1)}
        scan = data.find(b"\xff\xda", scan + 2)
    return not missing


def _words(warning: str) -> str:
    if "Premature end of JPEG" in warning:
        return "is truncated (the file ends early)"
    return f"is damaged inside ({warning.removeprefix('Corrupt JPEG data: ')})"


def _tidied(data: bytes, warning: str) -> bytes:
    """The same scans behind a header of only what they are decoded with."""
    header = _Header(data)
    kept = bytearray(data[:2])
    for kind, segment in header.segments:
        if kind == 0xE0 and segment[4:9] == b"JFIF\0":
            segment = segment[:9] + b"\x01" + segment[10:]
        if kind == 0xDA and header.sequential:  # which it must be, and which no decoder looks at
            segment = segment[:-3] + b"\0\x3f\0"
        if kind in (0xE0, 0xEE) or not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            kept += segment
    return bytes(kept) + _without_padding(data[header.scans :], warning)


def _without_padding(scans: bytes, warning: str) -> bytes:
    found = re.search(r"(\d+) extraneous bytes before marker 0xd9", warning)
    end, count = scans.find(END), int(found[1]) if found else 0
    if count < PADDING and end >= count and not any(scans[end - count : end]):
        return scans[: end - count] + scans[end:]
    return scans


class _Header:
    """The segments before the first scan, (marker, bytes), and where the scans begin."""

    def __init__(self, data: bytes):
        self.segments: list[tuple[int, bytes]] = []
        self.scans = at = 2
        while at + 4 <= len(data):
            kind = data[at + 1]
            if data[at] != 0xFF or kind in (0x00, 0xFF):
                at += 1
            elif kind == 0x01 or 0xD0 <= kind <= 0xD9:  # markers without a segment
                at += 2
            else:
                end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
                self.segments.append((kind, data[at:end]))
                self.scans = at = end
                if kind == 0xDA:
                    break

    @property
    def sequential(self) -> bool:
        return any(kind in (0xC0, 0xC1) for kind, _ in self.segments)

    @property
    def progressive(self) -> bool:
        return any(kind == 0xC2 for kind, _ in self.segments)
