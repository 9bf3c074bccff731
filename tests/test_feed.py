"""Samples on their way to a network: which come, through what, and what ends a wait for them."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from selftaught import augment, evaluate, export
from selftaught.backbones import Image
from selftaught.data import open_data
from selftaught.engine import score
from selftaught.errors import UserError
from selftaught.feed.passes import DatasetPass, reading
from selftaught.feed.readers import Stuck
from selftaught.feed.views import ViewDataset, collate

MAIN = os.getpid()
BROKEN = [2, 4]


def photo(file: Path, seed: int, size: tuple[int, int] = (40, 48)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Picture.fromarray(pixels).save(file)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for i in range(8):
        file = folder / "ab"[i // 4] / f"{i}.png"
        photo(file, i)
        if i in BROKEN:
            file.write_bytes(b"no")
    return folder


def mean(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image.mean((0, 1)) + rng.random()


def leaves(views):
    return [x for v in views for x in leaves(v)] if isinstance(views, list | tuple) else [views]


PIPELINES = [
    augment.simclr(16),
    replace(augment.simclr(16), boxes=True),
    replace(augment.simclr(16), raw=True),
    augment.plain(16),
    mean,
]


@pytest.mark.parametrize("pipeline", PIPELINES, ids=["views", "boxes", "raw", "plain", "own"])
def test_what_is_left_out_changes_nothing_of_the_rest(photos, pipeline):
    views = ViewDataset(open_data(photos), pipeline, seed=3, replaced=False)
    keys = [(0, i) for i in range(8)]
    found = views.__getitems__(keys)
    assert found.index.tolist() == [0, 1, 3, 5, 6, 7]
    assert [bad.index for bad in found.bad] == BROKEN
    assert all(bad.reason for bad in found.bad)
    alone = collate([views[key] for key in keys if key[1] not in BROKEN])
    for x, y in zip(leaves(found.views), leaves(alone.views), strict=True):
        assert torch.equal(x, y)
    assert views[0, 2] == (None, None, found.bad[:1])


@pytest.mark.parametrize("pipeline", PIPELINES, ids=["views", "boxes", "raw", "plain", "own"])
def test_what_is_replaced_keeps_its_place(photos, pipeline):
    found = ViewDataset(open_data(photos), pipeline, seed=3).__getitems__(
        [(0, i) for i in range(8)]
    )
    assert {len(x) for x in leaves(found.views)} == {8}
    assert [i for i, used in enumerate(found.index.tolist()) if i != used] == BROKEN
    assert not set(found.index.tolist()) & set(BROKEN)


@pytest.mark.parametrize("pipeline", PIPELINES[::3])
def test_where_nothing_can_be_read_there_is_nothing(photos, pipeline):
    samples = open_data([str(photos / f"{'ab'[i // 4]}/{i}.png") for i in BROKEN])
    for replaced, index in ((True, [0, 1]), (False, [])):
        found = ViewDataset(samples, pipeline, 0, replaced=replaced).__getitems__([(0, 0), (0, 1)])
        assert found.views is None
        assert found.index.tolist() == index
        assert {bad.index for bad in found.bad} == {0, 1}


def test_plain_views_of_large_photos_are_decoded_smaller_where_that_is_allowed(tmp_path):
    photo(tmp_path / "large.jpg", 0, (640, 800))
    samples, view = open_data(tmp_path), augment.plain(16)
    small, whole = samples.read(0, min_side=2 * view.resize), samples.read(0)
    assert small.shape == (80, 100, 3)
    for reduced, image in ((True, small), (False, whole)):
        (found,) = ViewDataset(samples, view, 0, reduced=reduced).__getitems__([(0, 0)]).views
        assert np.array_equal(found, view(image))


def test_a_corpus_and_evaluation_see_the_same(photos):
    network = Image("test_resnet", 32).eval()
    found = evaluate.embed(network, photos)
    samples = open_data(photos)
    corpus = DatasetPass(samples, network, 3, 0, torch.device("cpu")).embed(network).numpy()
    np.testing.assert_allclose(corpus[found.index], found.features, rtol=1e-4, atol=1e-5)


# processes --------------------------------------------------------------------------------------


def readers() -> list[multiprocessing.process.BaseProcess]:
    """Processes that read; those of the tests' own pool are kept."""
    return [p for p in multiprocessing.active_children() if not p.name.startswith("pool-")]


def test_processes_end_with_the_pass_whatever_ends_it(photos):
    views = ViewDataset(open_data(photos), augment.plain(16), 0, replaced=False)
    with reading(views, range(8), 1, 2) as items:
        assert len(list(items)) == 8
        assert len(readers()) == 2
    assert not readers()

    def left() -> None:
        with reading(views, range(8), 1, 2) as items:
            next(iter(items))
            raise KeyError

    with pytest.raises(KeyError):
        left()
    assert not readers()


def frozen(monkeypatch) -> None:
    see = ViewDataset.see

    def stops(self, index, key):
        if index == 5 and os.getpid() != MAIN:
            os.kill(os.getpid(), signal.SIGSTOP)
        return see(self, index, key)

    monkeypatch.setattr(ViewDataset, "see", stops)


@pytest.mark.parametrize("command", [evaluate.embed_command, score.evaluate_command])
def test_a_reader_that_hangs_ends_a_command_and_the_option_is_named(
    photos, tmp_path, monkeypatch, command
):
    encoder = str(export.save(Image("test_resnet", 32), tmp_path / "run"))
    out = tmp_path / ("s.json" if command is score.evaluate_command else "f.npz")
    frozen(monkeypatch)
    options = {"workers": 2, "batch": 1, "out": out}
    with pytest.raises(Stuck, match=r"nothing for 0\.5 s.*--read-timeout"):
        command(encoder, str(photos), read_timeout=0.5, **options)
    assert not readers()
    for wrong in (0.0, -3.0, float("nan")):
        with pytest.raises(UserError, match=r"read_timeout.* must be (.*above 0|a number)"):
            command(encoder, str(photos), read_timeout=wrong, **options)
    assert not out.exists()
