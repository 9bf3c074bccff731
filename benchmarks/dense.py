"""Do dense methods tell what is where? Segmentation from frozen features, beside floors.

OMP_NUM_THREADS=1 python benchmarks/dense.py --train TRAIN --test TEST --name camvid --ignore 11 \\
    --samples 20000 [--methods densecl pixpro ...] [--runs KEPT]

TRAIN and TEST are Parquet files of images with masks (columns `image`, `mask`). Every method trains
on all images of TRAIN, on the same number of images seen, with the preset of `learn.py`; then a
linear layer and k-means on its local features segment TEST, beside the same network untrained and
the colors and places of cells. `stego` is trained on top of another run in KEPT (`--under`), whose
encoder stays as it is, and is to beat k-means on the features of that encoder. Rows are added to
results/dense-NAME.json and the table is written anew.
"""

import argparse
import json
import logging
import shlex
import tempfile
import time
from pathlib import Path
from typing import Any

import learn
import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from selftaught import augment, evaluate, load, methods, open_data, pretrain
from selftaught.augment.image.render import plain_mask
from selftaught.data.image.masks import class_map, open_masks
from selftaught.engine.build import assemble

METHODS = ("densecl", "pixcontrast", "pixpro", "scrl", "simclr", "mae")
LINEAR, KMEANS = "segment linear", "segment k-means"

HEAD = [
    "",
    "Mean intersection over union in per cent: of a linear layer on frozen local features, and of "
    "k-means on them, whose clusters are matched to classes. Beside it the same network untrained, "
    "and the colors and places of cells; the margin is over the higher of these, with its 95 % "
    "interval. Frames of one video are not independent: intervals are too narrow there. CPU "
    "seconds of the training, elapsed ones in brackets.",
    "",
    "| method | backbone | linear | untrained | colors | margin | k-means | untrained | colors | "
    "margin | seconds |",
    "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | --- | ---: |",
]


def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(arguments.threads)
    path = Path(__file__).parent / "results" / f"dense-{arguments.name}.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        data = Data(arguments, Path(scratch))
        runs = Path(arguments.runs or scratch) / "runs"
        for name in arguments.methods:
            row = (
                stego(data, arguments, runs)
                if name == "stego"
                else run(name, data, arguments, runs)
            )
            rows[name] = row | {
                "command": command(name, arguments, rows),
                "machine": machine.describe(),
            }
            path.write_text(json.dumps(rows, indent=1) + "\n")
            path.with_suffix(".md").write_text(markdown(rows, arguments.name))
            print(name, json.dumps(rows[name]), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", required=True, help="images to train on, some with masks")
    parser.add_argument("--test", required=True, help="images to score on, some with masks")
    parser.add_argument("--name", required=True, help="of the data, in the results' file names")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, "stego"])
    parser.add_argument("--samples", type=int, default=20_000, help="images seen in training")
    parser.add_argument("--size", type=int, default=128, help="side of the views in training")
    parser.add_argument("--look", type=int, default=256, help="side of the images in scoring")
    parser.add_argument("--ignore", nargs="*", type=int, default=[], help="values of no class")
    parser.add_argument(
        "--least", type=float, default=0.0, help="share of the pixels below which a class is none"
    )
    parser.add_argument("--under", default="densecl", help="run that stego is trained on top of")
    parser.add_argument("--runs", help="folder where encoders are kept, for stego")
    parser.add_argument("--threads", type=int, default=1, help="of the network")
    parser.add_argument("--workers", type=int, default=0, help="that make views")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=JSON", help="instead of a preset's value"
    )
    return parser.parse_args()


def command(name: str, arguments: argparse.Namespace, rows: dict[str, Any]) -> str:
    """What repeats a row, for STEGO after the run that it is on; the data's place is left open."""
    train, test = (
        f"$DATA/{p.parent.name}/{p.name}" for p in map(Path, (arguments.train, arguments.test))
    )
    parts = ["python benchmarks/dense.py --train", train, "--test", test, "--name", arguments.name]
    for key in ("samples", "size", "look", "seed"):
        parts += [f"--{key}", getattr(arguments, key)]
    parts += ["--ignore", *arguments.ignore] if arguments.ignore else []
    parts += ["--least", arguments.least] if arguments.least else []
    parts += ["--under", arguments.under, "--runs", "kept"] if name == "stego" else []
    parts += ["--set", *map(shlex.quote, arguments.set)] if arguments.set else []
    alone = " ".join(map(str, [*parts, "--methods", name]))
    if name != "stego" or arguments.under not in rows:
        return alone
    return f"{rows[arguments.under]['command']} --runs kept && {alone}"


class Data:
    """All images to train on, those with masks as files of their own, and what is no class."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path):
        self.samples = open_data(arguments.train)
        self.fields: list[str] = []
        for which, source in (("train", arguments.train), ("test", arguments.test)):
            table = pq.read_table(source, columns=["image", "mask"])
            self.fields.append(str(scratch / f"{which}.parquet"))
            pq.write_table(table.filter(pa.compute.is_valid(table["mask"])), self.fields[-1])
        counts = np.zeros(2**16, np.int64)
        for raw in pq.read_table(self.fields[0], columns=["mask"])["mask"]:
            found, each = np.unique(class_map(raw.as_py()), return_counts=True)
            counts[found] += each
        rare = np.flatnonzero((counts > 0) & (counts < arguments.least * counts.sum()))
        # those that are in the test images alone are no classes either
        self.ignore = sorted({*arguments.ignore, *rare.tolist()})

    def score(self, encoder: Any, arguments: argparse.Namespace) -> Any:
        return evaluate.compare(
            encoder,
            *self.fields,
            probes=["segment"],
            ignore=self.ignore,
            size=arguments.look,
            batch=16,
            workers=0,
        )


def run(name: str, data: Data, arguments: argparse.Namespace, runs: Path) -> dict[str, Any]:
    method, train, net = learn.settings(name, arguments.size)
    if "queue" in method:  # an image must not meet itself there
        method["queue"] = min(method["queue"], len(data.samples) // 2)
    learn.override(name, arguments.set, method, train)
    epochs = learn.epochs_of(len(data.samples), train["batch"], arguments.samples)
    image = {"name": net, "size": arguments.size, "drop_path": 0.0}
    model = assemble(name, image, method, data.samples, arguments.seed)
    spent = fit(model, data, runs / name, epochs, arguments, train)
    found = data.score(model.encoder, arguments)
    return {
        "backbone": net,
        "method": method,
        "train": train,
        "epochs": epochs,
        **spent,
        "scores": {k: {s.name: round(s.value, 1) for s in v} for k, v in found.scores.items()},
        "margins": {
            m.score.name: [round(v, 1) for v in (m.points, *m.interval)] for m in found.margins
        },
        "protocols": [score.protocol for score in found.scores["this encoder"]],
    }


def stego(data: Data, arguments: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """STEGO on a frozen encoder of ours, beside k-means on the features of that encoder."""
    encoder = load(runs / arguments.under)
    encoder.size = arguments.look  # a convolutional network has no size of its own
    floor = data.score(encoder, arguments).scores["this encoder"]
    train, test = (open_masks(field, open_data(field)) for field in data.fields)
    pipeline = augment.plain(arguments.look)
    masks = plain_masks(test, arguments.look)
    known = {c for i in range(len(train)) for c in np.unique(train.read(i)).tolist()}
    classes = sorted(known - set(data.ignore))
    method: dict[str, Any] = {"clusters": len(classes), "dim": 70}
    training: dict[str, Any] = {"batch": 32}
    learn.override("stego", arguments.set, method, training)
    torch.manual_seed(arguments.seed)
    model = methods.find("stego")(encoder, samples=len(data.samples), **method)
    epochs = learn.epochs_of(len(data.samples), training["batch"], arguments.samples)
    spent = fit(model, data, runs / "stego", epochs, arguments, training)
    model.eval()
    found, codes = [], {"train": [], "test": []}
    for which, samples in (("train", train.samples), ("test", test.samples)):
        for i in range(len(samples)):
            view = torch.from_numpy(pipeline(samples.read(i)))[None]
            x = augment.normalize(view, encoder.mean, encoder.std)
            with torch.no_grad():
                codes[which].append(model.encode(model.features(x))[0].flatten(1).mT)
                if which == "test":
                    found.append(model.segment(x)[0].argmax(0).numpy())
    none = [*data.ignore, *(set(np.unique(masks).tolist()) - set(classes))]
    score = evaluate.segments(np.stack(found), masks, ignore=none, name="segment STEGO")
    linear, _ = evaluate.segment(
        (torch.stack(codes["train"]), plain_masks(train, arguments.look)),
        (torch.stack(codes["test"]), masks),
        ignore=none,
    )
    theirs = next(s for s in floor if s.name == KMEANS)
    half = 1.96 * float((score.resampled - theirs.resampled).std())
    points = score.value - theirs.value
    return {
        "backbone": f"{encoder.name} of {arguments.under}, frozen",
        "method": method,
        "train": training,
        "epochs": epochs,
        **spent,
        "scores": {
            "this encoder": {s.name: round(s.value, 1) for s in (*floor, score)},
            "codes": {linear.name: round(linear.value, 1)},
        },
        "margins": {score.name: [round(v, 1) for v in (points, points - half, points + half)]},
        "protocols": [score.protocol],
    }


def plain_masks(masks: Any, size: int) -> np.ndarray:
    """[n, size, size]: as plain views of their images are cut."""
    resize = augment.plain(size).resize
    return np.stack([plain_mask(masks.read(i), resize, size) for i in range(len(masks))])


def fit(
    model: Any,
    data: Data,
    out: Path,
    epochs: int,
    arguments: argparse.Namespace,
    train: dict[str, Any],
) -> dict[str, Any]:
    """Train; the seconds that it took."""
    begun, cpu = time.perf_counter(), time.process_time()
    pretrain(
        model,
        arguments.train,
        out,
        recipe="paper",
        epochs=epochs,
        seed=arguments.seed,
        workers=arguments.workers,
        evaluate=False,
        overwrite=True,
        **train,
    )
    return {
        "seconds": round(time.perf_counter() - begun),
        "cpu_seconds": round(time.process_time() - cpu),
    }


def markdown(rows: dict[str, Any], data: str) -> str:
    """The table, best linear layer first; STEGO below it."""
    trained = {n: r for n, r in rows.items() if n != "stego"}
    ordered = sorted(trained.items(), key=lambda item: -item[1]["scores"]["this encoder"][LINEAR])
    newest = max((row["machine"] for row in rows.values()), key=lambda m: m["date"])
    lines = [
        f"# What dense methods learn on {data}",
        "",
        f"{machine.sentence(newest)} Every row has its own command and machine in the JSON beside "
        "this file.",
    ]
    lines += HEAD if ordered else []
    for name, row in ordered:
        own, fresh, colors = (
            row["scores"][k] for k in ("this encoder", "untrained", "color and place")
        )
        cells = [name, row["backbone"]]
        for score in (LINEAR, KMEANS):
            points, low, high = row["margins"][score]
            cells += [f"**{own[score]:.1f}**", f"{fresh[score]:.1f}", f"{colors[score]:.1f}"]
            cells += [f"{points:+.1f} ({low:+.1f} to {high:+.1f})"]
        lines.append(f"| {' | '.join(cells)} | {row['cpu_seconds']} ({row['seconds']}) |")
    for _, row in ordered[:1]:
        lines += ["", *(f"- {text}" for text in row["protocols"])]
    if "stego" in rows:
        row = rows["stego"]
        points, low, high = row["margins"]["segment STEGO"]
        own = row["scores"]["this encoder"]
        lines += [
            "",
            f"STEGO on {row['backbone']}: mean intersection over union "
            f"{own['segment STEGO']:.1f}; k-means on the features of that encoder: "
            f"{own[KMEANS]:.1f}; difference {points:+.1f} ({low:+.1f} to {high:+.1f}). "
            f"{row['protocols'][0]}; no CRF. A linear layer on its codes: "
            f"{row['scores']['codes'][LINEAR]:.1f}; on the features: {own[LINEAR]:.1f}.",
        ]
    lines += ["", "Commands:", ""]
    lines += [f"- {name}: `{row['command']}`" for name, row in rows.items()]
    lines += ["", "Settings:", ""]
    for name, row in rows.items():
        options = ", ".join(f"{k} {v}" for k, v in (row["method"] | row["train"]).items())
        lines.append(f"- {name}: {row['epochs']} epochs; {options}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
