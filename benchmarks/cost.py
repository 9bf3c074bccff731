"""Is what `--dry-run --for` tells of memory and time what a run takes? Checked on this machine.

python benchmarks/cost.py [METHOD ...]

Each row counts what a batch needs from passes of fewer images, as the command line does, and
trains three steps of that batch in a process of its own, in bfloat16 on one core. Of the last one,
all that torch allocates and frees is recorded (its profiler), which knows what kernels take for
themselves, too. Images are noise and texts random words: nothing of this depends on what they
show. Written to results/cost.md.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "cost.md"
TINY = ("--backbone", "vit_tiny_patch16_224")
# prototypes are there for a million images, and would be all that is measured here
HEADS = ("--prototypes", "4096")
ROWS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("mae", 24, (*TINY, "--size", "224")),
    ("simclr", 48, ("--backbone", "resnet50", "--size", "64")),
    ("simclr", 16, (*TINY, "--size", "224")),
    ("dino", 8, (*TINY, "--size", "224", *HEADS)),
    ("dinov2", 12, (*TINY, "--size", "96", *HEADS, "--drop-path", "0.3")),
    ("moco_v3", 16, (*TINY, "--size", "224")),
    ("ijepa", 24, (*TINY, "--size", "224")),
    ("bert", 32, ()),
)
HEAD = [
    "# What is counted of a training, and what it takes",
    "",
    "Made by `python benchmarks/cost.py`: a step of a batch on one core, in bfloat16; what is "
    "counted follows from passes of fewer images.",
    "",
    "| training | images | MiB counted | MiB at the peak | counted / peak | of it state | GFLOP an "
    "image | CPU seconds | GFLOP/s |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
]

CHILD = """
import json, sys, time
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves
torch.set_num_threads(1)
from selftaught import cli
from selftaught.engine import elsewhere
from selftaught.engine.loop import Loop
out, words, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
seen = {}

def told(*given):
    ways = real(*given)
    seen["ways"] = {w.name: (w.state, w.need(count), w.cost.flops) for w in ways}
    return ways

def walk(events):
    for e in events:
        if e.name == "[memory]":
            yield e.start_time_ns, e.extra_fields.alloc_size
        yield from walk(e.children)

def watched(self, *given):
    begun = time.process_time()
    if self.step < 2:
        inner(self, *given)
        seen["step"] = time.process_time() - begun
        return
    weights = [*self.method.parameters(), *self.method.buffers()]
    there = [*weights, *tree_leaves(self.optimizer.state_dict()["state"])]
    seen["before"] = sum(x.nbytes for x in there if isinstance(x, torch.Tensor))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as kept:
        inner(self, *given)
    now = most = 0
    for _, size in sorted(walk(kept.profiler.kineto_results.experimental_event_tree())):
        now += size
        most = max(most, now)
    seen["peak"] = seen["before"] + most

words = ["pretrain", *words, "--batch", str(count), "--out", out]
if sys.argv[4] == "count":
    real, elsewhere.ways = elsewhere.ways, told
    code = cli.main([*words, "--dry-run", "--for", "A100"])
else:
    inner, Loop._step = Loop._step, watched
    code = cli.main([*words, "--max-steps", "3"])
assert code == 0
print(json.dumps(seen))
"""


def child(out: Path, words: list[str], count: int, what: str) -> dict[str, Any]:
    """What one process says of itself."""
    command = [sys.executable, "-c", CHILD, str(out), json.dumps(words), str(count), what]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def make(folder: Path) -> None:
    """Images and texts of noise."""
    (folder / "photos").mkdir()
    pixels = np.random.default_rng(0)
    for i in range(64):
        shown = pixels.integers(0, 255, (224, 224, 3), dtype=np.uint8)
        Image.fromarray(shown).save(folder / "photos" / f"{i}.jpg")
    draw = random.Random(0)
    words = ["".join(draw.choices("aeilmnorst", k=draw.randint(2, 9))) for _ in range(500)]
    lines = (" ".join(draw.choices(words, k=60)) for _ in range(2000))
    (folder / "corpus.txt").write_text("\n".join(lines))


def main() -> None:
    asked, lines = sys.argv[1:], list[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        for n, (method, count, more) in enumerate(ROWS):
            if asked and method not in asked:
                continue
            data = "corpus.txt" if method == "bert" else "photos"
            words = [method, str(folder / data), *more, "--precision", "bf16", "--workers", "0"]
            words += ["--no-evaluate", "--no-curve", "--recipe", "paper"]
            words += ["--epochs", "10", "--accelerator", "cpu"]
            counted = child(folder / "none", words, count, "count")["ways"]
            for way, (state, need, flops) in counted.items():
                its = [*words, *way.split()]
                run = child(folder / f"{n}{way}", its, count, "train")
                shown = " ".join(x for x in (*more, way) if x not in HEADS)
                lines.append(
                    f"| {method} {shown} | {count} | {need / 2**20:,.0f} | "
                    f"{run['peak'] / 2**20:,.0f} | {need / run['peak']:.3f} | "
                    f"{state / 2**20:,.0f} | {flops / 1e9:.2f} | {run['step'] / count:.3f} | "
                    f"{flops / 1e9 * count / run['step']:.0f} |"
                )
                print(lines[-1], run["before"] / 2**20, flush=True)
                said = ["", machine.sentence(machine.describe()), ""]
                if not asked:
                    RESULTS.write_text("\n".join([*HEAD, *lines, *said]))


if __name__ == "__main__":
    main()
