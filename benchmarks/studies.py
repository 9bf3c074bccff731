"""What does one setting do, at equal samples? Tables of a method, or several, over values of it.

python benchmarks/studies.py predictor --train TRAIN --test TEST --size 32 --samples 30000 \
    --name cifar10 [--only LABEL ...]

Each row is one training of `learn.py`: the same networks, presets and scores, with what the row
sets instead. Rows are added to results/study-STUDY-NAME.json (a row that is there is replaced) and
the table is written anew.
"""

import argparse
import json
import logging
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import learn
import machine

ALONE = ("momentum=0.0", "end_momentum=0.0")
"""BYOL whose teacher is the student."""

BATCHES = (16, 32, 64, 128, 256, 512)
WIDTHS = ("050", "075", "100")


@dataclass(frozen=True)
class Row:
    """A training: the method, and what is set as `--set` of `learn.py` takes it."""

    method: str
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A question and the trainings that answer it, by label."""

    question: str
    rows: dict[str, Row]


def over_batches() -> dict[str, Row]:
    """The rate follows the root of the batch, from that of the preset for 64."""
    rows = {}
    for name in ("simclr", "dcl", "vicreg", "barlow_twins"):
        train = learn.COMMON | learn.PRESETS[name].train
        for batch in BATCHES:
            lr = train["lr"] * math.sqrt(batch / train["batch"])
            rows[f"{name}, batch {batch}"] = Row(name, (f"batch={batch}", f"lr={lr:.4g}"))
    return rows


STUDIES = {
    "predictor": Study(
        "Does BYOL need its EMA teacher, if the predictor is near its best?",
        {
            "byol": Row("byol"),
            "byol, no EMA": Row("byol", ALONE),
            "byol, no EMA, predictor rate x10": Row("byol", (*ALONE, "predictor_rate=10.0")),
            "byol, no EMA, 4 predictor steps": Row("byol", (*ALONE, "predictor_steps=4")),
            "byol, direct": Row("byol", ('predictor_form="direct"',)),
            "byol, no EMA, direct": Row("byol", (*ALONE, 'predictor_form="direct"')),
            "simsiam": Row("simsiam"),
            "simsiam, direct": Row("simsiam", ('predictor_form="direct"', "direct_every=5")),
        },
    ),
    "batch": Study(
        "Who needs large batches? The same number of images seen; the rate follows the root.",
        over_batches(),
    ),
    "width": Study(
        "Do wider networks gain more from the same images?",
        {f"simclr, width {w}": Row("simclr", (f"net=mobilenetv3_small_{w}",)) for w in WIDTHS},
    ),
}


def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.WARNING)
    study = STUDIES[arguments.study]
    path = Path(__file__).parent / "results" / f"study-{arguments.study}-{arguments.name}.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    for label in arguments.only or study.rows:
        row = study.rows[label]
        given = argparse.Namespace(**vars(arguments) | {"set": [*row.set, *arguments.set]})
        rows[label] = learn.run(row.method, given) | {"command": command(label, arguments)}
        path.write_text(json.dumps(rows, indent=1) + "\n")
        path.with_suffix(".md").write_text(markdown(rows, arguments))
        print(label, json.dumps(rows[label]), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=list(STUDIES))
    learn.add_data(parser)
    parser.add_argument("--only", nargs="+", metavar="LABEL", help="rows of the study, not all")
    arguments = parser.parse_args(namespace=argparse.Namespace(label=[]))
    known = STUDIES[arguments.study].rows
    for label in arguments.only or ():
        if label not in known:
            parser.error(f"{arguments.study} has no row {label!r}: it has {', '.join(known)}")
    return arguments


def command(label: str, arguments: argparse.Namespace) -> str:
    """What repeats a row."""
    told = learn.command("@", arguments).replace("--methods @", f"--only {shlex.quote(label)}")
    return told.replace("learn.py", f"studies.py {arguments.study}")


def markdown(rows: dict[str, Any], arguments: argparse.Namespace) -> str:
    """The table, in the study's order."""
    study = STUDIES[arguments.study]
    found = {label: rows[label] for label in study.rows if label in rows}
    first = next(iter(found.values()))
    newest = max((row["machine"] for row in found.values()), key=lambda m: m["date"])
    lines = [
        f"# {study.question}",
        "",
        f"{arguments.name}, about {arguments.samples:,} images seen by each row. "
        f"{machine.sentence(newest)} Every row has its own command and settings in the JSON beside "
        "this file; the first one's is",
        "",
        f"    {first['command']}",
        "",
        "Per cent right of the test images by k-NN and by a ridge probe, beside the highest of "
        "their floors (raw pixels, the same network untrained); the margin of the k-NN over its "
        "floor with its 95 % interval; the loss at the start and at the end; the effective rank "
        "of the features at the end, as a share of what a batch can have.",
        "",
        "| row | backbone | k-NN | its floor | margin | probe | its floor | loss | rank | CPU s |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for label, row in found.items():
        own, *floors = row["scores"].values()
        knn, probe = (max(values) for values in zip(*floors))
        points, low, high = row["margin"]
        cells = [
            *(label, row["backbone"], f"**{own[0]:.1f}**", f"{knn:.1f}"),
            f"{points:+.1f} ({low:+.1f} to {high:+.1f})",
            *(f"{own[1]:.1f}", f"{probe:.1f}"),
            f"{row['loss'][0]:.2f} → {row['loss'][-1]:.2f}",
            *(f"{row['rank'][-1]:.0%}", f"{row['cpu_seconds']}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
