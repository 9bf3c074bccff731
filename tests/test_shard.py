"""Methods in shards: the losses, gradients and weights of processes that have all of them."""

import json
import shutil
import signal
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import PIL.Image
import pytest
import torch
import torch.distributed as torch_dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import selftaught
from selftaught import dist, methods
from selftaught.backbones.blocks import compile_blocks, recompute
from selftaught.backbones.image import encoder as encoders
from selftaught.backbones.image.depth import with_drop_path
from selftaught.cli import main
from selftaught.engine import optim
from selftaught.engine.cache import GradientCache
from selftaught.engine.shard import Layout, Whole, copied, encoded, restore, shard, whole
from selftaught.errors import UserError
from selftaught.evaluate.curve import FILE, read
from selftaught.method import Batch, Method, Recipe, terms_of
from tests.pool import Pool
from tests.test_ddp import losses
from tests.test_engine import curve, photos, train
from tests.test_faults import ended, start, wait_for_step
from tests.test_methods import ALL, batch, rows

DEEP = ("dino", "ibot", "dinov2", "simdino", "simdinov2")
CONVOLUTIONAL = ("simclr", "lejepa", "visreg")
NAMES = (*DEEP, "mae", "simmim", "ijepa", "capi", "vjepa", "moco_v3", *CONVOLUTIONAL)
ADAMW = Recipe("adamw", lr=1e-3, weight_decay=0.05)


class Device:
    """What `shard` asks of Fabric."""

    device = torch.device("cpu")


class Wrapped(torch.nn.Module):
    """Whose forward pass is the loss."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, given: Batch) -> Any:
        return self.method.loss(given)


def make(name: str) -> Method:
    torch.manual_seed(0)
    case = ALL[name]
    method = (replace(case, net="test_vit") if name in CONVOLUTIONAL else case).make(name).train()
    if name in DEEP:
        with_drop_path(method.backbone, 0.3)
    return method


def divided(name: str, how: Layout | None = None) -> Method:
    method = make(name)
    shard(method, Device(), how or Layout(1, dist.world()))  # type: ignore[arg-type]
    return method


def together(name: str) -> tuple[Method, Any]:
    method = make(name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*broadcast_buffers")
        return method, DistributedDataParallel(Wrapped(method), broadcast_buffers=False)


def mine(name: str, method: Method, step: int) -> Batch:
    given = batch(name, method, epoch=step)
    share = len(given.index) // dist.world()
    return rows(given, slice(dist.rank() * share, (dist.rank() + 1) * share))


def run(
    name: str, method: Method, loss_of: Any, recipe: Recipe = ADAMW, count: int = 2, first: int = 0
) -> tuple[dict[str, Tensor], Any]:
    """Losses, gradients of the last step, and the state after it, whole; and the optimizer."""
    optimizer, found = optim.build(method, recipe), dict[str, Tensor]()
    for step in range(first, first + count):
        method.progress = (step + 1) / 10
        torch.manual_seed(10 * step + dist.rank())
        loss = torch.stack(list(terms_of(loss_of(mine(name, method, step))).values())).sum()
        loss.backward()
        found[f"loss {step}"] = loss.detach()
        method.before_step()
        if recipe.clip is not None:
            found[f"norm {step}"] = optim.clip(method, recipe)
        graded = [(n, p.grad) for n, p in method.named_parameters() if p.grad is not None]
        found |= {f"gradient {n}": dist.whole(g).clone() for n, g in graded}
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step()
    return found | state(method), optimizer


def state(method: Method) -> dict[str, Tensor]:
    return {f"state {n}": x.clone() for n, x in whole(method.state_dict(), True).items()}


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference of two runs of the same names, as a share of what is above 1."""
    assert ours.keys() == theirs.keys()
    pairs = [(ours[n].double(), x.double()) for n, x in theirs.items()]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in pairs)


@contextmanager
def packing() -> Any:
    """A block whose packed passes are counted."""
    with mock.patch.object(encoders, "run_packed", wraps=encoders.run_packed) as passes:
        yield passes


@pytest.mark.xdist_group("pool")
def test_losses_gradients_and_weights_are_those_of_whole_methods(pool: Pool):
    for found in pool.run(each_method, timeout=500):
        # what is left of narrow biases after the optimizer's vectors is rounded otherwise
        assert found["apart"].pop("vjepa") < 1e-8
        assert set(found["apart"].values()) == {0.0}
        assert len(found["apart"]) == len(NAMES) - 1
        assert found["packed"] == [2, 2]  # dinov2, as it is and in shards
        assert found["mean gradients"] > 50
        assert found["class"] == ("dinov2", "DINOv2")
        assert found["part"] < 0.6


def each_method(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {"apart": {}, "packed": []}
    counts = []
    for name in NAMES:
        results = []
        for sharded in (False, True):
            with packing() as passes:
                method, loss_of = (divided(name), None) if sharded else together(name)
                results.append(run(name, method, loss_of or method.loss)[0])
            if name == "dinov2":
                found["packed"].append(passes.call_count)
        found["apart"][name] = apart(*results)
        counts.append(sum(n.startswith("gradient") for n in results[0]))
        if name == "dinov2":
            kind = type(method)
            found["class"] = methods.short(methods.reference(kind)), kind.__qualname__
            sizes = [(dist.local(p).numel(), p.numel()) for p in method.parameters()]
            found["part"] = sum(a for a, _ in sizes) / sum(b for _, b in sizes)
    found["mean gradients"] = sum(counts) / len(counts)
    return found


@pytest.mark.xdist_group("pool")
def test_recipes_caches_and_checkpoints_are_those_of_whole_methods(pool: Pool):
    for found in pool.run(each_recipe, timeout=500):
        clipped = {k: v for k, v in found.items() if k.startswith("clip ")}
        assert len(clipped) == 3
        # norms of parts add up in another order
        assert max(clipped.values()) < 1e-6
        optimizers = {k: v for k, v in found.items() if k.startswith("optimizer ")}
        assert len(optimizers) == len(OPTIMIZERS)
        assert max(optimizers.values()) < 1e-6
        assert found["recomputed and compiled"] == 0
        assert found["groups of all weights"] == 0
        assert found["divided within groups"] == 0
        assert found["cached"] < 1e-9
        assert found["goes on"] == 0
        assert found["goes on whole"] == 0
        assert found["goes on from whole"] == 0
        assert found["copy"] == 0


OPTIMIZERS = {
    "sgd": {"momentum": 0.9},
    "adamw_bert": {},
    "lamb": {"weight_decay": 0.01},
    "lars": {"weight_decay": 0.01},
    "larc": {"weight_decay": 0.01},
}


def each_recipe(rank: int) -> dict[str, float]:
    found: dict[str, float] = {}

    def compare(label: str, name: str, recipe: Recipe) -> None:
        method = divided(name)
        ours, _ = run(name, method, method.loss, recipe)
        found[label] = apart(ours, run(name, *together(name), recipe)[0])

    for by in ("all", "module", "parameter"):
        compare(f"clip {by}", "mae", Recipe("sgd", lr=0.01, clip=0.1, clip_by=by))
    for optimizer, more in OPTIMIZERS.items():
        recipe: Any = Recipe(optimizer, lr=1e-3, **more)  # type: ignore[arg-type]
        compare(f"optimizer {optimizer}", "mae", recipe)
    expected, theirs = run("dinov2", *together("dinov2"))
    method = make("dinov2")
    recompute(method)
    torch._dynamo.reset()
    compile_blocks(method, backend="eager")
    shard(method, Device(), Layout(1, 2))  # type: ignore[arg-type]
    found["recomputed and compiled"] = apart(run("dinov2", method, method.loss)[0], expected)
    for label, how in (
        ("groups of all weights", Layout(2, 1)),
        ("divided within groups", Layout(1, 2)),
    ):
        method = divided("dinov2", how)
        ours, optimizer = run("dinov2", method, method.loss)
        found[label] = apart(ours, expected)
    method, parts = make("simclr").double(), make("simclr").double()
    shard(parts, Device(), Layout(1, 2))  # type: ignore[arg-type]
    found["cached"] = apart(cached(parts, True), cached(method, False))
    method = make("dinov2")
    kept = Whole(method, torch.device("cpu"))
    shard(method, Device(), Layout(1, 2))  # type: ignore[arg-type]
    ours, optimizer = run("dinov2", method, method.loss)
    kept.gather()
    now = state(method)
    found["copy"] = 0.0 if kept.copy is None else apart(state(kept.copy), now)
    # what one has done, another goes on with
    given = {"method": whole(method.state_dict(), True)}
    given["optimizer"] = whole(optimizer.state_dict(), True)
    states = [(n.removeprefix("state "), x) for n, x in expected.items() if n.startswith("state ")]
    alike = {"method": dict(states), "optimizer": theirs.state_dict()}
    expected = goes_on(alike, False)
    found["goes on"] = apart(goes_on(given, True), expected)
    found["goes on whole"] = apart(goes_on(given, False), expected)
    found["goes on from whole"] = apart(goes_on(alike, True), expected)
    return found


def goes_on(checkpoint: dict[str, Any], sharded: bool) -> dict[str, Tensor]:
    """Two further steps of dinov2."""
    method, loss_of = (divided("dinov2"), None) if sharded else together("dinov2")
    optimizer, checkpoint = optim.build(method, ADAMW), copied(checkpoint)
    if sharded:
        restore(method, optimizer, checkpoint)
    else:
        method.load_state_dict(checkpoint["method"])
        optimizer.load_state_dict(checkpoint["optimizer"])
    with mock.patch.object(optim, "build", return_value=optimizer):
        return run("dinov2", method, loss_of or method.loss, first=2)[0]


def cached(method: Method, sharded: bool) -> dict[str, Tensor]:
    """Loss and gradients of simclr by a gradient cache, three images at a time."""
    cache = GradientCache(method, 3, nullcontext, encoded(method))
    with cache.recording():
        loss = torch.stack(list(terms_of(method.loss(mine("simclr", method, 0))).values())).sum()
    loss.backward()
    cache.backward()
    graded = [(n, p.grad) for n, p in method.named_parameters() if p.grad is not None]
    means = {n: dist.whole(g) if sharded else dist.mean(g) for n, g in graded}
    return {"loss": loss.detach(), **means}


def test_weights_are_divided_within_groups_of_processes(tmp_path):
    """Two groups of two: sums over four processes are of another order than one process's."""
    results = mp.get_context("spawn").SimpleQueue()
    given = (str(tmp_path), results)
    mp.start_processes(in_groups, given, 4, start_method="spawn")
    found = [results.get() for _ in range(4)]
    assert max(difference for difference, _ in found) < 1e-6
    assert max(part for _, part in found) < 0.6  # half of the weights, not a quarter
    assert min(part for _, part in found) > 0.4


def in_groups(rank: int, folder: str, results: Any) -> None:
    torch.set_num_threads(1)
    torch_dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=4)
    recipe = Recipe("sgd", lr=0.01)
    method = divided("mae", Layout(2, 2))
    ours, _ = run("mae", method, method.loss, recipe)
    sizes = [(dist.local(p).numel(), p.numel()) for p in method.parameters()]
    part = sum(a for a, _ in sizes) / sum(b for _, b in sizes)
    results.put((apart(ours, run("mae", *together("mae"), recipe)[0]), part))
    torch_dist.destroy_process_group()


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("byol", {}, "byol was not tried .* drop --shard.* --recompute"),
        ("simclr", {"unmix": 0.5}, "--unmix watches all weights"),
        ("mae", {"mesh": "2x2"}, "is for 4 processes, and this training has 2"),
        ("mae", {"mesh": "2 by 2"}, "such as 2x8, got '2 by 2'"),
        ("mae", {"mesh": "1x2", "shard": False}, "add --shard, or drop --mesh"),
    ],
)
def test_what_cannot_be_in_shards_is_refused(name, how, words, tmp_path):
    with pytest.raises(UserError, match=words):
        train(tmp_path / "run", name, shard=how.pop("shard", True), devices=2, **how)
    assert not (tmp_path / "run").exists()


def test_one_process_keeps_all_weights(tmp_path, caplog):
    caplog.set_level("INFO", "selftaught")
    train(tmp_path / "run", "mae", shard=True, epochs=1)
    train(tmp_path / "whole", "mae", epochs=1)
    ours, theirs = ([r["loss"] for r in curve(tmp_path / n)] for n in ("run", "whole"))
    assert ours == theirs
    assert "one process keeps all weights" in caplog.text


def test_a_run_in_shards_is_stopped_and_goes_on_in_one_process(tmp_path):
    """As the command line starts both; its curve, its doctor and its encoder are there."""
    place, out = tmp_path / "data", tmp_path / "run"
    for i, pixels in enumerate(photos(32)):
        (place / "ab"[i % 2]).mkdir(exist_ok=True, parents=True)
        PIL.Image.fromarray(pixels).save(place / "ab"[i % 2] / f"{i:02}.png")
    words = ["pretrain", "mae", str(place), "--backbone", "test_vit", "--size", "32", "--dim", "16"]
    words += ["--depth", "1", "--heads", "2", "--batch", "8", "--precision", "fp32"]
    words += ["--epochs", "10"]
    words += ["--log-every", "1", "--workers", "0", "--lr", "0.000001"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    two = [*words, "--accelerator", "cpu", "--devices", "2", "--shard", "--recompute", "--out"]
    process = start([*two, str(out), "--save-every", "0.001"])
    wait_for_step(process, out, 5)
    process.send_signal(signal.SIGTERM)
    code, errors = ended(process)
    assert code == 75, errors
    assert "Traceback" not in errors
    shutil.copytree(out, tmp_path / "again")
    assert main([*words, "--out", str(out), "--save-every", "0.001", "--resume"]) == 0
    code, errors = ended(
        start([*two, str(tmp_path / "again"), "--save-every", "0.001", "--resume"])
    )
    assert code == 0, errors
    assert "Traceback" not in errors
    expected, theirs = losses(tmp_path / "one"), read(tmp_path / "one" / FILE)
    for folder in (out, tmp_path / "again"):
        np.testing.assert_allclose(losses(folder), expected, rtol=1e-4)
        looks = read(folder / FILE)
        assert [x.figures for x in looks.looks] == [x.figures for x in theirs.looks]
        course = json.loads((folder / "diagnosis.json").read_text())["course"]
        assert course[-1]["spread"] > 0
        assert selftaught.load(folder)(torch.zeros(1, 3, 32, 32)).isfinite().all()
