"""Is what `--dry-run --for` tells of memory and time what a run takes? Checked on this machine.

python benchmarks/cost.py

Each row trains three steps of two batches in processes of their own, in bfloat16, and compares what
the larger batch needs more, memory at its peak and CPU seconds a step, with what is counted of an
image. Images are noise: nothing of this depends on what they show. Written to results/cost.md.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import machine
import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "cost.md"
ROWS = (
    ("mae", "vit_tiny_patch16_224", 224, (8, 24), ()),
    ("mae", "vit_tiny_patch16_224", 224, (8, 24), ("--recompute",)),
    ("dinov2", "vit_tiny_patch16_224", 96, (4, 12), ()),
    ("simclr", "resnet50", 64, (8, 32), ()),
)
HEAD = [
    "# What is counted of a training, and what it takes",
    "",
    "Made by `python benchmarks/cost.py`: three steps of two batches on one core, in bfloat16; the "
    "differences between the two, an image.",
    "",
    "| training | MiB counted | MiB at the peak | peak / counted | GFLOP counted | CPU seconds "
    "| GFLOP/s |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
]
HEADS = {"dinov2": ("--prototypes", "4096")}
"""Prototypes are there for a million images, and would be all that is measured here."""

CHILD = """
import csv, json, resource, sys
import torch
torch.set_num_threads(1)
from selftaught.engine import elsewhere
from selftaught.engine.run import Run
from selftaught import cli
out, words, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
if count:
    import time
    from selftaught.engine.loop import Loop
    step, inner = [], Loop._step
    def timed(self, *given):
        begun = time.process_time()
        inner(self, *given)
        step.append(time.process_time() - begun)
    Loop._step = timed
    code = cli.main(["pretrain", *words, "--batch", str(count), "--max-steps", "3", "--out", out])
    seen = {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "step": min(step)}
else:
    real = elsewhere.ways
    def told(*given):
        seen["ways"] = [(w.name, w.state, *w.cost) for w in real(*given)]
        return real(*given)
    seen, elsewhere.ways = {}, told
    code = cli.main(["pretrain", *words, "--batch", "16", "--dry-run", "--for", "8xA100"])
assert code == 0
print(json.dumps(seen))
"""


def child(out: Path, words: list[str], count: int) -> dict[str, object]:
    """What one process says of itself."""
    command = [sys.executable, "-c", CHILD, str(out), json.dumps(words), str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        rng = np.random.default_rng(0)
        for i in range(64):
            pixels = rng.integers(0, 255, (224, 224, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / f"{i}.jpg")
        for n, (method, backbone, size, counts, more) in enumerate(ROWS):
            words = [method, str(folder / "photos"), "--backbone", backbone, "--size", str(size)]
            words += ["--precision", "bf16", "--workers", "0", "--no-evaluate", "--no-curve"]
            words += ["--recipe", "paper", "--epochs", "10", "--accelerator", "cpu"]
            words += [*HEADS.get(method, ()), *more]
            ways = child(folder / "none", words, 0)["ways"]
            told = next(w for w in ways if w[0] == " ".join(more))  # type: ignore[attr-defined]
            runs = [child(folder / f"{n}-{count}", words, count) for count in counts]
            apart = counts[1] - counts[0]
            memory, seconds = ((runs[1][k] - runs[0][k]) / apart for k in ("peak", "step"))  # type: ignore[operator]
            pace = told[3] / seconds / 1e9
            lines.append(
                f"| {method}, {backbone}, {size} px {' '.join(more)} | {told[2] / 2**20:.1f} | "
                f"{memory / 2**20:.1f} | {memory / told[2]:.2f} | {told[3] / 1e9:.2f} | "
                f"{seconds:.3f} | {pace:.1f} |"
            )
            print(lines[-1], flush=True)
            said = ["", machine.sentence(machine.describe()), ""]
            RESULTS.write_text("\n".join([*HEAD, *lines, *said]))


if __name__ == "__main__":
    main()
