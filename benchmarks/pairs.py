"""Do pairs of two kinds find each other? Digits as they are written and as they are spoken.

python benchmarks/pairs.py --data $DATA [--only METHODS ...] [--seed 0]

Images of MNIST, and recordings of six speakers (FSDD), are paired by their digit: each of 2,000
training images with one of 1,200 training recordings at random. Of 300 test images and 300 test
recordings, none of which was trained on, any of the same digit counts as found. Beside the method
are chance, and regularized CCA fitted on the same training pairs: of pixels and cepstra, and of the
same networks untrained. Written to results/pairs.json and results/pairs.md.

$DATA has the folders mnist (train.npz, test.npz) and fsdd (train.parquet, test.parquet).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

from selftaught import kinds, open_data, pretrain
from selftaught.data import Samples
from selftaught.data.paired import Paired
from selftaught.data.selection import select
from selftaught.engine.pairs import towers
from selftaught.evaluate.pairing import compare_pairs

RESULTS = Path(__file__).parent / "results" / "pairs.json"
IMAGES = 2000
EACH = 30
"""Test images of a digit: as many as there are recordings."""
METHODS: dict[str, dict[str, Any]] = {
    "infonce": {"epochs": 50, "batch": 128},
    "vicreg": {"epochs": 10, "batch": 64, "hidden": 512, "dim": 512},
}
SECOND = {"second_kind": "sound", "second_rate": 8000, "second_seconds": 0.6}


def sides(data: Path, part: str) -> tuple[np.ndarray, np.ndarray, Samples]:
    """Images [N, 28, 28] and their digits, and recordings with theirs."""
    digits = np.load(data / "mnist" / f"{part}.npz")
    kind = kinds.made({"kind": "sound"})
    sounds = open_data(str(data / "fsdd" / f"{part}.parquet"), kind=kind)
    return digits["x"], digits["y"], sounds


def training(data: Path, seed: int) -> tuple[np.ndarray, Samples]:
    """Images, and a recording of the same digit for each."""
    images, labels, sounds = sides(data, "train")
    rng, spoken = np.random.default_rng(seed), np.asarray(sounds.labels)
    chosen = np.sort(rng.permutation(len(images))[:IMAGES])
    rows = [int(rng.choice(np.flatnonzero(spoken == d))) for d in labels[chosen]]
    return images[chosen], select(sounds, rows)


def testing(data: Path, like: Paired) -> Paired:
    """Test images, each with all recordings of the same digit, read as those of the training."""
    images, labels, sounds = sides(data, "test")
    spoken = np.asarray(sounds.labels)
    chosen = np.concatenate([np.flatnonzero(labels == d)[:EACH] for d in range(10)])
    rows = [np.flatnonzero(spoken == d) for d in labels[chosen]]
    first = open_data(images[chosen], channels=like.first.channels)
    second = sounds.seen_as(kinds.of(like.second), like.second.channels)
    starts = np.cumsum([0, *map(len, rows)])
    return Paired(first, select(second, np.concatenate(rows)), starts)


def run(method: str, data: Path, seed: int) -> dict[str, Any]:
    """Train, and score on test pairs."""
    begun, options = time.process_time(), METHODS[method]
    images, sounds = training(data, seed)
    with tempfile.TemporaryDirectory() as folder:
        made = pretrain(
            method, images, Path(folder) / "run", channels=1, second=sounds, pair_by="row",
            backbone="test_resnet", size=32, seed=seed, workers=0, precision="fp32", curve=False,
            force=True, evaluate=False, **SECOND, **options,
        )  # fmt: skip
        train = made.plan.partners
        assert isinstance(train, Paired)
        trained = round(time.process_time() - begun, 1)
        found = compare_pairs(towers(made.method), train, testing(data, train), seed=seed)
    print(found.verdict)
    return {
        "method": method,
        "networks": found.encoder,
        "options": options | SECOND,
        "seed": seed,
        "verdict": found.verdict,
        **{k: found.as_dict()[k] for k in ("scores", "margins")},
        "cpu_seconds": {"training": trained, "all": round(time.process_time() - begun, 1)},
        "machine": machine.describe(),
    }


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """A table of all methods."""
    lines = [
        "# Pairs of images and sounds",
        "",
        "Made by `python benchmarks/pairs.py --data $DATA --only METHOD` for each: MNIST and "
        f"spoken digits (FSDD), paired by digit; {IMAGES:,} training pairs, 300 test images that "
        "search 300 test recordings and "
        "the other way round, any of the same digit counts. Per cent found, with 95 % intervals; "
        "the margin is above the highest floor, and its interval that of the difference on the "
        "same samples.",
        "",
    ]
    for name, r in rows.items():
        floors = list(dict.fromkeys(s["features"] for s in r["scores"]))[1:]
        given = ", ".join(f"{k} {v}" for k, v in r["options"].items())
        head = ["recall", "encoders", "95 %", *floors, "above the floors"]
        seconds = r["cpu_seconds"]
        lines += [f"## {name}", "", f"{r['networks']}; {given}. {seconds['training']:.0f} CPU s of "
                  f"training, {seconds['all']:.0f} in all.", "",
                  f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]  # fmt: skip
        for margin in r["margins"]:
            at = {s["features"]: s for s in r["scores"] if s["score"] == margin["score"]}
            ours = next(iter(at.values()))
            low, high = margin["interval"]
            cells = [
                margin["score"],
                f"{ours['value']:.1f}",
                "{:.1f} to {:.1f}".format(*ours["interval"]),
                *(f"{at[f]['value']:.1f}" if f in at else "" for f in floors),
                f"{margin['points']:+.1f} ({low:+.1f} to {high:+.1f}): {margin['verdict']}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    last = list(rows.values())[-1]
    return "\n".join([*lines, f"On {machine.sentence(last['machine'])}"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for method in asked.only:
        rows[method] = run(method, asked.data, asked.seed)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
