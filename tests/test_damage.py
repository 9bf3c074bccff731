"""Files that are damaged inside: refused by every way of reading them, or kept where asked."""

import io

import numpy as np
import pytest
from PIL import Image

from selftaught import augment
from selftaught.augment.image import native
from selftaught.augment.image.batch import Rngs
from selftaught.data import BadSample, open_data
from selftaught.data.image.decode import decode

RNG = np.random.default_rng(0)


def photo(width: int = 320, height: int = 240) -> Image.Image:
    """Smooth shapes with some grain, as a camera makes them."""
    small = Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = RNG.integers(-12, 13, smooth.shape)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def scan(data: bytes) -> int:
    """Where the first scan of a JPEG begins, behind its header."""
    at = 2
    while data[at : at + 2] != b"\xff\xda":
        at += 2 + int.from_bytes(data[at + 2 : at + 4]) if data[at] == 0xFF else 1
    return at + 2 + int.from_bytes(data[at + 2 : at + 4])


def segment(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + (len(content) + 2).to_bytes(2) + content


def halved(data: bytes) -> bytes:
    begin = scan(data)
    return data[: begin + (len(data) - begin) // 2] + b"\xff\xd9"


def cut_out(data: bytes) -> bytes:
    begin, size = scan(data), len(data) - scan(data)
    return data[: begin + size * 4 // 10] + data[begin + size * 7 // 10 :]


def zeroed(data: bytes) -> bytes:
    at = scan(data) + (len(data) - scan(data)) // 3
    return data[:at] + bytes(512) + data[at + 512 :]


def flipped(data: bytes) -> bytes:
    """Codes slip; by chance they may end with the last byte all the same, which nobody can see."""
    begin, damaged = scan(data), bytearray(data)
    for at in np.random.default_rng(4).integers(begin, len(data) - 2, 40):
        if 0xFF not in (*data[at - 1 : at + 2], data[at] ^ 0x10):  # markers are another damage
            damaged[at] ^= 0x10
    return bytes(damaged)


DAMAGE = (halved, cut_out, zeroed, flipped)
PHOTO = photo()
JPEGS = {
    "ordinary": saved(PHOTO),
    "444": saved(PHOTO, subsampling=0),
    "progressive": saved(PHOTO, progressive=True),
    "gray": saved(PHOTO.convert("L")),
    "cmyk": saved(PHOTO.convert("CMYK")),
    "restarts": saved(PHOTO, restart_marker_rows=2),
    "turned": saved(PHOTO, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"),
}


def reason(data: bytes, **options) -> str:
    with pytest.raises(BadSample) as caught:
        decode(data, **options)
    return caught.value.reason


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_jpeg_that_is_damaged_inside_is_refused_by_all_who_read_it(kind, damage):
    data = damage(JPEGS[kind])
    assert "JPEG is damaged inside (" in reason(data)
    assert "damaged inside" in reason(data, min_side=60)
    samples = open_data([data])
    for scale in (1, 2, 4, 8):
        with pytest.raises(BadSample, match="damaged inside"):
            samples.open(0).read(scale)
    kept = open_data([data], truncated="keep")
    as_pillow = Image.open(io.BytesIO(data)).convert("RGB").size
    whole = kept.read(0)
    assert whole.shape[:2][:: -1 if kind != "turned" else 1] == as_pillow
    assert (kept.open(0).read()[0] == whole).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("lost", [1, 2, 4])
def test_scans_that_a_progressive_jpeg_lacks_are_missed(mode, lost):
    """Cut between two scans and ended by a marker, it is a sound JPEG of a blurred picture."""
    whole = saved(PHOTO.convert(mode), progressive=True)
    begins = [i for i in range(len(whole)) if whole[i : i + 2] == b"\xff\xda"]
    between = whole.rfind(b"\xff\xc4", 0, begins[-lost])  # its codes stand before a scan
    cut = whole[: between if between > begins[-lost - 1] else begins[-lost]] + b"\xff\xd9"
    assert decode(whole).shape == (240, 320, 3)
    assert "JPEG is truncated (its last scans are missing)" in reason(cut)
    assert "last scans are missing" in reason(cut, min_side=60)
    assert decode(cut, truncated="keep").shape == (240, 320, 3)


@pytest.mark.skipif(native.library() is None, reason="was built without a compiler")
@pytest.mark.parametrize("kind", ["ordinary", "444", "gray", "restarts"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("scale", [1, 4])
def test_damage_below_all_crops_is_seen_too(kind, damage, scale):
    good, bad = JPEGS[kind], damage(JPEGS[kind])
    memory = np.empty(4 * 240 * 320, np.uint8)
    params = np.zeros(1, native.PARAMS)
    params["height"], params["width"] = 16, 320
    assert native.decode_jpeg(good, 240, 320, params, memory, scale) is not None
    assert native.decode_jpeg(bad, 240, 320, params, memory, scale) is None


@pytest.mark.parametrize("damage", DAMAGE)
def test_views_of_what_is_kept_are_those_of_pillow(damage):
    """One engine must not read what the other one mends: a kept file is the same picture in all."""
    data = damage(JPEGS["ordinary"])
    kept = open_data([data], truncated="keep")
    pipeline, rngs = augment.simclr(32), Rngs(0, [(0, 0)])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    from_file = pipeline.batch(kept, rngs, reduced=False)
    from_pixels = pipeline.batch(open_data([pixels]), rngs, reduced=False)
    for one, other in zip(from_file, from_pixels, strict=True):
        assert (one == other).all()
    with pytest.raises(BadSample, match="damaged inside"):
        pipeline.batch(open_data([data]), rngs)


GOOD = JPEGS["ordinary"]
HARMLESS = {
    "between segments": GOOD[:20] + b"\0\0\0" + GOOD[20:],
    "version": GOOD.replace(b"JFIF\0\x01", b"JFIF\0\x02", 1),
    "parameters of the scan": GOOD[: scan(GOOD) - 3] + bytes(3) + GOOD[scan(GOOD) :],
    "padding": GOOD[:-2] + bytes(12) + GOOD[-2:],
    "fill bytes": GOOD[:-2] + b"\xff\xff\xff" + GOOD[-2:],
    "behind the end": GOOD + b"\0" * 50 + b"thumbnail" + GOOD[:300],
    "a profile that is none": GOOD[:2]
    + segment(0xE2, b"ICC_PROFILE\0\x05\x02" + bytes(40))
    + GOOD[2:],
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_leaves_all_pixels_right_is_no_damage(what):
    whole = np.asarray(PILLOW := Image.open(io.BytesIO(GOOD)))
    assert PILLOW.mode == "RGB"
    assert (decode(HARMLESS[what]) == whole).all()
    assert (open_data([HARMLESS[what]]).open(0).read()[0] == whole).all()


def test_harmless_and_damaged_is_damaged():
    for what in ("between segments", "version", "parameters of the scan"):
        assert "damaged inside" in reason(zeroed(HARMLESS[what]))
    assert "damaged inside" in reason(GOOD[:-2] + b"\x2a" * 40 + GOOD[-2:])
    assert "damaged inside" in reason(GOOD[:-1000] + bytes(998) + GOOD[-2:])


@pytest.mark.parametrize("kind", JPEGS)
def test_strictness_changes_no_pixel_of_a_good_jpeg(kind):
    as_pillow = decode(JPEGS[kind], truncated="keep")
    assert (decode(JPEGS[kind]) == as_pillow).all()
    gray = decode(JPEGS[kind], channels=1, truncated="keep")
    assert (decode(JPEGS[kind], channels=1) == gray).all()
    for side in (60, 120):
        small = decode(JPEGS[kind], min_side=side)
        assert (small == decode(JPEGS[kind], min_side=side, truncated="keep")).all()
        assert min(small.shape[:2]) == side
