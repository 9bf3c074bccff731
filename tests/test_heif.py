"""HEIC photos, with the extra `heif`: right pixels, upright, or refused with a reason."""

import io

import numpy as np
import PIL.Image
import pytest

from selftaught.data import BadSample, inspect, open_data
from selftaught.data.image.decode import decode

heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")


def heic(pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    heif.from_pillow(PIL.Image.fromarray(pixels)).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth, so that little is lost; its corners are unlike."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 4, (x + y) * 2], -1).clip(0, 255).astype(np.uint8)


def test_pixels_and_header():
    data = heic(picture())
    about = inspect(data)
    assert (about.width, about.height, about.channels, about.format) == (64, 48, 3, "HEIC")
    got = decode(data).astype(int)
    assert np.abs(got - picture()).max() <= 4
    gray = decode(data, channels=1)
    assert gray.shape == (48, 64, 1)


def test_turned_photos_are_upright():
    exif = PIL.Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees
    got = decode(heic(picture(), exif=exif.tobytes())).astype(int)
    assert got.shape == (64, 48, 3)
    assert np.abs(got - np.rot90(picture(), -1)).max() <= 4


def test_a_folder(tmp_path):
    for name in ("a.HEIC", "b.heif", "c"):  # the last is known by its first bytes
        (tmp_path / name).write_bytes(heic(picture()))
    samples = open_data(tmp_path)
    assert len(samples) == 3
    assert not samples.skipped.sentence()
    assert samples.read(0).shape == (48, 64, 3)


def test_damage_is_refused():
    data = heic(picture())
    for broken in (data[:40], data[: len(data) // 2], data[:200] + bytes(len(data) - 200)):
        with pytest.raises(BadSample):
            decode(broken)


def test_nothing_is_registered_for_others():
    decode(heic(picture()))
    assert "HEIF" not in PIL.Image.OPEN
