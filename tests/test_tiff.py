"""TIFF: as many bands as the file holds, whatever their order and compression, or a refusal."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from selftaught.data import BadSample, inspect, open_data
from selftaught.data.image.decode import decode, to_uint8
from selftaught.feed.check import check
from tests.tiffs import written

RNG = np.random.default_rng(0)


def scene(dtype: str, samples: int, height: int = 41, width: int = 53) -> np.ndarray:
    """Bands that differ; floats in [0, 1]."""
    ramp = np.linspace(0, 1, width)[None, :, None] * np.linspace(0.3, 1, samples)
    values = np.clip(ramp + RNG.uniform(-0.2, 0.2, (height, width, samples)), 0, 1)
    if dtype == "float32":
        return values.astype(np.float32)
    return (values * np.iinfo(dtype).max).astype(dtype)


def reason(data: bytes, **options) -> str:
    with pytest.raises(BadSample) as caught:
        decode(data, **options)
    return caught.value.reason


KINDS = [(d, s) for d in ("uint8", "uint16") for s in (1, 2, 3, 4, 12)] + [("float32", 6)]
LAYOUTS = [
    {"separate": separate, **grid}
    for separate in (False, True)
    for grid in ({}, {"strip": 8}, {"tile": 16})
]


@pytest.mark.parametrize("how", ["lzw", "zstd", "deflate", "packbits", "none", "lzma"])
@pytest.mark.parametrize(("dtype", "samples"), KINDS)
def test_every_band_is_read(dtype, samples, how):
    values = scene(dtype, samples)
    expected = to_uint8(values, None)
    predictors = (1, 2, 3) if dtype == "float32" else (1, 2)
    for layout in LAYOUTS:
        for predictor in predictors if how not in ("packbits", "none") else (1,):
            for order in "<>":
                data = written(values, how, predictor=predictor, order=order, **layout)
                assert inspect(data).channels == samples
                assert (decode(data, channels=samples) == expected).all(), (layout, predictor)
                if samples == 3:
                    assert (decode(data) == expected).all()
    if samples not in (1, 3):
        assert f"has {samples} channels, 3 are needed" in reason(written(values, how))


@pytest.mark.parametrize("how", ["lzw", "zstd", "deflate", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("samples", [3, 4, 5, 8])
def test_the_first_three_bands_of_color_are_the_colors(dtype, samples, how):
    values = scene(dtype, samples)
    expected = to_uint8(values, None)
    for layout in LAYOUTS:
        data = written(values, how, photometric=2, predictor=1 + (how != "none"), **layout)
        assert (decode(data)[..., :3] == expected[..., :3]).all(), layout
        assert (decode(data, channels=samples) == expected).all(), layout


def test_transparent_and_band_by_band_is_white():
    values = scene("uint8", 4)
    values[..., 3] = np.where(RNG.random(values.shape[:2]) < 0.5, 255, 0)
    clear = values[..., 3] == 0
    for layout in LAYOUTS:
        pixels = decode(written(values, "lzw", photometric=2, extra=2, **layout))
        assert (pixels[clear] == 255).all()
        assert (pixels[~clear] == values[~clear][:, :3]).all()


def test_bands_of_jpegs():
    values = np.broadcast_to(scene("uint8", 4)[:16, :1], (16, 48, 4)).copy()
    data = written(values, "jpeg", separate=True, strip=8)
    assert np.abs(decode(data, channels=4).astype(int) - values).max() < 24
    damaged = bytearray(data)
    for at in tifffile.TiffFile(io.BytesIO(data)).pages[0].dataoffsets[2:3]:
        size = data.index(b"\xff\xd9", at) - at
        damaged[at + size - size // 8 : at + size - size // 8 + 2] = b"\xff\xd9"  # an early end
    assert "damaged inside" in reason(bytes(damaged), channels=4)


def test_jpegs_of_interleaved_bands_are_read_whole_or_refused():
    pytest.importorskip("imagecodecs")
    values = np.broadcast_to(scene("uint8", 4)[:16, :1], (16, 48, 4)).copy()
    file = io.BytesIO()
    options = {"photometric": "minisblack", "planarconfig": "contig", "rowsperstrip": 8}
    tifffile.imwrite(file, values, compression="jpeg", **options)
    data = file.getvalue()
    assert np.abs(decode(data, channels=4).astype(int) - values).max() < 48
    (at, *_), (size, *_) = (
        getattr(tifffile.TiffFile(io.BytesIO(data)).pages[0], name)
        for name in ("dataoffsets", "databytecounts")
    )
    damaged = bytearray(data)
    damaged[at + size - size // 8 : at + size - size // 8 + 2] = b"\xff\xd9"
    assert "damaged inside" in reason(bytes(damaged), channels=4)


def test_a_compression_without_a_codec_is_named():
    data = bytearray(written(scene("uint16", 12), "lzw"))
    for code, name in ((34887, "LERC"), (34712, "JPEG2000"), (50002, "JPEGXL"), (7, "JPEG")):
        at = data.index(b"\x03\x01\x03\0\x01\0\0\0")
        data[at + 8 : at + 12] = code.to_bytes(4, "little")
        said = reason(bytes(data), channels=12)
        assert f"12 x 16 bit is compressed with {name}" in said
        assert "selftaught[tiff]" in said
        assert "LZW" in said


@pytest.mark.parametrize("how", ["lzw", "zstd", "deflate", "none"])
@pytest.mark.parametrize("separate", [False, True])
def test_a_damaged_strip_is_refused_or_black(how, separate):
    values = np.maximum(scene("uint16", 5), 1000)
    data = written(values, how, separate=separate, strip=8)
    page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    if how in ("zstd", "deflate"):
        damaged = bytearray(data)
        begin = page.dataoffsets[1]  # bytes inside are values, of which zstd has no checksum
        at = begin if how == "zstd" else begin + page.databytecounts[1] // 2
        damaged[at : at + 30] = bytes(30)
        assert "TIFF" in reason(bytes(damaged), channels=5)
        pixels = decode(bytes(damaged), channels=5, truncated="keep")
        expected = to_uint8(values, None)
        bands = slice(0, 1) if separate else slice(None)
        assert (pixels[8:16, :, bands] == 0).all()
        rest = np.delete(pixels, slice(8, 16), 0)
        assert (rest == np.delete(expected, slice(8, 16), 0)).all()


@pytest.mark.parametrize("how", [None, "zlib"])
@pytest.mark.parametrize("separate", [False, True])
def test_a_tiff_that_ends_early_is_truncated(how, separate):
    values, out = np.maximum(scene("uint16", 5), 1000), io.BytesIO()
    ordered = np.moveaxis(values, 2, 0) if separate else values
    config = "separate" if separate else "contig"
    options = {"photometric": "minisblack", "planarconfig": config, "rowsperstrip": 8}
    tifffile.imwrite(out, ordered, compression=how, **options)
    data = out.getvalue()
    assert (decode(data, channels=5) == to_uint8(values, None)).all()
    half = data[: tifffile.TiffFile(io.BytesIO(data)).pages[0].dataoffsets[2] + 9]
    assert "truncated" in reason(half, channels=5)
    kept = decode(half, channels=5, truncated="keep")
    bands = slice(0, 1) if separate else slice(None)
    assert (kept[:16, :, bands] == to_uint8(values, None)[:16, :, bands]).all()
    assert (kept[-1] == 0).all()


def test_color_tiffs_whose_jpegs_are_damaged_are_refused():
    out = io.BytesIO()
    smooth = Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((192, 144), 3)
    smooth.save(out, "TIFF", compression="jpeg", quality=90)
    data = out.getvalue()
    page = tifffile.TiffFile(io.BytesIO(out.getvalue())).pages[0]
    at, size = page.dataoffsets[0], page.databytecounts[0]
    assert decode(data).shape == (144, 192, 3)
    damaged = data[: at + size // 2] + bytes(size // 4) + data[at + size // 2 + size // 4 :]
    assert "TIFF is damaged inside" in reason(damaged)
    assert decode(damaged, truncated="keep").shape == (144, 192, 3)


def test_check_says_of_bands_what_training_does(tmp_path):
    (tmp_path / "a.tif").write_bytes(written(scene("uint16", 12), "lzw", separate=True, tile=16))
    right, wrong = (check(tmp_path, workers=0, channels=c) for c in (12, 3))
    assert (right.readable, right.channels) == (1, ((12, 1),))
    assert open_data(tmp_path, channels=12).open(0).read()[0].shape == (41, 53, 12)
    assert wrong.readable == 0
    assert "has 12 channels" in wrong.bad[0][1]
    with pytest.raises(BadSample, match="has 12 channels"):
        open_data(tmp_path).open(0)
