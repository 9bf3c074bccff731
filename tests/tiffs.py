"""TIFF files of every layout, written from the specification: what rasterio and GDAL write."""

import io
import lzma
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image

PILLOW = {"lzw": (5, "tiff_lzw"), "zstd": (50000, "zstd"), "packbits": (32773, "packbits")}


def packed(raw: bytes, rows: int, how: str) -> bytes:
    """Bytes of a strip as libtiff packs them, by way of a gray image."""
    pixels = np.frombuffer(raw, np.uint8).reshape(rows, -1)
    out = io.BytesIO()
    options = {"tiffinfo": {278: rows}}
    Image.fromarray(pixels).save(out, "TIFF", compression=PILLOW[how][1], **options)
    page = tifffile.TiffFile(io.BytesIO(out.getvalue())).pages[0]
    assert len(page.dataoffsets) == 1
    return out.getvalue()[page.dataoffsets[0] :][: page.databytecounts[0]]


def predicted(values: np.ndarray, predictor: int, order: str) -> bytes:
    """A strip or tile [rows, columns, samples] as the bytes that are then compressed."""
    if predictor == 2:
        whole = values.view(f"u{values.itemsize}")
        before = np.pad(whole[:, :-1], ((0, 0), (1, 0), (0, 0)))
        return (whole - before).astype(f"{order}u{values.itemsize}").tobytes()
    if predictor == 3:
        rows, columns, samples = values.shape
        parts = values.astype(values.dtype.newbyteorder(">")).view(np.uint8)
        parts = parts.reshape(rows, columns * samples, -1).swapaxes(1, 2).reshape(rows, -1, samples)
        return (parts - np.pad(parts[:, :-1], ((0, 0), (1, 0), (0, 0)))).tobytes()
    return values.astype(values.dtype.newbyteorder(order)).tobytes()


def written(
    values: np.ndarray,
    how: str = "lzw",
    *,
    separate: bool = False,
    predictor: int = 1,
    tile: int = 0,
    strip: int = 0,
    order: str = "<",
    photometric: int = 1,
    extra: int = 0,
    nodata: str = "",
) -> bytes:
    """A TIFF of [H, W, S]: band by band or pixel by pixel, in tiles or strips."""
    height, width, samples = values.shape
    high, wide = (tile, tile) if tile else (strip or height, width)
    groups = [values[..., k : k + 1] for k in range(samples)] if separate else [values]
    parts = []
    for group in groups:
        for y in range(0, height, high):
            for x in range(0, width, wide):
                part = group[y : y + high, x : x + wide]
                if tile:
                    rest = (high - part.shape[0], wide - part.shape[1])
                    part = np.pad(part, ((0, rest[0]), (0, rest[1]), (0, 0)))
                raw = predicted(np.ascontiguousarray(part), predictor, order)
                if how in PILLOW:
                    raw = packed(raw, part.shape[0], how)
                elif how == "deflate":
                    raw = zlib.compress(raw)
                elif how == "lzma":
                    raw = lzma.compress(raw)
                elif how == "jpeg":
                    out = io.BytesIO()
                    Image.fromarray(part.squeeze()).save(out, "JPEG", quality=95)
                    raw = out.getvalue()
                parts.append(raw)
    code = {"none": 1, "deflate": 8, "lzma": 34925, "jpeg": 7}.get(how) or PILLOW[how][0]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags: list[tuple[int, str, list[int]]] = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [values.itemsize * 8] * samples),
        (259, "H", [code]),
        (262, "H", [photometric]),
        (277, "H", [samples]),
        (284, "H", [2 if separate else 1]),
        (317, "H", [predictor]),
        (339, "H", [kind] * samples),
    ]
    beyond = samples - (3 if photometric == 2 else 1)
    if beyond:
        tags.append((338, "H", [extra] * beyond))
    if nodata:
        tags.append((42113, "s", list(nodata.encode() + b"\0")))
    at, content = 8, b""
    where = []
    for raw in parts:
        where.append(at + len(content))
        content += raw + bytes(len(raw) % 2)
    sizes = [len(raw) for raw in parts]
    if tile:
        tags += [(322, "I", [tile]), (323, "I", [tile]), (324, "I", where), (325, "I", sizes)]
    else:
        tags += [(273, "I", where), (278, "I", [high]), (279, "I", sizes)]
    directory = at + len(content)
    tags.sort()
    later, entries = b"", b""
    begin = directory + 2 + 12 * len(tags) + 4
    for tag, form, numbers in tags:
        data = (
            bytes(numbers) if form == "s" else struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        )
        code = {"H": 3, "I": 4, "s": 2}[form]
        if len(data) > 4:
            place = struct.pack(order + "I", begin + len(later))
            later += data + bytes(len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, code, len(numbers)) + place
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, directory)
    count = struct.pack(order + "H", len(tags))
    return head + content + count + entries + bytes(4) + later
