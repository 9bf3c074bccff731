"""What somebody gets who gives data and a time: beside the papers' settings in the same time.

python benchmarks/choose.py --data $DATA [--sets clothing ...] [--time 5m] [--seeds 0 1 2]
    [--peer PYTHON]

A row is a way to train; it is scored by k-NN, by a ridge probe and by 10 labels a class on the same
held-out images, beside the floors. Rows are added to results/choose.json (one of the same set, time
and seed is replaced) and the table is written anew. One thread and one process: the time that is
asked for is elapsed, the CPU seconds that it took stand in the table.

With --peer, lightly-train has rows too: PYTHON is of an environment that has it, such as
`uv venv peer-env && uv pip install --python peer-env/bin/python 'lightly-train==0.18.*' timm`.
`peer.py` says how it is run. Its default method learns from a teacher that it downloads, so its
rows are its SimCLR, from nothing; of the methods that need no teacher it has DINO and, for
transformers of its own, DINOv2 beside it, and no BYOL, VICReg or MAE.
"""

import argparse
import io
import json
import logging
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from adapt import SETS
from PIL import Image as Picture

from selftaught import backbone, evaluate, pretrain
from selftaught.data import Samples
from selftaught.data.memory import free_memory
from selftaught.data.selection import select
from selftaught.engine.plan import prepared
from selftaught.engine.settings import Settings, seconds
from selftaught.errors import SelftaughtError
from selftaught.evaluate.floors import ENCODER

ROWS: dict[str, dict[str, Any]] = {
    "auto": {"weights": None},
    "paper": {"recipe": "paper", "batch": 32},
    "small": {"recipe": "paper", "backbone": "test_resnet", "size": 64, "batch": 64},
}
"""What is given beside data and time: no weights to begin with; the paper's settings with the batch
that a machine of 24 GiB has room for; those on the network that auto takes, so that what the other
settings are worth is seen apart."""
PEERS = ("peer", "peer_small", "peer_ours")
"""lightly-train with its defaults, on the ResNet-50 that `paper` has too; those on the network,
size and batch of `small`; all that `auto` chooses and it has an option for. It has none for the
warmup, which is a tenth of the training."""
PEER_BATCH, BYTES = 128, 0.09 * 2**30
"""Its default, and what a ResNet-50 keeps of a view of 224 px until its backward pass: `peer` has
half of the batch, or a quarter, where the memory that is free has no room for it."""
LABELS = 10
"""Of each class, of the second k-NN."""
RESULTS = Path(__file__).parent / "results" / "choose.json"


def run(row: str, train: Any, test: Any, limit: str, seed: int, peer: Path) -> dict[str, Any]:
    """Train `row` for `limit`, and score what comes of it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            if row in PEERS:
                encoder, about = theirs(row, train, limit, seed, Path(folder), peer)
            else:
                encoder, about = ours(row, train, limit, seed, Path(folder))
        except SelftaughtError as error:
            return {"refused": str(error), "machine": machine.describe()}
    labels = np.asarray(train.labels)
    rng = np.random.default_rng(seed)
    few = [rng.permutation(np.flatnonzero(labels == k))[:LABELS] for k in np.unique(labels)]
    found = evaluate.compare(encoder, train, test, seed=seed)
    tenth = evaluate.compare(encoder, select(train, np.concatenate(few)), test, seed=seed)
    floors = [s for name, s in found.scores.items() if name != ENCODER]
    return {
        "scores": [round(s.value, 1) for s in found.scores[ENCODER]],
        "few": [round(s.value, 1) for s in tenth.scores[ENCODER]],
        "floor": [round(max(s.value for s in each), 1) for each in zip(*floors)],
        "calibrated": True,
        "backbone": f"{encoder.name}, {encoder.size} px",
        **about,
        "machine": machine.describe(),
    }


def ours(
    row: str, train: Samples, limit: str, seed: int, folder: Path
) -> tuple[Any, dict[str, Any]]:
    """An encoder by `pretrain`, and what its training was."""
    given = {"workers": 0, "evaluate": False, "curve": False, "seed": seed, "time": limit}
    begun, cpu = time.perf_counter(), time.process_time()
    done = pretrain("simclr", train, folder / "run", **given, **ROWS[row])
    return done.encoder, {
        "epochs": done.plan.settings.epochs,
        "samples": done.plan.steps * done.plan.batch,
        "seconds": round(time.perf_counter() - begun),
        "cpu_seconds": round(time.process_time() - cpu),
        "verdict": done.diagnosis.verdict if done.diagnosis else "",
    }


def theirs(
    row: str, train: Samples, limit: str, seed: int, folder: Path, peer: Path
) -> tuple[Any, dict[str, Any]]:
    """An encoder by lightly-train, run by another Python, and what its training was."""
    images, settings = folder / "images", asked(row, train, limit, seed, folder)
    images.mkdir()
    for i in range(len(train)):
        exported(train, i, images)
    words = ["--images", images, "--out", folder, "--seconds", seconds(limit), "--seed", seed]
    command = [
        peer,
        Path(__file__).with_name("peer.py"),
        *words,
        "--settings",
        json.dumps(settings),
    ]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-3000:]}")
    found = json.loads((folder / "peer.json").read_text())
    name, size = (
        settings["model"].removeprefix("timm/"),
        settings["transform_args"]["image_size"][0],
    )
    fresh = backbone(name, size=size)  # which is normalized as all of them are, like ImageNet
    encoder = backbone(name, size=size, weights=found["weights"], mean=fresh.mean, std=fresh.std)
    return encoder.eval(), {
        "epochs": round(found["steps"] * settings["batch_size"] / len(train), 1),
        "samples": found["steps"] * settings["batch_size"],
        "seconds": round(found["seconds"]),
        "cpu_seconds": round(found["cpu_seconds"]),
        "settings": settings,
        "version": found["version"],
    }


def exported(samples: Samples, i: int, folder: Path) -> None:
    """Write sample `i` as a file: its own bytes where it has some, else a PNG."""
    raw = samples.source.load(i)
    if isinstance(raw, bytes):
        kind = Picture.open(io.BytesIO(raw)).format or "PNG"
        (folder / f"{i:06}.{kind.lower()}").write_bytes(raw)
    else:
        Picture.fromarray(samples.read(i)).save(folder / f"{i:06}.png")


def asked(row: str, train: Samples, limit: str, seed: int, folder: Path) -> dict[str, Any]:
    """What lightly-train is asked for: its defaults, written out, or those of ours."""
    if row == "peer":
        room = free_memory() or float("inf")
        batch = next(b for b in (PEER_BATCH >> i for i in range(7)) if 2 * b * BYTES < 0.75 * room)
        return told("resnet50", 224, batch)
    if row == "peer_small":
        return told(*(ROWS["small"][name] for name in ("backbone", "size", "batch")))
    settings = Settings(time=limit, out=folder / "run", seed=seed, workers=0, accelerator="cpu")
    plan = prepared("simclr", train, settings, ROWS["auto"], {})
    method: Any = plan.method
    found = told(plan.image.name, plan.image.size, plan.batch)
    found["optim"] = plan.recipe.optimizer
    found["optim_args"] = {"lr": plan.recipe.lr, "weight_decay": plan.recipe.weight_decay}
    found["method_args"] = {
        "reference_batch_size": plan.batch,  # of which the rate is
        "temperature": method.temperature,
        "hidden_dim": method.hidden,
        "output_dim": method.dim,
        "num_layers": method.layers,
    }
    found["transform_args"]["color_jitter"] = {"strength": method.strength}
    found["transform_args"]["gaussian_blur"] = {"prob": method.blur}
    return found


def told(name: str, size: int, batch: int) -> dict[str, Any]:
    """lightly-train's words for a network, its images and a batch."""
    return {
        "model": f"timm/{name}",
        "method": "simclr",
        "batch_size": batch,
        "transform_args": {"image_size": [size, size]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder a set")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--only", nargs="+", choices=[*ROWS, *PEERS])
    parser.add_argument("--time", default="5m")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--peer", type=Path, help="Python that has lightly-train: its rows, too")
    arguments = parser.parse_args()
    rows = arguments.only or [*ROWS, *(PEERS if arguments.peer else ())]
    if not arguments.peer and not {*rows}.isdisjoint(PEERS):
        parser.error("rows of lightly-train need a Python that has it: --peer PYTHON")
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.sets:
        if not (arguments.data / name).is_dir():
            raise SystemExit(f"the images of {name} are missing: {arguments.data / name}")
        train, test = SETS[name](arguments.data / name)
        for seed in arguments.seeds:
            for row in rows:
                key = f"{name} {arguments.time} {row} {seed}"
                found[key] = run(row, train, test, arguments.time, seed, arguments.peer)
                print(key, json.dumps(found[key]), flush=True)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
                RESULTS.with_suffix(".md").write_text(markdown(found))


def markdown(found: dict[str, Any]) -> str:
    """A table of all rows."""
    newest = max((r["machine"] for r in found.values()), key=lambda m: m["date"])
    lines = [
        "# SimCLR, from nothing: what is chosen, and the paper's settings, in the same time",
        "",
        "    python benchmarks/choose.py --data $DATA --sets SET --time TIME --seeds SEED",
        "",
        machine.sentence(newest),
        "",
        "Per cent right of the test images by k-NN (k = 20, T = 0.07) and a ridge probe; the same "
        f"from {LABELS} labels a class; a floor is the highest among raw pixels and the same "
        "network untrained. `auto` is given data and a time, `paper` also `--recipe paper`, "
        "`small` that on the network, size and batch that auto takes of some thousand images. "
        "Floors in brackets are of an untrained network whose norms had seen no image.",
        *_of_peers(found),
        "",
        "| images | time | seed | row | backbone | k-NN | probe | floors | 10 labels a class | "
        "images seen | CPU s |",
        "| --- | --- | --- | --- | --- | ---: | ---: | --- | --- | ---: | ---: |",
    ]
    for key, r in found.items():
        name, limit, row, seed = key.split()
        if "refused" in r:
            lines.append(
                f"| {name} | {limit} | {seed} | {row} | refused: {r['refused']} " + "|" * 7
            )
            continue
        cells = [name, limit, seed, row, r["backbone"]]
        cells += [f"**{v:.1f}**" for v in r["scores"]]
        floor, few = (" / ".join(f"{v:.1f}" for v in r[part]) for part in ("floor", "few"))
        cells += [floor if "calibrated" in r else f"({floor})", few]
        cells += [f"{r['samples']:,}", str(r["cpu_seconds"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _of_peers(found: dict[str, Any]) -> list[str]:
    """What the rows of lightly-train are, where there are any."""
    versions = sorted({r["version"] for r in found.values() if "version" in r})
    return versions and [
        "",
        f"`peer` is SimCLR of lightly-train {', '.join(versions)} with its defaults on a ResNet-50 "
        "of 224 px (of its batch as much as the memory has room for), `peer_small` that on the "
        "network, size and batch of `small`, `peer_ours` with what auto chooses, as far as it has "
        "options; with `--peer PYTHON`. Its time is of CPU, and the steps that tell how many go "
        "into it do not count.",
    ]


if __name__ == "__main__":
    main()
