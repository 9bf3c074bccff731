"""Losses of six methods to the last digit: a change that should move no number leaves them alike.

    python benchmarks/traces.py [--check]

A dozen steps each on photos that are shipped with the package, every setting written here, one
thread. `--check` compares with benchmarks/results/traces.md instead of writing it; digits hold for
one processor and one version of torch, so make the file anew before a change, on the same machine.
"""

import argparse
import csv
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
import torch

import selftaught
from selftaught.data import open_data
from selftaught.demo import PHOTOS
from selftaught.engine.build import assemble
from selftaught.engine.pretrain import pretrain

OUT = Path(__file__).parent / "results" / "traces.md"

VIT = {"name": "test_vit", "size": 32, "drop_path": 0.0}
RESNET = {"name": "test_resnet", "size": 32}
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "simclr": (RESNET, {"temperature": 0.2, "hidden": 32, "dim": 16}),
    "moco_v2": (RESNET, {"dim": 16, "queue": 128, "momentum": 0.9}),
    "dino": (VIT, {"hidden": 32, "bottleneck": 16, "prototypes": 64, "local_crops": 2}),
    "mae": (VIT, {"dim": 16, "depth": 1, "heads": 2}),
    "deepcluster": (RESNET, {"clusters": 8}),
    "densecl": (RESNET, {"hidden": 32, "dim": 16, "queue": 128}),
}
"""Backbone and options of each."""

TRAINING: dict[str, Any] = {
    "recipe": "paper",
    "epochs": 2,
    "batch": 32,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.05,
    "layer_decay": 1.0,
    "warmup": 0.1,
    "clip": 3.0,
    "seed": 3,
    "workers": 0,
    "accelerator": "cpu",
    "precision": "fp32",
    "colors": "loader",
    "evaluate": False,
    "log_every": 1,
    "force": True,
}
IMAGES = 192
"""Of the photos: six steps an epoch."""


def trace(name: str, folder: Path) -> tuple[list[str], str]:
    """Losses of the steps of a method, and the hash of the encoder that it leaves."""
    image, options = METHODS[name]
    photos = open_data(PHOTOS / "train.parquet")
    data = [photos.read(i) for i in range(IMAGES)]
    method = assemble(name, image, options, data, TRAINING["seed"])
    pretrain(method, data, folder / name, **TRAINING)
    with (folder / name / "metrics.csv").open() as file:
        losses = [row["loss"] for row in csv.DictReader(file)]
    digest = hashlib.sha256()
    for key, x in sorted(selftaught.load(folder / name).state_dict().items()):
        digest.update(key.encode() + x.contiguous().numpy().tobytes())
    return losses, digest.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    torch.set_num_threads(1)
    sections = []
    with tempfile.TemporaryDirectory() as folder:
        for name in METHODS:
            losses, digest = trace(name, Path(folder))
            sections.append(
                f"## {name}\n\nencoder {digest}\n\n```\n" + "\n".join(losses) + "\n```\n"
            )
    if check:
        before = OUT.read_text(encoding="utf-8")
        moved = [s.split("\n")[0] for s in sections if s not in before]
        sys.exit(f"these have moved: {', '.join(moved)}" if moved else 0)
    head = "# Losses to the last digit\n\nMade by `python benchmarks/traces.py`. "
    about = machine.sentence(machine.describe())
    OUT.write_text("\n".join([head + about + "\n", *sections]), encoding="utf-8")


if __name__ == "__main__":
    main()
