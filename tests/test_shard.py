"""Methods in shards: the losses, gradients and weights of processes that have all of them."""

import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from selftaught import dist, methods
from selftaught.backbones.image import encoder as encoders
from selftaught.backbones.image.depth import with_drop_path
from selftaught.engine import optim
from selftaught.engine.shard import Layout, shard, whole
from selftaught.method import Batch, Method, Recipe, terms_of
from tests.pool import Pool
from tests.test_methods import ALL, batch, rows

NAMES = ("dino", "ibot", "dinov2", "mae", "simmim", "ijepa", "vjepa", "moco_v3", "simclr")
DEEP = ("dino", "ibot", "dinov2")
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
    method = (replace(case, net="test_vit") if name == "simclr" else case).make(name).train()
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
    """The largest difference of two runs of the same names."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[n].double() - theirs[n].double()).abs().max()) for n in theirs)


@contextmanager
def packing() -> Any:
    """A block whose packed passes are counted."""
    with mock.patch.object(encoders, "run_packed", wraps=encoders.run_packed) as passes:
        yield passes


@pytest.mark.xdist_group("pool")
def test_losses_gradients_and_weights_are_those_of_whole_methods(pool: Pool):
    for found in pool.run(each_method, timeout=500):
        assert found["apart"] == dict.fromkeys(NAMES, 0.0)
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
