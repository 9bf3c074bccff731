"""Does what is no image learn? A method a kind, on real data, beside the floors of the kind.

python benchmarks/kinds.py --data $DATA [--only NAMES ...] [--seed 0]

Each row is `selftaught pretrain METHOD DATA` with the settings that it shows, and then
`selftaught evaluate RUN TRAIN --test TEST` for each of its tasks; scores are of test samples that
were not trained on, beside the same network untrained and the floors of the kind
(`kinds/floors`). Rows are added to results/kinds.json, where one that is there is left
(with --only it is done again), and results/kinds.md is written anew.

$DATA has the folders that the rows name.
"""

import argparse
import csv
import gzip
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
from selftaught import evaluate, kinds

ABOUT = {
    "sound": "Spoken digits (FSDD, 8 kHz, 6 speakers, 1,200 of its training sounds, its own 300 to "
    "test). No second labeled set of sounds is at hand: who speaks is the second task, of the same "
    "encoder; the same speakers are in both parts.",
    "text": "Sentences of film reviews (SST-2); all that is learned from are its 6,920 training "
    "sentences.",
    "clip": "No labeled set of clips is at hand: clips of 8 frames, 56 pixels high, are cut out of "
    "11 videos (`cuts.py`), training clips of the first 60 % of each, test clips of what follows "
    "after a gap. Which video it is, colors tell; whether it plays backward and how fast, only "
    "what moves tells. Clips of one video overlap, so that intervals are too narrow. What is "
    "learned from plays forward at one speed.",
}
"""What is to be known of a kind's data."""

RESULTS = Path(__file__).parent / "results" / "kinds.json"


@dataclass(frozen=True)
class Row:
    """A training.

    Args:
        kind: of the samples.
        method: that is trained.
        sets: folder with all data, folder to write into -> what is learned from, without labels,
            labeled training samples, and test samples.
        options: of `pretrain`.
        tasks: columns of labels; one that is empty is found by itself.
        probes: scores of each.
        blocks: of self-attention of attentive probes.
    """

    kind: str
    method: str
    sets: Callable[[Path, Path], tuple[Any, Any, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("",)
    probes: tuple[str, ...] = ("knn", "ridge")
    blocks: int = 0


def ucr(name: str) -> Callable[[Path, Path], tuple[Any, Any, Any]]:
    """One of the UCR and UEA sets, with its own split."""

    def sets(data: Path, out: Path) -> tuple[Path, Path, Path]:
        found = np.load(data / "timeseries" / "ucr_uea_samples.npz")
        parts = []
        for part in ("TRAIN", "TEST"):
            file = out / f"{name}_{part}.npz"
            np.savez(file, x=found[f"{name}_{part}_x"], y=found[f"{name}_{part}_y"])
            parts.append(file)
        return parts[0], parts[0], parts[1]

    return sets


def digits(data: Path, _: Path) -> tuple[Path, Path, Path]:
    """Spoken digits (FSDD), with its own split, cut to 1,200 of the training sounds."""
    train, test = (data / "fsdd" / f"{part}.parquet" for part in ("train", "test"))
    return train, train, test


def sentences(data: Path, out: Path) -> tuple[Path, Path, Path]:
    """Sentences of film reviews (SST-2), all of them without labels to learn from."""
    files = []
    for part in ("train", "test"):
        with gzip.open(data / "text" / f"sst2_{part}.tsv.gz", "rt", encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t") for line in file]
        with (out / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        files.append(out / f"{part}.csv")
    texts = out / "corpus.txt"
    texts.write_text("\n".join(row[0] for row in csv.reader(files[0].open(encoding="utf-8"))))
    return texts, files[0], files[1]


def videos(data: Path, out: Path) -> tuple[Path, Path, Path]:
    """Clips cut out of videos; see `cuts`."""
    from cuts import parts

    return parts(data / "video_clips", out)


SERIES = (
    "ArrowHead",
    "BasicMotions",
    "GunPoint",
    "ItalyPowerDemand",
    "JapaneseVowels_eq",
    "OSULeaf",
    "PickupGestureWiimoteZ_eq",
)
ROWS = {f"{method} {name}": Row("series", method, ucr(name), options)
        for name in SERIES
        for method, options in {
            "ts2vec": {"max_steps": 200, "batch": 16, "recipe": "paper"},
            "simclr": {"max_steps": 300, "width": 16},
        }.items()}  # fmt: skip
HEARD = {"seconds": 0.6, "rate": 8000, "precision": "auto"}
SMALL = {"frames": 8, "stride": 1, "size": 48, "patch_size": 8, "width": 128, "depth": 4}
SMALL |= {"heads": 2, "batch": 32, "precision": "auto", "epochs": 15}
BOTH = ("knn", "ridge", "attentive")
CUT = ("clip", "direction", "speed")
ROWS |= {
    "simclr digits": Row(
        "sound", "simclr", digits, HEARD | {"batch": 64, "epochs": 170}, ("label", "speaker")
    ),
    "bert sentences": Row(
        "text", "bert", sentences, {"backbone": "bert_tiny", "size": 32, "epochs": 6}
    ),
    "vjepa videos": Row("clip", "vjepa", videos, SMALL, CUT, BOTH),
    "temporal_order videos": Row(
        "clip", "temporal_order", videos, SMALL | {"ask": "direction"}, CUT, BOTH
    ),
    "simclr videos": Row("clip", "simclr", videos, SMALL, CUT, BOTH),
}
# Where a floor was not cleared in minutes: the same for longer.
ROWS |= {
    "simclr digits, longer": Row(
        "sound", "simclr", digits, HEARD | {"batch": 128, "epochs": 400}, ("label", "speaker")
    ),
    "bert sentences, longer": Row(
        "text", "bert", sentences, {"backbone": "bert_tiny", "size": 32, "epochs": 60}
    ),
    "vjepa videos, longer": Row(
        "clip", "vjepa", videos, SMALL | {"epochs": 120, "momentum": (0.99, 1.0)}, CUT, BOTH
    ),
    "temporal_order videos, longer": Row(
        "clip", "temporal_order", videos, SMALL | {"epochs": 150, "ask": "direction"}, CUT, BOTH
    ),
}


def run(name: str, data: Path, seed: int) -> dict[str, Any]:
    """Train, and keep the scores of all tasks."""
    row, begun = ROWS[name], time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        learned, train, test = row.sets(data, Path(folder))
        made = selftaught.pretrain(
            row.method, learned, Path(folder) / "run", kind=row.kind, seed=seed, workers=0,
            curve=False, force=True, **{"precision": "fp32"} | row.options,
        )  # fmt: skip
        trained = time.process_time() - begun
        scores, margins, verdicts = [], [], {}
        for task in row.tasks:
            found = evaluate.compare(
                made.encoder, train, test, labels=task or None, probes=row.probes,
                blocks=row.blocks, workers=0, seed=seed,
            )  # fmt: skip
            plain = found.as_dict()
            kept = ("features", "score", "value", "interval", "n")
            scores += [{"task": task} | {k: s[k] for k in kept} for s in plain["scores"]]
            margins += [{"task": task} | margin for margin in plain["margins"]]
            verdicts[task] = found.verdict
        size, network = made.encoder.size, made.encoder.name
        kind = kinds.of(made.encoder)
    return {
        "kind": row.kind,
        "method": row.method,
        "network": f"{network}, {kind.at(size)}",
        "options": row.options,
        "seed": seed,
        "verdict": " ".join(verdicts.values()),
        "scores": scores,
        "margins": margins,
        "cpu_seconds": round(trained, 1),
        "machine": machine.describe(),
    }  # fmt: skip


def counted(rows: dict[str, dict[str, Any]]) -> list[str]:
    """On how many sets or tasks each method is above each floor, a line a score, where there are
    several."""
    above: dict[tuple[str, str], dict[str, list[str]]] = {}
    seen: dict[str, list[str]] = {}
    for name, r in rows.items():
        method, _, data = name.partition(" ")
        method += ", longer" * data.endswith(", longer")
        for task in dict.fromkeys(s.get("task", "") for s in r["scores"]):
            what = task or data
            seen.setdefault(method, []).append(what)
            mine = [s for s in r["scores"] if s.get("task", "") == task]
            ours = {s["score"]: s["value"] for s in mine if s["features"] == mine[0]["features"]}
            for s in mine:
                if s["features"] != mine[0]["features"]:
                    told = above.setdefault((method, s["score"]), {})
                    won = told.setdefault(s["features"], [])
                    won += [what] * (ours[s["score"]] > s["value"])
    return [
        f"- {method}, {score}: "
        + "; ".join(
            f"above {floor} on {len(won)} of {len(seen[method])} ({', '.join(won) or 'none'})"
            for floor, won in told.items()
        )
        for (method, score), told in above.items()
        if len(seen[method]) > 2
    ]


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
        of_kind = {n: r for n, r in rows.items() if r["kind"] == kind}
        names = (s["features"] for r in of_kind.values() for s in r["scores"])
        floors = list(dict.fromkeys(names))[1:]
        about = [ABOUT[kind], ""] if kind in ABOUT else []
        head = ["data", "method, network, settings", "score", "encoder", "95 %", *floors]
        head += ["above the floors", "CPU s"]
        lines += [f"## {kind}", "", *about, f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
        for name, r in of_kind.items():
            given = ", ".join(f"{k} {v}" for k, v in r["options"].items())
            for margin in r["margins"]:
                task = margin.get("task", "")
                mine = [s for s in r["scores"] if s.get("task", "") == task]
                at = {s["features"]: s for s in mine if s["score"] == margin["score"]}
                ours = next(iter(at.values()))
                low, high = margin["interval"]
                cells = [
                    f"{name.partition(' ')[2]}{task and f': {task}'}",
                    f"{r['method']}, {r['network']}, {given}",
                    margin["score"],
                    f"{ours['value']:.1f}",
                    "{:.1f} to {:.1f} (n {})".format(*ours["interval"], ours["n"]),
                    *(f"{at[f]['value']:.1f}" if f in at else "" for f in floors),
                    f"{margin['points']:+.1f} ({low:+.1f} to {high:+.1f}): {margin['verdict']}",
                    f"{r['cpu_seconds']:.0f}",
                ]
                lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *counted(of_kind), ""]
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
