"""Pixels of a TIFF for whose compression tifffile has no codec, whatever their number and order.

libtiff has most codecs, but through Pillow it knows images of few kinds, and of others gives the
first band. So a strip or a tile is handed to it as what it is: bytes, a gray image of their own.
"""

import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

from selftaught.data.image import jpeg

DEFLATE = (8, 32946, 50013)
LIBTIFF = {5: 5, 34925: 34925, 50000: 50000, 34926: 50000, 32773: 32773}
"""Compressions of bytes that libtiff undoes, as it numbers them."""
JPEG = 7


class Unknown(ValueError):
    """No codec, as a sentence part that names the compression."""


def read(page: Any, data: bytes, *, keep: bool = False) -> np.ndarray:
    """Values of a page, [H, W, samples], as its file orders their bytes.

    Args:
        page: tifffile's view of it.
        data: the file.
        keep: whether strips and tiles that are damaged become zero.

    Raises:
        Unknown: how its values are packed or compressed.
        ValueError: a strip or a tile is damaged, zlib.error and OSError among it.
    """
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    if page.dtype is None or page.bitspersample not in (8, 16, 32, 64) or page.dtype.kind == "c":
        raise Unknown(f"has values of {page.bitspersample} bits that are packed")
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    planes, each = (1, samples) if page.planarconfig == 1 else (samples, 1)
    if page.is_tiled:
        high, wide = page.tilelength, page.tilewidth
    else:
        high, wide = min(page.rowsperstrip, height), width
    down, across = -(-height // high), -(-width // wide)
    if len(page.dataoffsets) < planes * down * across:
        raise ValueError(f"has {len(page.dataoffsets)} strips of {planes * down * across}")
    values = np.zeros((height, width, samples), dtype.newbyteorder("="))
    for plane in range(planes):
        bands = slice(None) if planes == 1 else slice(plane, plane + 1)
        for y in range(down):
            for x in range(across):
                part = values[y * high : (y + 1) * high, x * wide : (x + 1) * wide, bands]
                rows = high if page.is_tiled else part.shape[0]
                number = (plane * down + y) * across + x
                count = page.databytecounts[number]
                if not count:  # GDAL leaves out what is empty
                    part[:] = page.nodata
                    continue
                at = page.dataoffsets[number]
                try:
                    if at + count > len(data):
                        raise ValueError("the file is truncated")
                    raw = unpacked(page, data[at : at + count], rows, wide * each, dtype.itemsize)
                    if len(raw) < rows * wide * each * dtype.itemsize:
                        raise ValueError("a strip or tile is damaged: it is too short")
                    whole = _values(raw, page.predictor, dtype, (rows, wide, each))
                except Unknown:
                    raise
                except (ValueError, OSError, zlib.error):
                    if not keep:
                        raise
                    continue
                part[:] = whole[: part.shape[0], : part.shape[1]]
    return values


def unpacked(page: Any, raw: bytes, rows: int, columns: int, size: int) -> bytes:
    """The bytes of a strip or tile of `columns` values of `size` bytes a row."""
    how = int(page.compression)
    if page.fillorder == 2:
        raw = raw.translate(_REVERSED)
    if how == 1:
        return raw
    if how in DEFLATE:
        return zlib.decompress(raw)
    if how in LIBTIFF:
        return _by_libtiff(raw, LIBTIFF[how], rows, columns * size)
    if how == JPEG and size == 1 and (page.planarconfig == 2 or page.samplesperpixel == 1):
        pixels = jpeg.read(_whole(page, raw), "GRAY", rows, columns)
        if pixels is not None:
            return pixels.tobytes()
    raise Unknown(f"is compressed with {getattr(page.compression, 'name', how)}")


def check(page: Any, data: bytes) -> None:
    """Refuse, with ValueError or zlib.error, strips and tiles that libtiff would read as they come:
    libjpeg repairs inside it, and of deflate it leaves the checksum unread."""
    how = int(page.compression)
    if how != JPEG and how not in DEFLATE:
        return
    for at, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        raw = data[at : at + count]
        if count and how == JPEG:
            jpeg.check(_whole(page, raw))
        elif count:
            zlib.decompress(raw.translate(_REVERSED) if page.fillorder == 2 else raw)


def _whole(page: Any, raw: bytes) -> bytes:
    """A JPEG of its own: with the tables that strips share."""
    tables = page.jpegtables
    return tables.removesuffix(jpeg.END) + raw[2:] if tables else raw


def _by_libtiff(raw: bytes, compression: int, rows: int, columns: int) -> bytes:
    """Bytes as libtiff unpacks them: those of a gray image of one strip."""
    tags = (
        (256, columns),
        (257, rows),
        (258, 8),
        (259, compression),
        (262, 1),
        (273, 8),  # behind the header
        (277, 1),
        (278, rows),
        (279, len(raw)),
    )
    packed = raw + bytes(len(raw) % 2)
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
        for tag, value in tags
    )
    file = b"II*\0" + (8 + len(packed)).to_bytes(4, "little") + packed
    file += len(tags).to_bytes(2, "little") + entries + bytes(4)
    Image.init()
    image = Image.OPEN["TIFF"][0](io.BytesIO(file), "")
    return image.tobytes()


def _values(raw: bytes, predictor: int, dtype: np.dtype, shape: tuple[int, int, int]) -> np.ndarray:
    """Bytes as values, [rows, columns, samples], with the prediction undone."""
    rows, columns, samples = shape
    size = rows * columns * samples
    if predictor == 3:  # bytes by their significance, each the difference to the one before
        parts = np.frombuffer(raw, np.uint8, size * dtype.itemsize)
        parts = np.cumsum(parts.reshape(rows, -1, samples), axis=1, dtype=np.uint8)
        parts = parts.reshape(rows, dtype.itemsize, columns * samples).swapaxes(1, 2)
        return np.ascontiguousarray(parts).view(dtype.newbyteorder(">")).reshape(shape)
    values = np.frombuffer(raw, dtype, size).reshape(shape)
    if predictor == 2:
        whole = np.dtype(f"u{dtype.itemsize}")
        native = values.astype(dtype.newbyteorder("=")).view(whole)
        return np.cumsum(native, axis=1, dtype=whole).view(dtype.newbyteorder("="))
    if predictor != 1:
        raise Unknown(f"has predictor {predictor}")
    return values


_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))
