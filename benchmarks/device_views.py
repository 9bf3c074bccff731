"""Colors and blur of views on a GPU, beside the same in the loader.

    python benchmarks/device_views.py PHOTOS [--batch 256] [--rounds 5] [--images 96]
                                      [--out RESULTS.md]

PHOTOS is a folder or a Parquet file of JPEGs of at least 300 pixels, encoded anew as by `views.py`.
The loader's share is CPU time of one thread, with colors and without; the device's is elapsed time
of a batch that lies there, from bytes to normalized floats, with colors and without. The best of
the rounds counts, both kinds in turns. The last column says how many cores make colors and blur in
the time of the GPU; which of the two a training waits for depends on its network too, and is what
`pretrain` measures. Without a GPU it says so, writes nothing, and exits with code 2.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import torch
from views import MEAN, STD, photos

from selftaught import augment
from selftaught.augment import Deferred
from selftaught.augment.image import native
from selftaught.augment.image.batch import Rngs
from selftaught.engine.estimate import wait
from selftaught.engine.memory import keep_freed

CASES = {"SimCLR 2x224": augment.simclr(224), "DINO 2x224 + 8x96": augment.multicrop(224)}


def loading(kinds: list[augment.Views], files: list[bytes], rounds: int) -> list[float]:
    """CPU seconds an image of one thread, of each kind of views."""
    rngs = Rngs(0, [(0, i) for i in range(len(files))])
    return best([lambda kind=kind: kind.batch(files, rngs) for kind in kinds], rounds, cpu)


def cpu(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def developing(raw: Deferred, device: torch.device, rounds: int) -> list[float]:
    """Seconds a batch on the device to normalize it, and to develop it first."""
    there = Deferred([x.to(device) for x in raw.images], raw.settings)

    def normalized(images: Any) -> Any:
        return augment.normalize(images, MEAN, STD, channels_last=True)

    def elapsed(work: Callable[[], Any]) -> float:
        wait(device)
        begun = time.perf_counter()
        work()
        wait(device)
        return time.perf_counter() - begun

    kinds = [
        lambda: normalized(there.images),
        lambda: normalized(augment.finish_on_device(there, device)),
    ]
    return best(kinds, rounds, elapsed)


def best(works: list[Callable[[], Any]], rounds: int, clock: Callable[[Any], float]) -> list[float]:
    """The shortest time of each, in turns; the first round warms up."""
    times = [[clock(work) for work in works] for _ in range(rounds + 1)][1:]
    return [min(column) for column in zip(*times)]


def rows(files: list[bytes], batch: int, rounds: int, device: torch.device) -> list[str]:
    out = [
        "| views | loader, ms of CPU an image: with colors | without "
        "| device, ms a batch: without colors | with | cores as fast as the device |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, pipeline in CASES.items():
        split = pipeline.split()
        assert split is not None
        whole, raw = (s / len(files) for s in loading([pipeline, split], files, rounds))
        some = (files * -(-batch // len(files)))[:batch]
        made = split.batch(some, Rngs(0, [(1, i) for i in range(batch)]))
        without, with_colors = developing(made, device, rounds)
        cores = (whole - raw) * batch / (with_colors - without)
        out.append(
            f"| {name} | {1000 * whole:.3g} | {1000 * raw:.3g} | {1000 * without:.3g} | "
            f"{1000 * with_colors:.3g} | {cores:.3g} |"
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=96)
    default = Path(__file__).parent / "results" / "device_views.md"
    parser.add_argument("--out", type=Path, default=default, help="Markdown file to write")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.stderr.write(
            "this compares a GPU with the loader, and torch finds no GPU here: nothing was "
            "measured\n"
        )
        raise SystemExit(2)
    if native.library() is None:
        raise SystemExit("the native library is not built")
    torch.set_num_threads(1)
    keep_freed()
    device = torch.device("cuda")
    files, _ = photos(args.photos, args.images)
    lines = [
        "# Colors and blur on a GPU",
        "",
        f"Command: `python benchmarks/device_views.py {args.photos.name} --batch {args.batch} "
        f"--rounds {args.rounds} --images {args.images}`",
        "",
        f"{torch.cuda.get_device_name(device)}; {machine.sentence(machine.describe())}",
        "",
        *rows(files, args.batch, args.rounds, device),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
