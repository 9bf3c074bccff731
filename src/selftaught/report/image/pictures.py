"""Images for a page: encoded, as data URLs, and many in one."""

import base64
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from selftaught import kinds
from selftaught.data import Samples
from selftaught.report.html import figure, quote

THUMB = 96
"""Side of an image on the page, in pixels."""


def write_png(image: np.ndarray, path: Path) -> None:
    """Write uint8 [C, h, w], of 1 or the first 3 channels, whole and as it is."""
    shown = image[:3] if len(image) >= 3 else image[:1]
    Picture.fromarray(shown.transpose(1, 2, 0).squeeze()).save(path, "png")


def write_mask(mask: np.ndarray, colors: np.ndarray, path: Path) -> None:
    """Write uint8 [h, w] whose values `colors`, uint8 [K, 3], show: a PNG with a palette."""
    picture = Picture.fromarray(mask)
    picture.putpalette(colors.tobytes())
    picture.save(path, "png")


def encode(image: np.ndarray) -> tuple[bytes, str]:
    """uint8 [C, h, w] as a "png" where it is small, otherwise a "jpeg".

    Of any channels; 1 or the first 3 are shown.
    """
    picture = _picture(image)
    picture.thumbnail((2 * THUMB, 2 * THUMB))
    kind = "png" if max(picture.size) <= 64 else "jpeg"
    out = io.BytesIO()
    picture.save(out, kind, **({"optimize": True} if kind == "png" else {"quality": 82}))
    return out.getvalue(), kind


def jpeg(image: np.ndarray) -> bytes:
    """uint8 [C, h, w] of any channels as a JPEG."""
    out = io.BytesIO()
    _picture(image).save(out, "jpeg", quality=82)
    return out.getvalue()


def url(data: bytes, kind: str) -> str:
    """What `encode` gave, as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def shown(samples: Samples, i: int, name: str = "", caption: str = "", style: str = "") -> str:
    """A sample as a figure: its picture, or its words where it has some.

    Args:
        samples: the data.
        i: which of it.
        name: what it is called; its own name unless given.
        caption: line below.
        style: of the figure.

    Raises:
        BadSample: it cannot be read.
    """
    kind, name = kinds.of(samples), name or samples.name(i)
    sample = samples.read(i, min_side=2 * THUMB)
    if words := kind.said(sample):
        return quote(words, name, caption, style)
    return figure(data_url(kind.thumbnail(sample, THUMB)), name, caption, style)


def animated(frames: np.ndarray) -> bytes:
    """uint8 [T, 3, h, w] as a WebP of eight frames a second that is repeated without end."""
    first, *others = [Picture.fromarray(frame.transpose(1, 2, 0)) for frame in frames]
    file, more = io.BytesIO(), {"save_all": True, "append_images": others, "loop": 0}
    first.save(file, "WEBP", duration=125, quality=50, **more)  # some 30 kilobytes
    return file.getvalue()


def data_url(image: np.ndarray) -> str:
    """`encode`, as a data URL."""
    return url(*encode(image))


def sprite(images: np.ndarray, side: int) -> tuple[str, int]:
    """Many images as one, row by row.

    Args:
        images: uint8 [N, C, h, w].
        side: of each in the result, in pixels.

    Returns:
        A data URL of a JPEG, and how many images a row has.
    """
    columns = math.ceil(math.sqrt(len(images)))
    sheet = Picture.new("RGB", (columns * side, math.ceil(len(images) / columns) * side))
    for i, image in enumerate(images):
        picture = _picture(image).convert("RGB").resize((side, side), Picture.Resampling.BOX)
        sheet.paste(picture, (i % columns * side, i // columns * side))
    out = io.BytesIO()
    sheet.save(out, "jpeg", quality=75)
    return url(out.getvalue(), "jpeg"), columns


def _picture(image: np.ndarray) -> Picture.Image:
    if len(image) < 3:
        return Picture.fromarray(image[0])
    return Picture.fromarray(np.ascontiguousarray(image[:3].transpose(1, 2, 0)))
