"""Views per CPU-second, beside torchvision, lightly and lightly-train, where these are installed.

    python benchmarks/views.py PHOTOS [--arrays SMALL.parquet] [--rounds 5] [--images 24]
                               [--keep-freed] [--out RESULTS.md]

PHOTOS is a folder or a Parquet file of JPEGs of at least 300 pixels. They are encoded anew: at
500x375 with the quality that comes closest to 95 kB, and at 1920x1280 with quality 92. Everybody
gets the same bytes and makes a batch of uint8 or float tensors with the published recipe's
parameters, on one thread. Contestants take turns within a round; a row's figure is the best round
(the least disturbed), and CPU time, not wall time, is counted.
"""

import argparse
import contextlib
import io
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from selftaught import augment
from selftaught.augment.image import native, render
from selftaught.augment.image.batch import Rngs
from selftaught.data import open_data
from selftaught.engine.memory import keep_freed

Make = Callable[[Any], Any]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# ------------------------------------------------------------------------------------- the images


def photos(path: Path, count: int) -> tuple[list[bytes], list[bytes]]:
    """The same photos at 500x375 with about 95 kB, and at 1920x1280."""
    samples = open_data(str(path))
    ordinary, large = [], []
    for i in range(len(samples)):
        image = Image.fromarray(samples.read(i))
        if image.width < image.height * 1.2 or image.height < 240:
            continue
        small = image.resize((500, 375), Image.Resampling.LANCZOS)
        tries = [encoded(small, quality) for quality in range(80, 99, 2)]
        ordinary.append(min(tries, key=lambda data: abs(len(data) - 95_000)))
        large.append(encoded(image.resize((1920, 1280), Image.Resampling.LANCZOS), 92))
        if len(ordinary) == count:
            break
    return ordinary, large


def encoded(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


# ----------------------------------------------------------------------------------- contestants


def ours(pipeline: augment.Views, reduced: bool = True) -> Make:
    def make(images: list[Any]) -> Any:
        rngs = Rngs(0, [(0, i) for i in range(len(images))])
        return pipeline.batch(images, rngs, reduced=reduced)

    return make


def reference(pipeline: augment.Views) -> Make:
    """Our torch pipeline, which takes over where the native library is missing."""

    def make(images: list[Any]) -> Any:
        out = []
        for i, image in enumerate(images):
            pixels = image if isinstance(image, np.ndarray) else np.asarray(opened(image))
            params = pipeline.draw(augment.sample_rng(0, 0, i), *pixels.shape[:2])
            out.append([render.render_view(pixels, v, p) for v, p in zip(pipeline.views, params)])
        return [torch.from_numpy(np.stack(view)) for view in zip(*out)]

    return make


def opened(image: bytes | np.ndarray) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    return Image.open(io.BytesIO(image)).convert("RGB")


def torchvision(views: list[Any]) -> Make:
    def make(images: list[Any]) -> Any:
        rows = [[view(image) for view in views] for image in map(opened, images)]
        return [torch.stack(view) for view in zip(*rows)]

    return make


def v2_view(
    size: int, scale: tuple[float, float], jitter: Any, blur: float, solarize: float, how: Any
) -> Any:
    radius = max(1, size // 20)
    steps: list[Any] = [
        v2.RandomResizedCrop(size, scale, interpolation=how, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(*jitter)], p=0.8),
        v2.RandomGrayscale(0.2),
    ]
    if blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(2 * radius + 1, (0.1, 2.0))], p=blur))
    if solarize:
        steps.append(v2.RandomSolarize(128, solarize))
    steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return v2.Compose(steps)


def v2_simclr(size: int, strength: float = 1.0, blur: float = 0.5) -> Make:
    jitter = [strength * s for s in (0.8, 0.8, 0.8, 0.2)]
    how = v2.InterpolationMode.BILINEAR
    return torchvision([v2_view(size, (0.08, 1.0), jitter, blur, 0.0, how)] * 2)


def v2_dino() -> Make:
    jitter, how = (0.4, 0.4, 0.2, 0.1), v2.InterpolationMode.BICUBIC
    views = [
        v2_view(224, (0.4, 1.0), jitter, 1.0, 0.0, how),
        v2_view(224, (0.4, 1.0), jitter, 0.1, 0.2, how),
    ]
    return torchvision(views + [v2_view(96, (0.05, 0.4), jitter, 0.5, 0.0, how)] * 8)


def others(case: str, arrays: bool) -> dict[str, Make]:
    """What else is installed."""
    found: dict[str, Make] = {}
    with contextlib.suppress(ImportError):
        from lightly.transforms import DINOTransform, SimCLRTransform

        transform: Any = (
            DINOTransform(n_local_views=8)
            if case == "DINO"
            else SimCLRTransform(32, cj_strength=0.5, gaussian_blur=0.0)
            if arrays
            else SimCLRTransform(224)
        )
        found["lightly"] = listed(transform)
    with contextlib.suppress(ImportError):
        found["lightly-train"] = lightly_train(case, arrays)
    return found


def listed(transform: Any) -> Make:
    def make(images: list[Any]) -> Any:
        rows = [transform(image) for image in map(opened, images)]
        return [torch.stack(list(view)) for view in zip(*rows)]

    return make


def lightly_train(case: str, arrays: bool) -> Make:
    from lightly_train._methods.dino.dino_transform import DINOTransform, DINOTransformArgs
    from lightly_train._methods.simclr.simclr_transform import (
        SimCLRTransform,
        SimCLRTransformArgs,
    )
    from lightly_train._transforms.transform import NormalizeArgs

    cls, kind = (
        (DINOTransform, DINOTransformArgs)
        if case == "DINO"
        else (SimCLRTransform, SimCLRTransformArgs)
    )
    args: Any = kind()
    args.num_channels = 3
    args.normalize = NormalizeArgs(mean=MEAN, std=STD)
    if case == "DINO":
        args.local_view.num_views = 8
    if arrays:
        args.image_size = (32, 32)
        args.gaussian_blur = None
    transform = cls(args)

    def make(images: list[Any]) -> Any:
        rows = [transform({"image": np.asarray(opened(image))}) for image in images]
        return [torch.stack([view["image"] for view in views]) for views in zip(*rows)]

    return make


# ------------------------------------------------------------------------------------ measurement


def measure(contestants: dict[str, Make], images: Any, rounds: int) -> dict[str, float]:
    """CPU seconds an image, of the best round."""
    best = dict.fromkeys(contestants, float("inf"))
    for make in contestants.values():
        make(images[:4])
    for _ in range(rounds):
        for name, make in contestants.items():
            # What takes microseconds is repeated until it takes a tenth of a second.
            begun, repeats = time.process_time(), 0
            while (spent := time.process_time() - begun) < 0.1 or not repeats:
                make(images)
                repeats += 1
                spent = time.process_time() - begun
            best[name] = min(best[name], spent / repeats / len(images))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--arrays", type=Path, help="small images, used as arrays of 32x32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument(
        "--keep-freed",
        action="store_true",
        help="let malloc keep freed memory, as our training does; it helps everybody, most of all "
        "torchvision, whose users do not have it",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.keep_freed:
        keep_freed()
    if native.library() is None:
        raise SystemExit("the native library is not built")
    ordinary, large = photos(args.photos, args.images)
    simclr, dino = augment.simclr(224), augment.multicrop(224)
    both = {
        "ours": ours(simclr),
        "our reference": reference(simclr),
        "torchvision v2": v2_simclr(224),
    }
    cases: list[tuple[str, int, Any, dict[str, Make]]] = [
        ("SimCLR 2x224 from 500x375 JPEG", 2, ordinary, both | others("SimCLR", False)),
        (
            "SimCLR 2x224 from 1920x1280 JPEG",
            2,
            large,
            both | {"ours, not reduced": ours(simclr, False)} | others("SimCLR", False),
        ),
        (
            "DINO 2x224 + 8x96 from 500x375 JPEG",
            10,
            ordinary,
            {"ours": ours(dino), "our reference": reference(dino), "torchvision v2": v2_dino()}
            | others("DINO", False),
        ),
    ]
    pixels = [np.asarray(opened(data)) for data in ordinary]
    cases.append(("SimCLR 2x224 from pixels", 2, pixels, {"ours": both["ours"]}))
    if args.arrays:
        small = augment.simclr(32, 0.5, 0.0)
        samples = open_data(str(args.arrays))
        images = np.stack([samples.read(i) for i in range(256)])
        contestants = {"ours": ours(small), "our reference": reference(small)}
        contestants |= {"torchvision v2": v2_simclr(32, 0.5, 0.0)} | others("SimCLR", True)
        cases.append(("SimCLR 2x32 from arrays", 2, images, contestants))
    kilobytes = [sum(map(len, data)) / len(data) / 1000 for data in (ordinary, large)]
    lines = [
        f"Command: `python benchmarks/views.py {args.photos.name}"
        + (f" --arrays {args.arrays.name}" if args.arrays else "")
        + f" --rounds {args.rounds} --images {args.images}"
        + (" --keep-freed`" if args.keep_freed else "`"),
        "",
        f"{processor()}, one thread; Python {platform.python_version()}, "
        + ", ".join(f"{p} {v}" for p in PACKAGES if (v := installed(p))),
        "",
        f"{len(ordinary)} photos, {kilobytes[0]:.0f} kB at 500x375, {kilobytes[1]:.0f} kB at "
        "1920x1280.",
        "",
        "| case | contestant | views a CPU-second | ms an image | times slower than ours |",
        "|---|---|---:|---:|---:|",
    ]
    for line in lines:
        print(line)
    for name, views, images, contestants in cases:
        seconds = measure(contestants, images, args.rounds)
        first = next(iter(seconds.values()))
        for contestant, spent in seconds.items():
            line = (
                f"| {name} | {contestant} | {views / spent:,.0f} | {1000 * spent:.3g} | "
                f"{spent / first:.1f} |"
            )
            print(line, flush=True)
            lines.append(line)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("# Views\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


PACKAGES = ("torch", "torchvision", "pillow", "simplejpeg", "lightly", "lightly-train")


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
