"""Clips as samples: reading, views, encoders, methods, and what a run leaves."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selftaught
from selftaught import kinds
from selftaught.augment import sample_rng
from selftaught.augment.clip import middle, stretch
from selftaught.backbones import ClipEncoder
from selftaught.data import BadSample, open_data
from selftaught.data.video.take import Take
from selftaught.engine.build import assemble
from selftaught.errors import UserError
from selftaught.feed.check import check
from selftaught.kinds.floors.clip import changes, still
from selftaught.methods.pretext.temporal_order import TemporalOrder
from tests.films import film, folder, hurt, moving, sound
from tests.test_engine import often_killed

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


def test_moments_are_in_order_or_not_as_the_answer_says():
    """Frames that say their number, and in which direction they are played."""
    pixels = [np.full((16, 16, 3), 8 * t, np.uint8) for t in range(30)]
    take = Take(film(pixels, "ffv1", "matroska", "bgr0"))
    asked = {"kind": "clip", "frames": 2, "stride": 2}
    seen = set()
    for ask in ("order", "direction"):
        encoder = kinds.made(asked).build(size=16, frames=2, width=12, depth=1, heads=1)
        pipeline = kinds.of(encoder).views(TemporalOrder(encoder, ask).views(16))
        for i in range(40):
            parts, answer = pipeline(take, sample_rng(0, 0, i))
            numbers = [[int(frame.mean()) // 8 for frame in part] for part in parts]
            steps = {b - a for a, b in numbers}
            assert len(steps) == 1  # all are played in one direction
            (step,) = steps
            if ask == "direction":
                assert answer == (step < 0)
            else:
                first = [part[0] for part in numbers]
                assert len(set(first)) == 3
                ordered = first == sorted(first, reverse=step < 0)
                assert answer == ordered
            seen.add((ask, answer, step > 0))
    assert len(seen) == 6
    short = Take(film(pixels[:5], "ffv1", "matroska", "bgr0"))
    pipeline = kinds.of(encoder).views(TemporalOrder(encoder).views(16))
    with pytest.raises(BadSample, match="has 5 frames, too few for five moments of 2"):
        pipeline(short, sample_rng(0, 0, 0))
    encoder = ClipEncoder("vit_tiny", 16, 1, tubelet=1, width=12, depth=1, heads=1)
    with pytest.raises(UserError, match="one frame has no direction"):
        TemporalOrder(encoder, "direction")


# ------------------------------------------------------------------------------------------- runs

NET: dict[str, Any] = {"frames": 4, "size": 16, "patch_size": 8, "width": 12, "depth": 1}
NET |= {"heads": 1}
OWN = {"predictor_dim": 16, "predictor_depth": 1, "predictor_heads": 1}
HOW = {"batch": 4, "max_steps": 3, "workers": 0, "precision": "fp32"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("clips") / "clips")


@pytest.fixture(scope="module")
def run(clips: Path) -> Path:
    out = clips.parent / "run"
    selftaught.pretrain("vjepa", clips, out, **NET, **OWN, **HOW, stride=2)
    return out


def weights(run: Path) -> bytes:
    return (run / "encoder.safetensors").read_bytes()


def test_the_kind_is_told_by_endings_and_by_what_a_method_learns_from(clips: Path):
    assert kinds.guess(clips, tuple(kinds.files())) == "clip"
    assert kinds.guess(clips / "left" / "0.mp4", tuple(kinds.files())) == "clip"
    with pytest.raises(UserError, match=r"vjepa learns from .*clip.*--kind"):
        selftaught.pretrain("vjepa", np.zeros((8, 8, 8, 3), np.uint8), kind="image")


def test_a_run_of_clips_leaves_scores_a_page_that_moves_and_an_encoder(run: Path, clips: Path):
    names = {row["features"] for row in json.loads((run / "scores.json").read_text())["scores"]}
    assert names == {"this encoder", "untrained", "middle frame", "middle frame and changes"}
    page = (run / "report.html").read_text()
    assert page.count("data:image/webp;base64,") == 8
    assert len(page) < 2_000_000
    assert np.load(run / "views.npz")["view0"].shape[1:] == (3, 16, 48)  # three frames of each
    encoder = selftaught.load(run)
    kind = kinds.of(encoder)
    assert kind.config == {"kind": "clip", "frames": 4, "stride": 2}
    samples = open_data(clips, kind=kind)
    views = [kind.plain(encoder.size)(samples.read(i)) for i in range(3)]
    with torch.inference_mode():
        alone = encoder(kind.prepare(torch.from_numpy(np.stack(views)), encoder))
    found = selftaught.embed(run, clips, workers=0).features[:3]
    np.testing.assert_allclose(found, alone.numpy(), rtol=1e-4, atol=1e-5)


def test_workers_change_nothing_and_a_killed_run_goes_on(run: Path, clips: Path, tmp_path: Path):
    other = tmp_path / "other"
    asked = NET | OWN | HOW | {"workers": 1}
    selftaught.pretrain("vjepa", clips, other, **asked, stride=2, evaluate=False)
    assert weights(other) == weights(run)

    kind = kinds.made({"kind": "clip", "stride": 2})
    kind, given = kind.fill(dict(NET), open_data(clips, kind=kind))
    samples = open_data(clips, kind=kind)

    def train(out: Path, method: Any, resume: bool) -> Path:
        quick = HOW | {"save_every": 0, "evaluate": False}
        selftaught.pretrain(method, samples, out, resume=resume, **quick)
        return out

    fresh = partial(assemble, "vjepa", given | {"name": "vit_tiny"}, OWN, samples, 0)
    whole = train(tmp_path / "whole", fresh(), False)
    killed = often_killed(tmp_path / "killed", fresh, train, 1)
    assert weights(killed) == weights(whole)


@pytest.mark.parametrize(("what", "near"), [("", 1e-3), ("encoder.safetensors", 1e-6)])
def test_a_run_of_clips_begins_with_another_s_encoder(
    run: Path, clips: Path, what: str, near: float
):
    """Which says its size and frames: those of the data would be others. A run gives what was
    trained, of which its encoder is an average."""
    how = HOW | {"max_steps": 1, "evaluate": False, "lr": 1e-9}
    made = selftaught.pretrain(
        "temporal_order", clips, run.parent / f"s{what}", start=run / what, **how
    )
    theirs = selftaught.load(run).state_dict()
    assert made.encoder.config == selftaught.load(run).config
    for name, x in made.encoder.state_dict().items():
        torch.testing.assert_close(x, theirs[name], rtol=0, atol=near)


def test_clips_are_checked_all_through(clips: Path, tmp_path: Path):
    for name, content in (
        ("good.mp4", film(moving(12))),
        ("copy.mp4", film(moving(12))),
        ("late.mp4", hurt(LONG, 0.9, 300)),
        ("text.mp4", b"words\n" * 100),
    ):
        (tmp_path / name).write_bytes(content)
    found = check(tmp_path, workers=0)
    assert (found.kind.word, found.readable, len(found.bad)) == ("clip", 2, 2)
    assert found.sizes == (32, 32, 32)


def test_methods_for_any_kind_learn_from_clips(clips: Path, tmp_path: Path):
    how = HOW | {"max_steps": 1, "evaluate": False}
    made = selftaught.pretrain("simclr", clips, tmp_path / "run", **NET, **how)
    assert made.encoder.config["name"] == "vit_tiny"
