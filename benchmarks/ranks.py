"""Which figure that needs no labels ranks runs as their scores do?

python benchmarks/ranks.py --data $DATA [--sets clothing ...] [--only simclr ...]

Many short runs of many methods on each set, each with the settings that are chosen for it, with a
fifteenth of its rate, and cut short; each is looked at as a curve is (evaluate/held.py), once
without labels and once with them, on the same images. Runs are added to results/ranks.json (one
that is there is left), and the table of rank correlations is written anew. One thread, one process.
"""

import argparse
import json
import logging
import math
import tempfile
from itertools import permutations
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from adapt import SETS
from lightning_fabric import Fabric
from PIL import Image as Picture
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from selftaught import open_data
from selftaught.data.selection import select
from selftaught.engine.curve import shown
from selftaught.engine.plan import prepared
from selftaught.engine.run import Run
from selftaught.engine.settings import Settings
from selftaught.evaluate.curve import KNN
from selftaught.evaluate.features import untrained
from selftaught.evaluate.held import Unlabeled, held_out

JOINT = ("simclr", "moco_v2", "byol", "simsiam", "barlow_twins", "vicreg", "swav", "dino", "w_mse")
METHODS = (*JOINT, "densecl", "rotation", "mae")
VARIANTS = {"chosen": (1.0, 1.0), "slow": (1.0, 1 / 15), "short": (0.15, 1.0)}
"""Share of the images, and of the rate."""
MOST, SIDE = 2000, 96
"""Images of a set that are trained on; what their shorter side is made, in pixels, before."""
RESULTS = Path(__file__).parent / "results" / "ranks.json"
SIGNS = {
    "RankMe": 1,
    "LiDAR": 1,
    "alpha-ReQ": -1,
    "alignment": -1,
    "uniformity": -1,
    "SIGReg": -1,
    "learnability": 1,
    "dimension": 1,
}
"""By which a figure says better when it is larger, as its authors have it; alpha-ReQ as its
distance from 1."""
SUMS = {
    "CLID": ("learnability", "dimension"),
    "alignment + uniformity": ("alignment", "uniformity"),
    "RankMe + alignment": ("RankMe", "alignment"),
    "LiDAR + learnability": ("LiDAR", "learnability"),
}
"""Of two figures, each less its mean over the runs of the set and over its deviation."""
DRAWS, MARGIN = 1000, 0.1


# ------------------------------------------------------------------------------------ figures


def sigreg(x: Tensor, directions: int = 256, seed: int = 0) -> float:
    """How far [N, D] is from an isotropic normal: the statistic of Epps and Pulley in one
    dimension, mean over random directions (LeJEPA, arXiv 2511.08544, section 4). Features are
    centered and scaled by one number first, as no loss has given them unit variance."""
    x = x.double() - x.double().mean(0)
    x = x / x.square().mean().sqrt().clamp(min=1e-12)
    made = torch.Generator().manual_seed(seed)
    a = F.normalize(torch.randn(x.shape[1], directions, generator=made, dtype=x.dtype), dim=0)
    t = torch.linspace(0.2, 4, 17, dtype=x.dtype)
    weight = torch.exp(-t.square() / 2)
    along = (x @ a)[..., None] * t
    real, imaginary = along.cos().mean(0) - weight, along.sin().mean(0)
    return torch.trapezoid((real**2 + imaginary**2) * weight, t, dim=-1).mean().item()


def learnability(x: Tensor, seed: int = 0) -> float:
    """Share of the second half of [N, D] whose k-means cluster the nearest neighbors in the first
    half name: the learnability of CLID (arXiv 2206.01251), with sqrt(N) clusters, k = 5, halves."""
    x = F.normalize(x.double() - x.double().mean(0), dim=1)
    count = round(math.sqrt(len(x)))
    labels = torch.from_numpy(KMeans(count, n_init=1, random_state=seed).fit_predict(x.numpy()))
    labels = labels.long()
    half = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    fit, rest = half[: len(x) // 2], half[len(x) // 2 :]
    near = (x[rest] @ x[fit].mT).topk(5, dim=1).indices
    votes = F.one_hot(labels[fit][near], count).sum(1)
    return (votes.argmax(1) == labels[rest]).double().mean().item()


def dimension(x: Tensor) -> float:
    """Of the manifold that [N, D] lies on: TwoNN (Facco et al., 2017), by maximum likelihood."""
    distances = torch.cdist(x.double(), x.double())
    near = distances.topk(3, dim=1, largest=False).values[:, 1:]
    ratio = (near[:, 1] / near[:, 0].clamp(min=1e-12)).log()
    return (1 / ratio[near[:, 0] > 0].mean().clamp(min=1e-12)).item()


# --------------------------------------------------------------------------------------- runs


def looked_at(encoder: Any, blind: Unlabeled, seeing: Any) -> dict[str, Any]:
    """Figures without labels, and scores with them."""
    encoder.eval()
    network = shown(encoder, Fabric(accelerator="cpu", precision="32-true"))
    with torch.inference_mode():
        x = torch.cat([network(part) for part in blind.plain.split(64)])
    x = x[torch.from_numpy(np.unique(x.numpy(), axis=0, return_index=True)[1])]
    figures = blind.look(network, 0).figures | {
        "SIGReg": sigreg(x),
        "learnability": learnability(x),
        "dimension": dimension(x),
    }
    scores = seeing.look(network, 0).figures
    return {"figures": figures, "scores": {"k-NN": scores[KNN], "probe": scores["probe"]}}


def run(name: str, variant: str, train: Any, looks: Any, arguments: Any, peak: Any) -> Any:
    """What a run of a method gives, and the rate at its peak."""
    share, slower = VARIANTS[variant]
    steps = max(20, round(share * arguments.samples / 64))
    given: dict[str, Any] = {"lr": peak * slower} if slower != 1 else {}
    given |= {"max_steps": steps, "batch": 64, "workers": 0, "evaluate": False, "curve": False}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(out=Path(folder) / "run", seed=arguments.seed, **given)
        done = Trained(prepared(name, train, settings, {"size": 64}, {}))
        done.complete()
        made = looked_at(done.encoder, *looks)
        return made | {"rate": done.plan.rates.peak, "machine": machine.describe()}, done.encoder


class Trained(Run):
    """A run that is over with its last step: nothing is exported, scored or reported."""

    def finish(self, loop: Any) -> None:
        pass


def small(samples: Any, rows: np.ndarray) -> Any:
    """Some images in memory, no larger than a view needs, so that all runs learn from the same."""
    found = []
    for i in rows:
        picture = Picture.fromarray(np.asarray(samples.read(int(i))))
        factor = SIDE / min(picture.size)
        width, height = (max(SIDE, round(s * factor)) for s in picture.size)
        found.append(
            (np.asarray(picture.convert("RGB").resize((width, height))), samples.labels[i])
        )
    return open_data(found)


def blind(samples: Any) -> Any:
    """The same images without their labels."""
    made = select(samples, np.arange(len(samples)))
    made.source.labels = None
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder a set")
    parser.add_argument("--sets", nargs="+", default=list(SETS)[:5], choices=list(SETS))
    parser.add_argument("--only", nargs="+", default=METHODS)
    parser.add_argument("--samples", type=int, default=4000, help="images that a run sees")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.sets:
        train, test = SETS[name](arguments.data / name)
        rng = np.random.default_rng(0)
        train, test = (small(s, rng.permutation(len(s))[:MOST]) for s in (train, test))
        looks = held_out(blind(test), None, 64), held_out(train, test, 64)
        for method in arguments.only:
            for variant in VARIANTS:
                key = f"{name} {method} {variant}"
                if key in found:
                    continue
                peak = found.get(f"{name} {method} chosen", {}).get("rate")
                found[key], encoder = run(method, variant, train, looks, arguments, peak)
                fresh = f"{name} {encoder.name} untrained"
                if fresh not in found:
                    found[fresh] = looked_at(untrained(encoder), *looks)
                print(key, json.dumps(found[key]), flush=True)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
                RESULTS.with_suffix(".md").write_text(markdown(found, arguments))


# -------------------------------------------------------------------------------------- table


def table(found: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """By set: name -> [runs] figures, larger meaning better, and scores."""
    sets: dict[str, list[Any]] = {}
    for key, r in found.items():
        sets.setdefault(key.split()[0], []).append(r)
    made = {}
    for name, runs in sets.items():
        columns = {}
        for figure, sign in SIGNS.items():
            values = np.array([r["figures"][figure] for r in runs])
            columns[figure] = sign * (np.abs(values - 1) if figure == "alpha-ReQ" else values)
            columns[figure] = np.nan_to_num(columns[figure], nan=-1e9, posinf=1e9, neginf=-1e9)
        for both, parts in SUMS.items():
            columns[both] = sum(
                (columns[p] - columns[p].mean()) / (columns[p].std() or 1) for p in parts
            )
        for score in ("k-NN", "probe"):
            columns[score] = np.array([r["scores"][score] for r in runs])
        made[name] = columns
    return made


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """0 where one of them is the same for all."""
    a, b = rankdata(a), rankdata(b)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def within(sets: dict[str, Any], figure: str, score: str, rng: Any = None) -> float:
    """Mean over sets of the rank correlation; of runs drawn with replacement where `rng` is
    given."""
    values = []
    for columns in sets.values():
        count = len(columns[score])
        rows = rng.integers(0, count, count) if rng is not None else slice(None)
        values.append(spearman(columns[figure][rows], columns[score][rows]))
    return float(np.mean(values))


def lost(sets: dict[str, Any], figure: str, score: str) -> float:
    """Mean over sets of what the run that the figure names best lacks to the best."""
    each = [c[score].max() - c[score][c[figure].argmax()] for c in sets.values()]
    return float(np.mean(each))


def markdown(found: dict[str, Any], arguments: Any) -> str:
    every = table(found)
    sets = {name: c for name, c in every.items() if np.ptp(c["k-NN"])}
    newest = max((r["machine"] for r in found.values() if "machine" in r), key=lambda m: m["date"])
    runs = sum(len(c["k-NN"]) for c in sets.values())
    drawn = np.mean([c["k-NN"].max() - c["k-NN"].mean() for c in sets.values()])
    lines = [
        "# Which figure ranks runs without labels?",
        "",
        f"    python benchmarks/ranks.py --data $DATA --samples {arguments.samples}",
        "",
        machine.sentence(newest),
        "",
        f"{runs} runs of up to {len(METHODS)} methods on {len(sets)} sets of images, and the "
        "networks untrained: with the settings that are chosen, with a fifteenth of the rate, "
        "and with 15 % of the steps. Spearman's rank correlation of a figure on held-out "
        "images with k-NN and a ridge probe on them: the mean over sets with the 95 % interval"
        " of runs drawn anew within each set; then over all runs of all sets at once, where a "
        "figure that only tells sets apart counts too; then the sets. Signs are those of the "
        "figures' authors. *Lost* is what the run that the figure names best lacks to the best"
        f" one, in points of k-NN, mean over sets; a run drawn at random lacks {drawn:.1f}.",
        "",
        "| figure | k-NN | probe | all runs, k-NN | lost | "
        + " | ".join(f"{name}, {len(c['k-NN'])} runs" for name, c in sets.items())
        + " |",
        "| --- | --- | --- | ---: | ---: |" + " ---: |" * len(sets),
    ]
    rows = []
    for figure in [*SIGNS, *SUMS]:
        cells, first = [figure], 0.0
        for score in ("k-NN", "probe"):
            rng = np.random.default_rng(0)
            value = within(sets, figure, score)
            low, high = np.quantile(
                [within(sets, figure, score, rng) for _ in range(DRAWS)], (0.025, 0.975)
            )
            cells.append(f"{value:+.2f} ({low:+.2f} to {high:+.2f})")
            first = first or value
        joined = {c: np.concatenate([s[c] for s in sets.values()]) for c in (figure, "k-NN")}
        cells.append(f"{spearman(joined[figure], joined['k-NN']):+.2f}")
        cells.append(f"{lost(sets, figure, 'k-NN'):.1f}")
        cells += [f"{spearman(c[figure], c['k-NN']):+.2f}" for c in sets.values()]
        rows.append((first, f"| {' | '.join(cells)} |"))
    lines += [line for _, line in sorted(rows, reverse=True)]
    pairs = [
        (a, b)
        for c in sets.values()
        for a, b in permutations(zip(c["RankMe"], c["k-NN"]), 2)
        if a[0] > (1 + MARGIN) * b[0]
    ]
    told = [a[1] > b[1] for a, b in pairs if a[1] != b[1]]
    right = np.mean(told)
    lines += [
        "",
        f"Of {len(told):,} pairs of runs of a set of which one has a RankMe that is more than "
        f"{MARGIN:.0%} above the other's, it has the higher k-NN in {right:.0%} (both "
        f"are as high in {len(pairs) - len(told):,} more).",
    ]
    if flat := every.keys() - sets.keys():
        lines += [
            "",
            f"Left out: {', '.join(sorted(flat))}, where k-NN is the same for all runs (the share "
            "of the largest class), so that no figure can rank them.",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
