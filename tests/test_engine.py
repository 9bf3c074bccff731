"""The training loop on real small runs: exact order, exact resume, checkpoints, bad data."""

import csv
import math
import multiprocessing
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selftaught.data import open_data
from selftaught.engine import checkpoint
from selftaught.engine.build import assemble
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.pretrain import pretrain
from selftaught.errors import DataError, Interrupted, TrainingError, UserError
from selftaught.feed.order import Order
from selftaught.method import Batch
from tests.cases import CASES, fitting

TIMES = {"images_per_second", "data_wait"}


def photos(count: int = 24, side: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def labeled(images: np.ndarray, classes: int = 3) -> list[tuple[np.ndarray, int]]:
    return [(image, i % classes) for i, image in enumerate(images)]


def make(name: str = "simclr", samples: int = 24):
    torch.manual_seed(0)
    return CASES[name].make(name, samples)


def curve(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        return [{k: v for k, v in r.items() if k not in TIMES} for r in csv.DictReader(file)]


def train(out: Path, name: str = "simclr", data=None, method=None, **options):
    options = {"epochs": 2, "batch": 8, "workers": 0, "log_every": 1, "precision": "fp32"} | options
    if data is None:
        data = fitting(name, photos(), out.parent)
    return pretrain(method or make(name), data, out, evaluate=False, **options).method


class Killed(BaseException):
    """Ends a run as `kill -9` would: nothing of ours runs after it."""


def killed_after(method, steps: int):
    """`method`, dying in the middle of the step that follows `steps` whole ones."""
    seen, real = [], method.loss.__func__

    def loss(self, batch: Batch):
        if self is method:  # not the copy that memory and time are estimated with
            if len(seen) == steps:
                raise Killed
            seen.append(1)
        return real(self, batch)

    method.loss = MethodType(loss, method)
    return method


@given(
    length=st.integers(1, 60),
    batch=st.integers(1, 8),
    start=st.integers(0, 70),
    seed=st.integers(0, 5),
)
def test_an_epoch_shows_each_sample_at_most_once_and_resumes_anywhere(length, batch, start, seed):
    order = Order(length, batch, length // batch, seed)
    order.epochs = range(2)
    whole = list(order)
    for epoch in (0, 1):
        shown = [i for keys in whole for e, i in keys if e == epoch]
        assert len(shown) == len(set(shown)) == length // batch * batch
    order.start = min(start, order.batches)
    assert list(order) == whole[order.start :]


@pytest.mark.usefixtures("unfinished")
def test_the_same_seed_gives_the_same_run_whatever_the_workers(tmp_path):
    for name, workers in (("a", 0), ("b", 2)):
        train(tmp_path / name, workers=workers)
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    train(tmp_path / "c", seed=1)
    assert curve(tmp_path / "c") != curve(tmp_path / "a")


def often_killed(out: Path, fresh: Callable[[], Any], train: Any, *after: int, parts: int = 1):
    """A run that is killed after each of those steps, gone on with each time, to its end.

    Args:
        out: run folder.
        fresh: makes the method, as a new process does.
        train: `train(out, method=, resume=)`, a checkpoint a step.
        after: steps that are done when it is killed.
        parts: losses a step.
    """
    done = 0
    for step in after:
        dying = killed_after(fresh(), (step - done) * parts)
        with pytest.raises(Killed):
            train(out, method=dying, resume=done > 0)
        assert Checkpoints.of(out).steps()[0] == step
        done = step
    return train(out, method=fresh(), resume=True)


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize("name", sorted(CASES))
def test_killed_anywhere_and_resumed_is_the_same_run_bit_for_bit(name, tmp_path):
    save = partial(train, name=name, save_every=0)
    whole = save(tmp_path / "whole")
    resumed = often_killed(tmp_path / "killed", partial(make, name), save, 1, 4)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    theirs = resumed.state_dict()
    for key, value in whole.state_dict().items():
        assert torch.equal(value, theirs[key]), key


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize(("name", "workers", "accumulate"), [("mae", 2, 1), ("ijepa", 0, 2)])
def test_killed_around_a_resolution_phase_and_resumed_is_the_same_run(
    name, workers, accumulate, tmp_path
):
    save = partial(
        train,
        name=name,
        epochs=3,  # of 3 steps each; the phase begins in the middle of the second epoch
        resolution_phase="64@0.5",
        workers=workers,
        accumulate=accumulate,
        save_every=0,
    )
    whole = save(tmp_path / "whole").state_dict()
    seen: list[list[int]] = []

    def fresh():
        method, sides = make(name), []
        seen.append(sides)

        def loss(self, batch: Batch):
            if self is method:
                sides.append(batch.views[0].shape[-1])
            return type(self).loss(self, batch)

        method.loss = MethodType(loss, method)
        return method

    resumed = often_killed(tmp_path / "killed", fresh, save, 5, 7, parts=accumulate)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert all(torch.equal(x, whole[key]) for key, x in resumed.state_dict().items())
    steps = [32] * 5, [64] * 2, [64] * 2  # of each process
    assert seen == [[side for side in sides for _ in range(accumulate)] for sides in steps]


@pytest.mark.usefixtures("unfinished")
def test_accumulated_parts_make_one_step(tmp_path):
    method = make()
    calls = []
    method.after_step = lambda: calls.append(1)
    train(tmp_path / "run", method=method, accumulate=2)
    assert len(calls) == 6
    assert len(curve(tmp_path / "run")) == 6


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path):
    method = make()

    def loss(self, batch: Batch):
        return type(self).loss(self, batch) * (math.nan if method.progress > 0.4 else 1)

    method.loss = MethodType(loss, method)
    with pytest.raises(TrainingError, match=r"not finite at step 4 of 6 \(learning rate"):
        train(tmp_path / "run", method=method, save_every=0)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[0] == 3
    assert all(p.isfinite().all() for p in method.parameters())
    assert not list((tmp_path / "run").glob("encoder*"))


def test_the_first_module_that_is_not_finite_is_named(tmp_path):
    method = make()
    with torch.no_grad():
        method.projector[0].weight.fill_(math.inf)
    with pytest.raises(TrainingError, match=r"projector\.0\.weight \(a weight\)"):
        train(tmp_path / "run", method=method)


class Broken:
    """Photos of which some cannot be read."""

    def __init__(self, bad: set[int]):
        self.photos, self.bad = photos(), bad

    def __len__(self):
        return len(self.photos)

    def __getitem__(self, i):
        if i in self.bad:
            raise ValueError("this one is broken")
        return self.photos[i]


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_samples_are_replaced_and_listed(tmp_path, workers):
    train(tmp_path / "run", data=Broken({5}), workers=workers)
    rows = (tmp_path / "run" / "bad_files.csv").read_text().splitlines()
    assert rows[0] == "path,reason,first_step"
    assert len(rows) == 2
    assert "this one is broken" in rows[1]


def test_too_much_unreadable_data_is_an_error_that_lists_it(tmp_path):
    with pytest.raises(DataError, match="cannot be read, more than --max-bad allows"):
        train(tmp_path / "run", data=Broken({1, 2, 3}))
    assert len((tmp_path / "run" / "bad_files.csv").read_text().splitlines()) > 1


@pytest.mark.parametrize(("count", "said"), [(1, "2 at least, and there is 1: add images")])
def test_more_images_are_wanted_where_no_batch_helps(tmp_path, count, said):
    for options in ({}, {"batch": 1}, {"batch": 2}):
        with pytest.raises(UserError, match=said):
            train(tmp_path / "run", data=photos(count), **options)


def test_bad_arguments_are_sentences(tmp_path):
    cases = [
        ({"batch": 25}, "24 images are fewer than a batch of 25"),
        ({"batch": 1}, "needs at least 2 at once"),
        ({"batch": 8, "accumulate": 3}, "use a multiple of 3"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"optimizer": "sgd"}, "give --lr too"),
        ({"warmup": 2.0}, "warmup must be from 0 to 1"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"resume": True}, "no run to resume"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message):
            train(tmp_path / "run", **options)
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.usefixtures("unfinished")
def test_a_folder_with_another_run_is_refused_or_moved_aside(tmp_path):
    out = tmp_path / "run"
    train(out)
    first = curve(out)
    with pytest.raises(UserError, match="is not empty: continue that run with --resume"):
        train(out)
    train(out, overwrite=True, seed=3)
    assert curve(out) != first
    assert curve(tmp_path / "run.old-1") == first


@pytest.mark.usefixtures("unfinished")
def test_resuming_with_other_settings_is_refused_unless_forced(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(out, method=killed_after(make(), 3), save_every=0)
    with pytest.raises(UserError, match=r"training\.lr: null -> 0\.5"):
        train(out, resume=True, lr=0.5)
    other = photos(30)
    with pytest.raises(UserError, match="the dataset"):
        train(out, resume=True, data=other)
    train(out, resume=True, lr=0.5, force=True)


def test_extending_a_finished_run_asks_for_the_length(tmp_path):
    train(tmp_path / "run")
    with pytest.raises(UserError, match="is finished"):
        train(tmp_path / "run", resume=True)
    train(tmp_path / "run", resume=True, epochs=3)
    assert [int(r["step"]) for r in curve(tmp_path / "run")] == list(range(1, 10))


@pytest.mark.usefixtures("unfinished")
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    with pytest.raises(Killed):
        train(tmp_path / "run", method=killed_after(make(), 4), save_every=0)
    store = Checkpoints(tmp_path / "run" / "checkpoints")
    newest = store.path(store.steps()[0])
    newest.write_bytes(newest.read_bytes()[:-100])
    assert store.load()["step"] == 3
    assert "1 steps are lost" in caplog.text
    train(tmp_path / "run", resume=True)
    train(tmp_path / "whole")
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_a_checkpoint_is_whole_or_absent(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    store.save(1, {"x": torch.ones(3)})

    def full(state, file):
        file.write(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    store.save(2, {"x": torch.zeros(3)})  # survived: step 1 is there
    with pytest.raises(TrainingError, match="step 3 could not be written"):
        store.save(3, {"x": torch.zeros(3)})
    assert store.steps() == [1]
    assert torch.equal(store.load()["x"], torch.ones(3))
    assert not list(tmp_path.glob("*.tmp"))


def test_checkpoints_run_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    checkpoint.write(tmp_path / "step-000000001.pt", {"x": Evil()})
    with pytest.raises(TrainingError, match="damaged"):
        Checkpoints(tmp_path).load()
    assert not (tmp_path / "canary").exists()


@pytest.mark.usefixtures("unfinished")
def test_a_dead_worker_leaves_a_run_that_resumes(tmp_path):
    class Deadly(Broken):
        def __getitem__(self, i):
            if i in self.bad and multiprocessing.parent_process():
                import os

                os._exit(9)
            return self.photos[i]

    with pytest.raises(Interrupted, match="lower --workers") as caught:
        train(tmp_path / "run", data=Deadly({5}), workers=1)
    assert caught.value.exit_code == 75
    train(tmp_path / "run", data=Deadly(set()), workers=0, resume=True, force=True)


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_the_network_computes_in_the_precision_that_is_named(tmp_path, precision, dtype):
    method = make()
    seen = []
    method.backbone.net.layer4.register_forward_hook(
        lambda net, _, y: seen.append(y.dtype) if net.training else None
    )
    train(tmp_path / "run", method=method, precision=precision)
    assert len(seen) >= 6
    assert set(seen) == {dtype}


# labels --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unfinished")
def test_supervised_methods_are_handed_the_label_of_what_was_really_read(tmp_path):
    images = photos(24)
    data = labeled(images)
    data[5] = (b"no image", 2)  # another takes its place, and brings its own label
    data[7] = (images[7], -1)  # nothing is known of it: left out
    method, seen = make("finetune"), {}

    def loss(self, batch: Batch):
        if self is method:
            seen.update(zip(batch.index.tolist(), batch.label.tolist()))
        return type(self).loss(self, batch)

    method.loss = MethodType(loss, method)
    train(tmp_path / "run", "finetune", data, method, epochs=8, max_bad=0.2)
    kept = [label for _, label in data if label >= 0]
    assert len(seen) == 22
    assert all(kept[index] == label for index, label in seen.items())


@pytest.mark.usefixtures("unfinished")
def test_others_are_handed_none_and_train_as_without(tmp_path):
    for out, data in ((tmp_path / "with", labeled(photos())), (tmp_path / "without", photos())):
        method, seen = make(), []

        def loss(self, batch: Batch, seen=seen):
            seen.append(batch.label)
            return type(self).loss(self, batch)

        method.loss = MethodType(loss, method)
        train(out, data=data, method=method)
        assert set(seen) == {None}
    assert curve(tmp_path / "with") == curve(tmp_path / "without")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (photos(), "this data has no labels"),
        (labeled(photos(), 1), "this data has labels of one class"),
        (labeled(photos(), 5), r"go up to 4, and this Finetune has outputs for 3 classes"),
    ],
)
def test_labels_that_cannot_be_learned_are_told_before_the_first_step(tmp_path, data, words):
    with pytest.raises(UserError, match=words):
        train(tmp_path / "run", "finetune", data)
    assert not (tmp_path / "run").exists()


def test_what_was_learned_from_labels_is_not_scored_on_them(tmp_path, caplog):
    caplog.set_level("INFO", "selftaught")
    pretrain(make("finetune"), labeled(photos()), tmp_path / "run", epochs=1, batch=8, workers=0)
    assert "it has learned these labels" in caplog.text
    assert not (tmp_path / "run" / "scores.json").exists()


@pytest.mark.parametrize("form", [open_data, list])
def test_a_run_is_scored_on_test_data_of_any_form(form, tmp_path):
    images, held = labeled(photos()), form(labeled(photos(9)))
    run = pretrain(make(), images, tmp_path / "run", epochs=1, batch=8, workers=0, test=held)
    assert all(score.n == 9 for score in run.scores.scores["this encoder"])
    assert f"test: <{type(held).__name__}>" in (run.folder / "run.yaml").read_text()


@pytest.mark.usefixtures("unfinished")
def test_only_runs_are_moved_aside(tmp_path, caplog):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="mine is not empty and holds no run: name another folder"):
        train(tmp_path / "mine", overwrite=True)
    train(tmp_path / "run")
    with caplog.at_level("INFO", "selftaught"):
        train(tmp_path / "run", overwrite=True)
    assert f"is now {tmp_path / 'run.old-1'}" in caplog.text
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be above 0, got -1.0"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"layers": -1}, "layers must be at least 1, got -1"),
    ],
)
def test_values_that_no_method_can_have_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        assemble("simclr", {"name": "test_resnet", "size": 32}, options, None, 0)


def test_momenta_and_queues_are_checked_too():
    image = {"name": "test_resnet", "size": 32}
    with pytest.raises(UserError, match=r"momentum must be from 0 to 1, got \(0.9, 1.5\)"):
        assemble("dino", image, {"momentum": (0.9, 1.5)}, None, 0)
    with pytest.raises(UserError, match="queue must be at least 1, got 0"):
        assemble("moco_v2", image, {"queue": 0}, None, 0)


@pytest.mark.usefixtures("unfinished")
def test_decay_by_layer_and_over_time_are_those_of_a_recipe(tmp_path):
    asked = {"weight_decay": (0.1, 0.3), "layer_decay": 0.5}
    given = train(tmp_path / "given", "mae", recipe="paper", **asked).state_dict()
    method = make("mae")
    method.recipe = replace(method.recipe, **asked)
    written = train(tmp_path / "written", method=method, recipe="paper").state_dict()
    assert all(torch.equal(x, written[key]) for key, x in given.items())
    decays = [float(row["weight_decay"]) for row in curve(tmp_path / "given")]
    assert decays[0] == 0.1 < decays[1] < decays[-1] < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decay": (0.1, -0.1)}, r"weight_decay must be at least 0, got \(0.1, -0.1\)"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1, got 0.0"),
        ({"layer_decay": 0.9}, "rates that decay by layer need a plain ViT"),
    ],
)
def test_decays_that_cannot_be_are_refused(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", "simclr", **options)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_a_checkpoint_is_never_held_as_bytes(tmp_path):
    """It is hashed piece by piece, and mapped: what is not looked at is not read."""
    path, state = tmp_path / "step-000000001.pt", {"x": torch.arange(2**22)}
    tracemalloc.start()
    try:
        checkpoint.write(path, state)
        found = checkpoint.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22  # of eight times as many bytes
    finally:
        tracemalloc.stop()
    assert str(path) in Path("/proc/self/maps").read_text()
    assert found["x"].equal(state["x"])
    found["x"].zero_()  # whoever changes what was read changes no file
    assert checkpoint.read(path)["x"].equal(state["x"])
