"""The native part of the view engine: draws and renders whole batches, and lets go of the GIL.

`library()` is None where it was not built (see `hatch_build.py`); then `render.py` does the same
with torch, an order of magnitude slower. Arguments are checked on the other side, before memory
is touched; this module puts its refusals into words.
"""

import ctypes
import logging
import math
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.augment.image.view import Params, View
from selftaught.errors import UserError

_log = logging.getLogger("selftaught")

NAME = {"win32": "views.dll", "darwin": "libviews.dylib"}.get(sys.platform, "libviews.so")


def _record(**fields: str) -> np.dtype:
    """A C structure."""
    return np.dtype(list(fields.items()), align=True)


IMAGE = _record(pixels="u8", row="i8", step="i4", height="i4", width="i4", scale="i4")
"""Where the pixels of an image are; `height` and `width` before any reduction by `scale`."""

VIEW = _record(
    **dict.fromkeys(("scale", "log_ratio", "ratio"), "2f8"),
    flip="f8",
    jitter="4f8",
    jitter_p="f8",
    gray="f8",
    blur="f8",
    sigma="2f8",
    **dict.fromkeys(("solarize", "vertical", "erase"), "f8"),
    **dict.fromkeys(("rows", "columns", "bicubic", "radius", "turns"), "i4"),
    fill="1024u1",
)
"""Declared views; the fields of `view.View`, and the logarithms of its ratios."""

PARAMS = _record(
    factors="4f8",
    sigma="f8",
    **dict.fromkeys(("top", "left", "height", "width", "flip"), "i4"),
    order="4i4",
    gray="i4",
    solarize="i4",
    whole="2i4",
    shown="2i4",
    vertical="i4",
    transpose="i4",
    erased="4i4",
    unused="i4",
)
"""Drawn views; the fields of `view.Params`, `order` filled up with -1, and for `Plain` the size
of the whole resized image and where what is shown of it begins."""

_ALIKE = ("top", "left", "height", "width", "flip", "vertical", "transpose", "erased")
_ALIKE += ("factors", "gray", "sigma", "solarize")
"""Fields that are called so in both."""

_REFUSALS = {
    1: "a view's size must be between 1 and 16384 pixels",
    2: "an image must have pixels, at most 2**30 a side, and 1 to 1024 channels",
    3: "drawn parameters do not fit image {where}: a crop that leaves it, or a number out of range",
}


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The native library, or None where it cannot be had; then one line of log says why."""
    if os.environ.get("SELFTAUGHT_NATIVE") == "0":
        why = "SELFTAUGHT_NATIVE=0"
    else:
        try:
            return _opened(Path(__file__).with_name(NAME))
        except OSError as error:
            why = str(error)
        except AttributeError:  # a function that it does not have yet
            why = "it belongs to another version: install again"
    _log.warning("views are made by the slow reference pipeline: no native library (%s)", why)
    return None


def _opened(path: Path) -> ctypes.CDLL:
    if not path.is_file():
        raise OSError("it was not built: no C++ compiler was found at installation")
    opened = ctypes.CDLL(str(path))
    sizes = (ctypes.c_int64 * 3)()
    opened.selftaught_sizes(sizes)
    if list(sizes) != [IMAGE.itemsize, VIEW.itemsize, PARAMS.itemsize]:
        raise OSError("it belongs to another version: install again")
    pointer, int64, int32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    opened.selftaught_uniforms.argtypes = [ctypes.c_uint64, *[pointer] * 2, *[int64] * 2, pointer]
    opened.selftaught_uniforms.restype = None
    opened.selftaught_draw.argtypes = [pointer, int64, *[pointer] * 3, int64, pointer]
    opened.selftaught_draw.restype = None
    opened.selftaught_render.argtypes = [
        *[pointer, int64, int32],
        *[pointer, int64, pointer, pointer],
        *[int32, int32, pointer],
    ]
    opened.selftaught_render.restype = int32
    opened.selftaught_read_jpeg.argtypes = [
        *[pointer, int64, int32, int32, int32],
        *[pointer, int64, int32, pointer],
    ]
    opened.selftaught_read_jpeg.restype = int32
    return opened


@lru_cache(maxsize=64)
def declared(views: tuple[View, ...]) -> np.ndarray:
    """Views as the library wants them, `VIEW` [V]; kept, and read-only for that reason."""
    out = np.zeros(len(views), VIEW)
    for row, view in zip(out, views):
        row["scale"], row["ratio"], row["sigma"] = view.scale, view.ratio, view.blur_sigma
        row["log_ratio"] = [math.log(r) for r in view.ratio]
        row["rows"], row["columns"] = view.shape
        for name in ("flip", "jitter", "jitter_p", "gray", "blur", "solarize"):
            row[name] = getattr(view, name)
        for name in ("vertical", "turns", "erase"):
            row[name] = getattr(view, name)
        row["fill"][: len(view.fill) if len(view.fill) > 1 else None] = view.fill
        row["bicubic"] = view.interpolation == "bicubic"
        row["radius"] = -1 if view.blur_radius is None else min(view.blur_radius, 1 << 30)
    out.flags.writeable = False
    return out


def uniforms(seed: int, epochs: np.ndarray, indices: np.ndarray, draws: int) -> np.ndarray:
    """What `sample_rng(seed, epochs[i], indices[i]).random(draws)` gives, as rows of [B, draws]."""
    epochs, indices = (np.ascontiguousarray(a, np.int64) for a in (epochs, indices))
    out = np.empty((len(indices), draws))
    _need().selftaught_uniforms(
        seed, epochs.ctypes.data, indices.ctypes.data, len(indices), draws, out.ctypes.data
    )
    return out


def draw(
    views: tuple[View, ...], uniform: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> np.ndarray:
    """`View.params` for all views of all images.

    Args:
        views: V declarations.
        uniform: float64 [B, V, DRAWS], contiguous.
        heights: int32 [B], of the images.
        widths: int32 [B].

    Returns:
        `PARAMS` [B, V].
    """
    table = declared(views)
    out = np.empty((len(heights), len(views)), PARAMS)
    _need().selftaught_draw(
        table.ctypes.data,
        len(views),
        uniform.ctypes.data,
        heights.ctypes.data,
        widths.ctypes.data,
        len(heights),
        out.ctypes.data,
    )
    return out


def render(
    images: np.ndarray,
    channels: int,
    views: tuple[View, ...],
    params: np.ndarray,
    outs: Sequence[int],
    threads: int = 1,
    processor: int = 2,
) -> None:
    """Render all views of all images.

    Args:
        images: `IMAGE` [B].
        channels: of every image.
        views: V declarations.
        params: `PARAMS` [B, V].
        outs: V addresses; view v of image i is written at outs[v] + i * channels * rows * columns.
        threads: that share the images.
        processor: what may be used of it, to compare: 0 baseline, 1 AVX2, 2 all.

    Raises:
        UserError: A size, an image or parameters are out of range; nothing was written.
        MemoryError: There is none left.
    """
    where = ctypes.c_int64()
    status = _need().selftaught_render(
        images.ctypes.data,
        len(images),
        channels,
        declared(views).ctypes.data,
        len(views),
        params.ctypes.data,
        (ctypes.c_void_p * len(outs))(*outs),
        threads,
        processor,
        ctypes.byref(where),
    )
    if status == 4:
        raise MemoryError("no memory left to render views")
    if status:
        raise UserError(_REFUSALS[status].format(where=where.value))


def decode_jpeg(
    data: bytes,
    height: int,
    width: int,
    params: np.ndarray,
    memory: np.ndarray,
    scale: int = 1,
    processor: int = 2,
) -> np.ndarray | None:
    """Those pixels of a JPEG that views look at, equal to libjpeg-turbo's; None: it is for others.

    Args:
        data: of the file.
        height: that its header tells.
        width: likewise.
        params: `PARAMS` [V], of the views.
        memory: uint8, at least 4 bytes for each pixel.
        scale: 1, or 2, 4, 8: the image is decoded that much smaller.
        processor: as for `render`.

    Returns:
        uint8 [height / scale, width / scale, 3], rounded up, in `memory`; what no view looks at is
        arbitrary.
    """
    if not _need().selftaught_read_jpeg(
        *(data, len(data), height, width, scale, params.ctypes.data, len(params), processor),
        memory.ctypes.data,
    ):
        return None
    height, width = -(-height // scale), -(-width // scale)
    return memory[: 4 * height * width].reshape(height, width, 4)[..., :3]


def located(
    images: Sequence[np.ndarray] | np.ndarray,
    heights: np.ndarray | int,
    widths: np.ndarray | int,
    scale: int = 1,
) -> tuple[np.ndarray, Any]:
    """Where the pixels of images are, `IMAGE` [B], and what must be kept while they are used.

    Args:
        images: uint8 [B, H, W, C], or B arrays [H, W, C]; strides as they may be.
        heights: [B], before any reduction.
        widths: [B], likewise.
        scale: by which the images were reduced.
    """
    table = np.empty(len(images), IMAGE)
    if isinstance(images, np.ndarray):
        _, _, _, channels = images.shape
        if images.strides[3] != 1 or images.strides[2] < channels:
            images = np.ascontiguousarray(images)
        first, _ = images.__array_interface__["data"]
        table["pixels"] = first + np.arange(len(images)) * images.strides[0]
        table["row"], table["step"] = images.strides[1:3]
    else:
        images = [_steps(image) for image in images]
        table["pixels"] = [image.__array_interface__["data"][0] for image in images]
        table["row"] = [image.strides[0] for image in images]
        table["step"] = [image.strides[1] for image in images]
    table["height"], table["width"], table["scale"] = heights, widths, scale
    return table, images


def _steps(image: np.ndarray) -> np.ndarray:
    """`image` if the channels of a pixel are neighbors, else a copy in which they are."""
    good = image.strides[2] == 1 and image.strides[1] >= image.shape[2]
    return image if good else np.ascontiguousarray(image)


def pack(params: Params, shape: tuple[int, int], row: Any) -> None:
    """Write drawn parameters of a view of that shape into a row of a `PARAMS` table."""
    for name in _ALIKE:
        row[name] = getattr(params, name)
    row["order"] = [*params.order, -1, -1, -1, -1][:4]
    row["whole"], row["shown"], row["unused"] = shape, 0, 0


def unpacked(row: Any) -> Params:
    """A row of a `PARAMS` table as `Params`."""
    top, left, height, width = (int(row[k]) for k in ("top", "left", "height", "width"))
    return Params(
        *(top, left, height, width),
        flip=bool(row["flip"]),
        order=tuple(k for k in row["order"].tolist() if k >= 0),
        factors=tuple(row["factors"].tolist()),
        gray=bool(row["gray"]),
        sigma=float(row["sigma"]),
        solarize=bool(row["solarize"]),
        vertical=bool(row["vertical"]),
        transpose=bool(row["transpose"]),
        erased=tuple(row["erased"].tolist()),
    )


def _need() -> ctypes.CDLL:
    opened = library()
    if opened is None:
        raise UserError("the native library is needed here: install with a C++ compiler present")
    return opened
