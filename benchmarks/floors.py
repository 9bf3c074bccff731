"""Do floors that have looked at the images change what the tables decide?

python benchmarks/floors.py --data $DATA

The untrained network of rows of `learn.py` and `choose.py` from before this file had norm
statistics that had never seen data. This scores it as it is now, with statistics of crops of the
images (evaluate/calibrated.py), for each set, network and size of those tables, and puts the
floors into results/learn-*.json and choose.json. Scores of encoders are left alone.
results/floors.md lists the rows whose decision is another.
"""

import argparse
import json
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import choose
import learn
import machine
import numpy as np
import torch
from adapt import SETS

from selftaught import backbone, evaluate, kinds, open_data
from selftaught.evaluate.floors import ENCODER, UNTRAINED
from selftaught.parts.norm import keeping

FLOORS = (UNTRAINED, *kinds.images().floors())
RESULTS = Path(__file__).parent / "results"


@cache
def floors(train: str, test: str, data: Path, network: str, size: int, seed: int) -> dict[str, Any]:
    """Scores of the floors, k-NN and probe, by name: of a set of SETS, or of two files."""
    if test:
        sets: Any = open_data(data / train), open_data(data / test)
    else:
        sets = SETS[train](data / train)
    fresh = backbone(network, size=size).eval()
    found = evaluate.compare(fresh, *sets, seed=seed, workers=0)
    return {n: [round(s.value, 1) for s in scores] for n, scores in found.scores.items()}


def keeps(network: str) -> bool:
    """Whether its norms have statistics; others are the same floor as ever."""
    return bool(keeping(backbone(network, size=32).modules()))


def highest(found: dict[str, Any]) -> list[float]:
    """The highest floor of each score."""
    return np.max([found[name] for name in FLOORS], 0).tolist()


def above(scores: list[float], floor: list[float]) -> tuple[bool, ...]:
    return tuple(a > b for a, b in zip(scores, floor, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    torch.set_num_threads(1)
    rows: list[str] = []

    def tell(
        table: str, name: str, scores: list[float], old: list[float], new: list[float]
    ) -> None:
        if above(scores, old) != above(scores, new):
            texts = (" / ".join(f"{v:.1f}" for v in x) for x in (scores, old, new))
            rows.append(f"| {table} | {name} | {' | '.join(texts)} |")

    counted = 0
    for path in sorted(RESULTS.glob("learn-*.json")):
        found = json.loads(path.read_text())
        for name, row in found.items():
            words = row["command"].split()
            said = {w: v for w, v in pairwise(words) if w.startswith("--")}
            files = [said[w].removeprefix("$DATA/") for w in ("--train", "--test")]
            if not all((data / f).exists() for f in files):
                print(f"{path.name} {name}: {files[0]} is missing", file=sys.stderr)
                continue
            if not keeps(row["backbone"]):
                continue
            size, seed = row.get("size") or int(said["--size"]), int(said.get("--seed", 0))
            old = [row["scores"][n] for n in FLOORS]
            new = floors(*files, data, row["backbone"], int(size), seed)
            tell(path.stem, name, row["scores"][ENCODER], np.max(old, 0).tolist(), highest(new))
            row["scores"]["untrained"] = new["untrained"]
            counted += 1
        path.write_text(json.dumps(found, indent=1) + "\n")
        name = path.stem.removeprefix("learn-")
        path.with_suffix(".md").write_text(learn.markdown(found, name))
    path = RESULTS / "choose.json"
    found = json.loads(path.read_text())
    for key, row in found.items():
        name, _, _, seed = key.split()
        if "scores" in row:
            network, size = row["backbone"].removesuffix(" px").split(", ")
            if "calibrated" in row or not keeps(network):
                continue
            new = highest(floors(name, "", data, network, int(size), int(seed)))
            tell("choose", key, row["scores"], row["floor"], new)
            row |= {"floor": new, "calibrated": True}
            counted += 1
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(choose.markdown(found))
    head = [
        "# Floors that have looked at the images",
        "",
        "    python benchmarks/floors.py --data $DATA",
        "",
        machine.sentence(machine.describe()),
        "",
        "The untrained network has statistics of norms of crops of the images, where it had none "
        f"before. Of {counted} rows of `learn-*.md` and `choose.md` whose network keeps some, "
        + (
            "these are above another number of floors than before; k-NN / probe, and the highest "
            "floor before and now:"
            if rows
            else "none is above another number of floors than before."
        ),
        "",
    ]
    table = ["| table | row | scores | floor before | now |", "| --- | --- | --- | --- | --- |"]
    (RESULTS / "floors.md").write_text("\n".join([*head, *(table if rows else []), *rows]) + "\n")


if __name__ == "__main__":
    main()
