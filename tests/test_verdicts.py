"""`check` and training read the same files: what one refuses the other refuses, for one reason."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selftaught import augment
from selftaught.augment.image.batch import Rngs
from selftaught.data import BadSample, open_data
from selftaught.feed.check import check
from tests.test_damage import DAMAGE, HARMLESS, JPEGS, PHOTO, saved
from tests.tiffs import written

RNG = np.random.default_rng(0)
FORMATS = {
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "webp": ("WEBP", {}),
    "lossless.webp": ("WEBP", {"lossless": True}),
    "avif": ("AVIF", {}),
    "jp2": ("JPEG2000", {}),
    "bmp": ("BMP", {}),
    "tga": ("TGA", {}),
    "ppm": ("PPM", {}),
    "qoi": ("QOI", {}),
    "none.tif": ("TIFF", {}),
    "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "deflate.tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "jpeg.tif": ("TIFF", {"compression": "jpeg"}),
}
CHECKED = ("png", "gif", "deflate.tif", "jpeg.tif")  # formats in which lost bytes show


def lost(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + data[middle + len(data) // 5 :]


def blank(data: bytes) -> bytes:
    """A sector of zeros."""
    middle = len(data) // 2
    return data[:middle] + bytes(512) + data[middle + 512 :]


def corpus(root: Path) -> None:
    """Good and damaged files of every format, and of what is refused for itself."""
    files = {f"good.{k}.jpg": data for k, data in JPEGS.items()}
    files |= {f"{d.__name__}.{k}.jpg": d(data) for k, data in JPEGS.items() for d in DAMAGE}
    files |= {f"harmless {k}.jpg": data for k, data in HARMLESS.items()}
    files |= {f"half.{k}.jpg": data[: len(data) // 2] for k, data in JPEGS.items()}
    for name, (kind, options) in FORMATS.items():
        data = saved(PHOTO, kind, **options)
        files[f"good.{name}"] = data
        files[f"lost.{name}"], files[f"blank.{name}"] = lost(data), blank(data)
        files[f"half.{name}"] = data[: len(data) // 2]
    deep = RNG.integers(0, 65536, (40, 50, 3)).astype("uint16")
    for how in ("lzw", "zstd", "deflate"):
        for separate in (False, True):
            data = written(deep, how, separate=separate, tile=16, predictor=2)
            files[f"good.{how}{separate:d}.tif"], files[f"blank.{how}{separate:d}.tif"] = (
                data,
                blank(data),
            )
    files["bands.tif"] = written(deep[..., :2], "lzw")
    floats = RNG.normal(size=(40, 50, 3)).astype(np.float32)
    files["floats.tif"] = written(floats)
    floats[0] = np.nan
    files["nan.tif"] = written(floats)
    out = io.BytesIO()
    np.save(out, deep)
    files["good.npy"], files["half.npy"] = out.getvalue(), out.getvalue()[:4000]
    files["empty.jpg"], files["text.jpg"] = b"", b"no image at all, but text"
    files["bomb.png"] = saved(Image.new("1", (9000, 9000)), "PNG")
    for name, data in files.items():
        (root / name).write_bytes(data)


def said(reader) -> str:
    """Why a file is refused, nothing where it is read."""
    try:
        reader()
    except BadSample as error:
        return error.reason
    return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    corpus(root)
    return root


@pytest.mark.parametrize("truncated", ["skip", "keep"])
@pytest.mark.parametrize("reduced", [False, True])
def test_check_and_training_agree_about_every_file(folder, truncated, reduced):
    report = check(folder, workers=0, truncated=truncated)
    told = dict(report.bad)
    samples = open_data(folder, truncated=truncated)
    pipeline = augment.simclr(24)
    read: dict[str, str] = {}
    for i in range(len(samples)):
        one = open_data([str(folder / samples.name(i))], truncated=truncated)
        readers = (
            lambda one=one: pipeline.batch(one, Rngs(0, [(0, 0)]), reduced=reduced),
            lambda i=i: samples.open(i).read(),
            lambda i=i: samples.read(i, 40),
        )
        reasons = {said(reader) for reader in readers}
        assert len(reasons) == 1, (samples.name(i), reasons)
        if why := reasons.pop():
            read[samples.name(i)] = why
    assert read == told
    good = {n for n in map(samples.name, range(len(samples))) if n.startswith(("good", "harmless"))}
    assert not good & set(told)
    assert {"bands.tif", "floats.tif", "nan.tif", "empty.jpg", "text.jpg", "bomb.png"} <= set(told)
    if truncated == "skip":
        damaged = {f"{d.__name__}.{k}.jpg" for k in JPEGS for d in DAMAGE}
        damaged |= {f"{d}.{k}" for k in CHECKED for d in ("lost", "blank", "half")}
        damaged |= {f"half.{k}" for k in FORMATS} | {f"half.{k}.jpg" for k in JPEGS}
        assert damaged <= set(told)
    else:
        assert not {f"halved.{k}.jpg" for k in JPEGS} & set(told)
        assert not {f"half.{k}.jpg" for k in JPEGS} & set(told)
