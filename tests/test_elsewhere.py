"""What a training would need on machines that are not here."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from selftaught import backbone, methods
from selftaught.backbones.blocks import recompute
from selftaught.cli import main
from selftaught.engine import elsewhere
from selftaught.engine.counting import Course, counted, course, summed
from selftaught.engine.elsewhere import Cost, Machines, Way
from selftaught.errors import UserError
from selftaught.method import Batch
from tests.test_engine import photos

GIB = 2**30


def test_machines_are_read():
    assert Machines.of("64xH100-80G") == (64, "H100", 80 * GIB)
    assert Machines.of("8xa100-40GB") == (8, "A100", 40 * GIB)
    assert Machines.of("H200") == (1, "H200", 141 * GIB)
    for text in ("0xH100", "64xZ100", "64x", "H100-", "8 x H100"):
        with pytest.raises(UserError, match="--for is such as 64xH100-80G"):
            Machines.of(text)


def test_what_is_counted_is_what_there_is():
    torch.manual_seed(0)
    method = methods.find("dino")(backbone("test_vit", size=32), prototypes=64, hidden=64)
    few, more = (
        Batch([torch.randn(n, 3, 32, 32) for _ in range(2)], torch.arange(n)) for n in (2, 4)
    )
    before = [p.clone() for p in method.parameters()]
    found = {w.name: w for w in elsewhere.ways(method, few, more, Machines.of("8xA100"), "adamw")}
    assert list(found) == ["", "--recompute", "--shard", "--shard --recompute"]
    every = sum(p.nbytes for p in method.parameters())
    learned = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    buffers = sum(b.nbytes for b in method.buffers())
    # weights, gradients, two moments
    assert found[""].state == every + 3 * learned + buffers
    assert found["--shard"].state < found[""].state
    plain, again = found[""].cost, found["--recompute"].cost
    # beside them copies in half precision
    assert plain.activations.at(0) > learned / 2
    assert again.activations.image(1000) < 0.6 * plain.activations.image(1000)
    assert plain.flops < again.flops < 4 / 3 * plain.flops
    for way in found.values():
        assert way.need(way.room) <= 0.9 * 80 * GIB < way.need(way.room + 1)
    for p, x in zip(method.parameters(), before):
        assert p.grad is None
        assert torch.equal(p, x)
    one = elsewhere.ways(method, few, more, Machines.of("A100"), "adamw")
    assert [w.name for w in one] == ["", "--recompute"]
    # gradients come one by one, and take the place of what is free again
    assert one[0].state == every + 2 * learned + buffers
    assert found[""].need(0) - learned < one[0].need(0) <= found[""].need(0)


def test_the_peak_is_that_of_the_allocator():
    """Of a step of another size than those that were counted."""
    torch.manual_seed(0)
    method = methods.find("mae")(backbone("test_vit", size=64), dim=32, depth=2, heads=2).train()

    def given(images: int) -> Batch:
        views = [torch.randn(images, 3, 64, 64), torch.rand(images, 16)]
        return Batch(views, torch.arange(images))

    for _ in range(2):
        counts = [counted(method, given(n), nullcontext, True)[0] for n in (2, 4)]
        expected = course(*counts, (2, 4)).at(32)
        batch = given(32)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            summed(method.loss(batch)).backward()
        method.zero_grad(set_to_none=True)
        sizes = allocated(seen.profiler.kineto_results.experimental_event_tree())
        peak = np.cumsum([size for _, size in sorted(sizes)]).max()
        peak += sum(x.nbytes for x in batch.views) + batch.index.nbytes
        assert expected == pytest.approx(peak, rel=0.04)
        recompute(method)


def allocated(events: list[Any]) -> Iterator[tuple[int, int]]:
    """When torch allocated and freed memory, and bytes."""
    for event in events:
        if event.name == "[memory]":
            yield event.start_time_ns, event.extra_fields.alloc_size
        yield from allocated(event.children)


def test_large_batches_may_have_their_peak_elsewhere():
    few, more = np.array([100.0, 20, 0]), np.array([100.0, 40, 10])
    found = course(few, more, (2, 4))
    assert [found.at(n) for n in (0, 4, 10, 20)] == [100, 100, 100, 200]
    assert [found.image(n) for n in (4, 20)] == [0, 10]
    assert [found.images(room) for room in (99, 100, 205)] == [0, 10, 20]
    # of passes that cannot be compared the peaks are
    assert course(few, np.array([200.0, 0]), (2, 4)).at(6) == 300


def test_what_does_not_fit_is_told_with_what_does():
    on = Machines.of("8xA100")
    each = Course(np.zeros(1), np.array([2.0 * GIB]))
    way = Way("", 10 * GIB, Cost(each, 1e12), 31, 2 * 10**9)
    given = {"steps": 100, "making": 0.01, "many": "images"}
    rows = elsewhere.told([way], on, batch=256, **given)
    assert rows["as it is"].startswith("does not fit: 74.0 GiB a GPU for 32 images")
    assert rows["to do"].startswith("--batch 248, 9 GPUs for this batch, or --accumulate 2")
    rows = elsewhere.told([way], on, batch=240, **given)
    assert rows["as it is"].startswith("fits: 70.0 GiB a GPU for 30 images")
    assert "to do" not in rows
    # 30 images of 1 TFLOP at 40 % of 312 TFLOP/s
    assert rows["time"].startswith("about 0:24: 100 steps of 0.24 s")
    assert rows["traffic"].startswith("2 GB a GPU and step, hidden behind it from 67 Gbit/s")
    (row,) = [elsewhere.told([way._replace(room=0)], on, batch=8, **given)["to do"]]
    assert row.startswith("10.0 GiB of weights and state alone do not fit")


def test_the_command_tells(tmp_path, capsys):
    np.save(tmp_path / "photos.npy", photos(8))
    words = [
        "pretrain",
        "mae",
        str(tmp_path / "photos.npy"),
        "--backbone",
        "test_vit",
        "--batch",
        "8",
    ]
    words += ["--size", "32"]
    assert main([*words, "--dry-run", "--for", "4xL4"]) == 0
    out = capsys.readouterr().out
    assert "4 x L4 with 24.0 GiB each" in out
    assert "--shard --recompute" in out
    assert "at 40% of the peak" in " ".join(out.split())
    assert not (tmp_path / "runs").exists()
    assert main([*words, "--for=4xL4"]) == 2
    assert "add --dry-run" in capsys.readouterr().err
