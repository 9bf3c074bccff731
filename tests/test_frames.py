"""Clips become frames with masks of what moves, and `motion` learns from images with masks."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from selftaught import open_data
from selftaught.backbones import backbone
from selftaught.cli import main
from selftaught.data.image.decode import BadSample
from selftaught.data.image.masks import open_masks
from selftaught.data.selection import without
from selftaught.data.video import clips
from selftaught.data.video import frames as made_frames
from selftaught.data.video.clips import Frame, Video, find_clips
from selftaught.data.video.flow import motion_mask
from selftaught.data.video.frames import frames
from selftaught.engine.pretrain import pretrain
from selftaught.errors import DataError, UserError
from selftaught.methods.pretext.motion import Motion, cells, cross_entropy, trimap
from tests.cases import with_masks
from tests.test_engine import curve

HEIGHT, WIDTH, SQUARE = 72, 96, 24


def scene(count: int, pan: int = 1, speed: int = 3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames of a square that crosses a wall while the camera pans, and where the square is."""
    rng = np.random.default_rng(0)

    def texture(height: int, width: int) -> np.ndarray:
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), np.uint8))
        return np.asarray(coarse.resize((width, height), PIL.Image.Resampling.BICUBIC))

    wall, square = texture(HEIGHT, WIDTH + 80), texture(SQUARE, SQUARE)
    images, masks = [], []
    for t in range(count):
        image, mask = wall[:, 40 - pan * t :][:, :WIDTH].copy(), np.zeros((HEIGHT, WIDTH), bool)
        place = np.s_[20 : 20 + SQUARE, 16 + speed * t : 16 + speed * t + SQUARE]
        image[place], mask[place] = square, True
        images.append(image)
        masks.append(mask)
    return images, masks


def stills(folder: Path, images: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        PIL.Image.fromarray(image).save(folder / f"frame{i}.png")


def video(path: Path, images: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.bit_rate = 4_000_000
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def refuse(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    assert main(words) == code
    return capsys.readouterr().err


def test_what_moves_is_found_although_the_camera_moves_too():
    images, masks = scene(3)
    found = motion_mask(*images)
    sure = (found < 0.4 * 255) | (found > 0.7 * 255)
    assert sure.mean() > 0.8
    assert ((found > 0.7 * 255) == masks[1])[sure].mean() > 0.95
    still = motion_mask(*scene(3, pan=2, speed=2)[0])  # the square stays on the wall
    assert (still > 0.7 * 255).mean() < 0.05


def test_clips_of_all_kinds_become_frames_that_can_be_trained_on(tmp_path, capsys):
    images, masks = scene(12)
    stills(tmp_path / "clips" / "walls" / "b", images)
    video(tmp_path / "clips" / "a.mp4", images)
    assert [c.name for c in find_clips(tmp_path / "clips")] == ["a.mp4", "walls/b"]
    out = tmp_path / "frames"
    words = ["frames", str(tmp_path / "clips"), str(out), "--every", "4", "--apart", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "6 frames of 2 clips" in said
    assert f"selftaught pretrain motion {out}" in said
    samples = open_data(out)
    found = open_masks(out, samples)
    assert len(samples) == len(found) == 6
    table = pq.read_table(out / "walls" / "b.parquet")
    assert table["frame"].to_pylist() == [1, 5, 9]
    for row, number in enumerate(table["frame"].to_pylist()):
        i = 3 + row
        assert np.array_equal(samples.read(i), images[number])  # the file, as it was
        assert ((found.read(i) > 0.55 * 255) & masks[number]).sum() > 0.7 * masks[number].sum()


def test_tables_are_read_by_seq_and_frame_and_large_frames_are_reduced(tmp_path):
    images, _ = scene(6)
    order = np.random.default_rng(1).permutation(6)
    files = []
    for i in order:
        file = io.BytesIO()
        PIL.Image.fromarray(images[i]).save(file, "PNG")
        files.append(file.getvalue())
    columns = {"image": files, "seq": ["x"] * 6, "frame": (order * 10).tolist()}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    made = frames(tmp_path / "t.parquet", tmp_path / "out", every=1, apart=1, side=36)
    assert made.written == 4
    table = pq.read_table(tmp_path / "out" / "x.parquet")
    assert table["frame"].to_pylist() == [10, 20, 30, 40]
    assert open_data(tmp_path / "out").read(0).shape == (36, 48, 3)
    assert open_masks(tmp_path / "out", open_data(tmp_path / "out")).read(0).shape == (36, 48)
    pq.write_table(pa.table({"image": files}), tmp_path / "none.parquet")
    with pytest.raises(UserError, match="no column seq"):
        find_clips(tmp_path / "none.parquet")


def test_broken_clips_are_listed_and_survived(tmp_path, capsys):
    images, _ = scene(12)
    data, out = tmp_path / "clips", tmp_path / "frames"
    stills(data / "good", images)
    stills(data / "alone", images[:1])
    stills(data / "idle", [images[0]] * 8)
    stills(data / "hurt", images)
    (data / "hurt" / "frame6.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    (data / "no.mp4").write_bytes(b"this is no video")
    made = frames(data, out, every=1, apart=1)
    assert set(made.bad) == {"alone", "idle", "no.mp4"}
    assert "1 frame, where motion needs 3 of one size in a row" in made.bad["alone"]
    assert "nothing" not in made.bad["no.mp4"]
    assert "cannot be read as a video" in made.bad["no.mp4"]
    assert made.skipped == {"frames in which nothing moves": 6, "frames that cannot be read": 1}
    assert made.written == 10 + 4 + 3
    assert "alone," in (out / "bad_clips.csv").read_text()
    assert refuse(["frames", str(data / "alone"), str(tmp_path / "none")], capsys, 3).startswith(
        f"error: none of 1 clips in {data / 'alone'} gives a frame; alone: 1 frame, "
    )


def test_a_video_that_ends_early_gives_the_frames_before(tmp_path):
    images, _ = scene(12)
    video(tmp_path / "a.avi", images)
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) * 2 // 3])
    made = frames(tmp_path / "a.avi", tmp_path / "out", every=1, apart=1)
    assert 0 < made.written < 10


@pytest.mark.parametrize("part", [3, 5, 7])
def test_a_video_that_is_damaged_inside_repeats_no_frame(tmp_path, part):
    """Decoders put the frame before in place of what they cannot read, and say nothing."""
    images, _ = scene(12)
    path = tmp_path / "a.avi"
    video(path, images)
    whole = [frame.pixels for frame in Video(str(path), "a").frames() if isinstance(frame, Frame)]
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    data, at = bytearray(path.read_bytes()), packets[part].pos + 8 + packets[part].size // 3
    data[at : at + packets[part].size // 2] = bytes(packets[part].size // 2)
    path.write_bytes(data)
    read = []
    with pytest.raises(BadSample, match=r"damaged inside|cannot be read as a video"):
        read.extend(Video(str(path), "a").frames())
    assert len(read) <= part
    for frame, pixels in zip(read, whole, strict=False):
        assert (frame.pixels == pixels).all()
    made = frames(path, tmp_path / "out", every=1, apart=1)
    assert "after" in made.bad["a.avi"]


def test_a_stopped_command_goes_on_and_other_settings_are_refused(tmp_path, monkeypatch):
    images, _ = scene(8)
    for name in "ab":
        stills(tmp_path / "clips" / name, images)

    class Stopped(BaseException):
        pass

    write = made_frames._write

    def stop(path, rows, clip, settings):
        if clip == "b":
            raise Stopped
        write(path, rows, clip, settings)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(made_frames, "_write", stop)
        with pytest.raises(Stopped):
            frames(tmp_path / "clips", out)
    assert [p.name for p in out.iterdir()] == ["a.parquet"]
    before = (out / "a.parquet").stat().st_mtime_ns
    made = frames(tmp_path / "clips", out)
    assert (made.done, made.clips, made.written) == (1, 2, 2)
    assert (out / "a.parquet").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="every was 5, is 2"):
        frames(tmp_path / "clips", out, every=2)
    with pytest.raises(UserError, match="must be at least 1"):
        frames(tmp_path / "clips", out, every=0)


def test_what_cannot_be_clips_is_refused_in_words(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("no clip")
    (tmp_path / "empty").mkdir()
    out = str(tmp_path / "out")
    assert "holds no clips that can be read" in refuse(
        ["frames", str(tmp_path / "notes.txt"), out], capsys
    )
    assert "neither videos nor folders" in refuse(["frames", str(tmp_path / "empty"), out], capsys)
    assert "does not exist" in refuse(["frames", str(tmp_path / "gone"), out], capsys)

    def lacking(name: str):
        raise ImportError(name)

    monkeypatch.setattr(clips, "import_module", lacking)
    with pytest.raises(UserError, match=r'pip install "selftaught\[video\]"'):
        frames(tmp_path / "empty", tmp_path / "out")


# training ------------------------------------------------------------------------------------


def photos(count: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)


def motion() -> Motion:
    torch.manual_seed(0)
    return Motion(backbone("test_resnet", size=32), width=16)


FAST = {"epochs": 1, "batch": 8, "workers": 0, "precision": "fp32", "evaluate": False}


def test_pixels_that_are_not_sure_count_for_nothing():
    goal = trimap(torch.tensor([0.0, 0.39, 0.4, 0.7, 0.71, 1.0]), 0.4, 0.7)
    assert goal.tolist() == [0, 0, -1, -1, 1, 1]
    logits = torch.tensor([-5.0, -5.0, 9.0, -9.0, 5.0, 5.0])
    assert cross_entropy(logits, goal) == pytest.approx(np.log1p(np.exp(-5.0)), rel=1e-5)
    assert cross_entropy(logits, torch.full((6,), -1)) == 0
    halves = cells(torch.eye(4)[None], torch.zeros(1, 2, 2))
    assert torch.equal(halves[0], torch.eye(2) / 2)


def test_frame_and_mask_are_cropped_alike():
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    pipeline = motion().views(32)
    for seed in range(5):
        frame, mask = pipeline(
            np.concatenate([image, image[..., :1]], 2), np.random.default_rng(seed)
        )
        assert np.array_equal(frame[0], (255 * mask).round().astype(np.uint8))


def test_a_mask_of_another_size_is_a_counted_skip(tmp_path):
    path = with_masks(photos(), tmp_path / "data.parquet")
    table = pq.read_table(path)
    masks = table["mask"].to_pylist()
    file = io.BytesIO()
    PIL.Image.fromarray(np.zeros((7, 9), np.uint8)).save(file, "PNG")
    masks[3] = file.getvalue()
    pq.write_table(table.set_column(1, "mask", pa.array(masks)), path)
    pretrain(motion(), path, tmp_path / "run", max_bad=0.1, **FAST)
    listed = (tmp_path / "run" / "bad_files.csv").read_text()
    assert "data.parquet::3" in listed
    assert "has 9 x 7 pixels, the image 40 x 40: both must be of one size" in listed
    with pytest.raises(DataError):
        pretrain(motion(), path, tmp_path / "strict", max_bad=0.0, **FAST)


def recoded(path: Path, values: Callable[[np.ndarray], PIL.Image.Image]) -> Path:
    """The data with other masks."""
    table, masks = pq.read_table(path), []
    for data in table["mask"].to_pylist():
        file = io.BytesIO()
        values(np.asarray(PIL.Image.open(io.BytesIO(data)))).save(file, "PNG")
        masks.append(file.getvalue())
    pq.write_table(table.set_column(1, "mask", pa.array(masks)), path)
    return path


@pytest.mark.parametrize("bits", [1, 8])
def test_masks_of_yes_and_no_are_learned_from_as_such(bits, tmp_path):
    whole = with_masks(photos(), tmp_path / "a" / "data.parquet")
    yes = with_masks(photos(), tmp_path / "b" / "data.parquet")
    recoded(yes, lambda x: PIL.Image.fromarray(x > 0 if bits == 1 else (x > 0).astype(np.uint8)))
    pretrain(motion(), whole, tmp_path / "whole", **FAST)
    pretrain(motion(), yes, tmp_path / "yes", **FAST)
    assert curve(tmp_path / "yes") == curve(tmp_path / "whole")


def test_masks_of_classes_are_refused(tmp_path):
    path = with_masks(photos(), tmp_path / "data.parquet")
    recoded(path, lambda x: PIL.Image.fromarray(x // 51))
    with pytest.raises(UserError, match=r"value of 16 masks is 5: they look like .* classes"):
        pretrain(motion(), path, tmp_path / "run", **FAST)


def test_a_quarantine_list_leaves_masks_beside_their_images(tmp_path):
    images = photos()
    path = with_masks(images, tmp_path / "data.parquet")
    (tmp_path / "bad.csv").write_text("path,reason,first_step\ndata.parquet::0,dark,\n")
    pretrain(motion(), path, tmp_path / "run", quarantine=tmp_path / "bad.csv", **FAST)
    whole, kept = open_masks(path, open_data(path)), without(open_data(path), tmp_path / "bad.csv")
    rest = whole.of(kept)
    assert len(kept) == len(rest) == 15
    assert all(np.array_equal(rest.read(i), whole.read(i + 1)) for i in range(15))


def test_motion_needs_masks_and_others_do_not_take_them(tmp_path, capsys):
    folder = tmp_path / "photos"
    stills(folder, list(photos()))
    words = ["--backbone", "test_resnet", "--size", "32", "--out", str(tmp_path / "run")]
    said = refuse(["pretrain", "motion", str(folder), *words], capsys)
    assert "masks are needed" in said
    assert "--masks" in said
    said = refuse(["pretrain", "simclr", str(folder), "--masks", "mask", *words], capsys)
    assert "simclr does not learn from masks" in said
    with pytest.raises(UserError, match="0 < low <= high < 1"):
        Motion(backbone("test_resnet", size=32), low=0.8)
