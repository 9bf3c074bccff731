"""Reading samples: every kind of image right or refused, every source, nothing run or leaked."""

import csv
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import warnings
import zlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from selftaught.augment import plain
from selftaught.data import BadSample, Samples, inspect, open_data
from selftaught.data import quarantine as bad_list
from selftaught.data.files import walk
from selftaught.data.image.decode import decode, to_uint8
from selftaught.data.image.formats import sniff
from selftaught.data.tar import expand, scan
from selftaught.errors import UserError
from selftaught.feed.order import replacement

RNG = np.random.default_rng(0)
SMOOTH = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((64, 48), 3)
)


def encoded(image, kind="PNG", **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tiff(array, **options) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **{"photometric": "minisblack", **options})
    return out.getvalue()


def png(rows: np.ndarray, color: int, *, extra: bytes = b"") -> bytes:
    """A 16-bit PNG, which Pillow writes for gray only."""
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 16, color, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    if extra:
        parts.insert(1, (b"tRNS", extra))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts
    )


def reason(data: bytes, **options) -> str:
    with pytest.raises(BadSample) as caught:
        decode(data, **options)
    return caught.value.reason


def images(folder, names, size=(12, 9)):
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i % 256, 7, 9)).save(path, "PNG")


# -------------------------------------------------------------------------------------- decoding


def test_gray_and_palette_and_one_bit_become_rgb():
    gray = SMOOTH[..., 0]
    assert (decode(encoded(gray)) == gray[..., None]).all()
    assert decode(encoded(gray)).shape == (48, 64, 3)
    palette = Image.fromarray(SMOOTH).quantize(16)
    assert (decode(encoded(palette)) == np.asarray(palette.convert("RGB"))).all()
    bits = Image.fromarray(gray > 100)
    assert (decode(encoded(bits))[..., 1] == np.where(gray > 100, 255, 0)).all()


def test_what_is_read_can_be_written_to():
    for data in (encoded(SMOOTH), encoded(SMOOTH[..., 0]), tiff(SMOOTH.astype(np.uint16))):
        pixels = decode(data)
        assert pixels.flags.writeable
        assert pixels.flags.c_contiguous
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L", "RGB"])
def test_transparent_is_white(mode):
    image = Image.new("RGBA", (4, 2), (10, 20, 30, 255))
    image.putpixel((0, 0), (10, 20, 30, 0))
    if mode in ("LA", "RGBA"):
        data = encoded(image.convert(mode))
    else:
        # one color (or index) stands for transparent
        plain = Image.new("RGB", (4, 2), (10, 20, 30))
        plain.putpixel((0, 0), (1, 2, 3))
        plain = plain.quantize(4) if mode == "P" else plain.convert(mode)
        data = encoded(plain, transparency=plain.getpixel((0, 0)))
    pixels = decode(data)
    assert (pixels[0, 0] == 255).all()
    assert (pixels[1, 3] < 40).all()


def test_alpha_is_blended_with_rounding():
    rgba = RNG.integers(0, 256, (9, 11, 4), dtype=np.uint8)
    a = rgba[..., 3:].astype(float) / 255
    expected = rgba[..., :3] * a + 255 * (1 - a)
    assert np.abs(decode(encoded(rgba)).astype(float) - expected).max() <= 1


def test_16_bit_gray_is_scaled_not_saturated():
    gray = RNG.integers(0, 65536, (7, 9), dtype=np.uint16)
    expected = np.rint(gray / 257).astype(np.uint8)
    for data in (png(gray, 0), tiff(gray), tiff(gray, byteorder=">"), tiff(gray, compression=8)):
        assert (decode(data)[..., 0] == expected).all()
    assert inspect(png(gray, 0)).depth == 16


def test_16_bit_transparent_value_is_white():
    gray = np.full((2, 3), 1000, dtype=np.uint16)
    gray[0, 0] = 1001
    pixels = decode(png(gray, 0, extra=struct.pack(">H", 1001)))
    assert pixels[0, 0, 0] == 255
    assert pixels[1, 1, 0] == 4


def test_16_bit_color_is_within_one_level():
    color = RNG.integers(0, 65536, (7, 9, 3), dtype=np.uint16)
    expected = np.rint(color / 257)
    assert np.abs(decode(png(color, 2)).astype(int) - expected).max() <= 1
    assert (decode(tiff(color, photometric="rgb")) == expected).all()
    assert (
        decode(tiff(np.moveaxis(color, 2, 0), planarconfig=2, photometric="rgb")) == expected
    ).all()


def test_12_bits_in_16_use_their_own_range():
    values = np.array([[0, 2048, 4095]], dtype=np.uint16)
    assert to_uint8(values, None, 12).tolist() == [[0, 128, 255]]
    assert decode(png(values, 0), value_range=(0, 4095))[0, :, 0].tolist() == [0, 128, 255]


def test_white_is_zero():
    gray = RNG.integers(0, 65536, (4, 5), dtype=np.uint16)
    assert (decode(tiff(gray, photometric="miniswhite"))[..., 0] == 255 - np.rint(gray / 257)).all()
    eight = RNG.integers(0, 256, (4, 5), dtype=np.uint8)
    assert (decode(tiff(eight, photometric="miniswhite"))[..., 0] == 255 - eight).all()


def test_float_images_lie_in_0_to_1_or_need_a_range():
    for kind in (np.float16, np.float32, np.float64):
        unit = RNG.random((5, 6)).astype(kind)
        assert (decode(tiff(unit))[..., 0] == np.rint(unit.astype(float) * 255)).all()
    wide = tiff(np.array([[-3.0, 0.0, 5.0]], dtype=np.float32))
    assert "--value-range -3,5" in reason(wide)
    assert decode(wide, value_range=(-3, 5))[0, :, 0].tolist() == [0, 96, 255]
    assert "not finite" in reason(tiff(np.array([[0.5, np.nan]], dtype=np.float32)))
    assert "not finite" in reason(
        tiff(np.array([[0.5, np.nan]], dtype=np.float32)), value_range=(0, 1)
    )


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "u4"])
def test_integers_without_a_defined_white_are_refused(kind):
    values = np.array([[0, 50, 100]], dtype=kind)
    assert "white is not defined" in reason(tiff(values))
    assert decode(tiff(values), value_range=(0, 100))[0, :, 0].tolist() == [0, 128, 255]


def test_value_range_leaves_8_bits_alone():
    assert (decode(encoded(SMOOTH), value_range=(0, 10)) == SMOOTH).all()
    assert "cannot apply" in reason(png(RNG.integers(0, 9, (2, 2, 3)), 2), value_range=(0, 10))


def test_cmyk_of_adobe_is_not_a_negative():
    cmyk = Image.fromarray(SMOOTH).convert("CMYK")
    pixels = decode(encoded(cmyk, "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 6
    assert np.abs(decode(encoded(cmyk, "TIFF")).astype(int) - SMOOTH).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(kind, orientation):
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # how it was stored: the inverse of what is shown
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(SMOOTH)
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(stored, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    pixels = decode(data)
    assert pixels.shape == SMOOTH.shape
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 6
    header = inspect(data)
    assert (header.width, header.height) == (64, 48)


def test_16_bit_tiff_is_turned_too():
    gray = RNG.integers(0, 65536, (4, 6), dtype=np.uint16)
    data = tiff(np.rot90(gray), extratags=[(274, 3, 1, 6, True)])
    assert (decode(data)[..., 0] == np.rint(gray / 257)).all()
    assert (inspect(data).width, inspect(data).height) == (6, 4)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated_files_give_their_first_frame(kind):
    red, blue = Image.new("RGB", (9, 7), "red"), Image.new("RGB", (9, 7), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(red, kind, save_all=True, append_images=[blue], **options)
    assert (decode(data) == (255, 0, 0)).all()
    assert inspect(data).frames == 2


@pytest.mark.parametrize("channels", [2, 4, 5, 13])
def test_many_bands(channels):
    bands = RNG.integers(0, 256, (6, 7, channels), dtype=np.uint8)
    data = tiff(bands, photometric="minisblack", planarconfig="contig")
    assert (decode(data, channels=channels) == bands).all()
    assert inspect(data).channels == channels
    assert f"has {channels} channels, 3 are needed (--channels {channels}" in reason(data)
    wide = (bands.astype(np.uint16)) * 257
    assert (
        decode(
            tiff(wide, photometric="minisblack", planarconfig="contig", compression=8),
            channels=channels,
        )
        == bands
    ).all()


def test_four_channels_are_kept_as_data():
    rgba = RNG.integers(0, 256, (3, 4, 4), dtype=np.uint8)
    assert (decode(encoded(rgba), channels=4) == rgba).all()
    assert "has 3 channels, 4 are needed" in reason(encoded(SMOOTH), channels=4)


def test_one_channel_is_luma():
    pixels = decode(encoded(SMOOTH), channels=1)
    assert pixels.shape == (48, 64, 1)
    luma = SMOOTH @ np.array([0.299, 0.587, 0.114])
    assert np.abs(pixels[..., 0] - luma).max() <= 1


def test_arrays_in_files():
    def saved(array):
        out = io.BytesIO()
        np.save(out, array)
        return out.getvalue()

    assert (decode(saved(SMOOTH)) == SMOOTH).all()
    assert (decode(saved(SMOOTH[..., 0]), channels=1)[..., 0] == SMOOTH[..., 0]).all()
    bands = RNG.random((4, 5, 6)).astype(np.float32)
    assert (decode(saved(bands), channels=6) == np.rint(bands * 255)).all()
    assert "224 channels, 3 are needed" in reason(saved(np.zeros((3, 2, 224), np.uint8)))
    assert "million pixels" in reason(saved(SMOOTH), max_pixels=100)
    objects = io.BytesIO()
    np.save(objects, np.array([[{}]], dtype=object), allow_pickle=True)
    assert "Python objects" in reason(objects.getvalue())


def test_sizes_of_one_pixel_and_long_strips():
    for size in ((1, 1), (400, 3), (1, 900)):
        assert decode(encoded(Image.new("L", size, 9))).shape == (size[1], size[0], 3)


def test_absurd_sizes_are_refused_before_decoding():
    rows = zlib.compress(bytes(30_000 // 8 + 1) * 100)
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
        for k, d in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    )
    bomb = b"\x89PNG\r\n\x1a\n" + chunks
    assert "30000 x 30000 = 900 million pixels, more than 179 million" in reason(bomb)
    assert inspect(bomb).width == 30_000
    assert "million pixels" in reason(tiff(np.zeros((50, 50), np.uint16)), max_pixels=2499)
    assert decode(tiff(np.zeros((50, 50), np.uint16)), max_pixels=2500).shape == (50, 50, 3)
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


_ENCODINGS = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "webp": ("WEBP", {}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "avif": ("AVIF", {}),
    "jpeg2000": ("JPEG2000", {}),
    "tiff": ("TIFF", {}),
    "bmp": ("BMP", {}),
    "ppm": ("PPM", {}),
    "tga": ("TGA", {}),
    "ico": ("ICO", {"sizes": [(48, 48)]}),
    "qoi": ("QOI", {}),
}


@pytest.mark.parametrize("kind", _ENCODINGS)
def test_no_half_image_is_read_silently(kind):
    form, options = _ENCODINGS[kind]
    data = encoded(SMOOTH, form, **options)
    name = f"x.{kind}"
    assert decode(data, name=name).shape[2] == 3
    for share in (0.02, 0.3, 0.5, 0.8, 0.97):
        with pytest.raises(BadSample):
            decode(data[: int(len(data) * share)], name=name)


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "png", "bmp", "tiff"])
def test_a_truncated_image_is_kept_when_asked(kind):
    form, options = _ENCODINGS[kind]
    rough = RNG.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    data = encoded(rough, form, **options)
    whole = decode(data)
    assert (decode(data, truncated="keep") == whole).all()
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    for size in range(len(data) * 6 // 10, len(data) * 6 // 10 + 40):
        half = data[:size]
        reason(half)
        pixels = decode(half, truncated="keep")
        assert pixels.shape == rough.shape
        rows = slice(-16, None) if kind == "bmp" else slice(16)  # it is stored from the bottom
        error = np.abs(pixels[rows].astype(int) - whole[rows]).mean()
        assert error < (40 if kind == "progressive" else 1)
    assert before == ImageFile.LOAD_TRUNCATED_IMAGES


def test_damaged_png_data_is_refused():
    data = bytearray(encoded(SMOOTH))
    at = data.index(b"IDAT") + 300
    data[at] ^= 0x40
    assert "checksum of IDAT" in reason(bytes(data))


def test_what_is_no_image_says_so():
    assert reason(b"") == "is empty (0 bytes)"
    assert "not an image" in reason(b"hello, I am a text file named .jpg", name="x.jpg")
    assert "is JPEG XL, which cannot be read" in reason(b"\xff\x0a" + bytes(20))
    assert "HEIC" in reason(b"\0\0\0\x18ftypheic" + bytes(20))
    assert "is PostScript" in reason(b"%!PS-Adobe-3.0 EPSF-3.0")  # Pillow would run Ghostscript
    assert sniff(b"\0" * 40) is None


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(str(tmp_path / "pipe.jpg")) == "is not a regular file"
    assert "cannot be opened: No such file" in reason(str(tmp_path / "gone.jpg"))
    assert "not a regular file" in reason(str(tmp_path))


def test_min_side_scales_jpegs_down_but_never_below():
    big = Image.fromarray(SMOOTH).resize((640, 480), 3)
    data = encoded(big, "JPEG", quality=95)
    assert decode(data, min_side=120).shape == (120, 160, 3)
    assert decode(data, min_side=121).shape == (240, 320, 3)
    assert decode(data, min_side=500).shape == (480, 640, 3)
    assert decode(encoded(big), min_side=120).shape == (480, 640, 3)
    small = np.asarray(big.resize((160, 120), Image.Resampling.BOX))
    assert np.abs(decode(data, min_side=120).astype(int) - small).mean() < 2


@pytest.mark.parametrize("sides", [(301, 400), (400, 303), (1333, 1000), (640, 477), (480, 640)])
def test_a_reduced_jpeg_shows_what_the_whole_shows(sides):
    fine = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8))
    data = encoded(fine.resize(sides, 3), "JPEG", quality=95)
    view = plain(64)
    whole, reduced = (view(decode(data, min_side=s)).astype(int) for s in (None, 2 * view.resize))
    assert np.abs(whole - reduced).mean() < 1, "another shape would move it"


def test_threads_decode_without_warnings_and_leave_filters_alone():
    oversized = encoded(SMOOTH, "JPEG")[:-2] + b"\xff\xe1\x00\x10Exif\0\0garbage"  # odd EXIF
    large = encoded(Image.new("1", (10_000, 9_000)))  # Pillow warns above 89 million pixels
    filters = list(warnings.filters)
    failures: list[Exception] = []

    def work():
        try:
            assert decode(large, channels=1, max_pixels=10**9).shape == (9_000, 10_000, 1)
            for _ in range(50):
                decode(oversized, truncated="keep")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert warnings.filters == filters


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(_ENCODINGS)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=8),
)
def test_damage_is_refused_or_read_and_nothing_else(kind, damage):
    form, options = _ENCODINGS[kind]
    data = bytearray(encoded(SMOOTH, form, **options))
    for where, bits in damage:
        data[min(int(where * len(data)), len(data) - 1)] ^= bits
    try:
        pixels = decode(bytes(data), name=f"x.{kind}", max_pixels=1_000_000)
    except BadSample:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3


# --------------------------------------------------------------------------------------- folders


def test_importing_the_room_imports_nothing_heavy():
    code = (
        "import sys, selftaught.data; from selftaught.data import open_data; "
        "assert not {'torch', 'pyarrow.parquet', 'rich', 'tifffile'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys, selftaught.data as d; assert not {'PIL', 'pyarrow', 'numpy'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_is_read_whole_and_in_order(tmp_path):
    names = ["b/2.png", "b/10.png", "a/ü n\nl 😀.PNG", "top.jpg", "b/deep/x.jpeg"]
    images(tmp_path, names)
    (tmp_path / "b/noext").write_bytes(encoded(SMOOTH, "JPEG"))
    (tmp_path / "b/strange.dat").write_bytes(encoded(SMOOTH, "WEBP"))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "b/LICENSE").write_text("BM is how a text may begin")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / ".cache").mkdir()
    images(tmp_path / ".cache", ["never.png"])
    samples = open_data(tmp_path)
    found = [samples.name(i) for i in range(len(samples))]
    assert sorted(found) == sorted([*names, "b/noext", "b/strange.dat"])
    assert found == [samples.name(i) for i in range(len(open_data(str(tmp_path))))]
    assert all(samples.read(i).ndim == 3 for i in range(len(samples)))
    assert samples.skipped.ignored == {".txt": 1, "": 1}
    assert samples.skipped.hidden == 2


def test_names_that_are_not_utf8(tmp_path):
    raw = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(raw, "wb") as file:
        file.write(encoded(SMOOTH))
    samples = open_data(tmp_path)
    assert (samples.read(0) == SMOOTH).all()
    bad_list.append(tmp_path / "list.csv", {samples.name(0): bad_list.Bad("x")})
    assert list(bad_list.load(tmp_path / "list.csv")) == [samples.name(0)]


def test_links_are_visited_once(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    images(root, ["real/a.png", "real/b.png"])
    images(outside, ["c.png"])
    (root / "loop").symlink_to(root)
    (root / "real/up").symlink_to("..")
    (root / "again").symlink_to(root / "real")
    (root / "far").symlink_to(outside)
    (root / "far2").symlink_to(outside)
    (root / "one.png").symlink_to(root / "real/a.png")
    (root / "two.png").symlink_to(tmp_path / "nowhere.png")
    (root / "self").symlink_to("self")
    images(tmp_path / "elsewhere", ["d.png"])
    (root / "three.png").symlink_to(tmp_path / "elsewhere/d.png")
    (root / "four.png").symlink_to(tmp_path / "elsewhere/d.png")
    samples = open_data(root)
    names = [samples.name(i) for i in range(len(samples))]
    assert sorted(names) == ["far/c.png", "four.png", "real/a.png", "real/b.png"]
    assert samples.skipped.dangling == 2
    assert samples.skipped.repeated == 6
    assert all(samples.read(i).shape == (9, 12, 3) for i in range(4))


def test_a_folder_that_cannot_be_listed_is_counted(tmp_path, monkeypatch):
    images(tmp_path, ["a/x.png", "locked/y.png"])
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    samples = open_data(tmp_path)
    assert len(samples) == 1
    assert samples.skipped.unreadable == 1


def test_class_folders_give_labels(tmp_path):
    images(tmp_path, ["cat/1.png", "cat/in/2.png", "ant/3.png", "ant/4.png", "stray.png"])
    samples = open_data(tmp_path)
    labels, classes = samples.labels, samples.classes
    assert classes == ["ant", "cat"]
    assert labels is not None
    assert labels.dtype == np.int64
    for i in range(len(samples)):
        first = samples.name(i).split("/")[0]
        assert labels[i] == (classes.index(first) if first in classes else -1)


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b.png"],
        ["only/a.png", "only/b.png"],
        ["train/a.png", "val/b.png"],
        ["a.png", "b.png", "c.png", "x/d.png", "y/e.png"],
    ],
)
def test_folders_that_are_no_classes(tmp_path, names):
    images(tmp_path, names)
    assert open_data(tmp_path).labels is None


def test_labels_from_a_csv(tmp_path):
    images(tmp_path / "photos", ["a.png", "sub/b.png", "c.png"])
    lines = "path,label\nphotos/a.png,dog\nphotos/sub/b.png,cat\n"
    (tmp_path / "labels.csv").write_text(lines)
    samples = open_data(tmp_path / "photos", labels=str(tmp_path / "labels.csv"))
    assert samples.labels is not None
    by_name = {samples.name(i): samples.labels[i] for i in range(3)}
    assert samples.classes == ["cat", "dog"]
    assert by_name == {"a.png": 1, "sub/b.png": 0, "c.png": -1}
    (tmp_path / "photos" / "other.csv").write_text("path,label\nzzz.png,1\n")
    with pytest.raises(UserError, match=r"no file in .* is listed in"):
        open_data(tmp_path / "photos", labels="other.csv")
    with pytest.raises(UserError, match="neither a file"):
        open_data(tmp_path / "photos", labels="gone.csv")


def test_labels_by_the_bare_names_of_files(tmp_path, caplog):
    """As a last resort, told, and never where a name is met twice."""
    images(tmp_path / "photos", ["a.png", "b.png", "sub/b.png", "c.png"])
    lines = (
        "path,label\n/old/dogs/a.png,dog\n/old/x/b.png,cat\n/old/x/c.png,dog\n/old/y/c.png,cat\n"
    )
    (tmp_path / "labels.csv").write_text(lines)
    samples = open_data(tmp_path / "photos", labels=str(tmp_path / "labels.csv"))
    assert samples.classes == ["dog"]
    assert [samples.name(i) for i in np.flatnonzero(samples.labels >= 0)] == ["a.png"]
    assert "labels are found by the names of files alone" in caplog.text


def test_runs_inside_a_folder_of_images_are_none_of_them(tmp_path):
    images(tmp_path, ["a.png", "sub/b.png"])
    before = open_data(tmp_path)
    images(tmp_path, ["runs/simclr/pictures/x.png", "runs/simclr/y.png"])
    (tmp_path / "runs/simclr/run.yaml").write_text("method: simclr\n")
    assert len(open_data(tmp_path)) == 2
    assert open_data(tmp_path).fingerprint == before.fingerprint
    assert open_data(tmp_path).skipped.sentence() == "1 (run)"
    assert len(open_data(tmp_path / "runs" / "simclr")) == 2  # which was asked for


def test_fingerprint_tells_data_apart(tmp_path):
    images(tmp_path / "a", ["x.png", "y.png"])
    images(tmp_path / "b", ["x.png", "y.png"])
    first = open_data(tmp_path / "a").fingerprint
    assert open_data(tmp_path / "b").fingerprint == first  # moved, but the same
    assert pickle.loads(pickle.dumps(open_data(tmp_path / "a"))).fingerprint == first
    (tmp_path / "b/y.png").write_bytes(b"longer than it was" * 9)
    assert open_data(tmp_path / "b").fingerprint != first
    images(tmp_path / "a", ["z.png"])
    assert open_data(tmp_path / "a").fingerprint != first


def test_indexing_touches_folders_not_files(tmp_path, monkeypatch):
    """What makes a million files a matter of seconds: no file is opened or even looked at."""
    for k in range(20):
        (tmp_path / f"{k:02}").mkdir()
        for i in range(100):
            (tmp_path / f"{k:02}" / f"{i:03}.jpg").touch()
    looked: list[str] = []
    real = os.stat

    def stat(path, **options):
        looked.append(str(path))
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    source = walk(str(tmp_path))
    assert len(source) == 2000
    assert len(looked) == 21
    monkeypatch.setattr("builtins.open", None)  # nothing is opened
    assert len(walk(str(tmp_path))) == 2000


def test_names_do_not_grow_in_memory(tmp_path):
    images(tmp_path, [f"{i:03}.png" for i in range(200)])
    samples = open_data(tmp_path)
    assert isinstance(samples.source.names, pa.LargeBinaryArray)  # type: ignore[attr-defined]
    assert len(pickle.dumps(samples)) < 200 * 16 + 3000


# ----------------------------------------------------------------------------------------- lists


def test_list_files(tmp_path):
    images(tmp_path / "p", ["a.png", "b, c.png"])
    (tmp_path / "list.txt").write_text("p/a.png\n\np/b, c.png\n")
    assert [open_data(tmp_path / "list.txt").name(i) for i in (0, 1)] == ["p/a.png", "p/b, c.png"]
    with open(tmp_path / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "kind"], ["p/a.png", "9"], ["p/b, c.png", "4"]])
    samples = open_data(tmp_path / "list.csv", labels="kind")
    assert samples.labels is not None
    assert samples.labels.tolist() == [9, 4]
    assert samples.read(1).shape == (9, 12, 3)
    assert open_data(tmp_path / "list.csv").labels is None
    (tmp_path / "bare.csv").write_text("p/a.png,x\np/gone.png,y\n")
    samples = open_data(tmp_path / "bare.csv")
    assert samples.classes == ["x", "y"]
    with pytest.raises(BadSample, match="cannot be opened"):
        samples.read(1)
    with pytest.raises(UserError, match="has no column color; it has file, kind"):
        open_data(tmp_path / "list.csv", labels="color")


@pytest.mark.parametrize("text", ["path,label\n", "path,label\n,0\n ,1\n", "id;path\n"])
def test_a_list_of_column_names_alone_is_told(text, tmp_path):
    images(tmp_path, ["a.png"])
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=r"has the columns .*path.* and no line that names a file"):
        open_data(tmp_path / "list.csv")


# ---------------------------------------------------------------------------------------- tables


def table(n, kind="bytes"):
    data = [encoded(np.full((5, 6, 3), i, np.uint8)) for i in range(n)]
    if kind == "struct":
        cells = pa.array([{"bytes": d, "path": None} for d in data])
    else:
        cells = pa.array(data, pa.binary())
    return pa.table({"image": cells, "label": pa.array([i % 3 for i in range(n)], pa.int16())})


@pytest.mark.parametrize("kind", ["bytes", "struct"])
@pytest.mark.parametrize("keep", [True, False])
def test_parquet(tmp_path, monkeypatch, kind, keep, caplog):
    if not keep:
        monkeypatch.setattr("selftaught.data.table.KEEP", 0)
        monkeypatch.setattr("selftaught.data.table._CACHE", 500)
    pq.write_table(table(25, kind), tmp_path / "a.parquet", row_group_size=7)
    pq.write_table(table(10, kind), tmp_path / "b.parquet")
    samples = open_data(tmp_path)
    assert len(samples) == 35
    copy = pickle.loads(pickle.dumps(samples))
    for i in RNG.permutation(35):
        assert (samples.read(i) == (i if i < 25 else i - 25)).all()
        assert (copy.read(i) == samples.read(i)).all()
    assert (samples.name(24), samples.name(25)) == ("a.parquet::24", "b.parquet::0")
    assert samples.labels is not None
    assert samples.labels.tolist() == [i % 3 for i in [*range(25), *range(10)]]
    if not keep:
        assert len(samples.source._held) < 5  # type: ignore[attr-defined]
        assert "row groups" in caplog.text
    with pytest.raises(IndexError):
        samples.read(35)


def test_parquet_columns(tmp_path):
    data = encoded(SMOOTH)
    many = pa.table({"mask": [data], "photo": [data], "who": ["x"], "none": [None]})
    pq.write_table(many, tmp_path / "many.parquet")
    assert len(open_data(tmp_path / "many.parquet")) == 1
    samples = open_data(tmp_path / "many.parquet", column="mask", labels="who")
    assert samples.classes == ["x"]
    with pytest.raises(UserError, match=r"no column pic; its columns are mask \(binary\)"):
        open_data(tmp_path / "many.parquet", column="pic")
    with pytest.raises(UserError, match="does not hold encoded images"):
        open_data(tmp_path / "many.parquet", column="who")
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "text.parquet")
    with pytest.raises(UserError, match="no image column"):
        open_data(tmp_path / "text.parquet")
    pq.write_table(pa.table({"u": [data], "v": [data]}), tmp_path / "two.parquet")
    with pytest.raises(UserError, match="name one with --column"):
        open_data(tmp_path / "two.parquet")
    (tmp_path / "fake.parquet").write_text("no")
    with pytest.raises(UserError, match="not a Parquet file"):
        open_data(tmp_path / "fake.parquet")
    pq.write_table(pa.table({"image": pa.array([data, None])}), tmp_path / "null.parquet")
    with pytest.raises(BadSample, match="no image in this row"):
        open_data(tmp_path / "null.parquet").read(1)


def test_class_names_of_hugging_face(tmp_path):
    info = {"info": {"features": {"label": {"names": ["x", "y", "z"], "_type": "ClassLabel"}}}}
    named = table(4, "struct").replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(named, tmp_path / "a.parquet")
    assert open_data(tmp_path / "a.parquet").classes == ["x", "y", "z"]


def test_a_saved_hugging_face_data_set(tmp_path):
    files = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for k, name in enumerate(files):
        part = table(9, "struct").slice(k * 5, 5 - k)
        with pa.ipc.new_stream(tmp_path / name, part.schema) as out:
            out.write_table(part, max_chunksize=2)
    (tmp_path / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": f} for f in files]})
    )
    samples = open_data(tmp_path)
    copy = pickle.loads(pickle.dumps(samples))
    assert len(samples) == 9
    for i in RNG.permutation(9):
        assert (copy.read(i) == i).all()
    assert samples.name(5) == f"{files[1]}::0"
    assert samples.labels is not None
    assert samples.labels.tolist() == [i % 3 for i in range(9)]
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(UserError, match="splits train, test: name one of them"):
        open_data(tmp_path)


# ------------------------------------------------------------------------------------------ tars


def write_tar(path, members, form=tarfile.GNU_FORMAT):
    """Members are (name, bytes) or whole TarInfo objects."""
    with tarfile.open(path, "w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))


def picture(i) -> bytes:
    return encoded(np.full((5, 6, 3), i, np.uint8))


def test_shards(tmp_path):
    for shard in range(3):
        members = []
        for k in range(4):
            n = shard * 4 + k
            members += [
                (f"{n:03}.jpg.png", b"not taken: its key has an image of its own"),
                (f"{n:03}.png", picture(n)),
                (f"{n:03}.cls", str(n % 5).encode()),
                (f"{n:03}.txt", b"a caption"),
            ]
        write_tar(tmp_path / f"s-{shard:02}.tar", members)
    samples = open_data(str(tmp_path / "s-{00..02}.tar"))
    assert len(samples) == 12
    assert samples.labels is not None
    copy = pickle.loads(pickle.dumps(samples))
    for i in RNG.permutation(12):
        assert (copy.read(i) == i).all()
        assert samples.labels[i] == i % 5
    assert samples.name(5) == "s-01.tar::005"
    assert samples.skipped.ignored == {".jpg.png": 12, ".txt": 12}
    for other in (tmp_path, str(tmp_path / "s-*.tar"), str(tmp_path / "s-{00,01,02}.tar")):
        assert open_data(other).fingerprint == samples.fingerprint
    with pytest.raises(UserError, match="1 of 4 shards do not exist"):
        open_data(str(tmp_path / "s-{00..03}.tar"))
    assert len(open_data(str(tmp_path / "s-00.tar"), column="jpg.png")) == 4


def test_photos_with_dots_in_their_names(tmp_path):
    members = [(f"day/IMG.2024.{k}.png", picture(k)) for k in range(3)]
    write_tar(tmp_path / "a.tar", members)
    samples = open_data(tmp_path / "a.tar")
    assert [samples.read(k)[0, 0, 0] for k in range(3)] == [0, 1, 2]
    assert samples.labels is None


def test_labels_from_json_members(tmp_path):
    members = []
    for k, what in enumerate(["oak", "fir", "oak"]):
        members += [(f"{k}.png", picture(k)), (f"{k}.json", json.dumps({"tree": what}).encode())]
    write_tar(tmp_path / "a.tar", members)
    samples = open_data(tmp_path / "a.tar", labels="tree")
    assert samples.classes == ["fir", "oak"]
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 0, 1]
    with pytest.raises(UserError, match="has a field color"):
        open_data(tmp_path / "a.tar", labels="color")


def test_a_hostile_shard_runs_nothing_and_yields_its_images(tmp_path):
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w')".encode()

    class Payload:
        def __reduce__(self):
            return (os.system, (f"touch {canary}",))

    def special(name, kind, target=""):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        return info

    members = [
        ("a.png", picture(1)),
        ("a.pyd", pickle.dumps(Payload())),
        ("a.pkl", pickle.dumps(Payload())),
        ("a.py", code),
        ("a.pth", pickle.dumps(Payload())),
        ("../up.png", picture(2)),
        ("/etc/abs.png", picture(3)),
        ("x/../../up.png", picture(4)),
        special("link.png", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.png", tarfile.LNKTYPE, "a.png"),
        special("dev.png", tarfile.CHRTYPE),
        special("pipe.png", tarfile.FIFOTYPE),
        ("a.png", picture(5)),
        ("b.npy", b""),
        ("z.png", picture(6)),
    ]
    objects = io.BytesIO()
    np.save(objects, np.array([Payload()], dtype=object), allow_pickle=True)
    members[13] = ("b.npy", objects.getvalue())
    write_tar(tmp_path / "a.tar", members)
    samples = open_data(tmp_path / "a.tar")
    names = [samples.name(i) for i in range(len(samples))]
    assert names == ["a.tar::a", "a.tar::b", "a.tar::z"]
    assert (samples.read(0) == 1).all()
    assert (samples.read(2) == 6).all()
    with pytest.raises(BadSample, match="Python objects"):
        samples.read(1)
    assert samples.skipped.refused == {
        "path outside of its archive": 3,
        "link or device in an archive": 4,
        "repeated name in an archive": 1,
    }
    assert not canary.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar"]
    for address in (f"pipe:touch {canary}", f"pipe:touch {canary}; .tar"):
        with pytest.raises(UserError, match="not a local path"):
            open_data(address)
    with pytest.raises(UserError, match="ftp:// is no kind of address"):
        open_data("ftp://x.org/a.tar")
    assert not canary.exists()


def test_damaged_shards(tmp_path):
    write_tar(tmp_path / "a.tar", [(f"{k}.png", picture(k)) for k in range(5)])
    whole = (tmp_path / "a.tar").read_bytes()
    members, _ = scan(str(tmp_path / "a.tar"))
    (tmp_path / "cut.tar").write_bytes(whole[: members[3].offset + 10])
    samples = open_data(tmp_path / "cut.tar")
    assert len(samples) == 3
    assert samples.skipped.refused == {"cut-off archive member": 1}
    (tmp_path / "header.tar").write_bytes(whole[: members[3].offset - 100])
    samples = open_data(tmp_path / "header.tar")
    assert (len(samples), samples.skipped.refused) == (3, {"cut-off archive": 1})
    (tmp_path / "no-end.tar").write_bytes(whole[: members[3].offset - 512])
    assert not open_data(tmp_path / "no-end.tar").skipped.refused
    broken = bytearray(whole)
    broken[members[2].offset - 500] ^= 1
    (tmp_path / "broken.tar").write_bytes(broken)
    samples = open_data(tmp_path / "broken.tar")
    assert len(samples) == 2
    assert samples.skipped.refused == {"damaged header": 1}
    huge = tarfile.TarInfo("huge.png")
    huge.size = 10 << 30
    (tmp_path / "huge.tar").write_bytes(huge.tobuf(tarfile.GNU_FORMAT) + bytes(2000))
    with pytest.raises(UserError, match=r"holds no images; left out: 1 cut-off archive member"):
        open_data(tmp_path / "huge.tar")
    with tarfile.open(tmp_path / "z.tar", "w:gz") as tar:
        tar.add(tmp_path / "a.tar", "a.png")
    with pytest.raises(UserError, match=r"z\.tar is not a plain tar"):
        open_data(tmp_path / "z.tar")
    (tmp_path / "shrunk.tar").write_bytes(whole)
    samples = open_data(tmp_path / "shrunk.tar")
    (tmp_path / "shrunk.tar").write_bytes(whole[:3000])
    with pytest.raises(BadSample, match="cut off"):
        samples.read(4)


_NAMES = st.lists(
    st.text(st.characters(blacklist_characters="\0/", codec="utf-8"), min_size=1, max_size=150)
    .map(lambda s: "d/" + s)
    .filter(lambda s: ".." not in s.replace("\\", "/").split("/")),
    max_size=6,
    unique=True,
)


@settings(max_examples=60, deadline=None)
@given(_NAMES, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.data())
def test_the_tar_reader_agrees_with_pythons(tmp_path_factory, names, form, data):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    contents = [data.draw(st.binary(max_size=1500)) for _ in names]
    write_tar(path, zip(names, contents, strict=True), form)
    members, refused = scan(str(path))
    assert not refused
    raw = path.read_bytes()
    ours = [(m.name, raw[m.offset : m.offset + m.size]) for m in members]
    with tarfile.open(path) as tar:
        theirs = [(m.name, tar.extractfile(m).read()) for m in tar if m.isfile()]  # type: ignore[union-attr]
    assert ours == theirs == list(zip(names, contents, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=12))
def test_the_tar_reader_survives_damage(tmp_path_factory, damage):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    write_tar(path, [("a.png", b"1" * 600), ("b" * 120 + ".png", b"2" * 700)], tarfile.PAX_FORMAT)
    raw = bytearray(path.read_bytes())
    for at, value in damage:
        raw[at] = value
    path.write_bytes(raw)
    try:
        members, refused = scan(str(path))
    except UserError:
        return
    assert isinstance(refused, Counter)
    for member in members:
        assert 0 <= member.offset <= member.offset + member.size <= len(raw)
    for one, two in pairwise(members):
        assert one.offset + one.size <= two.offset


def test_brace_patterns():
    assert expand("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand("{a,b}/{1..2}") == ["a/1", "a/2", "b/1", "b/2"]
    with pytest.raises(UserError, match="count upwards"):
        expand("{3..1}.tar")


# ---------------------------------------------------------------------------- arrays and objects


def test_arrays(tmp_path):
    stack = RNG.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    samples = open_data(stack)
    assert (samples.read(3) == stack[3]).all()
    assert not np.shares_memory(samples.read(3), stack)
    assert samples.header(0).width == 7
    np.save(tmp_path / "a.npy", stack[..., 0])
    samples = open_data(tmp_path / "a.npy")
    assert isinstance(samples.source.array, np.memmap)  # type: ignore[attr-defined]
    assert len(pickle.dumps(samples)) < 1000
    assert (pickle.loads(pickle.dumps(samples)).read(4)[..., 0] == stack[4, ..., 0]).all()
    np.savez(tmp_path / "b.npz", images=stack, labels=np.arange(5))
    samples = open_data(tmp_path / "b.npz")
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="it has images, labels"):
        open_data(tmp_path / "b.npz", column="masks")
    with pytest.raises(UserError, match="looks like"):
        open_data(stack.transpose(0, 3, 1, 2))
    with pytest.raises(UserError, match="is no set of images"):
        open_data(np.zeros((3, 3)))
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(UserError, match="not an array that can be read"):
        open_data(tmp_path / "bad.npy")


class Pairs:
    """What torchvision's data sets look like."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        if i == 2:
            raise OSError("disk on fire")
        return Image.new("I;16", (3, 2), 257 * i), i * 10


def test_objects_and_lists(tmp_path):
    samples = open_data(Pairs())
    assert (samples.read(3) == 3).all()
    with pytest.raises(BadSample, match="disk on fire"):
        samples.read(2)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 10, -1, 30]
    images(tmp_path, ["a.png", "b.png"])
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    assert open_data(paths).read(1)[0, 0, 0] == 1
    mixed = open_data([SMOOTH, Image.fromarray(SMOOTH), encoded(SMOOTH), str(paths[0])])
    for i in range(3):
        assert (mixed.read(i) == SMOOTH).all()
    assert mixed.read(3).shape == (9, 12, 3)
    assert open_data([{"image": SMOOTH, "label": 4}]).labels == [4]
    with pytest.raises(BadSample, match=r"is a builtins\.object"):
        open_data([object()]).read(0)
    with pytest.raises(UserError, match="a int holds no images"):
        open_data(3)


# ---------------------------------------------------------------------------------------- errors


def test_errors_name_the_way_out(tmp_path):
    images(tmp_path / "photos", ["a.png"])
    with pytest.raises(UserError, match=r"photo does not exist: did you mean .*photos\?"):
        open_data(tmp_path / "photo")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"holds no images$"):
        open_data(empty)
    (empty / "a.jxl").write_bytes(b"")
    (empty / "b.jxl").write_bytes(b"")
    (empty / "c").write_bytes(b"")
    with pytest.raises(UserError, match=r"left out: 2 \.jxl, 1 without extension"):
        open_data(empty)
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(UserError, match=r"x\.csv is empty"):
        open_data(tmp_path / "x.csv")
    (tmp_path / "x.txt").write_text("gone/1.png\ngone/2.png\n")
    with pytest.raises(UserError, match=r"none of the 2 files in .* exists; the first is gone/1"):
        open_data(tmp_path / "x.txt")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="compressed"):
        open_data(tmp_path / "x.zip")
    with pytest.raises(UserError, match="at least one channel"):
        open_data(tmp_path / "photos", channels=0)
    with pytest.raises(UserError, match="must be below"):
        open_data(tmp_path / "photos", value_range=(1, 1))
    assert isinstance(open_data(tmp_path / "photos"), Samples)
    assert len(open_data(tmp_path / "photos/a.png")) == 1


# ------------------------------------------------------------------------------------ quarantine


def test_quarantine_list(tmp_path):
    path = tmp_path / "out" / bad_list.FILE
    assert bad_list.load(path) == {}
    odd = 'dir/a,"b"\nc.png'
    bad_list.append(path, {odd: bad_list.Bad("is empty", 7)})
    merged = bad_list.append(path, {"x.png": bad_list.Bad("y"), odd: bad_list.Bad("other", 9)})
    assert merged == bad_list.load(path)
    assert merged[odd] == bad_list.Bad("is empty", 7)
    assert merged["x.png"].first_step is None
    assert os.listdir(path.parent) == [bad_list.FILE]
    images(tmp_path / "p", ["w.png", "x.png", "z.png"])
    assert bad_list.positions(open_data(tmp_path / "p"), merged).tolist() == [1]
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="no quarantine list"):
        bad_list.load(tmp_path / "other.csv")
    with pytest.raises(UserError, match="cannot be written"):
        bad_list.save(tmp_path / "other.csv" / "below.csv", {})


def test_a_failed_write_leaves_the_old_list(tmp_path, monkeypatch):
    path = tmp_path / bad_list.FILE
    bad_list.append(path, {"a": bad_list.Bad("r", 1)})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        bad_list.append(path, {"b": bad_list.Bad("r", 2)})
    assert list(bad_list.load(path)) == ["a"]
    assert os.listdir(tmp_path) == [bad_list.FILE]


def test_replacements_are_a_function_and_never_the_sample_itself():
    found = [replacement(1, 2, 3, k, 5) for k in range(400)]
    assert found == [replacement(1, 2, 3, k, 5) for k in range(400)]
    assert set(found) == {0, 1, 2, 4}
    assert min(Counter(found).values()) > 70
    assert replacement(1, 2, 0, 0, 2) == 1
    with pytest.raises(ValueError, match="no replacement"):
        replacement(0, 0, 0, 0, 1)
