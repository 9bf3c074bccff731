"""What an image is by its first bytes, whatever the server says of it."""

from selftaught.data.image.formats import sniff

SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "HEIC": ".heic",
}
"""Endings of the members of a shard, by format."""

HEAD = 64
"""Bytes that tell a format."""

_BITMAPS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes of a BMP's second header


def format_of(head: bytes) -> str | None:
    """The format that the first `HEAD` bytes of an image show; None where it is none of ours."""
    found = sniff(head[:HEAD], strict=True)
    if found is None and head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAPS:
        return "BMP"
    return found if found in SUFFIXES else None


def size(count: int) -> str:
    """Bytes in words: 20 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:g} {unit}"
    return f"{count} bytes"
