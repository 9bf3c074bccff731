"""The native view engine draws what the reference draws, and agrees with its pixels on photos."""

import io
import logging
import pickle
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import default_collate

from selftaught import augment
from selftaught.augment import View, Views, sample_rng
from selftaught.augment.image import native, render
from selftaught.augment.image.batch import BatchRenderer, Rngs
from selftaught.augment.image.view import DRAWS
from selftaught.data import BadSample, open_data
from selftaught.data.cached import cached, estimate
from selftaught.data.image.picture import jpeg_size
from selftaught.errors import UserError
from selftaught.feed.readers import Readers
from selftaught.feed.views import ViewDataset as Feed
from selftaught.feed.views import collate
from tests.photos import by_reference


@pytest.fixture(scope="module", autouse=True)
def built():
    assert native.library() is not None, "the native library was not built: is there a compiler?"


def assert_close(got, want, mean=0.3, share=0.02) -> None:
    """The fidelity that is asked for: mean difference, and share of pixels off by more than one."""
    off = np.abs(np.asarray(got).astype(int) - np.asarray(want))
    assert off.mean() <= mean
    assert (off > 1).mean() <= share


# ----------------------------------------------------------------------------------------- draws


@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**63 - 1)), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_uniforms_are_those_of_the_samples_generators(seed, keys):
    got = Rngs(seed, keys).uniforms(2 * DRAWS)
    assert got.shape == (len(keys), 2 * DRAWS)
    for row, key in zip(got, keys):
        assert np.array_equal(row, sample_rng(seed, *key).random(2 * DRAWS))


TURNED = View(64, vertical=0.5, turns=True, erase=0.5, fill=(9, 99, 199))

RECIPES = {
    "simclr": augment.simclr(64),
    "simclr 32": augment.simclr(32, 0.5, 0.0),
    "moco": augment.moco(64),
    "moco_v1": augment.moco_v1(64),
    "byol": augment.byol(64),
    "dino": augment.multicrop(64, 32, 3),
    "swav": augment.multicrop(64, 32, 3, (0.14, 1.0), (0.05, 0.14), family="swav"),
    "crop": augment.crop(64),
    "turned": Views((TURNED, replace(augment.moco(40).views[0], turns=True, erase=0.5))),
    "oblong": Views(
        (
            View((24, 80), jitter=(0.4,) * 4, blur=0.5, vertical=0.5, erase=0.5, fill=(9, 99, 199)),
            View((70, 17), (0.3, 1.0), interpolation="bicubic", gray=0.5, blur=0.5, solarize=0.5),
        )
    ),
    "odd": Views((View(7, ratio=(0.1, 0.11)), View(9, (1, 1), (5, 5), jitter=(0, 2, 0.3, 0.5)))),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [(375, 500), (1, 1), (3, 400), (32, 32), (20000, 17)])
def test_parameters_are_equal_to_the_last_bit(name, size):
    views = RECIPES[name].views
    uniform = np.random.default_rng(1).random((50, len(views), DRAWS))
    sides = [np.full(50, side, np.int32) for side in size]
    table = native.draw(views, uniform, *sides)
    for row, draws in zip(table, uniform):
        for got, view, u in zip(row, views, draws):
            assert native.unpacked(got) == view.params(u.tolist(), *size)
            packed = np.empty((), native.PARAMS)
            native.pack(native.unpacked(got), view.shape, packed)
            assert packed == got


# -------------------------------------------------------------------------------------- fidelity

OPERATIONS = {
    "crop": View(96),
    "crop bicubic": View(96, interpolation="bicubic"),
    "enlarged": View(160, (0.01, 0.05)),
    "shrunk": View(16, (0.8, 1.0), interpolation="bicubic"),
    "brightness": View(96, jitter=(0.8, 0, 0, 0), jitter_p=1),
    "contrast": View(96, jitter=(0, 0.8, 0, 0), jitter_p=1),
    "saturation": View(96, jitter=(0, 0, 0.8, 0), jitter_p=1),
    "hue": View(96, jitter=(0, 0, 0, 0.5), jitter_p=1),
    "jitter": View(96, jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=1),
    "gray": View(96, jitter=(0.4, 0.4, 0.4, 0.4), gray=1, blur=1),
    "blur": View(96, blur=1),
    "blur cut": View(96, blur=1, blur_radius=2),
    "blur wide": View(48, blur=1, blur_sigma=(5.0, 40.0)),
    "solarize": View(96, solarize=1),
    "vertical": View(96, flip=0, vertical=1),
    "turns": View(99, turns=True),
    "turns bicubic": View(33, turns=True, interpolation="bicubic"),
    "erase": View(96, solarize=1, erase=1, fill=(9, 99, 199)),
    "wide": View((20, 300), blur=1, blur_sigma=(5.0, 40.0)),
    "high": View((280, 9), blur=1, erase=1, interpolation="bicubic"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_agrees_with_the_reference_on_photos(name, photos):
    pipeline = Views((OPERATIONS[name],))
    rngs = Rngs(3, [(0, i) for i in range(len(photos))])
    (got,) = pipeline.batch(photos, rngs)
    (want,) = by_reference(pipeline, photos, rngs)
    assert_close(got, want)
    if not OPERATIONS[name].blur and name not in ("hue", "jitter"):
        assert np.abs(got.numpy().astype(int) - want).mean() < 1e-4  # equal but for rare ties


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("processor", [0, 1, 2])
def test_views_agree_with_the_reference_on_every_processor(name, processor, photos, monkeypatch):
    plain = native.render
    monkeypatch.setattr(native, "render", lambda *a, **k: plain(*a, **k, processor=processor))
    pipeline = RECIPES[name]
    rngs = Rngs(5, [(2, i) for i in range(len(photos))])
    for got, want in zip(
        pipeline.batch(photos, rngs), by_reference(pipeline, photos, rngs), strict=True
    ):
        assert got.shape == want.shape
        assert_close(got, want)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_any_number_of_channels(channels, interpolation, photos):
    images = [np.concatenate([p] * 5, 2)[..., :channels] for p in photos[:4]]
    view = View(40, interpolation=interpolation, jitter=(0.4, 0.4, 0.4, 0.1), blur=0.5)
    pipeline = Views((replace(view, gray=0.5), replace(view, solarize=1.0)))
    rngs = Rngs(0, [(0, i) for i in range(4)])
    for got, want in zip(pipeline.batch(images, rngs), by_reference(pipeline, images, rngs)):
        assert got.shape == (4, channels, 40, 40)
        assert_close(got, want)


def test_colors_that_channels_do_not_have_are_told_once(photos, caplog):
    caplog.set_level(logging.WARNING, "selftaught")
    render._warn_color.cache_clear()
    gray = [photo[..., :1] for photo in photos[:3]]
    augment.crop(16).batch(gray)
    assert not caplog.records
    augment.simclr(16)(gray[0], sample_rng(0, 0, 0))
    augment.simclr(16).batch(gray)
    (record,) = caplog.records
    assert "need 3 channels: images with 1 get the other operations" in record.message


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 400, 3), (400, 3, 3), (2, 2, 1), (20000, 11, 3)])
def test_odd_sizes(shape, photos):
    image = np.resize(photos[0], shape)
    for pipeline in (augment.simclr(33), augment.multicrop(24, 8, 2)):
        rngs = Rngs(0, [(0, 0)])
        for got, want in zip(pipeline.batch([image], rngs), by_reference(pipeline, [image], rngs)):
            assert_close(got, want)
    for plain in (augment.plain(32), augment.plain(64)):
        got = plain(image)
        assert_close(got, render.render_plain(image, plain.resize, plain.size))


def test_one_sample_is_its_row_of_the_batch_whatever_the_strides_and_threads(photos):
    pipeline = replace(augment.multicrop(32, 16, 2), boxes=True)
    images = [
        photos[0],
        photos[1][::-1],
        photos[2][:, ::-1],
        np.asfortranarray(photos[3]),
        photos[4][::2, ::3],
        np.broadcast_to(photos[5][:1, :1], (50, 60, 3)),
    ]
    rngs = Rngs(9, [(1, i) for i in range(len(images))])
    singles = default_collate([pipeline(image, rng) for image, rng in zip(images, rngs)])
    for threads in (1, 3):
        views, boxes = pipeline.batch(images, rngs, threads=threads)
        assert torch.equal(boxes, singles[1])
        assert all(torch.equal(a, b) for a, b in zip(views, singles[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(pipeline(images, list(rngs))[0], views))


def test_arrays_in_one_piece_or_as_a_list():
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    pipeline, rngs = augment.simclr(32), Rngs(0, [(0, i) for i in range(20)])
    planar = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    whole = pipeline.batch(images, rngs)
    for same in (
        pipeline.batch(list(images), rngs, threads=2),
        pipeline.batch(planar.transpose(0, 2, 3, 1), rngs),
        pipeline.batch(images[:, ::-1][:, ::-1], list(rngs)),
    ):
        assert all(torch.equal(a, b) for a, b in zip(whole, same, strict=True))
    torch.manual_seed(1)
    first = pipeline.batch(images)
    torch.manual_seed(1)
    assert torch.equal(first[0], pipeline(list(images))[0])


# ----------------------------------------------------------------------------------------- files


def encoded(image: np.ndarray, **how) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(image).save(out, "JPEG", **how)
    return out.getvalue()


def test_size_of_jpegs_without_decoding(photos):
    image = photos[0]
    for how in ({}, {"progressive": True}, {"subsampling": 0}, {"quality": 5}):
        assert jpeg_size(encoded(image, **how)) == image.shape[:2]
    assert jpeg_size(encoded(image[..., 0])) == image.shape[:2]
    for orientation, ordinary in ((1, True), (3, False), (6, False)):
        exif = PIL.Image.Exif()
        exif[274] = orientation
        assert (jpeg_size(encoded(image, exif=exif)) is not None) == ordinary
    assert jpeg_size(b"\x89PNG") is None
    data = encoded(image)
    for end in range(0, 700, 7):
        assert jpeg_size(data[:end]) in (None, image.shape[:2])


def test_opened_pixels_are_those_of_read(files, photos):
    exif = PIL.Image.Exif()
    exif[274] = 6
    strange = [encoded(photos[0], exif=exif), encoded(photos[0][..., 0])]
    samples = open_data([*files, *strange, photos[1], PIL.Image.fromarray(photos[2])])
    for i in range(len(samples)):
        picture = samples.open(i)
        pixels, scale = picture.read()
        assert scale == 1
        assert pixels.shape[:2] == (picture.height, picture.width)
        assert np.array_equal(pixels, samples.read(i))


def whole(height: int, width: int) -> np.ndarray:
    """Parameters of a view that looks at everything."""
    params = np.zeros(1, native.PARAMS)
    params["height"], params["width"] = height, width
    return params


@pytest.mark.parametrize("processor", [0, 1, 2])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpegs_are_decoded_to_the_pixels_of_libjpeg(subsampling, processor, photos):
    how = {"subsampling": subsampling}
    kinds = [{}, {"restart_marker_blocks": 3}, {"optimize": True}]
    memory = np.empty(4 * 500 * 500, np.uint8)
    for size in [
        (1, 5),
        (2, 6),
        (7, 9),
        (16, 16),
        (17, 33),
        (33, 17),
        (3, 400),
        photos[0].shape[:2],
    ]:
        image = np.resize(photos[0], (*size, 3))
        for quality in (5, 60, 95, 100):
            for kind in kinds:
                data = encoded(image, quality=quality, **how, **kind)
                got = native.decode_jpeg(data, *size, whole(*size), memory, 1, processor)
                assert np.array_equal(got, np.asarray(PIL.Image.open(io.BytesIO(data))))
        data = encoded(image[..., 0])
        got = native.decode_jpeg(data, *size, whole(*size), memory, 1, processor)
        assert np.array_equal(got, np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("processor", [0, 1, 2])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_reduced_jpegs_are_those_of_libjpeg_turbo(scale, processor, photos):
    memory = np.empty(4 * 500 * 500, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    for size in [(1, 8), (9, 3), (16, 16), (17, 33), (33, 18), (97, 131), photos[0].shape[:2]]:
        image = np.resize(noise if size == (97, 131) else photos[0], (*size, 3))
        for quality in (5, 60, 100):
            files = [encoded(image[..., 0], quality=quality, restart_marker_blocks=5)]
            for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
                how = {"quality": quality, "subsampling": subsampling}
                files += [encoded(image, **how), encoded(image, restart_marker_blocks=3, **how)]
            for data in files:
                got = native.decode_jpeg(data, *size, whole(*size), memory, scale, processor)
                assert np.array_equal(got, reduced(data, size, scale))


def reduced(data: bytes, size: tuple[int, int], scale: int) -> np.ndarray:
    """A JPEG at 1 / scale, by libjpeg-turbo."""
    height, width = (-(-side // scale) for side in size)
    pixels = simplejpeg.decode_jpeg(
        data, "RGB", min_height=height, min_width=width, min_factor=scale
    )
    assert pixels.shape == (height, width, 3)
    return pixels


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_jpegs_are_decoded_where_views_look(scale, photos):
    rng = np.random.default_rng(0)
    for photo, subsampling in zip(photos * 2, ["4:4:4", "4:2:2", "4:2:0"] * 8):
        data = encoded(photo, subsampling=subsampling)
        want = reduced(data, photo.shape[:2], scale)
        height, width = photo.shape[:2]
        params = np.zeros(3, native.PARAMS)
        for p in params:
            p["height"], p["width"] = rng.integers(1, height), rng.integers(1, width)
            p["top"] = rng.integers(height - p["height"] + 1)
            p["left"] = rng.integers(width - p["width"] + 1)
        memory = np.full(4 * height * width, 77, np.uint8)
        got = native.decode_jpeg(data, height, width, params, memory, scale)
        for p in params:
            rows = slice(p["top"] // scale, -(-(p["top"] + p["height"]) // scale))
            columns = slice(p["left"] // scale, -(-(p["left"] + p["width"]) // scale))
            assert np.array_equal(got[rows, columns], want[rows, columns])


def test_what_is_rare_in_jpegs_is_left_to_others(photos):
    image = photos[0]
    height, width = image.shape[:2]
    memory = np.empty(4 * height * width, np.uint8)
    cmyk = io.BytesIO()
    PIL.Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG")
    ordinary = encoded(image)
    for data in (
        encoded(image, progressive=True),
        encoded(image, keep_rgb=True),
        cmyk.getvalue(),
        ordinary[:-2],
        ordinary[: len(ordinary) // 2] + b"\xff\xd9",
        ordinary[:100],
        b"",
    ):
        assert native.decode_jpeg(data, height, width, whole(height, width), memory) is None
    for size in ((height + 1, width), (height, width - 1), (0, 0), (-1, 1 << 30)):
        assert native.decode_jpeg(ordinary, *size, whole(*size), memory) is None
    everything = whole(height, width)
    for scale in (-1, 3, 16):
        assert native.decode_jpeg(ordinary, height, width, everything, memory, scale) is None
    outside = whole(height, width)
    outside["top"] = 1
    assert native.decode_jpeg(ordinary, height, width, outside, memory) is None


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_jpegs_write_into_their_memory_or_nowhere(data):
    draw = data.draw
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    kind = draw(st.sampled_from([{}, {"restart_marker_blocks": 1}, {"subsampling": 0}]))
    file = bytearray(encoded(noise, quality=draw(st.sampled_from([5, 75, 100])), **kind))
    for _ in range(draw(st.integers(1, 8))):
        file[draw(st.integers(0, len(file) - 1))] = draw(st.sampled_from([0, 1, 0x7F, 0xFF, 0xD9]))
    file = file[: draw(st.sampled_from([len(file), len(file) - 1, len(file) // 2]))]
    scale = draw(st.sampled_from([1, 2, 4, 8]))
    params = whole(height, width)
    params["height"] -= draw(st.integers(0, height - 1))
    params["width"] -= draw(st.integers(0, width - 1))
    params["top"] = draw(st.integers(0, height - int(params["height"][0])))
    params["left"] = draw(st.integers(0, width - int(params["width"][0])))
    size = 4 * -(-height // scale) * -(-width // scale)
    memory = np.full(size + 64, 77, np.uint8)
    for processor in (0, 1, 2):
        native.decode_jpeg(*(bytes(file), height, width, params, memory[32:-32], scale, processor))
        assert (memory[:32] == 77).all()
        assert (memory[-32:] == 77).all()


def test_damaged_files_are_refused_as_ever(files):
    cut = open_data([f[: len(f) * 2 // 3] for f in files[:3]])
    for i in range(3):
        with pytest.raises(BadSample, match="truncated"):
            cut.open(i).read()
    kept = open_data([files[0][: len(files[0]) * 2 // 3]], truncated="keep")
    assert np.array_equal(kept.open(0).read()[0], kept.read(0))


def test_reduced_decoding_keeps_the_place_of_crops(files):
    pipeline = Views((View(24), View(24, jitter=(0.4, 0.4, 0.4, 0.1))))
    rngs = Rngs(0, [(0, i) for i in range(len(files))])
    whole, reduced = (pipeline.batch(files, rngs, reduced=r)[0] for r in (False, True))
    off = (whole.float() - reduced.float()).abs()
    assert 0 < off.mean() < 2  # another filter, the same place: shifted by a pixel it is 5 and more


REDUCED = {  # every one of 1/2, 1/4 and 1/8, for photos of demo size; nothing but crops, and all
    "half": Views((View(32, (0.4, 1)), View(24, (0.2, 1), interpolation="bicubic"))),
    "quarter": Views((View(16, (0.5, 1)), View(12, (0.5, 1), jitter=(0.4, 0.4, 0.4, 0.1)))),
    "eighth": Views((View(7, (0.5, 1)), View(8, (0.8, 1)))),
    "simclr": augment.simclr(20),
    "dino": augment.multicrop(32, 12, 3),
    "turned": Views((View(32, (0.4, 1), vertical=0.5, turns=True, erase=0.5),) * 2),
}


@pytest.mark.parametrize("name", REDUCED)
def test_both_engines_agree_on_reduced_photos(name, files, photos, monkeypatch):
    pipeline = REDUCED[name]
    scales = []
    plain = native.decode_jpeg
    monkeypatch.setattr(native, "decode_jpeg", lambda *a: scales.append(a[5]) or plain(*a))
    rngs = Rngs(1, [(0, i) for i in range(len(files))])
    got = pipeline.batch(files, rngs)
    assert scales.count({"half": 2, "quarter": 4, "eighth": 8}.get(name, 2)) > 3
    monkeypatch.setattr(native, "library", lambda: None)
    for a, b in zip(got, pipeline.batch(files, rngs), strict=True):
        assert_close(a, b)


def test_photos_that_are_not_much_larger_than_their_views_are_decoded_whole(files, photos):
    pipeline, rngs = augment.simclr(112), Rngs(0, [(0, i) for i in range(len(files))])
    for a, b, c in zip(
        pipeline.batch(files, rngs),
        pipeline.batch(files, rngs, reduced=False),
        pipeline.batch(photos, rngs),
    ):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_no_crop_has_fewer_pixels_than_its_view():
    renderer = BatchRenderer(augment.crop(100), Rngs(0, [(0, 0)]), 3)
    for height, width, scale in [
        *[(99, 900, 1), (199, 900, 1), (200, 200, 2), (399, 500, 2), (900, 400, 4)],
        *[(799, 9000, 4), (800, 801, 8), (5000, 5000, 8)],
    ]:
        assert renderer._scale(whole(height, width)[None]) == scale


# ---------------------------------------------------------------------------------------- engine


def test_training_gets_batches_that_equal_samples_one_by_one(files):
    bad = [*files[:5], files[5][:500], *files[6:]]
    for pipeline in (augment.simclr(24), replace(augment.simclr(24), boxes=True)):
        feed = Feed(open_data(bad), pipeline, seed=4)
        keys = [(1, i) for i in range(len(bad))]
        singles, at_once = collate([feed[k] for k in keys]), feed.__getitems__(keys)
        assert torch.equal(singles.index, at_once.index)
        assert singles.bad == at_once.bad
        assert [b.index for b in at_once.bad][:1] == [5]
        a, b = (x.views[0] if pipeline.boxes else x.views for x in (singles, at_once))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    (item,) = Readers(pickle.loads(pickle.dumps(feed)).__getitems__, [keys], 1)
    assert torch.equal(item.views[1], at_once.views[1])
    hopeless = Feed(open_data([b"\xff\xd8nothing"] * 2), augment.simclr(8), 0)
    assert hopeless.__getitems__([(0, 0)]).views is None


def test_cached_samples_are_the_same_samples(files):
    original = open_data([*files, files[0][:300]])
    kept = cached(original, threads=2)
    assert kept.fingerprint == original.fingerprint
    assert len(kept) == len(original)
    for i in range(len(files)):
        assert np.array_equal(kept.read(i), original.read(i))
        assert kept.name(i) == original.name(i)
    with pytest.raises(BadSample) as why:
        kept.read(len(files))
    with pytest.raises(BadSample, match=re.escape(str(why.value))):
        original.read(len(files))


def test_a_cache_larger_than_memory_is_refused(files, monkeypatch):
    samples = open_data(files)
    size = sum(p.nbytes for p in (samples.read(i) for i in range(len(files))))
    assert estimate(samples) == pytest.approx(size)
    monkeypatch.setattr("selftaught.data.cached.free_memory", lambda: size)
    with pytest.raises(UserError, match="leave --cache away"):
        cached(samples)


# -------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "must be a uint8 array"),
        (np.zeros((4, 4), np.uint8), "must be a uint8 array"),
        (np.zeros((0, 4, 3), np.uint8), "has no pixels"),
    ],
)
def test_wrong_arrays_are_refused_in_words(image, words):
    with pytest.raises(UserError, match=words):
        augment.simclr(8)(image, sample_rng(0, 0, 0))
    if image.ndim == 3:
        with pytest.raises(UserError, match=words):
            augment.simclr(8).batch(image[None])


def test_lists_of_wrong_things_are_refused():
    pipeline = augment.simclr(8)
    with pytest.raises(BadSample, match="not finite"):
        pipeline.batch([np.full((4, 4, 3), np.nan, np.float32)])
    with pytest.raises(BadSample, match="channels"):
        pipeline.batch([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 5), np.uint8)])
    with pytest.raises(UserError, match="2 images need 2 generators, got 1"):
        pipeline.batch(np.zeros((2, 4, 4, 3), np.uint8), Rngs(0, [(0, 0)]))


LIMITS = st.sampled_from([-(2**31), -2, -1, 0, 1, 2, 3, 7, 8, 9, 64, 2**14, 2**30, 2**31 - 1])
FLOATS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-300, 1e6, 1e300, np.inf, -np.inf, np.nan])


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_entry_points_survive_whatever_they_are_given(data):
    """Either views are written, all of their bytes and no other, or an error in words is raised."""
    draw = data.draw
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    channels = draw(st.integers(1, 6))
    scale = draw(st.sampled_from([1, 1, 1, 2, 4, 8]))
    rows, columns = -(-height // scale), -(-width // scale)
    image = np.random.default_rng(0).integers(0, 256, (rows, columns, channels), dtype=np.uint8)
    if draw(st.booleans()):
        image = image[::-1, ::-1]
    size = draw(st.integers(1, 40))
    views = (
        View(size, interpolation=draw(st.sampled_from(["bilinear", "bicubic"])), blur_radius=5),
    )
    table, kept = native.located([image], height, width, scale)
    params = native.draw(
        views,
        np.random.default_rng(draw(st.integers(0, 99))).random((1, 1, DRAWS)),
        np.array([height], np.int32),
        np.array([width], np.int32),
    )
    for name in draw(st.lists(st.sampled_from(list(native.PARAMS.names)), max_size=2)):
        kind = FLOATS if name in ("factors", "sigma") else LIMITS
        field = params[name].reshape(-1)
        field[draw(st.integers(0, len(field) - 1))] = draw(kind)
        params[name] = field.reshape(params[name].shape)
    if draw(st.integers(0, 3)) == 0:
        table[draw(st.sampled_from(["height", "width", "scale", "step"]))] = draw(
            st.sampled_from([-(2**31), -1, 0])
        )
    out = np.full(channels * size * size + 64, 77, np.uint8)
    for processor in (0, 1, 2):
        try:
            native.render(table, channels, views, params, [out.ctypes.data + 32], 1, processor)
        except UserError:
            assert (out == 77).all()
    assert (out[:32] == 77).all()
    assert (out[-32:] == 77).all()
    del kept


def test_without_the_library_one_line_says_so_and_views_are_the_reference(photos):
    code = (
        "import numpy as np, logging; logging.basicConfig()\n"
        "from selftaught import augment\n"
        "from selftaught.augment import sample_rng\n"
        "from selftaught.augment.image import render\n"
        "image = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)\n"
        "p = augment.simclr(16)\n"
        "views = [p(image, sample_rng(0, 0, i)) for i in range(3)]\n"
        "batch = p.batch([image] * 3, [sample_rng(0, 0, i) for i in range(3)])\n"
        "params = p.draw(sample_rng(0, 0, 2), 30, 40)\n"
        "want = render.render_view(image, p.views[1], params[1])\n"
        "assert (views[2][1] == want).all() and (batch[1][2].numpy() == want).all()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"SELFTAUGHT_NATIVE": "0", "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("slow reference pipeline") == 1


def test_a_library_that_is_missing_is_not_an_error(monkeypatch, caplog):
    monkeypatch.setattr(native, "NAME", "nowhere.so")
    with caplog.at_level(logging.WARNING, "selftaught"):
        assert native.library.__wrapped__() is None
    assert "no C++ compiler was found" in caplog.text
