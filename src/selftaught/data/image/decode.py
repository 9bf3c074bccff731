"""Encoded bytes to upright uint8 pixels: right for every kind of image, or refused with the reason.

Pillow decodes; tifffile reads what Pillow cannot (many bands, more than 8 bits a color). Nothing
global is touched: neither Pillow's truncation flag nor its pixel limit.
"""

import io
import logging
import math
import os
import stat
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any, Literal

import numpy as np
from PIL import Image, ImageFile

from selftaught.data.image import jpeg, tiff
from selftaught.data.image.formats import UNSUPPORTED, sniff, way
from selftaught.errors import DataError

# a damaged TIFF makes them log; the reason is raised here, so their lines need no other listener
for _name in ("tifffile", "PIL"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

MAX_PIXELS = 179_000_000
"""Pixels above which an image is refused before it is decoded: twice Pillow's warning level. With
this value the size of the file counts too; any other is taken at its word."""

SMALL = 40_000_000
"""Pixels up to which an image is decoded however small its file is."""

DENSE = 200
"""Pixels a byte of file, above which a larger image is no picture but a bomb, of one color."""

MAX_BYTES = 4 << 30
"""Encoded bytes above which a file is not read."""

Pixels = np.ndarray
Range = tuple[float, float]
Raw = bytes | np.ndarray | Image.Image
"""What a source holds of a sample: a file's bytes, an array [H, W] or [H, W, C], an image."""

Layout = Literal["HWC", "CHW"]
"""Order of the axes of an array: rows, columns, channels; or channels first, as torch has it."""


class BadSample(DataError):
    """A sample that cannot be read, or not without guessing. `reason` is a sentence part."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class NoWhite(BadSample):
    """Values of which it is not known which are black and white; they go from `low` to `high`."""

    def __init__(self, what: str, low: float, high: float, beside: str = ""):
        super().__init__(
            f"{what}: give the values that become black and white, such as "
            f"value_range=({low:g}, {high:g}) or --value-range {low:g},{high:g}{beside}"
        )
        self.what, self.low, self.high = what, float(low), float(high)


@dataclass(frozen=True)
class Header:
    """What a file says of itself, read without decoding: upright size, bands, bits a band."""

    width: int
    height: int
    channels: int
    depth: int
    format: str
    frames: int = 1


def read_bytes(path: str) -> bytes:
    """Content of a regular file; BadSample for anything else (a pipe would block for ever)."""
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise BadSample("is not a regular file")
        if info.st_size > MAX_BYTES:
            raise BadSample(
                f"is {info.st_size / 2**30:.1f} GiB; at most {MAX_BYTES >> 30} are read"
            )
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadSample(f"cannot be opened: {reason}") from error


def decode(
    source: bytes | str,
    *,
    channels: int = 3,
    value_range: Range | None = None,
    truncated: Literal["skip", "keep"] = "skip",
    max_pixels: int = MAX_PIXELS,
    nodata: float | None = None,
    min_side: int | None = None,
    name: str = "",
    layout: Layout | None = None,
) -> Pixels:
    """The first frame of an image as uint8 [H, W, channels], upright; BadSample with the reason.

    8-bit values are kept. 16-bit values are scaled by their full range, v / 257 rounded (16-bit
    color PNG comes from Pillow as the high byte, at most one level lower). Floats must lie in
    [0, 1]. Transparent pixels become white, gray is repeated, color to one channel is ITU-R 601
    luma. Any other number of channels must match the file's own.

    Args:
        source: encoded bytes, or the path of a file.
        channels: wanted number of channels.
        value_range: values that become 0 and 255, for images of more than 8 bits.
        truncated: whether an image that ends early is refused, or kept with its missing part black.
        max_pixels: width x height above which an image is refused before it is decoded.
        nodata: what missing values become, as `to_uint8` says.
        min_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 scale while its shorter side stays at
            least this long and its shape stays that of the whole; its pixels are then box means,
            computed from the DCT.
        name: file name, whose extension tells formats without a signature (TGA).
        layout: see `layout_of`; of arrays alone.
    """
    if isinstance(source, str):
        name, source = name or source, read_bytes(source)
    with _refusing(source, name) as kind:
        if kind in ("NPY", "NPZ"):
            array = _load_array(source, kind, max_pixels)
            return from_array(
                array, channels=channels, value_range=value_range, nodata=nodata, layout=layout
            )
        if kind == "TIFF":
            keep = truncated == "keep"
            special = _tiff(source, channels, value_range, nodata, max_pixels, keep)
            if special is not None:
                return special
        elif kind == "PNG" and truncated == "skip":
            _check_png(source)
        im = _open(source, kind, max_pixels)
        depth = _depth(im, source)
        full = im.size
        if min_side and kind == "JPEG":
            im = _drafted(im, source, max_pixels, min_side)
        if kind == "JPEG" and truncated == "skip":
            sound = _sound_jpeg(im, source, full, channels)
            if sound is not None:
                return sound
        try:
            im.load()
        except OSError as error:
            if truncated == "skip" or not (kind == "JPEG" or "truncat" in str(error).lower()):
                raise
            im = _keep(im, source, kind, max_pixels)
        return _from_pillow(im, depth, channels, value_range, nodata)


def inspect(
    source: bytes | str, *, name: str = "", channels: int = 3, layout: Layout | None = None
) -> Header:
    """Size, bands, depth, format and frames, from the header alone; BadSample with the reason.

    `channels` and `layout` are those of `layout_of`.
    """
    if isinstance(source, str):
        name, source = name or source, read_bytes(source)
    with _refusing(source, name) as kind:
        if kind in ("NPY", "NPZ"):
            with _array_file(source, kind) as file:
                return _header_of(*_array_header(file), kind, channels, layout)
        if kind == "TIFF":
            page = _tiff_page(source)
            if page is not None and min(page.shape) > 0:
                bits = page.bitspersample
                depth = bits if isinstance(bits, int) else max(bits)
                width, height = page.imagewidth, page.imagelength
                if _tag(page, 274, 1) in (5, 6, 7, 8):
                    width, height = height, width
                frames = min(len(_pages(source)), 1 << 20)
                return Header(width, height, page.samplesperpixel, depth, kind, frames)
        im = _open(source, kind, 1 << 62)
        width, height = im.size
        if kind != "TIFF" and _orientation(im) >= 5:
            width, height = height, width
        try:
            frames = int(getattr(im, "n_frames", 1))  # Pillow gives it to formats with frames only
        except Exception:
            frames = 1
        return Header(width, height, len(im.getbands()), _depth(im, source), kind, frames)


def header_of(
    array: Pixels, kind: str = "array", channels: int = 3, layout: Layout | None = None
) -> Header:
    """Header of an array of an image; `channels` and `layout` are those of `layout_of`."""
    return _header_of(array.shape, array.dtype, kind, channels, layout)


def _header_of(
    shape: tuple[int, ...], dtype: np.dtype, kind: str, channels: int, layout: Layout | None
) -> Header:
    _check_axes(shape)
    if layout_of(shape, channels, layout) == "CHW":
        shape = (*shape[1:], shape[0])
    depth = 1 if dtype.kind == "b" else dtype.itemsize * 8
    return Header(shape[1], shape[0], shape[2] if len(shape) == 3 else 1, depth, kind)


def from_array(
    array: Pixels,
    *,
    channels: int = 3,
    value_range: Range | None = None,
    nodata: float | None = None,
    layout: Layout | None = None,
) -> Pixels:
    """An array of any real dtype as uint8 [H, W, channels], never a view; see `layout_of`."""
    pixels = to_uint8(upright_axes(array, channels, layout), value_range, nodata=nodata)
    return np.array(_fit(pixels, channels), order="C")


def from_image(
    im: Image.Image,
    *,
    channels: int = 3,
    value_range: Range | None = None,
    nodata: float | None = None,
) -> Pixels:
    """A Pillow image that somebody else opened, as uint8 [H, W, channels], upright."""
    with _QUIET:
        try:
            depth = _depth(im, b"")
            im.load()
            return _from_pillow(im, depth, channels, value_range, nodata)
        except BadSample:
            raise
        except Exception as error:
            raise BadSample(f"cannot be decoded: {error}") from error


def to_uint8(
    values: Pixels,
    value_range: Range | None,
    bits: int | None = None,
    nodata: float | None = None,
    named: float | None = None,
) -> Pixels:
    """Values of any real dtype as uint8; `bits` is the depth that is used where less than dtype's.

    BadSample where white is not defined by the dtype and no `value_range` is given, or where values
    are missing and it is not said what they are to be: those that are not finite, that equal
    `nodata`, or that the file has `named`. They become `nodata`, or black where that is out of
    range.
    """
    kind = values.dtype.kind
    if values.dtype == np.uint8 and nodata is None:
        return values
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind not in "uif":
        raise BadSample(f"has values of type {values.dtype}; real numbers are needed")
    marks = [float(m) for m in (nodata, named) if m is not None]
    missing = ~np.isfinite(values) if kind == "f" else None
    for mark in marks if nodata is not None or value_range is None else ():
        missing = values == mark if missing is None else missing | (values == mark)
    if nodata is not None and missing is not None:
        values = _filled(values, missing, value_range, nodata)
    elif kind == "f" and not np.isfinite(values).all():
        share = 100 * (~np.isfinite(values)).mean()
        raise BadSample(
            f"has values that are not finite numbers ({share:.2g} %), as where there is no data: "
            "--nodata 0 reads them as 0"
        )
    if values.dtype == np.uint8:
        return values
    if value_range is not None:
        low, high = value_range
        scaled = (values.astype(np.float32) - low) * (255.0 / (high - low))
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        full = (1 << (bits or 16)) - 1
        wide = values.astype(np.uint32)
        return (np.minimum(wide * 255 + full // 2, full * 255 + full // 2) // full).astype(np.uint8)
    low, high = values.min(), values.max()
    if kind == "f" and low >= 0 and high <= 1:
        wide = values.astype(np.float64 if values.dtype.itemsize == 8 else np.float32)
        return np.rint(wide * 255).astype(np.uint8)
    beside = ""
    if missing is not None and missing.any() and not missing.all():
        low, high = values[~missing].min(), values[~missing].max()
        if nodata is None:
            beside = f"; {named:g} stands for no data: --nodata {named:g} makes it black"
    need = "floats must lie in [0, 1]" if kind == "f" else "their white is not defined"
    what = f"has {values.dtype} values from {low:g} to {high:g}; {need}"
    raise NoWhite(what, low, high, beside)


def _filled(values: Pixels, missing: Pixels, value_range: Range | None, nodata: float) -> Pixels:
    """`nodata` where values are missing, or black where it lies out of range."""
    if not missing.any():
        return values
    if value_range is None:
        white = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
        value_range = (0, white)
    low, high = value_range
    fill = nodata if low <= nodata <= high else low
    if values.dtype.kind in "ui":
        limits = np.iinfo(values.dtype)
        fill = min(max(round(fill), limits.min), limits.max)
    return np.where(missing, np.asarray(fill, values.dtype), values)


# ---------------------------------------------------------------------------------------- Pillow


@contextmanager
def _refusing(data: bytes, name: str) -> Iterator[str]:
    """Yield the format of `data`; whatever a decoder raises becomes BadSample."""
    if not data:
        raise BadSample("is empty (0 bytes)")
    kind = sniff(data[:32], name)
    if kind is None:
        raise BadSample(f"is not an image that can be read (it begins with {data[:8]!r})")
    if kind in UNSUPPORTED:
        raise BadSample(f"is {kind}, which cannot be read ({way(kind) or 'convert it to PNG'})")
    with _QUIET, _MUTE if kind == "TIFF" else nullcontext():
        try:
            yield kind
        except BadSample:
            raise
        except MemoryError as error:
            raise BadSample(f"{kind} needs more memory than there is") from error
        except jpeg.Damaged as error:
            raise BadSample(f"{kind} {error}") from error
        except Exception as error:  # decoders raise everything from struct.error to SystemError
            text = str(error) or type(error).__name__
            if "truncat" in text.lower():
                text = "is truncated (the file ends early)"
                raise BadSample(f"{kind} {text}") from error
            raise BadSample(f"{kind} cannot be decoded: {text}") from error


class _Together:
    """A context of the whole process: the first thread in enters it, the last one leaves it."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]):
        self.make, self.lock, self.inside = make, threading.Lock(), 0
        self.entered: AbstractContextManager[None] = nullcontext()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.entered = self.make()
                self.entered.__enter__()

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.entered.__exit__(None, None, None)


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.|tifffile")
        yield


@contextmanager
def _no_standard_error() -> Iterator[None]:
    try:
        before = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


_QUIET = _Together(_no_warnings)
_MUTE = _Together(_no_standard_error)
"""libtiff writes about damage to standard error, past Python; the reason is raised here."""


def _open(data: bytes, kind: str, max_pixels: int) -> ImageFile.ImageFile:
    """Parse the header with the plugin of this format alone, and guard the size.

    `Image.open` would try every plugin, and apply its global pixel limit.
    """
    if kind not in Image.OPEN:
        Image.init()
    heif = kind == "HEIC"  # the extra is asked alone, without being registered for everybody
    opener = import_module("pillow_heif").HeifImageFile if heif else Image.OPEN[kind][0]
    try:
        im = opener(io.BytesIO(data), "")
    except (SyntaxError, IndexError, TypeError, KeyError, struct.error) as error:
        raise BadSample(f"{kind} header cannot be read: {error}") from error
    guard(im.width, im.height, max_pixels, len(data))
    return im


def guard(width: int, height: int, max_pixels: int, size: int) -> None:
    """Refuse pixels that cost more memory than a picture in a file of `size` bytes is worth."""
    if width < 1 or height < 1:
        raise BadSample(f"has no pixels ({width} x {height})")
    pixels = width * height
    told = f"is {width} x {height} = {pixels / 1e6:,.0f} million pixels"
    if pixels > max_pixels:
        raise BadSample(
            f"{told}, more than {max_pixels / 1e6:,.0f} million: make it smaller, or allow it with "
            f"--max-pixels {pixels}"
        )
    if max_pixels == MAX_PIXELS and pixels > max(SMALL, DENSE * size):
        raise BadSample(
            f"{told} in a file of {size / 1000:,.1f} kB, too many for a picture: it would cost "
            f"{10 * pixels / 1e9:.1f} GB of memory; if it is one, allow it with "
            f"--max-pixels {pixels}"
        )


def _keep(im: ImageFile.ImageFile, data: bytes, kind: str, max_pixels: int) -> ImageFile.ImageFile:
    """What can be had of an image that failed to load because it ends early.

    The rows that were decoded are in the image already: without tiles it counts as loaded. libjpeg
    gives up its last rows only at an end marker, which is put where the last whole segment ended.
    """
    if kind != "JPEG":
        im.tile = []
        im.load()
        return im
    end = len(data)
    for _ in range(4):  # the file may end within a header between two scans
        im = _open(data[:end] + b"\xff\xd9", kind, max_pixels)
        try:
            im.load()
            return im
        except OSError:
            end = data.rfind(b"\xff", 0, end)
    raise BadSample("JPEG is truncated (before its first rows)")


def _drafted(
    im: ImageFile.ImageFile, data: bytes, max_pixels: int, min_side: int
) -> ImageFile.ImageFile:
    """A JPEG that Pillow has opened, to be decoded at the smallest scale that `decode` allows.

    The sides of a reduced one are rounded up, by which its shape changes: where the shorter one is
    resized to `min_side`, the longer one must stay within a quarter of a pixel, and whole pixels.
    """

    def longer(size: tuple[int, int]) -> float:
        return min_side * max(size) / min(size)

    whole = longer(im.size)
    for least in (min_side, 2 * min_side, 4 * min_side):
        im.draft(None, (least, least))
        drafted = longer(im.size)
        if abs(drafted - whole) < 0.25 and int(drafted) == int(whole):
            return im
        im = _open(data, "JPEG", max_pixels)
    return im


def _sound_jpeg(
    im: ImageFile.ImageFile, data: bytes, full: tuple[int, int], channels: int
) -> Pixels | None:
    """Pixels of a JPEG that Pillow has opened and would repair; None leaves an unusual one to it.

    `full` is its size before any reduction, which `im` may have drafted.
    """
    width, height = im.size
    scale = next(s for s in (1, 2, 4, 8) if (-(-full[0] // s), -(-full[1] // s)) == im.size)
    space = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[im.mode]
    pixels = jpeg.read(data, space, height, width, scale)
    if pixels is None:
        return None
    if space == "CMYK":  # stored inverted, as Adobe does; so Pillow takes it too
        pixels = _bands(Image.frombytes("CMYK", im.size, (255 - pixels).tobytes()), channels)
    return np.array(_upright(_fit(pixels, channels), _orientation(im)), order="C")


def _check_png(data: bytes) -> None:
    """Refuse pixel data whose checksum fails: Pillow does not look, and shows whatever inflates."""
    at, view = 8, memoryview(data)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        end = at + 8 + size
        if end + 4 > len(data):
            return  # truncated: the decoder says so
        kind = data[at + 4 : at + 8]
        if kind in (b"IDAT", b"PLTE", b"tRNS") and zlib.crc32(view[at + 4 : end]) != int.from_bytes(
            data[end : end + 4]
        ):
            raise BadSample(f"PNG is damaged: checksum of {kind.decode()} at byte {at} is wrong")
        if kind == b"IEND":
            return
        at = end + 4


def _depth(im: Image.Image, data: bytes) -> int:
    """Bits a band in the file, where Pillow's mode hides it."""
    if im.format == "PNG" and data:
        return data[24]
    if im.mode.startswith("I;16"):
        return 16
    return {"1": 1, "I": 32, "F": 32}.get(im.mode, 8)


def _orientation(im: Image.Image) -> int:
    """EXIF or XMP orientation, 1 to 8; TIFF is upright already when Pillow has loaded it."""
    if im.format == "TIFF" or not any(
        key in im.info for key in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
    ):
        return 1
    try:
        value = im.getexif().get(274, 1)
    except Exception:  # damaged EXIF is as good as none
        return 1
    return value if value in range(2, 9) else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the EXIF orientation of [H, W, C]."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _from_pillow(
    im: Image.Image,
    depth: int,
    channels: int,
    value_range: Range | None,
    nodata: float | None,
) -> Pixels:
    orientation = _orientation(im)
    if im.mode[0] in "IF":  # I;16 and its byte orders, I (32 bit), F
        values = np.asarray(im)
        if im.mode == "I" and (depth == 16 or im.format == "PPM"):
            values = values.astype(np.uint16)  # older Pillow opens 16-bit PNG and PGM as 32 bit
        pixels = to_uint8(values, value_range, min(depth, 16), nodata)
        hidden = im.info.get("transparency")
        if isinstance(hidden, int):
            pixels = np.where(values == hidden, np.uint8(255), pixels)
        pixels = _fit(pixels[..., None], channels)
    else:
        if depth > 8 and value_range is not None:
            raise BadSample(
                f"is {depth}-bit color, which is read at 8 bits, so value_range cannot apply: "
                "convert it to an uncompressed TIFF"
            )
        if depth == 16 and isinstance(im.info.get("transparency"), tuple):
            im.info["transparency"] = tuple(v >> 8 for v in im.info["transparency"])
        pixels = _bands(im, channels)
    if orientation != 1:
        pixels = _upright(pixels, orientation)
    return np.array(pixels, order="C")


def _bands(im: Image.Image, channels: int) -> Pixels:
    """An 8-bit image of any mode as [H, W, channels]."""
    if im.mode == "LAB":
        raise BadSample("is in the LAB color space: convert it to RGB")
    if channels in (1, 3):
        im = _over_white(im)
        wanted = "L" if channels == 1 else "RGB"
        if im.mode not in ("1", "L", "P", "RGB"):
            im = im.convert("RGB")
        if im.mode != wanted:
            im = im.convert(wanted)
    elif im.mode == "1":
        im = im.convert("L")
    elif im.mode not in ("L", "LA", "RGB", "RGBA"):
        im = im.convert("RGBA" if im.has_transparency_data else "RGB")
    pixels = np.asarray(im)
    return _fit(pixels if pixels.ndim == 3 else pixels[..., None], channels)


def _over_white(im: Image.Image) -> Image.Image:
    """Blend transparent pixels with white, where there are any."""
    if not im.has_transparency_data:
        return im
    if im.mode == "La":
        im = im.convert("LA")
    if im.mode != "LA":
        im = im if im.mode == "RGBA" else im.convert("RGBA")
    white = Image.new(im.mode[:-1], im.size, "white")
    white.paste(im.convert(white.mode), mask=im.getchannel("A"))
    return white


def _fit(pixels: Pixels, channels: int) -> Pixels:
    """uint8 [H, W, C] with the wanted number of channels, where the two agree on a meaning."""
    have = pixels.shape[2]
    if have == channels:
        return pixels
    if have == 1 and channels == 3:
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    if have == 3 and channels == 1:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[..., None]
    raise BadSample(
        f"has {have} channels, {channels} are needed (--channels {have} reads it as is)"
    )


# ---------------------------------------------------------------------------------------- arrays


def layout_of(shape: tuple[int, ...], channels: int, asked: Layout | None = None) -> Layout:
    """The order of the axes of an image's array; BadSample where that would be a guess.

    Args:
        shape: of the array, [H, W, C] or [C, H, W]; other numbers of axes have nothing to tell.
        channels: that are wanted.
        asked: the order that somebody vouches for. Without it arrays are [H, W, C], and refused
            where they look like [C, H, W], or may be either.
    """
    if asked is not None or len(shape) != 3:
        return asked or "HWC"
    first, middle, last = shape
    fits, turned = (channels in (n, *_MADE_OF.get(n, ())) for n in (last, first))
    # square with its last axes, or of a few rows: as no image of so many channels is
    odd = last > _MANY and (middle == last != first or first <= _FEW < middle)
    if fits and not turned and not odd:
        return "HWC"
    if not fits and not turned and (last <= _MANY or first == middle != last):
        return "HWC"  # whose channels are the wrong ones
    sizes = ((first, middle, last), (middle, last, first))
    readings = " and ".join(
        f"as [{', '.join(order)}] {height} x {width} pixels of {count} channels"
        + (f" (--layout {order})" if fit else f", {channels} are needed")
        + ("" if fit else f" (--layout {order} --channels {count})")
        for order, fit, (height, width, count) in zip(("HWC", "CHW"), (fits, turned), sizes)
    )
    which = (
        "looks like [C, H, W]" if odd or (turned and not fits) else "may be [H, W, C] or [C, H, W]"
    )
    raise BadSample(
        f'is an array of shape {shape} that {which}: it is {readings}; in Python layout="CHW"'
    )


_MADE_OF = {1: (3,), 3: (1,)}  # channels -> those that they can become
_FEW, _MANY = 4, 8  # channels that images of colors have at most, and those that say nothing


def _check_axes(shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise BadSample(f"is an array of shape {shape}; [H, W] or [H, W, C] is needed")


def upright_axes(array: Pixels, channels: int, layout: Layout | None = None) -> Pixels:
    """A view [H, W, C] of an array [H, W], or of three axes; see `layout_of`."""
    _check_axes(array.shape)
    if array.ndim == 2:
        return array[..., None]
    return array if layout_of(array.shape, channels, layout) == "HWC" else np.moveaxis(array, 0, 2)


def _load_array(data: bytes, kind: str, max_pixels: int) -> Pixels:
    """The array of a .npy, or the only one of a .npz; its shape is guarded before it is read."""
    with _array_file(data, kind) as file:
        shape, dtype = _array_header(file)
    guard(shape[1], shape[0], max_pixels, len(data))
    if np.prod(shape, dtype=float) * dtype.itemsize > MAX_BYTES:
        raise BadSample(f"is an array of shape {shape}, more than {MAX_BYTES >> 30} GiB")
    with _array_file(data, kind) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


@contextmanager
def _array_file(data: bytes, kind: str) -> Iterator[Any]:
    if kind == "NPY":
        yield io.BytesIO(data)
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) != 1:
            names = ", ".join(m.filename.removesuffix(".npy") for m in members[:5])
            raise BadSample(f"holds {len(members)} arrays ({names}); an image is one array")
        with archive.open(members[0]) as file:
            yield file


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type of a .npy; ValueError for what is no array.

    Python objects are refused here, and so is a shape that no array has.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"its version of the format, {version}, is not known")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    try:
        shape, fortran, dtype = read(file)
    except Exception as error:  # it is parsed as Python, which fails in all of Python's ways
        raise ValueError(
            f"its header is damaged ({(str(error) or 'empty').splitlines()[0][:200]})"
        ) from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    if any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) > 1 << 60:
        raise ValueError(f"it says that its shape is {shape}, which no array has")
    return shape, fortran, dtype


def _array_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an image, without its values."""
    try:
        shape, _, dtype = npy_header(file)
    except ValueError as error:
        raise BadSample(f"cannot be read as an array: {error}") from error
    _check_axes(shape)
    return shape, dtype


# ------------------------------------------------------------------------------------------ TIFF


def _pages(data: bytes) -> Any:
    import tifffile

    return tifffile.TiffFile(io.BytesIO(data)).pages


def _tiff_page(data: bytes) -> Any:
    """tifffile's view of the first page, None where it cannot read the header."""
    try:
        return _pages(data)[0]
    except Exception:
        return None


def _tag(page: Any, number: int, default: int) -> int:
    tag = page.tags.get(number)
    return tag.value if tag is not None and isinstance(tag.value, int) else default


def _named_nodata(page: Any) -> float | None:
    """The value that stands for no data, where GDAL's tag names one."""
    tag = page.tags.get(42113)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def _tiff(
    data: bytes,
    channels: int,
    value_range: Range | None,
    nodata: float | None,
    max_pixels: int,
    keep: bool,
) -> Pixels | None:
    """Pixels of a TIFF that Pillow would open wrongly or not at all; None leaves it to Pillow.

    That is: more than 8 bits, a sample format that is not unsigned, bands beyond a color model or
    stored one after the other.
    """
    page = _tiff_page(data)
    if page is None:
        return None
    guard(page.imagewidth, page.imagelength, max_pixels, len(data))
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    samples, photometric = page.samplesperpixel, int(page.photometric)
    odd = int(page.sampleformat or 1) != 1
    extra = tuple(int(e) for e in page.extrasamples)
    bands = samples > 1 and (photometric in (0, 1) and extra[-1:] not in ((1,), (2,)))
    apart = samples > 1 and page.planarconfig == 2  # libtiff through Pillow gives one band of it
    raw = channels not in (1, 3)
    must = bits > 8 or odd or bands or apart or samples > 4
    if not (must or raw) or photometric not in (0, 1, 2):
        if bits > 8:
            raise BadSample(f"TIFF is {bits}-bit with photometric {photometric}: convert it to RGB")
        if not keep:
            tiff.check(page, data)
        return None
    if samples * page.imagewidth * page.imagelength * max(bits, 8) // 8 > MAX_BYTES:
        raise BadSample(f"TIFF has {samples} bands, more than {MAX_BYTES >> 30} GiB")
    try:
        values = tiff.read(page, data, keep=keep)  # first: it sees damage that codecs mend silently
    except tiff.Unknown as unknown:
        if not keep:
            tiff.check(page, data)  # who reads it now mends it silently, too
        try:
            values = _ordered(page)
        except Exception:  # it has no codec
            if not must:
                return None
            options = (channels, value_range, nodata)
            return _tiff_by_pillow(data, page, bits, options, max_pixels, unknown)
    pixels = to_uint8(values, value_range, bits, nodata, _named_nodata(page))
    if photometric == 0 and values.dtype.kind in "ub":  # zero is white
        pixels = 255 - pixels
    colors = 3 if photometric == 2 else 1
    if not raw and samples == colors + 1 and extra in ((1,), (2,)):
        color = pixels[..., :colors].astype(np.uint16)
        alpha = pixels[..., colors:].astype(np.uint16)
        white = 255 * (255 - alpha)
        over = white + (color * alpha if extra == (2,) else color * 255)  # 1: premultiplied
        pixels = np.minimum((over + 127) // 255, 255).astype(np.uint8)
    elif not raw and photometric == 2 and samples > 3:
        pixels = pixels[..., :3]  # the color model names the first three
    pixels = _fit(pixels, channels)
    return np.array(_upright(pixels, _tag(page, 274, 1)), order="C")


def _ordered(page: Any) -> Pixels:
    """Values of a page as tifffile reads them, [H, W, samples]."""
    values = page.asarray()
    if page.axes == "SYX":
        return np.moveaxis(values, 0, 2)
    if page.axes == "YX":
        return values[..., None]
    if page.axes != "YXS":
        raise BadSample(f"TIFF has axes {page.axes}; one image [H, W, C] is needed")
    return values


def _tiff_by_pillow(
    data: bytes,
    page: Any,
    bits: int,
    options: tuple[int, Range | None, float | None],
    max_pixels: int,
    unknown: tiff.Unknown,
) -> Pixels:
    """What has no codec here: Pillow's where it has one band, of which Pillow cannot lose any."""
    if page.samplesperpixel == 1:
        im = _open(data, "TIFF", max_pixels)
        if im.mode == "F" or (im.mode.startswith("I;16") and int(page.photometric) == 1):
            im.load()
            return _from_pillow(im, min(bits, 16), *options)
    raise BadSample(
        f"TIFF of {page.samplesperpixel} x {bits} bit {unknown}, which cannot be read: save it "
        'with LZW, deflate or ZSTD, or pip install "selftaught[tiff]"'
    ) from unknown
