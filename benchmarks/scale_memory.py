"""What recomputation saves, and what shards cost: kept bytes, and milliseconds a step, here.

python benchmarks/scale_memory.py [--net vit_tiny_patch16_224] [--batch 8] [--steps 6]

Kept: bytes that the backward pass is left beside the weights, at 224 px, one process. Steps: two
processes on gloo, each on half of the batch, DDP and shards by turns, medians; weights, gradients
and the optimizer's state that a process holds between two steps. Gradients are compared, too.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import torch
import torch.distributed as torch_dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from selftaught import dist, methods
from selftaught.backbones import Image
from selftaught.backbones.blocks import recompute
from selftaught.backbones.image.depth import with_drop_path
from selftaught.engine import optim
from selftaught.engine.shard import Layout, shard
from selftaught.method import Batch, Method, Recipe, terms_of

OUT = Path(__file__).parent / "results" / "scale_memory.md"
DEEP = {"local_crops": 4, "prototypes": 1024}
METHODS: dict[str, dict[str, Any]] = {"dino": DEEP, "dinov2": DEEP, "mae": {"dim": 192, "depth": 4}}
WORLD = 2


class Cpu:
    """What `shard` asks of Fabric."""

    device = torch.device("cpu")


class Loss(nn.Module):
    """Whose forward pass is the loss of a method."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> Any:
        return self.method.loss(batch)


def make(name: str, net: str) -> Method:
    torch.manual_seed(0)
    image = Image(net, 224)
    heads = {"heads": image.heads} if name == "mae" else {}
    method = methods.find(name)(image, **METHODS[name], **heads).train()
    with_drop_path(method.backbone, 0.2 if name != "mae" else 0.0)
    return method


def batch(name: str, count: int) -> Batch:
    torch.manual_seed(1)
    sides = [224] if name == "mae" else [224, 224, *[96] * DEEP["local_crops"]]
    views = [torch.randn(count, 3, side, side) for side in sides]
    return Batch([*views, torch.rand(count, 196)] if name == "mae" else views, torch.arange(count))


def total(terms: Any) -> Tensor:
    return torch.stack(list(terms_of(terms).values())).sum()


def kept(method: Method, given: Batch) -> tuple[int, float, dict[str, Tensor]]:
    """Bytes that the backward pass is left, seconds of both passes, and gradients."""
    found: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    torch.manual_seed(2)
    begun = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = total(method.loss(given))
    loss.backward()
    spent = time.process_time() - begun
    weights = {p.data_ptr() for p in method.parameters()}
    gradients = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    return sum(n for at, n in found.items() if at not in weights), spent, gradients


def recomputed(name: str, net: str, count: int, rounds: int) -> dict[str, Any]:
    plain = make(name, net)
    again = copy.deepcopy(plain)
    recompute(again)
    given, sizes, seconds = batch(name, count), [0, 0], ([], [])
    same = True
    for _ in range(rounds):
        results = []
        for i, method in enumerate((plain, again)):
            method.zero_grad(set_to_none=True)
            sizes[i], spent, gradients = kept(method, given)
            seconds[i].append(spent)
            results.append(gradients)
        same = same and all(g.equal(results[1][n]) for n, g in results[0].items())
    slower = statistics.median(b / a for a, b in zip(*seconds))
    return {"kept": sizes, "slower": slower, "same gradients": same}


def held(method: Method, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights, and of what the optimizer keeps, in this process."""
    states = [x for values in optimizer.state.values() for x in values.values()]
    every = [*method.parameters(), *(x for x in states if isinstance(x, Tensor))]
    return sum(x.numel() * x.element_size() for x in map(dist.local, every))


def divided(rank: int, folder: str, net: str, count: int, steps: int, results: Any) -> None:
    torch.set_num_threads(1)
    torch_dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=WORLD)
    for name in METHODS:
        pair: list[tuple[Method, Callable[[Batch], Any], torch.optim.Optimizer]] = []
        for sharded in (False, True):
            method = make(name, net)
            loss_of: Any = method.loss
            if sharded:
                shard(method, Cpu(), Layout(1, WORLD))  # type: ignore[arg-type]
                loss_of = method.loss
            else:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", ".*broadcast_buffers")
                    loss_of = DistributedDataParallel(
                        Loss(method), broadcast_buffers=False, gradient_as_bucket_view=True
                    )
            pair.append((method, loss_of, optim.build(method, Recipe("adamw", lr=1e-4))))
        seconds: tuple[list[float], list[float]] = [], []
        losses: list[list[float]] = [[], []]
        given = batch(name, count // WORLD)
        for step in range(steps + 1):  # the first makes what is kept
            for i, (method, loss_of, optimizer) in enumerate(pair):
                torch.manual_seed(step)
                method.progress = 0.5
                torch_dist.barrier()
                begun = time.perf_counter()
                loss = total(loss_of(given))
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                method.after_step()
                losses[i].append(float(loss.detach()))
                if step:
                    seconds[i].append(time.perf_counter() - begun)
        found = {
            "held": [held(m, o) for m, _, o in pair],
            "ms": [1000 * statistics.median(s) for s in seconds],
            "slower": statistics.median(b / a for a, b in zip(*seconds)),
            "same losses": losses[0] == losses[1],
        }
        if rank == 0:
            results.put((name, found))
    torch_dist.destroy_process_group()


def measure(net: str, count: int, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of each method: what recomputation saves, and what shards hold and cost."""
    torch.set_num_threads(1)
    again = {name: recomputed(name, net, count, max(1, steps // 3)) for name in METHODS}
    context = mp.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        given = folder, net, count, steps, results
        processes = [context.Process(target=divided, args=(r, *given)) for r in range(WORLD)]
        for process in processes:
            process.start()
        shards = dict(results.get(timeout=1800) for _ in METHODS)
        for process in processes:
            process.join()
    return again, shards


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--net", default="vit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    again, shards = measure(given.net, given.batch, given.steps)
    words = f"--net {given.net} --batch {given.batch} --steps {given.steps}"
    lines = [
        "# Recomputation and shards",
        "",
        f"Made by `python benchmarks/scale_memory.py {words}`. "
        + machine.sentence(machine.describe()),
        "",
        f"Batches of {given.batch} images of 224 px, fp32. Kept: MB that the backward pass is left "
        "beside the weights.",
        "",
        "| method | kept | with `--recompute` | of it | time | gradients |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, x in again.items():
        a, b = (n / 1e6 for n in x["kept"])
        same = "the same bits" if x["same gradients"] else "others"
        lines.append(f"| {name} | {a:.0f} | {b:.0f} | {b / a:.0%} | x {x['slower']:.2f} | {same} |")
    lines += [
        "",
        f"{WORLD} processes on gloo and one machine. Held: MB of weights and of AdamW's state in a "
        "process between two steps.",
        "",
        "| method | held by DDP | with `--shard` | ms a step by DDP | with `--shard` | ratio | "
        "losses |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, x in shards.items():
        sizes = " | ".join(f"{n / 1e6:.0f}" for n in x["held"])
        times = " | ".join(f"{ms:.0f}" for ms in x["ms"])
        same = "the same bits" if x["same losses"] else "others"
        lines.append(f"| {name} | {sizes} | {times} | {x['slower']:.2f} | {same} |")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    OUT.with_suffix(".json").write_text(
        json.dumps({"machine": machine.describe(), "recompute": again, "shards": shards}, indent=1)
        + "\n",
        encoding="utf-8",
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
