"""Colors and blur by the batch: what the reference makes, in every pipeline that can be split."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from selftaught import augment
from selftaught.augment import Deferred, View, Views, finish_on_device
from selftaught.augment.image import native, photometric, render
from selftaught.augment.image.batch import Rngs
from selftaught.data import open_data
from selftaught.engine import colors
from selftaught.engine.colors import Costs
from selftaught.errors import UserError
from selftaught.feed.readers import Readers
from selftaught.feed.views import ViewDataset as Feed
from selftaught.feed.views import collate
from tests.cases import CASES
from tests.photos import by_reference
from tests.test_engine import Killed, curve, killed_after, make, train


@pytest.fixture(params=["native", "reference"])
def engine(request, monkeypatch) -> str:
    """What crops: both hand over the same settings."""
    if request.param == "reference":
        monkeypatch.setattr(native, "library", lambda: None)
    else:
        assert native.library() is not None
    return request.param


def off(got, want) -> np.ndarray:
    return np.abs(np.asarray(got).astype(int) - np.asarray(want))


def by_device(pipeline: Views, images, rngs) -> list[torch.Tensor]:
    raw = pipeline.split()
    assert raw is not None
    made = raw.batch(images, rngs)
    assert isinstance(made, Deferred)
    return finish_on_device(made, "cpu")


# -------------------------------------------------------------------------------------- fidelity

OPERATIONS = {
    "brightness": View(96, jitter=(0.8, 0, 0, 0), jitter_p=1),
    "contrast": View(96, jitter=(0, 0.8, 0, 0), jitter_p=1),
    "saturation": View(96, jitter=(0, 0, 0.8, 0), jitter_p=1),
    "hue": View(96, jitter=(0, 0, 0, 0.5), jitter_p=1),
    "jitter": View(96, jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=1),
    "gray": View(96, gray=1),
    "blur": View(96, blur=1),
    "blur cut": View(96, blur=1, blur_radius=2),
    "blur wide": View(48, blur=1, blur_sigma=(5.0, 40.0)),
    "blur of a pixel": View(1, blur=1),
    "solarize": View(96, solarize=1),
    "erase": View(96, solarize=1, erase=1, fill=(9, 99, 199)),
    "wide": View((9, 120), blur=1, blur_sigma=(5.0, 40.0), erase=1),
    "high": View((120, 31), jitter=(0.4, 0.4, 0.4, 0), jitter_p=1, blur=1),
    "turned": View(96, vertical=0.5, turns=True, solarize=1),
    "all": View(64, jitter=(0.4,) * 4, jitter_p=1, gray=0.5, blur=1, solarize=1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_agrees_with_the_reference_on_photos(name, photos, monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)  # the same crops, to the last bit
    pipeline = Views((OPERATIONS[name],))
    rngs = Rngs(3, [(0, i) for i in range(len(photos))])
    (got,), (want,) = by_device(pipeline, photos, rngs), by_reference(pipeline, photos, rngs)
    difference = off(got, want)
    if not OPERATIONS[name].blur and not OPERATIONS[name].jitter[3]:
        assert difference.max() == 0
    assert difference.max() <= 2  # ties of the blur's and of the hue's rounding
    assert difference.mean() < 1e-3


def test_hue_and_gray_are_right_for_every_color():
    levels = torch.arange(0, 256, 5, dtype=torch.uint8)
    x = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 52, -1).contiguous()
    for turn in (-0.5, -0.2, -1e-8, 0.0, 0.07, 0.5):
        settings = torch.zeros(1, photometric.SETTINGS, 1, 1, 1)
        settings[:, photometric.FACTOR + 3] = turn
        got = photometric._hue(x, settings).to(torch.uint8)[0]
        difference = off(got, render.hue(x[0].float(), turn))
        assert difference.max() <= 1
        assert difference.mean() < 1e-3
    assert torch.equal(photometric._grayscale(x, settings)[0], render.grayscale(x[0].float()))


RECIPES = {
    "simclr": augment.simclr(64),
    "simclr 32": augment.simclr(32, 0.5, 0.0),
    "moco_v1": augment.moco_v1(64),
    "byol": augment.byol(64),
    "dino": augment.multicrop(64, 32, 4),
    "swav": augment.multicrop(64, 32, 3, (0.14, 1.0), (0.05, 0.14), family="swav"),
    "oblong": Views((View((16, 60), blur=1, erase=0.5), View((40, 24), gray=0.5))),
    "one plain view": Views((View(48), augment.byol(48).views[1])),
}


@pytest.mark.parametrize("name", RECIPES)
def test_whole_views_agree_with_the_reference_and_with_the_loader(name, engine, photos, files):
    pipeline = RECIPES[name]
    rngs = Rngs(5, [(2, i) for i in range(len(photos))])
    for got, want in (
        (by_device(pipeline, photos, rngs), by_reference(pipeline, photos, rngs)),
        (by_device(pipeline, files, rngs), pipeline.batch(files, rngs)),
    ):
        for a, b in zip(got, want, strict=True):
            assert a.shape == b.shape
            assert a.dtype == torch.uint8
            difference = off(a, b)
            assert difference.mean() <= 0.3
            assert (difference > 1).mean() <= 0.02


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_other_than_three_channels_get_what_makes_sense(channels, engine, photos):
    images = [np.concatenate([p] * 5, 2)[..., :channels] for p in photos[:4]]
    view = View(40, jitter=(0.4, 0.4, 0.4, 0.1), blur=0.5, gray=0.5)
    pipeline, rngs = Views((view, replace(view, solarize=1.0))), Rngs(0, [(0, i) for i in range(4)])
    for got, want in zip(by_device(pipeline, images, rngs), by_reference(pipeline, images, rngs)):
        assert got.shape == (4, channels, 40, 40)
        assert off(got, want).mean() <= 0.3


def test_parameters_are_those_of_the_loader(photos):
    pipeline = augment.byol(32)
    rngs = Rngs(1, [(0, i) for i in range(12)])
    raw = pipeline.split().batch(photos, rngs)
    for image, rng, rows in zip(photos, rngs, raw.settings.numpy()):
        for view, p, row in zip(pipeline.views, pipeline.draw(rng, *image.shape[:2]), rows):
            assert tuple(k for k in row[:4] if k >= 0) == p.order
            assert np.allclose(row[4:8], p.factors, atol=1e-7)
            assert row[photometric.GRAY] == p.gray
            assert row[photometric.SIGMA] == np.float32(p.sigma)
            assert row[photometric.SOLARIZE] == p.solarize
            assert row[photometric.REACH] == min(np.ceil(5 * p.sigma), view.size - 1)


def test_parts_of_a_batch_do_not_show(photos, monkeypatch):
    rngs = Rngs(0, [(0, i) for i in range(12)])
    raw = augment.multicrop(32, 16, 3).split().batch(photos, rngs)
    before = [x.clone() for x in raw.images]
    whole = finish_on_device(raw, "cpu")
    monkeypatch.setattr(photometric, "ROOM", 5 * 3 * 32 * 32)
    for a, b in zip(whole, finish_on_device(raw, torch.device("cpu")), strict=True):
        assert off(a, b).max() <= 1  # a product of matrices may add in another order
        assert off(a, b).mean() < 1e-3
    assert all(torch.equal(a, b) for a, b in zip(raw.images, before))  # what came in is left alone
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(
            torch.equal(a, b) for a, b in zip(whole, finish_on_device(raw, "cpu"), strict=True)
        )


# ------------------------------------------------------------------------------ what can be split


def test_samples_are_rows_of_the_batch_and_broken_ones_replaced(engine, files):
    bad = [*files[:5], files[5][:500], *files[6:]]
    for pipeline in (augment.simclr(24), replace(augment.simclr(24), boxes=True)):
        raw = colors.split(pipeline)
        whole, feed = Feed(open_data(bad), pipeline, 4), Feed(open_data(bad), raw, 4)
        keys = [(1, i) for i in range(len(bad))]
        singles, at_once = collate([feed[k] for k in keys]), feed.__getitems__(keys)
        want = whole.__getitems__(keys)
        for item in (singles, at_once):
            assert torch.equal(item.index, want.index)
            got, expected = finish_on_device(item.views, "cpu"), want.views
            if pipeline.boxes:
                assert torch.equal(got[1], expected[1])
                got, expected = got[0], expected[0]
            assert all(off(a, b).mean() <= 0.3 for a, b in zip(got, expected, strict=True))
    (item,) = Readers(pickle.loads(pickle.dumps(feed)).__getitems__, [keys], 1)
    assert isinstance(item.views[0], Deferred)
    assert torch.equal(item.views[0].settings, at_once.views[0].settings)


def leaves(node) -> list[torch.Tensor]:
    return [node] if isinstance(node, torch.Tensor) else [x for part in node for x in leaves(part)]


def test_pipelines_are_split_right_or_not_at_all(photos):
    """Masks and boxes pass beside colors that wait; what needs finished pixels has none."""
    found = set()
    for name in CASES:
        pipeline = make(name).views(32)
        if (raw := colors.split(pipeline)) is None:
            continue
        found.add(name)
        both = []
        for kind in (pipeline, raw):
            rngs = [augment.sample_rng(0, 0, i) for i in range(3)]
            made = default_collate([kind(photo, rng) for photo, rng in zip(photos, rngs)])
            both.append(leaves(finish_on_device(made, "cpu")))
        for a, b in zip(*both, strict=True):
            assert a.shape == b.shape, name
            if a.dtype == torch.uint8:
                assert off(a, b).mean() <= 0.3, name
            else:
                assert torch.equal(a, b), name
    assert found >= {"simclr", "dino", "swav", "vicreg", "ibot", "scrl", "pixpro", "pixcontrast"}
    assert not found & {"mae", "jigsaw", "colorization", "infomin", "pirl", "cpc", "simmim"}


@pytest.mark.parametrize("pipeline", [augment.crop(32), augment.tiles(32, gray=0.5), len])
def test_views_that_cannot_be_split_stay_in_the_loader_with_a_word(pipeline, caplog):
    caplog.set_level("WARNING", "selftaught")
    gpu = torch.device("cuda")
    assert colors.split(pipeline) is None
    assert colors.settled("auto", pipeline, gpu, None) == "loader"
    assert not caplog.text
    assert colors.settled("device", pipeline, gpu, None) == "loader"
    assert "the loader makes them whole" in caplog.text


# -------------------------------------------------------------------------------------- training


@pytest.mark.usefixtures("unfinished")
def test_what_was_measured_is_written_down_and_the_run_resumes_bit_for_bit(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", "selftaught")
    whole = train(tmp_path / "whole", colors="device", save_every=0)
    assert "which is slower without a GPU" in caplog.text
    out = tmp_path / "run"
    with monkeypatch.context() as patch:  # as if there were a GPU, and worth it
        patch.setattr("selftaught.engine.plan.settled", lambda asked, *_: asked)
        patch.setattr(colors, "GAIN", 1e9)
        with pytest.raises(Killed):
            train(out, method=killed_after(make(), 4), save_every=0, workers=1)
    assert "colors and blur are made on the device" in caplog.text
    assert "colors: device" in (out / "run.yaml").read_text()
    monkeypatch.setattr("selftaught.engine.run.choose", pytest.fail)
    resumed = train(out, resume=True, save_every=0)
    assert curve(out) == curve(tmp_path / "whole")  # measuring has moved no generator
    theirs = resumed.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in whole.state_dict().items())


@pytest.mark.usefixtures("unfinished")
def test_neither_workers_nor_the_loader_change_what_is_learned(tmp_path):
    options = {"epochs": 1, "resolution_phase": "24@0.4"}
    for out, chosen in (("a", "device"), ("b", "device"), ("c", "loader")):
        train(tmp_path / out, colors=chosen, workers=2 if out == "b" else 0, **options)
    first, again, loaded = (curve(tmp_path / out) for out in "abc")
    assert first == again
    assert float(first[0]["loss"]) == pytest.approx(float(loaded[0]["loss"]), rel=0.01)
    with np.load(tmp_path / "a" / "views.npz") as kept:  # for the report, with colors
        assert {name: view.shape for name, view in kept.items()} == dict.fromkeys(
            ("view0", "view1"), (12, 3, 32, 32)
        )


def test_a_method_that_hides_parts_of_its_views_trains_with_colors_on_the_device(tmp_path):
    train(tmp_path / "run", "ibot", colors="device", epochs=1, accumulate=2)
    assert "colors: device" in (tmp_path / "run" / "run.yaml").read_text()


def test_without_a_gpu_the_loader_does_it_unmeasured(tmp_path, monkeypatch):
    monkeypatch.setattr("selftaught.engine.run.choose", pytest.fail)
    train(tmp_path / "run", epochs=1)
    assert "colors: loader" in (tmp_path / "run" / "run.yaml").read_text()


def test_memory_that_does_not_suffice_leaves_colors_in_the_loader(tmp_path, monkeypatch, caplog):
    caplog.set_level("WARNING", "selftaught")

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("selftaught.engine.plan.settled", lambda asked, *_: asked)
    monkeypatch.setattr(colors, "_computing", full)
    train(tmp_path / "run", epochs=1)
    assert "too little memory to measure" in caplog.text
    assert "colors: loader" in (tmp_path / "run" / "run.yaml").read_text()


@pytest.mark.parametrize(
    ("costs", "best"),
    [
        (Costs(1.0, 0.5, 0.2, 0.1), "device"),  # the GPU waits
        (Costs(0.5, 0.3, 1.0, 0.1), "loader"),  # the loader waits
        (Costs(1.0, 0.99, 0.2, 0.1), "loader"),  # decoding is what takes the time
        (Costs(1.0, 0.5, 0.95, 0.3), "loader"),  # the GPU would be the next to be waited for
    ],
)
def test_the_slower_side_decides(costs, best):
    assert costs.best == best
    assert f"{8000 * getattr(costs, best):,.0f} ms a step of 8 there" in costs.sentence(8)


def test_a_gpu_is_measured_and_a_choice_is_kept(tmp_path):
    pipeline, gpu, cpu = augment.simclr(32), torch.device("cuda"), torch.device("cpu")
    assert colors.settled("auto", pipeline, gpu, None) == "auto"
    assert colors.settled("auto", pipeline, cpu, None) == "loader"
    assert colors.settled("loader", pipeline, gpu, None) == "loader"
    assert colors.settled("device", pipeline, cpu, None) == "device"
    assert colors.settled("auto", pipeline, gpu, tmp_path) == "auto"
    for written, kept in (("device", "device"), ("loader", "loader"), ("auto", "auto")):
        (tmp_path / "run.yaml").write_text(f"training: {{colors: {written}}}\n")
        assert colors.settled("auto", pipeline, gpu, tmp_path) == kept
    (tmp_path / "run.yaml").write_text("training: {epochs: 3}\n")  # of a version without a choice
    assert colors.settled("auto", pipeline, gpu, tmp_path) == "loader"


def test_no_such_choice_is_told_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match="one of auto, loader, device, got 'gpu'"):
        train(tmp_path / "run", data="nowhere", colors="gpu")
    assert not (tmp_path / "run").exists()
