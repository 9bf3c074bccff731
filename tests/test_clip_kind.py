"""Clips as samples: reading, views, encoders, methods, and what a run leaves."""

import numpy as np
import pytest
import torch

import selftaught
from selftaught import kinds
from selftaught.augment import sample_rng
from selftaught.augment.clip import middle, stretch
from selftaught.backbones import ClipEncoder
from selftaught.data import BadSample
from selftaught.data.video.take import Take
from selftaught.errors import UserError
from selftaught.kinds.floors.clip import changes, still
from tests.films import film, hurt, moving, sound

LONG = film(np.random.default_rng(0).integers(0, 255, (30, 32, 48, 3), np.uint8), gop=6)


# ------------------------------------------------------------------------------------------ takes


@pytest.mark.parametrize(
    ("codec", "container", "pixels"),
    [
        ("libx264", "mp4", "yuv420p"),
        ("libx264", "matroska", "yuv420p"),
        ("mpeg4", "avi", "yuv420p"),
        ("mpeg2video", "mpegts", "yuv420p"),
        ("mpeg2video", "mpeg", "yuv420p"),
        ("libvpx-vp9", "webm", "yuv420p"),
        ("gif", "gif", "rgb8"),
    ],
)
def test_any_frame_is_read_as_if_all_before_it_were(codec: str, container: str, pixels: str):
    take = Take(film(moving(25, seed=1), codec, container, pixels, gop=6))
    assert take.count == 25
    every = take.read(0, 25)
    assert every.shape == (25, 32, 48, 3)
    for start, frames, stride in ((24, 1, 1), (13, 4, 3), (6, 2, 1), (5, 2, 1), (1, 8, 3)):
        wanted = every[start : start + frames * stride : stride]
        assert np.array_equal(take.read(start, frames, stride), wanted), start
    again = np.stack(list(take.frames([3, 3, 4, 20, 20])))
    assert np.array_equal(again, every[[3, 3, 4, 20, 20]])
    with pytest.raises(IndexError):
        take.read(20, 6)


def test_late_frames_are_not_decoded_from_the_beginning():
    """The beginning may even be damaged."""
    every, broken = Take(LONG).read(0, 30), Take(hurt(LONG, 0.1))
    assert np.array_equal(broken.read(24, 3, 2), every[24:29:2])
    for look in (broken.verify, lambda: broken.read(0, 8)):
        with pytest.raises(BadSample, match="damaged"):
            look()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"this is a text\n" * 50, "no video that can be read"),
        (b"#EXTM3U\n#EXTINF:9,\nfile:///etc/hostname\n", "no video that can be read"),
        (bytes(4096), "no video that can be read"),
        (LONG[: len(LONG) // 2], "or its end is missing"),
        (film(moving(30), movflags="faststart")[:-900], r"cut short: \d+ of 30 frames"),
        (film(moving(1)), "one frame, a still image"),
        (sound(), "sound alone"),
    ],
)
def test_files_that_are_no_clips_say_why(content: bytes, words: str):
    with pytest.raises(BadSample, match=words):
        kinds.made({"kind": "clip"}).decode(content, "a.mp4")


def test_a_take_that_is_damaged_inside_is_not_filled_up():
    broken = Take(hurt(LONG, 0.6))
    with pytest.raises(BadSample, match=r"damaged after frame \d+ of 30"):
        broken.read(0, 30)


def test_odd_sides_and_uneven_times():
    odd = Take(film(moving(5, sides=(33, 17)), "ffv1", "matroska", "bgr0"))
    assert np.array_equal(odd.read(0, 5), moving(5, sides=(33, 17)))
    times = [0, 1, 2, 10, 11, 40, 41, 42, 43, 90]
    uneven = Take(film(moving(10), times=times, gop=3))
    assert uneven.count == 10
    assert np.array_equal(uneven.read(7, 3), uneven.read(0, 10)[7:])


# ------------------------------------------------------------------------------------------ views


def test_stretches_lie_within_the_clip():
    assert stretch(100, 4, 10, 0.0) == [0, 10, 20, 30]
    assert stretch(100, 4, 10, 0.9999) == [69, 79, 89, 99]
    assert stretch(9, 4, 10, 0.9999) == [2, 4, 6, 8]  # as far apart as there is room
    assert list(stretch(2, 4, 10, 0.5)) == [0, 0, 1, 1]
    assert stretch(5, 1, 4, 0.5) == [2]
    assert middle(100, 4, 10) == [35, 45, 55, 65]
    assert list(middle(12, 4, 10)) == [1, 4, 7, 10]


def test_a_view_has_one_crop_and_one_draw_of_colors_for_all_frames():
    kind = kinds.made({"kind": "clip", "frames": 4, "stride": 2})
    flat = [np.full((32, 48, 3), (90, 140, 200), np.uint8)] * 20
    still_take, take = (Take(film(f, "ffv1", "matroska", "bgr0")) for f in (flat, moving(20)))
    views = kind.views(selftaught.augment.simclr(24, blur=0.0))
    one, other = views(still_take, sample_rng(0, 0, 1))
    assert one.shape == other.shape == (4, 3, 24, 24)
    assert (one == one[:1]).all()
    assert not np.array_equal(one, other)
    again = views(take, sample_rng(0, 0, 1))
    assert all(map(np.array_equal, again, views(take, sample_rng(0, 0, 1))))
    small = kind.views(selftaught.augment.multicrop(24, 16, 2))(take, sample_rng(0, 0, 1))
    assert [v.shape for v in small] == [(4, 3, s, s) for s in (24, 24, 16, 16)]


def test_prepared_views_are_normalized_with_channels_first():
    kind = kinds.made({"kind": "clip", "frames": 2, "stride": 1})
    encoder = kind.build(size=16, frames=2, patch_size=8, width=12, depth=1, heads=1)
    x = torch.randint(0, 255, (2, 2, 3, 16, 16), dtype=torch.uint8)
    made, index = kind.prepare((x, torch.arange(2)), encoder)
    assert made.shape == (2, 3, 2, 16, 16)
    wanted = (x[1, 0, 2].float() / 255 - encoder.mean[2]) / encoder.std[2]
    torch.testing.assert_close(made[1, 2, 0], wanted)
    assert index.tolist() == [0, 1]


def test_floors_know_the_middle_frame_and_where_it_changes():
    x = torch.zeros(2, 5, 3, 16, 16, dtype=torch.uint8)
    x[1, ::2, :, :2, :2] = 255
    assert still(x).shape == (2, 192)
    found = changes(x)[:, 192:]
    assert found[0].abs().max() == 0
    assert found[1, 0] == 1
    assert found[1, 1:].abs().max() == 0
    assert changes(x[:, :1]).shape == (2, 256)


# --------------------------------------------------------------------------------------- encoders


def test_clips_of_other_sizes_get_positions_of_their_own():
    torch.manual_seed(0)
    for name in ("vit_tiny", "vit_tiny_rope"):
        given = {"patch_size": 8, "width": 24, "depth": 1, "heads": 2}
        large, small = (ClipEncoder(name, s, 4, **given).eval() for s in ((16, 24), 16))
        own = {k: v for k, v in small.net.state_dict().items() if k == "pos_embed"}
        small.net.load_state_dict(large.net.state_dict() | own)
        x = torch.randn(1, 3, 4, 16, 16)
        torch.testing.assert_close(large(x), small(x))
        assert large.features(x).grid == (2, 4)
    with pytest.raises(UserError, match=r"takes clips \[B, 3, frames, H, W\]"):
        large(torch.zeros(2, 3, 16, 16))
