"""Values that are missing, ranges that are advised, and pixels that no picture has."""

import io
import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from selftaught.data import MAX_PIXELS, BadSample, inspect, open_data
from selftaught.data.image.decode import DENSE, SMALL, decode
from selftaught.feed.check import check
from tests.tiffs import written

RNG = np.random.default_rng(0)


def reason(data: bytes, **options) -> str:
    with pytest.raises(BadSample) as caught:
        decode(data, **options)
    return caught.value.reason


def saved(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


# ------------------------------------------------------------------------------------------ nodata


def heights(kind: str = "float32") -> np.ndarray:
    """[20, 30, 1] from 0 to 1, whose first row is to be missing."""
    return RNG.uniform(0, 1, (20, 30, 1)).astype(kind)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_missing_values_need_a_word_and_then_become_black(missing):
    values = heights()
    expected = np.rint(values * 255).astype(np.uint8)
    values[0], expected[0] = missing, 0
    for data in (written(values, nodata="nan"), written(values, "none"), saved(values[..., 0])):
        said = reason(data, channels=1)
        assert "5 %" in said
        assert "--nodata 0" in said
        assert (decode(data, channels=1, nodata=0) == expected).all()
        assert (decode(data, channels=1, nodata=np.nan) == expected).all()
        half = decode(data, channels=1, nodata=0.5)
        assert (half[0] == 128).all()
        assert (half[1:] == expected[1:]).all()


def test_the_value_that_a_geotiff_names_is_missing():
    values = heights()
    expected = np.rint(values * 255).astype(np.uint8)
    values[0], expected[0] = -9999, 0
    data = written(values, predictor=3, nodata="-9999")
    said = reason(data, channels=1)
    assert "-9999 stands for no data: --nodata -9999" in said
    assert "from -9999" not in said  # the range that is advised is that of the data
    for nodata in (-9999, 0, np.nan):
        assert (decode(data, channels=1, nodata=nodata) == expected).all()
    unnamed = written(values)
    assert (decode(unnamed, channels=1, nodata=-9999) == expected).all()


def test_missing_values_in_a_range_and_of_whole_numbers():
    values = heights()
    values = values * 40 - 20
    values[0] = np.nan
    data = written(values, nodata="nan")
    pixels = decode(data, channels=1, value_range=(-20, 20), nodata=0)
    assert (pixels[0] == 128).all()
    assert np.abs(pixels[1:] - (values[1:] + 20) / 40 * 255).max() <= 0.51
    assert (decode(data, channels=1, value_range=(-20, 20), nodata=-9999)[0] == 0).all()
    for kind in ("uint16", "uint8"):
        whole = RNG.integers(1, 200, (20, 30, 1)).astype(kind)
        top = np.iinfo(kind).max
        whole[0] = top
        data = written(whole, nodata=str(top))
        assert (decode(data, channels=1)[0] == 255).all()  # as ever: its white is defined
        if kind == "uint16":
            assert (decode(data, channels=1, nodata=0)[0] == 0).all()
            assert (decode(data, channels=1, nodata=0)[1:] == decode(data, channels=1)[1:]).all()
    deep = RNG.integers(-500, 500, (20, 30, 1)).astype("int16")
    deep[0] = -32768
    data = written(deep, nodata="-32768")
    assert "from -50" in reason(data, channels=1)
    assert (decode(data, channels=1, value_range=(-500, 500), nodata=-500)[0] == 0).all()


def test_missing_values_of_a_folder(tmp_path):
    for i in range(4):
        values = heights()
        values[:5] = np.nan
        (tmp_path / f"{i}.tif").write_bytes(written(values, nodata="nan"))
    report = check(tmp_path, workers=0)
    assert dict(report.unreadable) == {"values that are missing": 4}
    assert check(tmp_path, workers=0, nodata=0).readable == 4
    assert open_data(tmp_path, nodata=0.5).open(2).read()[0][0, 0].tolist() == [128] * 3
    assert open_data(np.stack([heights()] * 3), channels=1, nodata=0).read(1).shape == (20, 30, 1)


def test_the_range_that_is_advised_is_that_of_the_folder(tmp_path):
    for i in range(5):
        values = np.linspace(-i, 10 * i + 2, 600, dtype=np.float32).reshape(20, 30, 1)
        (tmp_path / f"{i}.tif").write_bytes(written(values, "none"))
    samples = open_data(tmp_path)
    for i in (0, 2, 4):
        with pytest.raises(BadSample, match=r"--value-range -4,42, the range of 5 of 5 images"):
            samples.read(i)
    with pytest.raises(BadSample, match=r"--value-range -4,42"):
        samples.open(1)
    assert "--value-range -4,42" in check(tmp_path, workers=0).bad[0][1]
    assert check(tmp_path, workers=0, value_range=(-4, 42)).readable == 5


# ------------------------------------------------------------------------------------------ bombs


def png(width: int, height: int, bits: int, color: int) -> bytes:
    """A PNG of zeros alone, hence of next to nothing."""
    samples = {0: 1, 2: 3}[color]
    pack, row = zlib.compressobj(9), bytes(1 + width * bits * samples // 8)
    many = row * 64
    content = [pack.compress(many) for _ in range(height // 64)]
    content += [pack.compress(row * (height % 64)), pack.flush()]
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", b"".join(content)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


def jpeg(width: int, height: int) -> bytes:
    """A small progressive JPEG that says that it is a large one."""
    out = io.BytesIO()
    Image.new("L", (64, 64)).save(out, "JPEG", progressive=True)
    data = bytearray(out.getvalue())
    at = data.index(b"\xff\xc2")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS = {
    "one bit": partial(png, 13_000, 13_000, 1, 0),
    "color": partial(png, 8_000, 8_000, 8, 2),
    "jpeg": partial(jpeg, 13_000, 13_000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_of_many_pixels_is_refused_with_the_way_out(kind):
    data = BOMBS[kind]()
    said = reason(data)
    pixels = inspect(data).width * inspect(data).height
    assert "too many for a picture" in said
    assert "GB of memory" in said
    assert f"--max-pixels {pixels}" in said
    with pytest.raises(BadSample, match="too many for a picture"):
        open_data([data]).open(0).read()
    for full in (True, False):
        report = check([data], workers=0, full=full)
        assert dict(report.unreadable) == {"too many pixels": 1}


def test_bombs_in_arrays():
    out = io.BytesIO()
    np.savez_compressed(out, image=np.zeros((7000, 7000), np.uint8))
    assert "too many for a picture" in reason(out.getvalue())
    assert inspect(out.getvalue()).width == 7000
    with pytest.raises(BadSample, match="which no array has"):
        decode(saved(np.zeros((3, 4))).replace(b"(3, 4)", b"(-3,4)"))


def test_what_is_large_and_allowed_or_a_picture_is_read():
    flat = png(6_400, 6_400, 1, 0)
    assert "too many for a picture" in reason(flat)
    assert decode(flat, channels=1, max_pixels=6_400 * 6_400).shape == (6_400, 6_400, 1)
    ordinary = png(6_000, 6_000, 1, 0)  # a blank page
    assert decode(ordinary, channels=1).shape == (6_000, 6_000, 1)
    noise = RNG.integers(0, 256, (6_400, 200), dtype=np.uint8)
    aerial = np.tile(noise, (1, 32))[..., None]
    assert decode(written(aerial, "lzw", strip=64), channels=1).shape == (6_400, 6_400, 1)
    assert SMALL < 6_400 * 6_400 < MAX_PIXELS
    assert DENSE * len(flat) < 6_400 * 6_400
