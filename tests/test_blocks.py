"""Blocks of transformers: recomputed in the backward pass, and compiled one by one."""

import copy
import shutil
from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from selftaught import methods
from selftaught.backbones import Image
from selftaught.backbones.blocks import (
    blocks,
    compile_blocks,
    not_compiled,
    plain,
    recompute,
    uncompiled,
)
from selftaught.engine import run
from selftaught.errors import UserError
from selftaught.method import Batch, Method, terms_of
from tests.test_engine import curve, train

HEAD = {"hidden": 32, "bottleneck": 16, "prototypes": 64, "local_crops": 2}
OPTIONS = {
    "dino": HEAD,
    "dinov2": HEAD,
    "mae": {"dim": 16, "depth": 2, "heads": 2},
    "ijepa": {"dim": 16, "depth": 2, "heads": 2, "min_keep": 1},
}
DEEP = ("dino", "dinov2")
torchs_own = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def make(name: str, drop_path: float = 0.0) -> Method:
    torch.manual_seed(0)
    net = Image("test_vit", 32, drop_path=drop_path)
    return methods.find(name)(net, **OPTIONS[name]).train()


def batch(name: str, size: int = 8) -> Batch:
    torch.manual_seed(1)
    sides = [32, 32, 16, 16] if name in DEEP else [32]
    views = [torch.randn(size, 3, side, side) for side in sides]
    return Batch([*views, torch.rand(size, 64)] if name == "mae" else views, torch.arange(size))


def step(method: Method, given: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Loss, gradients, and bytes that the backward pass was left beside the weights."""
    torch.manual_seed(2)
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = torch.stack(list(terms_of(method.loss(given)).values())).sum()
    loss.backward()
    weights = {p.data_ptr() for p in method.parameters()}
    size = sum(n for where, n in kept.items() if where not in weights)
    found = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    return loss.detach(), found, size


def same(ours, theirs) -> None:
    assert ours[0].equal(theirs[0])
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert gradient.equal(ours[1][name]), name


@pytest.mark.parametrize("drop_path", [0.0, 0.3])
@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_recomputed_is_the_same_and_less_is_kept(name, drop_path):
    """Stochastic depth, by images and by subsets of them, draws alike in both passes."""
    method, given = make(name, drop_path), batch(name)
    again = copy.deepcopy(method)
    trained = 6 if name in DEEP else 8
    assert recompute(again) == trained
    copied = copy.deepcopy(again)
    before = step(method, given)
    for other in (again, copied):
        after = step(other, given)
        same(after, before)
        assert after[2] < before[2] / 3
    plain(copied)
    assert step(copied, given)[2] == before[2]


def test_a_copy_recomputes_with_its_own_weights():
    method = make("mae")
    recompute(method)
    twin = copy.deepcopy(method)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    x = torch.randn(2, 3, 32, 32)
    assert not method.backbone(x).equal(twin.backbone(x))


@torchs_own
@pytest.mark.parametrize(
    ("name", "again"), [("mae", False), ("mae", True), ("dinov2", False), ("dinov2", True)]
)
def test_blocks_are_compiled_however_a_method_calls_them(name, again):
    method, given = make(name, 0.3), batch(name)
    ours = copy.deepcopy(method)
    torch._dynamo.reset()
    counters.clear()
    if again:
        recompute(ours)
    assert compile_blocks(ours, backend="eager") == len(blocks(method))
    same(step(ours, given), step(method, given))
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]
    assert not counters["unimplemented"]
    compiled = counters["stats"]["unique_graphs"]
    ours.backbone.eval()(torch.randn(3, 3, 32, 32))  # evaluation is not what it is for
    with uncompiled(ours):
        step(ours.train(), batch(name, 5))
    assert counters["stats"]["unique_graphs"] == compiled
    step(ours, given)  # which was compiled
    assert counters["stats"]["unique_graphs"] == compiled
    not_compiled(ours)
    step(ours, batch(name, 5))
    assert counters["stats"]["unique_graphs"] == compiled


@torchs_own
def test_blocks_alike_share_what_was_compiled():
    ours = make("mae")
    torch._dynamo.reset()
    counters.clear()
    compile_blocks(ours, backend="eager")
    step(ours, batch("mae"))
    assert len(blocks(ours)) == 8
    assert counters["stats"]["unique_graphs"] == 2  # of encoder and decoder


@pytest.mark.parametrize(
    ("name", "count"),
    [("test_resnet", 0), ("test_efficientnet", 0), ("swin_tiny_patch4_window7_224", 12)],
)
def test_blocks_are_those_of_transformers_without_batch_norms(name, count):
    assert len(blocks(Image(name, 64))) == count


@torchs_own
@pytest.mark.skipif(shutil.which("c++") is None, reason="compiled code for CPUs needs a compiler")
def test_compiled_code_computes_the_same():
    method, given = make("mae"), batch("mae")
    ours = copy.deepcopy(method)
    torch._dynamo.reset()
    recompute(ours)
    compile_blocks(ours)
    (loss, gradients, _), (expected, theirs, _) = step(ours, given), step(method, given)
    torch.testing.assert_close(loss, expected)
    for name, gradient in theirs.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5)


@torchs_own
def test_a_training_is_compiled_and_recomputed(tmp_path, monkeypatch):
    """By the backend that changes no digit."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(run, "compile_blocks", partial(compile_blocks, backend="eager"))
    train(tmp_path / "before", "dinov2", method=make("dinov2"), epochs=1)
    how = {"compile": True, "recompute": True}
    after = train(tmp_path / "after", "dinov2", method=make("dinov2"), epochs=1, **how)
    assert counters["stats"]["unique_graphs"] > 0
    rows = [[r["loss"] for r in curve(tmp_path / n)] for n in ("before", "after")]
    assert len(rows[0]) == 3
    assert rows[0] == rows[1]
    assert not any("forward" in vars(b) for b in blocks(after))


def test_a_training_goes_on_recomputed_with_the_same_losses(tmp_path):
    """It is the same run: how memory is saved changes no number."""
    given = {"lr": 1e-3, "warmup": 0.0}
    train(tmp_path / "run", "mae", method=make("mae"), epochs=1, **given)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    for name, again in (("run", False), ("other", True)):
        how = given | {"epochs": 2, "recompute": again, "resume": True}
        train(tmp_path / name, "mae", method=make("mae"), **how)
    rows = [[r["loss"] for r in curve(tmp_path / name)] for name in ("run", "other")]
    assert len(rows[0]) == 6
    assert rows[0] == rows[1]


def test_a_network_without_blocks_is_not_recomputed(tmp_path):
    with pytest.raises(UserError, match=r"test_resnet in simclr trains none: .* --accumulate"):
        train(tmp_path / "run", recompute=True)
