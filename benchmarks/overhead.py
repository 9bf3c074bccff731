"""What does our engine cost a step above a plain PyTorch loop? Fabric? Lightning's Trainer?

python benchmarks/overhead.py [--rounds 15] [--steps 200]

All train the same small MLP on the same batch, which lies in memory, one after another in
every round. The time from one batch's demand to the next is the time of a step, whoever runs the
loop. `pretrain` runs as users run it: metrics written every 10 steps, progress on a terminal.
CPU time is what counts on a machine that others use too.
"""

import argparse
import io
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from selftaught import augment, backbone
from selftaught.augment.image.device import normalize
from selftaught.backbones import Image
from selftaught.engine import run as engine
from selftaught.engine.pretrain import pretrain
from selftaught.feed.views import Fetched, collate
from selftaught.method import Batch, Method, Pipeline, Recipe
from selftaught.parts import mlp

SIZE, BATCH, WARM = 16, 8, 30
"""Side and number of the images of a batch; first steps of a block that do not count."""


class Clock:
    """Hands out one batch again and again, and notes when it was asked."""

    def __init__(self, item: Fetched, steps: int):
        self.item, self.steps = item, steps
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Fetched]:
        for _ in range(self.steps):
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())
            yield self.item

    def close(self) -> None:
        """As readers have it."""

    @property
    def step(self) -> tuple[float, float]:
        """Mean milliseconds a step: elapsed, and of CPU time."""
        return tuple(1e3 * (t[-1] - t[WARM]) / (len(t) - 1 - WARM) for t in (self.wall, self.cpu))


class Small(Method):
    """Two views through an MLP: a step so short that whatever is added to it can be seen.

    Args:
        backbone: what is exported; the loss leaves it out.
    """

    recipe = Recipe("adamw", lr=1e-3)

    def __init__(self, backbone: Image):
        super().__init__()
        self.backbone = backbone
        self.mlp = mlp(3 * SIZE * SIZE, 256, 256, 64)

    def views(self, size: int) -> Pipeline:
        return augment.moco(size, blur=0.0)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]."""
        z1, z2 = (self.mlp(x.flatten(1)) for x in batch.views)
        return F.mse_loss(z1, z2)


def make() -> Small:
    torch.manual_seed(0)
    return Small(backbone("test_resnet", size=SIZE))


def inputs(method: Small, item: Fetched) -> Batch:
    mean, std = method.encoder.mean, method.encoder.std
    return Batch(normalize(item.views, mean, std, True), item.index)


def optimizer(method: Small) -> torch.optim.Optimizer:
    return torch.optim.AdamW(method.parameters(), 1e-3, fused=True)


def bare(clock: Clock) -> None:
    method = make().to(memory_format=torch.channels_last)
    opt = optimizer(method)
    for item in clock:
        method.loss(inputs(method, item)).backward()
        opt.step()
        opt.zero_grad(set_to_none=True)


def ours(clock: Clock) -> None:
    images = np.zeros((BATCH * clock.steps, SIZE, SIZE, 3), np.uint8)
    before, engine.Readers = engine.Readers, lambda *_, **__: clock
    try:
        with tempfile.TemporaryDirectory() as folder:
            pretrain(
                make(),
                images,
                Path(folder) / "run",
                epochs=1,
                batch=BATCH,
                optimizer="adamw",
                lr=1e-3,
                precision="fp32",
                accelerator="cpu",
                evaluate=False,
                force=True,  # black images fail by the verdict of the doctor
            )
    finally:
        engine.Readers = before


def fabric(clock: Clock) -> None:
    own = Fabric(accelerator="cpu", devices=1)
    method = make().to(memory_format=torch.channels_last)
    module, opt = own.setup(method, optimizer(method))
    module.mark_forward_method("loss")
    for item in clock:
        own.backward(module.loss(inputs(method, item)))
        opt.step()
        opt.zero_grad(set_to_none=True)


def lightning(clock: Clock, full: bool) -> None:
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.method = make().to(memory_format=torch.channels_last)

        def training_step(self, item: Any, _: int) -> torch.Tensor:
            loss = self.method.loss(inputs(self.method, item))
            if full:
                self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer(self.method)

    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            default_root_dir=folder,
            logger=None if full else False,  # None is its default logger
            enable_progress_bar=full,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(Module(), train_dataloaders=clock)


def contestants() -> dict[str, Callable[[Clock], None]]:
    found: dict[str, Callable[[Clock], None]] = {
        "bare PyTorch": bare,
        "selftaught pretrain": ours,
        "Fabric alone": fabric,
    }
    try:
        import lightning as _  # noqa: F401
    except ImportError:
        print("lightning is not installed: its Trainer is left out (pip install lightning)")
        return found
    found["Lightning Trainer, nothing on"] = lambda clock: lightning(clock, False)
    found["Lightning Trainer, default logger and bar"] = lambda clock: lightning(clock, True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200, help="of each in each round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ["FORCE_COLOR"] = "1"  # rich draws its live line as on a terminal ...
    item = example()
    runners = contestants()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for turn in range(arguments.rounds):
        for name, run in runners.items():
            clock = Clock(item, arguments.steps)
            shown, sys.stderr, out, sys.stdout = sys.stderr, Sink(), sys.stdout, Sink()
            try:
                run(clock)  # ... into nothing
            finally:
                sys.stderr, sys.stdout = shown, out
            times[name].append(clock.step)
        print(f"round {turn + 1} of {arguments.rounds}", flush=True)
    write(times, arguments)


class Sink(io.StringIO):
    """A terminal that nobody looks at."""

    def isatty(self) -> bool:
        return True


def example() -> Fetched:
    views = make().views(SIZE)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    return collate([Fetched(views(image, rng), i, []) for i, image in enumerate(images)])


def write(times: dict[str, list[tuple[float, float]]], arguments: argparse.Namespace) -> None:
    """Medians over rounds, and of the differences from the bare loop of the same round."""
    base = times["bare PyTorch"]
    rows = {}
    for name, own in times.items():
        row = {"wall_ms": [w for w, _ in own], "cpu_ms": [c for _, c in own]}
        row = {k: round(statistics.median(v), 3) for k, v in row.items()}
        for i, kind in enumerate(("wall", "cpu")):
            above = [a[i] - b[i] for a, b in zip(own, base)]
            quarters = statistics.quantiles(above, n=4)
            row[f"{kind}_above_ms"] = round(statistics.median(above), 3)
            row[f"{kind}_above_quartiles_ms"] = [round(quarters[0], 3), round(quarters[2], 3)]
        rows[name] = row
    about = machine.describe("lightning-fabric", *(["lightning"] if len(times) > 3 else []))
    command = f"python benchmarks/overhead.py --rounds {arguments.rounds} --steps {arguments.steps}"
    result = {"command": command, "machine": about, "rows": rows}
    path = Path(__file__).parent / "results" / "overhead.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        "# Time of a step above a bare PyTorch loop",
        "",
        f"`{command}`  ",
        machine.sentence(about),
        "",
        f"An MLP of 0.3 M weights, two views of {BATCH} images of {SIZE} px in memory, one "
        "thread, fp32. Milliseconds a step: medians over rounds; in brackets the quartiles of the "
        "difference from the bare loop of the same round. The goal for ours is at most 0.3 ms.",
        "",
        "| loop | CPU | above bare, CPU | elapsed | above bare, elapsed |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        cells = [name]
        for kind in ("cpu", "wall"):
            low, high = row[f"{kind}_above_quartiles_ms"]
            above = f"{row[f'{kind}_above_ms']:+.2f} ({low:+.2f} to {high:+.2f})"
            cells += [f"{row[f'{kind}_ms']:.2f}", "" if name == "bare PyTorch" else above]
        lines.append("| " + " | ".join(cells) + " |")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
