"""What opening data costs at 1e5 and 1e6 samples, and how much is fetched for what is used.

python benchmarks/scale.py --work FOLDER --out benchmarks/results/scale.md

Data is made in the folder `--work`, which needs 10 GB, and is left there. Each opening is that of a
new process: seconds, what its memory grew by at most and what it keeps for itself (not mapped).
What is fetched is counted by a web server of this machine whose client may keep a tenth of it.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SOURCES = ("folder", "tar", "index", "parquet")
BILLION = 10**9
IMAGES, SHARDS, SIZE, BATCH, SHARE = 32_000, 16, 100_000, 32, 0.1  # of the data that is fetched
SEEN = 2_000  # images for which full shuffling is measured; each brings 4 MiB

OPEN = """
import json, os, sys, threading, time
from selftaught.data import open_data, files
import selftaught.data.opening, selftaught.data.table, selftaught.data.remote.ranges
def now():
    rows = dict(r.split(":") for r in open("/proc/self/smaps_rollup").read().splitlines()[1:])
    kib = lambda n: int(rows[n].split()[0])
    return kib("Private_Clean") + kib("Private_Dirty")
def peak():
    rows = dict(r.split(":", 1) for r in open("/proc/self/status").read().splitlines())
    return int(rows["VmHWM"].split()[0]), int(rows["RssFile"].split()[0])
private, (most, mapped) = now(), peak()
begin = time.perf_counter()
samples = open_data(sys.argv[1])
opened = time.perf_counter()
samples.fingerprint
done = time.perf_counter()
high, files_now = peak()
print(json.dumps({"count": len(samples), "open": opened - begin, "fingerprint": done - opened,
    "peak": high - most - (files_now - mapped), "private": now() - private}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "scale.md")
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000])
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    opened = {
        (kind, count): opening(made(asked.work, kind, count))
        for count in asked.counts
        for kind in SOURCES
    }
    text = page(opened, asked.counts, amplification(asked.work))
    asked.out.write_text(text)
    print(text)


def made(work: Path, kind: str, count: int) -> Path:
    """Data of as many samples, of hardly any bytes; what opens it."""
    place = work / f"{kind}-{count}"
    if kind == "index":
        place = work / f"index-{count}"
        run = [sys.executable, "-m", "selftaught", "index", str(work / f"tar-{count}")]
        if not place.exists():
            subprocess.run([*run, "--out", str(place)], check=True)
    elif kind == "folder" and not place.exists():
        for folder in range(count // 1000):
            (place / f"{folder:06}").mkdir(parents=True)
            for n in range(1000):
                (place / f"{folder:06}" / f"{folder:06}{n:04}.jpg").write_bytes(b"x")
    elif kind == "tar" and not place.exists():
        place.mkdir()
        write_tar(place / "shard-000.tar", count, bytes(16))
    elif kind == "parquet":
        place = place.with_suffix(".parquet")
        if not place.exists():
            import pyarrow as pa
            import pyarrow.parquet as pq

            rng, schema = np.random.default_rng(0), pa.schema({"image": pa.binary()})
            with pq.ParquetWriter(place, schema) as writer:
                for _ in range(count // 1000):
                    writer.write(pa.table({"image": [rng.bytes(600) for _ in range(1000)]}))
    return place


def write_tar(path: Path, count: int, content: bytes | None = None) -> None:
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for n in range(count):
            body = rng.bytes(SIZE) if content is None else content
            header = tarfile.TarInfo(f"{path.stem}-{n:08}.jpg")
            header.size = len(body)
            file.write(header.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512))
        file.write(bytes(1024))


def opening(data: Path) -> dict[str, Any]:
    """What it costs a new process; the better of two."""
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(data)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    return min(found, key=lambda one: one["open"] + one["fingerprint"])


def amplification(work: Path) -> dict[str, Any]:
    """Bytes that a server sent for a byte of images, by order."""
    from selftaught.data import open_data
    from selftaught.data.remote.cache import cache_of
    from selftaught.feed.lanes import Lanes
    from selftaught.feed.order import Order
    from tests.ranges_server import serving

    folder = work / "fetched"
    if not folder.exists():
        folder.mkdir()
        for n in range(SHARDS):
            write_tar(folder / f"shard-{n:03}.tar", IMAGES // SHARDS)
        subprocess.run([sys.executable, "-m", "selftaught", "index", str(folder)], check=True)
    total = sum(file.stat().st_size for file in folder.glob("*.tar"))
    os.environ |= {
        "SELFTAUGHT_CACHE": str(work / "cache"),
        "SELFTAUGHT_CACHE_SIZE": str(int(SHARE * total)),
    }
    found: dict[str, Any] = {"total": total}
    with serving(folder) as server:
        source = open_data(f"{server.url}/shard-{{000..{SHARDS - 1:03}}}.tar").source
        batches = len(source) // BATCH
        for shuffle in ("full", "blocks"):
            shutil.rmtree(work / "cache" / "blocks", ignore_errors=True)
            cache_of.cache_clear()
            held = cache_of(os.getpid()).limit // (4 << 20)
            lanes = Lanes(source.blocks(), BATCH, batches, 0, held) if shuffle == "blocks" else None
            order = Order(len(source), BATCH, batches, 0, lanes)
            order.epochs = range(1)
            sent, requests = server.sent, sum(server.requests.values())
            used = images = 0
            begin = time.perf_counter()
            for keys in order:
                for _, row in keys:
                    used += len(source.load(row))
                    images += 1
                if shuffle == "full" and images >= SEEN:
                    break
            found[shuffle] = {
                "amplification": (server.sent - sent) / used,
                "requests": (sum(server.requests.values()) - requests) / images,
                "images": images,
                "seconds": time.perf_counter() - begin,
                "lanes": lanes and (lanes.lanes, lanes.mixed),
            }
    return found


def page(opened: dict[Any, Any], counts: list[int], fetched: dict[str, Any]) -> str:
    from machine import describe, sentence

    out = io.StringIO()
    out.write(
        "# What a million samples cost to open, and what is fetched for them\n\n"
        "`python benchmarks/scale.py --work $WORK`  \n"
        f"{sentence(describe())}\n\n"
        "A new process opens data and takes its fingerprint; of two tries the faster. Peak is what "
        "its memory grew by at most, private what it keeps that is not mapped. The files are in "
        "the page cache of the system. A folder has 1,000 files a folder, a tar all samples in one "
        "shard, Parquet row groups of 1,000; it is read and kept where it has less than 512 MiB, "
        "here the smaller one.\n\n"
        "| samples | data | opening, s | fingerprint, s | peak, MiB | private, MiB |\n"
        "| ---: | --- | ---: | ---: | ---: | ---: |\n"
    )
    for count in counts:
        for kind in SOURCES:
            r = opened[kind, count]
            out.write(
                f"| {count:,} | {kind} | {r['open']:.2f} | {r['fingerprint']:.2f} | "
                f"{r['peak'] / 1024:,.0f} | {r['private'] / 1024:,.1f} |\n"
            )
    most = counts[-1]
    out.write(
        f"\nOn paper, a thousand million samples, {BILLION // most:,} times those of {most:,} "
        "(an index is hashed up to 256 MiB as it is opened; of larger ones the size is compared):"
        "\n\n"
        "| data | opening | fingerprint | private |\n| --- | ---: | ---: | ---: |\n"
    )
    for kind in SOURCES:
        r, times = opened[kind, most], BILLION // most
        seconds = [r["open"] * times, r["fingerprint"] * times]
        if kind == "index":
            words = ["that of a file", "none", f"{r['private'] / 1024:.1f} MiB"]
        else:
            words = [f"{s / 60:,.0f} min" for s in seconds]
            words.append(f"{r['private'] * times / 2**20:,.0f} GiB")
        out.write(f"| {kind} | {' | '.join(words)} |\n")
    out.write(
        f"\nA web server of this machine has {fetched['total'] / 1e9:.1f} GB of images of 0.1 MB "
        f"in {SHARDS} shards with an index, and the reader keeps {SHARE:.0%} of it. An epoch, "
        f"batches of {BATCH}; shuffled in full, its first {fetched['full']['images']:,} images. "
        "Lanes are as few as that has room for; a training has up to 32 whatever is kept, which "
        "needs 1.5 GB.\n\n"
        "| order | bytes fetched for a byte used | requests an image | images a second |\n"
        "| --- | ---: | ---: | ---: |\n"
    )
    for shuffle in ("full", "blocks"):
        r = fetched[shuffle]
        name = (
            shuffle if r["lanes"] is None else f"blocks, {r['lanes'][0]} lanes of {r['lanes'][1]}"
        )
        out.write(
            f"| {name} | {r['amplification']:.2f} | {r['requests']:.3f} | "
            f"{r['images'] / r['seconds']:,.0f} |\n"
        )
    return out.getvalue()


if __name__ == "__main__":
    main()
