"""Arrays whose channels come first are recognized, and never trained on as if they came last."""

import numpy as np
import pytest
import torch

from selftaught.data import BadSample, open_data
from selftaught.data.cached import cached
from selftaught.data.image.decode import layout_of
from selftaught.errors import UserError
from selftaught.feed.check import check

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((64, 48, 3), 3),
        ((64, 48, 1), 3),
        ((48, 48, 3), 1),
        ((64, 48, 12), 12),
        ((100, 100, 100 + 24), 124),
        ((4, 5, 6), 6),
        ((2, 9, 3), 3),
    ],
)
def test_channels_last(shape, channels):
    assert layout_of(shape, channels) == "HWC"


@pytest.mark.parametrize(
    ("shape", "channels", "says"),
    [
        ((3, 64, 64), 3, "looks like"),
        ((1, 64, 64), 3, "looks like"),
        ((3, 64, 64), 64, "looks like"),  # as the old advice had it
        ((12, 64, 64), 3, "--layout CHW --channels 12"),
        ((12, 64, 64), 64, "looks like"),
        ((200, 64, 64), 64, "looks like"),
        ((4, 64, 48), 48, "looks like"),
        ((64, 64, 64), 64, "may be"),
        ((3, 3, 3), 3, "may be"),
        ((3, 3, 224), 3, "looks like"),
        ((3, 224, 3), 3, "may be"),
        ((145, 150, 200), 3, "may be"),
    ],
)
def test_channels_first_or_either(shape, channels, says):
    with pytest.raises(BadSample, match=says) as error:
        layout_of(shape, channels)
    assert "--layout HWC" in error.value.reason
    assert "--layout CHW" in error.value.reason
    assert layout_of(shape, channels, "CHW") == "CHW"
    assert layout_of(shape, channels, "HWC") == "HWC"


def forms(first: np.ndarray, tmp_path):
    """The images [N, C, H, W] as everything that an array can be given in."""
    np.save(tmp_path / "stack.npy", first)
    np.savez(tmp_path / "stack.npz", images=first)
    np.savez_compressed(tmp_path / "small.npz", images=first)
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, image in enumerate(first):
        np.save(folder / f"{i}.npy", image)
    tensors = torch.from_numpy(first)
    yield "array", first
    yield "npy", tmp_path / "stack.npy"
    yield "npz", tmp_path / "stack.npz"
    yield "compressed", tmp_path / "small.npz"
    yield "folder", folder
    yield "list", list(first)
    yield "tensors", list(tensors)
    yield "dataset", torch.utils.data.TensorDataset(tensors, torch.arange(len(first)))
    yield "items", [{"image": t} for t in tensors]


@pytest.mark.parametrize(("count", "asked"), [(3, 3), (12, 12), (4, 4), (1, 3)])
def test_every_form(count, asked, tmp_path):
    first = RNG.integers(0, 255, (5, count, 32, 40), dtype=np.uint8)
    wanted = np.broadcast_to(np.moveaxis(first, 1, 3), (5, 32, 40, asked))
    for form, data in forms(first, tmp_path):
        with pytest.raises((UserError, BadSample), match="--layout CHW"):
            open_data(data, channels=asked).open(1)
        with pytest.raises((UserError, BadSample), match="--layout CHW"):
            open_data(data, channels=asked).header(1)
        samples = open_data(data, channels=asked, layout="CHW")
        assert len(samples) == 5, form
        np.testing.assert_array_equal(samples.read(1), wanted[1], form)
        np.testing.assert_array_equal(samples.open(1).read()[0], wanted[1], form)
        header = samples.header(1)
        assert (header.height, header.width, header.channels) == (32, 40, count), form
        np.testing.assert_array_equal(cached(samples).read(1), wanted[1], form)


def test_the_wrong_advice_is_gone(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 64, 64), np.uint8))
    with pytest.raises(BadSample) as error:
        open_data([tmp_path / "a.npy"]).read(0)
    assert "reads it as is" not in error.value.reason


def test_floats_as_torch_has_them():
    x = torch.rand(6, 3, 32, 32)
    got = open_data(list(x), layout="CHW").read(2)
    np.testing.assert_array_equal(got, np.rint(x[2].permute(1, 2, 0).numpy() * 255))
    with pytest.raises(BadSample, match="tensor"):
        open_data([torch.zeros(3, 8, 8, dtype=torch.bfloat16)], layout="CHW").read(0)


def test_check_counts_what_training_refuses(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 64, 64), np.uint8))
    np.save(tmp_path / "b.npy", RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for full in (True, False):
        report = check(tmp_path, full=full, workers=0, progress=False)
        assert (report.total, report.readable) == (2, 1)
        assert "looks like [C, H, W]" in report.bad[0][1]
    right = check([np.zeros((3, 64, 64), np.uint8)], workers=0, progress=False, layout="CHW")
    assert right.readable == 1


def test_one_image_is_no_set():
    with pytest.raises(UserError, match=r"array\[None\]"):
        open_data(np.zeros((64, 64, 3), np.uint8))
    assert len(open_data(np.zeros((3, 64, 64), np.uint8))) == 3


def test_a_word_that_is_no_layout():
    with pytest.raises(UserError, match="must be HWC or CHW"):
        open_data(np.zeros((4, 8, 8, 3), np.uint8), layout="NCHW")
