"""Does each method learn, on little data and one CPU core? Scores beside floors, as a table.

python benchmarks/learn.py --train TRAIN --test TEST --size 32 --samples 100000 \
    --name cifar10 [--methods simclr byol ...]

Every method trains a network of like cost on the same number of samples seen, with what its `few`
says: the papers' settings are for a thousand times as much. Rows are added to
results/learn-NAME.json (a method that is there is replaced) and the table is written anew.

`motion` trains on frames of clips, all that have something moving in them: name it with --clips. It
is scored as the others are.
"""

import argparse
import csv
import json
import logging
import shlex
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

from selftaught import choose, evaluate, methods, open_data, pretrain
from selftaught.data.selection import select
from selftaught.data.video.frames import frames
from selftaught.engine.build import assemble

CONV, VIT = choose.CONVOLUTIONAL, choose.TRANSFORMER
"""Backbones: a ResNet of 0.37 M and a ViT of 0.34 M weights, alike in time per image."""

COMMON = {"recipe": "paper", "optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-4, "batch": 64}
COMMON |= {"warmup": 0.05}
"""Of `pretrain`, where a method's `few` has nothing else."""

MOMENTUM = 0.98
"""At the start, of EMA copies: for a thousand steps or two."""

COLORS = ("blur", "strength")
"""Roles of what is weaker for 32 pixels alone: weak views of photos are told apart by colors."""

ON_CONV = ("dino", "simdino", "lejepa", "stego", "visreg")
"""Methods that a paper has on a ViT, and these tables on the ResNet."""

OWN: dict[str, dict[str, Any]] = {"simmim": {"unit": 4}}


@dataclass(frozen=True)
class Preset:
    """What differs from the paper's settings, for small images and short trainings.

    Args:
        method: constructor parameters.
        train: arguments of `pretrain`; AdamW, batch 64 and so on come from COMMON.
        net: backbone.
        colors: names of the parameters that are for images under 64 pixels.
    """

    method: dict[str, Any]
    train: dict[str, Any]
    net: str
    colors: frozenset[str]


def preset(name: str) -> Preset:
    """What the method's `few` says, weak views by their roles, and an EMA copy that follows."""
    kind = methods.find(name)
    train = {k: v for k, v in kind.few.items() if k in COMMON}
    method = {k: v for k, v in kind.few.items() if k not in COMMON} | OWN.get(name, {})
    colors = set()
    for p in methods.signature(name).parameters:
        many = isinstance(p.default, tuple)
        for role in p.roles:
            if role.name == "momentum":
                method[p.name] = (MOMENTUM, *p.default[1:]) if many else MOMENTUM
            elif role.name in COLORS:
                colors.add(p.name)
                value = 0.5 if role.name == "strength" else 0.0
                method[p.name] = (value,) * len(p.default) if many else value
    net = CONV if name in ON_CONV or not choose.wants_transformer(kind.needs) else VIT
    return Preset(method, train, net, frozenset(colors))


TAUGHT = ("distill", "distill_features", "simclr_v2_finetune")
"""Methods that go on from another run."""

PRESETS = {name: preset(name) for name in methods.files() if name not in TAUGHT}

ALONE = [name for name in PRESETS if name != "motion"]
"""Methods that need nothing but images; motion needs clips."""


def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.WARNING)
    path = Path(__file__).parent / "results" / f"learn-{arguments.name}.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.methods:
        row = " ".join([name, *arguments.label])
        rows[row] = run(name, arguments)
        path.write_text(json.dumps(rows, indent=1) + "\n")
        path.with_suffix(".md").write_text(markdown(rows, arguments.name))
        print(row, json.dumps(rows[row]), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_data(parser)
    parser.add_argument("--methods", nargs="+", default=ALONE, choices=list(PRESETS))
    parser.add_argument(
        "--label", nargs="*", default=[], metavar="WORD", help="of rows beside those of the presets"
    )
    arguments = parser.parse_args()
    if "motion" in arguments.methods and not arguments.clips:
        parser.error("motion trains on frames of clips: name a folder of clips with --clips")
    return arguments


def add_data(parser: argparse.ArgumentParser) -> None:
    """What a training is on, and how long it is."""
    parser.add_argument("--train", required=True, help="labeled images to train on")
    parser.add_argument("--test", required=True, help="labeled images to score on")
    parser.add_argument("--rows", metavar="NPZ:NAME", help="positions of the images to train on")
    parser.add_argument("--clips", help="folder of clips that motion trains on, instead of TRAIN")
    parser.add_argument("--bank", help="labeled images that probes learn from, instead of TRAIN")
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    parser.add_argument("--samples", type=int, default=60_000, help="images seen in training")
    parser.add_argument("--name", required=True, help="of the data, in the results' file names")
    parser.add_argument("--threads", type=int, default=1, help="of the network")
    parser.add_argument("--workers", type=int, default=1, help="that make views")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=JSON", help="instead of a preset's value"
    )


def command(name: str, arguments: argparse.Namespace) -> str:
    """What repeats a row; the data's place is left open."""

    def place(path: str) -> str:
        parts = Path(path).parts[-1 if Path(path).is_dir() else -2 :]
        return "/".join(("$DATA", *parts))

    given = ("train", "test", "rows", "bank", "clips")
    data = [(f"--{n}", place(v)) for n in given if (v := getattr(arguments, n))]
    overrides = ["--set", *map(shlex.quote, arguments.set)] if arguments.set else []
    parts = [
        *("python benchmarks/learn.py", *(part for pair in data for part in pair)),
        *("--size", arguments.size, "--samples", arguments.samples, "--seed", arguments.seed),
        *("--name", arguments.name, "--methods", name, *overrides),
        *(["--label", *map(shlex.quote, arguments.label)] if arguments.label else []),
    ]
    return " ".join(map(str, parts))


def settings(name: str, size: int) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Of the method, of `pretrain`, and the backbone, for images of `size` pixels."""
    made = PRESETS[name]
    kept = {k: v for k, v in made.method.items() if size < 64 or k not in made.colors}
    return kept, COMMON | made.train, made.net


def override(name: str, items: list[str], method: dict[str, Any], train: dict[str, Any]) -> None:
    """Put each KEY=JSON of `items` where it belongs; lists as tuples, as constructors want them."""
    for item in items:
        key, _, value = item.partition("=")
        read = json.loads(value)
        part = method if key in methods.signature(name) else train
        part[key] = tuple(read) if isinstance(read, list) else read


def epochs_of(images: int, batch: int, samples: int) -> int:
    """Whose steps show `samples` images, of `images` that there are."""
    return max(1, round(samples / (images // batch * batch)))


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    method, train, net = settings(name, arguments.size)
    nets = [item for item in arguments.set if item.startswith("net=")]
    net = nets[-1].partition("=")[2] if nets else net
    override(name, [item for item in arguments.set if item not in nets], method, train)
    torch.set_num_threads(arguments.threads)
    samples, held = open_data(arguments.train), open_data(arguments.test)
    if arguments.rows:
        file, _, rows = arguments.rows.rpartition(":")
        samples = select(samples, np.load(file)[rows])
    bank = open_data(arguments.bank) if arguments.bank else samples
    with tempfile.TemporaryDirectory() as out:
        data: Any = samples
        count = len(samples)
        if name == "motion":  # the folder, in which its masks are, too
            made = frames(arguments.clips, Path(out) / "frames", every=1)
            data, count = made.out, made.written
        epochs = epochs_of(count, train["batch"], arguments.samples)
        image = {"name": net, "size": arguments.size, "drop_path": 0.0}
        if net == VIT:
            image["patch_size"] = arguments.size // 8  # 64 patches of images of any size
        model = assemble(name, image, method, samples, arguments.seed)
        begun, cpu = time.perf_counter(), time.process_time()
        pretrain(
            model,
            data,
            Path(out) / "run",
            epochs=epochs,
            seed=arguments.seed,
            workers=arguments.workers,
            evaluate=False,
            **train,
        )
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        with (Path(out) / "run" / "metrics.csv").open() as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        course = json.loads((Path(out) / "run" / "diagnosis.json").read_text())["course"]
        ranks = [point["rank"] for point in course if "rank" in point]
    found = evaluate.compare(model.encoder, bank, held, workers=arguments.workers)
    margin = found.margins[0]
    return {
        "backbone": net,
        "method": method,
        "train": train,
        "epochs": epochs,
        "size": arguments.size,
        "loss": [round(v, 4) for v in (losses[0], losses[len(losses) // 2], losses[-1])],
        "nothing_learned": nothing_learned(model, train["batch"]),
        "rank": [round(v, 3) for v in (ranks[0], ranks[-1])],
        "seconds": round(seconds),
        "cpu_seconds": round(cpu),
        "scores": {k: [round(s.value, 1) for s in v] for k, v in found.scores.items()},
        "margin": [round(v, 1) for v in (margin.points, *margin.interval)],
        "command": command(name, arguments),
        "machine": machine.describe(),
    }


def nothing_learned(model: Any, batch: int) -> str:
    """Values that the loss has where nothing is learned, and why."""
    values = (t for t in model.reference_losses(batch) if t.term == "loss")
    return "; ".join(f"{t.value:.2f} ({t.formula})" for t in values)


def markdown(rows: dict[str, Any], data: str) -> str:
    """The table, best k-NN first."""
    ordered = sorted(rows.items(), key=lambda item: -item[1]["scores"]["this encoder"][0])
    newest = max((row["machine"] for row in rows.values()), key=lambda m: m["date"])
    head = "method | backbone | k-NN | its floor | margin | probe | its floor | untrained | "
    head += "loss | of nothing learned | rank | seconds"
    lines = [
        f"# What each method learns on {data}",
        "",
        f"{machine.sentence(newest)} Every row has its own command and machine in the JSON beside "
        "this file; the first one's is",
        "",
        f"    {ordered[0][1]['command']}",
        "",
        "Per cent right of the test images: k-NN (k = 20, T = 0.07), ridge probe. A floor is the "
        "highest score among raw pixels of 8 x 8 and of 16 x 16 and the same network untrained, "
        "whose k-NN is shown; the margin of the k-NN has its 95 % interval. Loss at the start, in "
        "the middle, at the end. Effective rank of the features, as a share of what a batch can "
        "have, at first and at the end (empty: not measured). Seconds of CPU time of the training "
        "process, elapsed ones in brackets: the machine had other work.",
        "",
        f"| {head} |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | --- | --- | --- | ---: |",
    ]
    for name, row in ordered:
        own, *floors = row["scores"].values()
        knn, probe = (max(values) for values in zip(*floors))
        points, low, high = row["margin"]
        cells = [
            *(name, row["backbone"], f"**{own[0]:.1f}**", f"{knn:.1f}"),
            f"{points:+.1f} ({low:+.1f} to {high:+.1f})",
            *(f"{own[1]:.1f}", f"{probe:.1f}", f"{row['scores']['untrained'][0]:.1f}"),
            " → ".join(f"{v:.2f}" for v in row["loss"]),
            *(row["nothing_learned"], " → ".join(f"{v:.0%}" for v in row.get("rank", []))),
            f"{row['cpu_seconds']} ({row['seconds']})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Presets:", ""]
    for name, row in ordered:
        options = ", ".join(f"{k} {v}" for k, v in (row["method"] | row["train"]).items())
        lines.append(f"- {name}: {row['epochs']} epochs at {row['size']} px; {options}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
