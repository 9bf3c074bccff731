"""Does the loss of a pretext task tell what its features are worth? Over all runs of `learn.py`.

python benchmarks/proxy.py

Nothing is trained: results/learn-*.json are read, and results/proxy.md is written. Losses of
methods are not of one scale, so a loss is how far it fell: (first - last) / |first|, and, where a
value of having learned nothing is known, how far below that it ended.
"""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from selftaught import methods

RESULTS = Path(__file__).parent / "results"
FEWEST = 8
"""Runs from which on a rank correlation is shown."""
DRAWS = 2000


class Point(NamedTuple):
    """A run: how far its loss fell, how far it ended below guessing, and margins over floors."""

    data: str
    method: str
    family: str
    fell: float
    below: float
    loss: float
    knn: float
    probe: float


def main() -> None:
    points = [*read()]
    lines = [
        "# Does the loss of a pretext task tell what its features are worth?",
        "",
        "    python benchmarks/proxy.py",
        "",
        f"{len(points)} runs of {len({p.method for p in points})} methods, those of "
        f"{len({p.data for p in points})} results `learn-*.json`. Spearman's rank correlation, "
        "over the methods of a result, of how far the loss fell with the margins of k-NN and probe "
        "over their floors; with the 95 % interval of runs drawn anew. *Fell* is the share of its "
        "first value that the loss lost, *below guessing* the share of what it is where nothing "
        f"was learned, for methods that know it. Fewer than {FEWEST} runs are left out.",
        "",
        "| runs | number | fell, k-NN | fell, probe | below guessing, k-NN | "
        "below guessing, probe |",
        "| --- | ---: | --- | --- | --- | --- |",
    ]
    groups = {data: [p for p in points if p.data == data] for data in sorted({*data_of(points)})}
    large = max(groups, key=lambda data: len(groups[data]))
    families = sorted({p.family for p in points})
    groups |= {f"{large}, {f}": [p for p in groups[large] if p.family == f] for f in families}
    for name, group in groups.items():
        if len(group) >= FEWEST:
            known = [p for p in group if not np.isnan(p.below)]
            cells = [correlation(group, "fell", score) for score in ("knn", "probe")]
            cells += [correlation(known, "below", score) for score in ("knn", "probe")]
            lines.append(f"| {name} | {len(group)} | {' | '.join(cells)} |")
    lines += ["", longer(points)]
    (RESULTS / "proxy.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def data_of(points: list[Point]) -> list[str]:
    return [p.data for p in points]


def read() -> Iterator[Point]:
    """Every run whose row is that of a method with its preset."""
    for path in sorted(RESULTS.glob("learn-*.json")):
        for name, row in json.loads(path.read_text(encoding="utf-8")).items():
            if name in methods.files():
                yield point(path.stem.removeprefix("learn-"), name, row)


def point(data: str, name: str, row: dict[str, Any]) -> Point:
    first, _, last = row["loss"]
    guess = re.match(r"-?[\d.]+", row["nothing_learned"])
    known = abs(float(guess[0])) if guess else 0.0
    own, *floors = row["scores"].values()
    knn, probe = (score - max(floor) for score, floor in zip(own, zip(*floors)))
    return Point(
        data,
        name,
        methods.files()[name].parent.name,
        (first - last) / abs(first) if first else np.nan,
        (known - last) / known if known else np.nan,
        last,
        knn,
        probe,
    )


def correlation(points: list[Point], figure: str, score: str) -> str:
    """Rank correlation with its interval, as text; empty where there are too few."""
    pairs = np.array([(getattr(p, figure), getattr(p, score)) for p in points])
    pairs = pairs[~np.isnan(pairs).any(1)] if len(pairs) else pairs
    if len(pairs) < FEWEST:
        return ""
    rng = np.random.default_rng(0)
    drawn = [pairs[rng.integers(0, len(pairs), len(pairs))] for _ in range(DRAWS)]
    found = [spearmanr(*d.T).statistic for d in drawn if (np.ptp(d, axis=0) > 0).all()]
    low, high = np.quantile(found, (0.025, 0.975))
    return f"{spearmanr(*pairs.T).statistic:+.2f} ({low:+.2f} to {high:+.2f})"


def longer(points: list[Point]) -> str:
    """Of one method on one data set, does the run of the lower loss have the higher probe?"""
    same: dict[tuple[str, str], list[Point]] = {}
    for p in points:
        same.setdefault((p.data.partition("_")[0], p.method), []).append(p)
    pairs = [pair for each in same.values() for pair in combinations(each, 2)]
    pairs = [(a, b) for a, b in pairs if a.loss != b.loss]
    right = {
        score: sum((a.loss < b.loss) == (getattr(a, score) > getattr(b, score)) for a, b in pairs)
        for score in ("knn", "probe")
    }
    return (
        f"Within a method: of {len(pairs)} pairs of runs of one method on one data set, a longer "
        f"and a shorter one, that of the lower loss has the higher k-NN in {right['knn']} and the "
        f"higher probe in {right['probe']}."
    )


if __name__ == "__main__":
    main()
