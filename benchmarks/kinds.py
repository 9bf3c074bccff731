"""Does what is no image learn? A method a kind, on real data, beside the floors of the kind.

python benchmarks/kinds.py --data $DATA [--only NAMES ...] [--seed 0]

Each row is `selftaught pretrain METHOD TRAIN --test TEST` with the settings that it shows; scores
are of test samples that were not trained on, beside the same network untrained and the floors of
the kind (`kinds/floors`). Rows are added to results/kinds.json, where one that is there is left
(with --only it is done again), and results/kinds.md is written anew.

$DATA has the folders that the rows name.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

import selftaught
from selftaught import kinds

RESULTS = Path(__file__).parent / "results" / "kinds.json"


@dataclass(frozen=True)
class Row:
    """A training.

    Args:
        kind: of the samples.
        method: that is trained.
        sets: folder with all data, folder to write into -> training and test data.
        options: of `pretrain`.
    """

    kind: str
    method: str
    sets: Callable[[Path, Path], tuple[Any, Any]]
    options: dict[str, Any] = field(default_factory=dict)


def ucr(name: str) -> Callable[[Path, Path], tuple[Any, Any]]:
    """One of the UCR and UEA sets, with its own split."""

    def sets(data: Path, out: Path) -> tuple[Path, Path]:
        found = np.load(data / "timeseries" / "ucr_uea_samples.npz")
        parts = []
        for part in ("TRAIN", "TEST"):
            file = out / f"{name}_{part}.npz"
            np.savez(file, x=found[f"{name}_{part}_x"], y=found[f"{name}_{part}_y"])
            parts.append(file)
        return parts[0], parts[1]

    return sets


SERIES = (
    "ArrowHead",
    "BasicMotions",
    "GunPoint",
    "ItalyPowerDemand",
    "JapaneseVowels_eq",
    "OSULeaf",
)
ROWS = {f"{method} {name}": Row("series", method, ucr(name), options)
        for name in SERIES
        for method, options in {
            "ts2vec": {"max_steps": 200, "batch": 16, "recipe": "paper"},
            "simclr": {"max_steps": 300, "width": 16},
        }.items()}  # fmt: skip


def run(name: str, data: Path, seed: int) -> dict[str, Any]:
    """Train, and keep the scores."""
    row, begun = ROWS[name], time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        train, test = row.sets(data, Path(folder))
        made = selftaught.pretrain(
            row.method, train, Path(folder) / "run", kind=row.kind, test=test, seed=seed,
            workers=0, precision="fp32", curve=False, force=True, **row.options,
        )  # fmt: skip
        assert made.scores is not None
        assert made.verdict is not None
        found = made.scores.as_dict()
        size, network = made.encoder.size, made.encoder.name
    return {
        "kind": row.kind,
        "method": row.method,
        "network": f"{network}, {kinds.find(row.kind)().at(size)}",
        "options": row.options,
        "seed": seed,
        "verdict": str(made.verdict),
        "scores": [{k: s[k] for k in ("features", "score", "value", "interval", "n")}
                   for s in found["scores"]],
        "margins": found["margins"],
        "cpu_seconds": round(time.process_time() - begun, 1),
        "machine": machine.describe(),
    }  # fmt: skip


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """A table a kind."""
    lines = [
        "# Kinds of data, beside their floors",
        "",
        "Made by `python benchmarks/kinds.py --data $DATA`. Per cent right on test samples that "
        "were not trained on, with 95 % intervals; the margin is above the highest floor, and its "
        "interval that of the difference on the same samples.",
        "",
    ]
    for kind in dict.fromkeys(r["kind"] for r in rows.values()):
        mine = {n: r for n, r in rows.items() if r["kind"] == kind}
        floors = list(dict.fromkeys(s["features"] for r in mine.values() for s in r["scores"]))[1:]
        head = ["data", "method, network, settings", "score", "encoder", "95 %", *floors]
        head += ["above the floors", "CPU s"]
        lines += [f"## {kind}", "", f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
        for name, r in mine.items():
            given = ", ".join(f"{k} {v}" for k, v in r["options"].items())
            for margin in r["margins"]:
                at = {s["features"]: s for s in r["scores"] if s["score"] == margin["score"]}
                ours = next(iter(at.values()))
                low, high = margin["interval"]
                cells = [
                    name.partition(" ")[2],
                    f"{r['method']}, {r['network']}, {given}",
                    margin["score"],
                    f"{ours['value']:.1f}",
                    "{:.1f} to {:.1f} (n {})".format(*ours["interval"], ours["n"]),
                    *(f"{at[f]['value']:.1f}" if f in at else "" for f in floors),
                    f"{margin['points']:+.1f} ({low:+.1f} to {high:+.1f}): {margin['verdict']}",
                    f"{r['cpu_seconds']:.0f}",
                ]
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    made = sorted(
        {f"{r['machine']['cores']} cores of {r['machine']['cpu']}" for r in rows.values()}
    )
    return "\n".join([*lines, f"On {'; '.join(made)}, one thread.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder a set")
    parser.add_argument("--only", nargs="+", default=[], help="parts of what a row is called")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("selftaught").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in ROWS:
        wanted = any(part in name for part in arguments.only)
        if wanted or (not arguments.only and name not in rows):
            rows[name] = run(name, arguments.data, arguments.seed)
            print(name, rows[name]["margins"], rows[name]["cpu_seconds"], flush=True)
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            RESULTS.with_suffix(".md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
