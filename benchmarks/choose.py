"""What somebody gets who gives data and a time: beside the papers' settings in the same time.

python benchmarks/choose.py --data $DATA [--sets clothing ...] [--time 5m] [--seeds 0 1 2]

A row is a way to train; it is scored by k-NN, by a ridge probe and by 10 labels a class on the same
held-out images, beside the floors. Rows are added to results/choose.json (one of the same set, time
and seed is replaced) and the table is written anew. One thread and one process: the time that is
asked for is elapsed, the CPU seconds that it took stand in the table.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from adapt import SETS

from selftaught import evaluate, pretrain
from selftaught.data.selection import select
from selftaught.errors import SelftaughtError
from selftaught.evaluate.floors import ENCODER

ROWS: dict[str, dict[str, Any]] = {
    "auto": {"weights": None},
    "paper": {"recipe": "paper"},
    "small": {"recipe": "paper", "backbone": "test_resnet", "size": 64, "batch": 64},
}
"""What is given beside data and time: no weights to begin with; the paper's settings; those on the
network that auto takes, so that what the other settings are worth is seen apart."""
LABELS = 10
"""Of each class, of the second k-NN."""
RESULTS = Path(__file__).parent / "results" / "choose.json"


def run(row: str, train: Any, test: Any, limit: str, seed: int) -> dict[str, Any]:
    """Train `row` for `limit`, and score what comes of it."""
    given = {"workers": 0, "evaluate": False, "curve": False, "seed": seed, "time": limit}
    begun, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = pretrain("simclr", train, f"{folder}/run", **given, **ROWS[row])
        except SelftaughtError as error:
            return {"refused": str(error), "machine": machine.describe()}
        took = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu}
    labels = np.asarray(train.labels)
    rng = np.random.default_rng(seed)
    few = [rng.permutation(np.flatnonzero(labels == k))[:LABELS] for k in np.unique(labels)]
    found = evaluate.compare(done.encoder, train, test, seed=seed)
    tenth = evaluate.compare(done.encoder, select(train, np.concatenate(few)), test, seed=seed)
    floors = [s for name, s in found.scores.items() if name != ENCODER]
    return {
        "scores": [round(s.value, 1) for s in found.scores[ENCODER]],
        "few": [round(s.value, 1) for s in tenth.scores[ENCODER]],
        "floor": [round(max(s.value for s in each), 1) for each in zip(*floors)],
        "backbone": f"{done.encoder.name}, {done.encoder.size} px",
        "epochs": done.plan.settings.epochs,
        "samples": done.plan.steps * done.plan.batch,
        **{name: round(value) for name, value in took.items()},
        "verdict": done.diagnosis.verdict if done.diagnosis else "",
        "machine": machine.describe(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder a set")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--time", default="5m")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.sets:
        if not (arguments.data / name).is_dir():
            raise SystemExit(f"the images of {name} are missing: {arguments.data / name}")
        train, test = SETS[name](arguments.data / name)
        for seed in arguments.seeds:
            for row in arguments.only:
                key = f"{name} {arguments.time} {row} {seed}"
                found[key] = run(row, train, test, arguments.time, seed)
                print(key, json.dumps(found[key]), flush=True)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
                RESULTS.with_suffix(".md").write_text(markdown(found))


def markdown(found: dict[str, Any]) -> str:
    """A table of all rows."""
    newest = max((r["machine"] for r in found.values()), key=lambda m: m["date"])
    lines = [
        "# SimCLR, from nothing: what is chosen, and the paper's settings, in the same time",
        "",
        "    python benchmarks/choose.py --data $DATA --sets SET --time TIME --seeds SEED",
        "",
        machine.sentence(newest),
        "",
        "Per cent right of the test images by k-NN (k = 20, T = 0.07) and a ridge probe; the same "
        f"from {LABELS} labels a class; a floor is the highest among raw pixels and the same "
        "network untrained. `auto` is given data and a time, `paper` also `--recipe paper`, "
        "`small` that on the network, size and batch that auto takes of some thousand images.",
        "",
        "| images | time | seed | row | backbone | k-NN | probe | floors | 10 labels a class | "
        "images seen | CPU s |",
        "| --- | --- | --- | --- | --- | ---: | ---: | --- | --- | ---: | ---: |",
    ]
    for key, r in found.items():
        name, limit, row, seed = key.split()
        if "refused" in r:
            lines.append(
                f"| {name} | {limit} | {seed} | {row} | refused: {r['refused']} " + "|" * 7
            )
            continue
        cells = [name, limit, seed, row, r["backbone"]]
        cells += [f"**{v:.1f}**" for v in r["scores"]]
        cells += [" / ".join(f"{v:.1f}" for v in r[part]) for part in ("floor", "few")]
        cells += [f"{r['samples']:,}", str(r["cpu_seconds"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
