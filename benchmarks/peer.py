"""SimCLR by lightly-train, for a number of CPU seconds: what `choose.py` sets its rows beside.

PYTHON benchmarks/peer.py --images FOLDER --out FOLDER --seconds 300 --settings JSON

`choose.py --peer PYTHON` calls it, with a Python of an environment of its own, that has
`lightly-train==0.18.*` and the timm that is compared with. The licence of lightly-train is the
AGPL: it is a program that is run here, and nothing of ours is built on it.

It writes FOLDER/peer.json, and beside it the weights under timm's names. How many steps go into the
time is seen on a few of them first, which do not count, as neither does starting up: its schedules
are then those of a training of that length. One thread and one process, as in the other rows.

Its telemetry is off by LIGHTLY_TRAIN_EVENTS_DISABLED=1, the variable that its documentation names.
NO_ALBUMENTATIONS_UPDATE=1 keeps the library of its views from asking whether it is the newest.
"""

import argparse
import json
import os
import statistics
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["LIGHTLY_TRAIN_EVENTS_DISABLED"] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import lightly_train
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

TRIED = 3
"""Steps that are timed, of which the first warms up."""


def train(arguments: argparse.Namespace, out: Path, steps: int) -> list[float]:
    """Train for `steps`; the CPU time at the end of each."""
    settings: dict[str, Any] = json.loads(arguments.settings)
    images = sum(1 for _ in arguments.images.iterdir())
    stamps: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: stamps.append(time.process_time()))
    lightly_train.pretrain(
        out=out,
        data=arguments.images,
        seed=arguments.seed,
        accelerator="cpu",
        num_workers=0,
        epochs=-(-steps // max(1, images // settings["batch_size"])),
        trainer_args={"max_steps": steps},
        **settings,
    )
    hook.remove()
    return stamps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of files, no folders")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seconds", type=float, required=True, help="of CPU time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", required=True, help="of lightly_train.pretrain, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["LIGHTLY_TRAIN_CACHE_DIR"] = str(arguments.out / "cache")
    stamps = train(arguments, arguments.out / "tried", TRIED)
    pace = statistics.median(b - a for a, b in pairwise(stamps))
    steps = max(1, round(arguments.seconds / pace))
    begun, cpu = time.perf_counter(), time.process_time()
    train(arguments, arguments.out / "run", steps)
    found = {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "steps": steps,
        "weights": str(arguments.out / "run" / "exported_models" / "exported_last.pt"),
        "version": version("lightly-train"),
    }
    (arguments.out / "peer.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
