"""Fuzz the parsers: the native JPEG decoder and renderer under sanitizers, and those in Python.

    python fuzz/run.py [--seconds 60] [--seed 0] [jpeg render npy tar table ...]

The native ones are built by clang++ with libFuzzer where it is installed, else by g++ with
`driver.cpp`, which changes seeds without looking at coverage. The first input that a sanitizer
objects to is kept in fuzz/found/, and ends the run with exit status 1; `TARGET FILE` repeats it.
Inputs of the parsers in Python must be read or refused with an error of selftaught's own.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from selftaught.data import open_data
from selftaught.errors import SelftaughtError

HERE = Path(__file__).parent
NATIVE = HERE.parent / "src" / "selftaught" / "augment" / "image" / "native"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.targets or TARGETS:
        print(f"{name}: ", end="", flush=True)
        failed = TARGETS[name](name, args.seconds, args.seed)
        if failed:
            print(f"FAILED; the input is {failed}")
            return 1
    return 0


# native ----------------------------------------------------------------------------------------


def native(name: str, seconds: float, seed: int) -> Path | None:
    """Build and run a target; the input that it failed on, if any."""
    kept = HERE / "found" / f"{name}-{seed}"
    kept.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch, "corpus")
        corpus.mkdir()
        for i, content in enumerate(jpegs() if name == "jpeg" else noise()):
            (corpus / str(i)).write_bytes(content)
        program = build(name, Path(scratch))
        words = [program, f"-max_total_time={seconds:g}", f"-seed={seed}", str(corpus)]
        if with_clang():
            words += [f"-artifact_prefix={kept}-", "-rss_limit_mb=4096", "-print_final_stats=1"]
        env = os.environ | {"FUZZ_KEEP": f"{scratch}/last", "UBSAN_OPTIONS": "print_stacktrace=1"}
        done = subprocess.run(words, env=env)
        if done.returncode and not with_clang():
            shutil.copy(Path(scratch, "last"), kept)
    return kept if done.returncode else None


def with_clang() -> bool:
    return shutil.which("clang++") is not None


def build(name: str, scratch: Path) -> str:
    """Compile the library, for each kind of processor, and the target into one program."""
    variants = {"baseline": [], "avx2": ["-mavx2", "-mfma"]}
    wide = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
    variants |= {"avx512": wide}
    if os.uname().machine not in ("x86_64", "AMD64"):
        variants = {"baseline": []}
    compiler = "clang++" if with_clang() else "g++"
    flags = [*SANITIZERS, "-std=c++17", "-pthread", "-ffp-contract=off"]
    flags += [f"-DWITH_{v.upper()}=1" for v in variants if v != "baseline"]
    fuzzer = ["-fsanitize=fuzzer-no-link"] if with_clang() else []
    jobs = [(NATIVE / s, "once", []) for s in ("library.cpp", "jpeg.cpp")]
    jobs += [(HERE / f"{name}.cpp", "target", [])]
    jobs += [] if with_clang() else [(HERE / "driver.cpp", "target", [])]
    for variant, options in variants.items():
        own = [*options, f"-DVARIANT={variant}"]
        jobs += [(NATIVE / s, variant, own) for s in ("render.cpp", "planes.cpp")]
    objects = []
    for source, kind, options in jobs:
        objects.append(str(scratch / f"{source.stem}-{kind}.o"))
        words = [compiler, *flags, *fuzzer, *options, "-c", str(source), "-o", objects[-1]]
        subprocess.run(words, check=True)
    program = str(scratch / name)
    link = ["-fsanitize=fuzzer"] if with_clang() else []
    subprocess.run([compiler, *flags, *link, *objects, "-o", program], check=True)
    return program


def jpegs() -> list[bytes]:
    """Small files of the kinds that the decoder reads, after eight bytes of how to read them."""
    rng = np.random.default_rng(0)
    found = []
    for k, (height, width) in enumerate([(8, 8), (33, 47), (64, 16), (100, 70)]):
        smooth = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
        image = Image.fromarray(
            (smooth + rng.integers(0, 40, smooth.shape)).clip(0, 255).astype("u1")
        )
        for mode in ("RGB", "L"):
            for options in (
                {"subsampling": k % 3 if mode == "RGB" else -1},
                {"progressive": True},
                {"restart_marker_blocks": 2},
                {"quality": 30, "optimize": True},
            ):
                file = io.BytesIO()
                image.convert(mode).save(file, "JPEG", **options)
                found.append(rng.bytes(8) + file.getvalue())
    return found


def noise() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.bytes(400) for _ in range(64)]


# in Python -------------------------------------------------------------------------------------


def in_python(name: str, seconds: float, seed: int) -> Path | None:
    """Change seeds at random and open them; the input that raised what is not ours, if any."""
    suffix, seeds = FILES[name]()
    rng = np.random.default_rng(seed)
    runs = read = 0
    ends = time.monotonic() + seconds
    path = HERE / "found" / f"{name}-{seed}{suffix}"  # stays there if the process is ended by it
    path.parent.mkdir(exist_ok=True)
    while time.monotonic() < ends:
        content = changed(seeds[int(rng.integers(len(seeds)))], rng) if runs else seeds[0]
        path.write_bytes(content)
        runs += 1
        try:
            samples = open_data(path)
            for i in range(min(len(samples), 4)):
                samples.open(i).read()
            read += 1
        except SelftaughtError:
            continue
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
            return path
    path.unlink()
    print(f"{runs} inputs in {seconds:g} s, {read} of them read", flush=True)
    return None


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        at, size = (int(n) for n in rng.integers(0, [len(data) + 1, 32]))
        match int(rng.integers(6)):
            case 0:
                data[at : at + 1] = bytes([int(rng.integers(256))])
            case 1:
                data[at : at + size] = rng.bytes(size)
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size]
            case 4:
                data[at : at + 4] = int(rng.choice([0, 1, 2**31 - 1, 2**32 - 1])).to_bytes(
                    4, "little"
                )
            case _:
                del data[max(at, len(data) // 2) :]
    return bytes(data)


def pictures(count: int = 4) -> list[bytes]:
    found = []
    for i in range(count):
        file = io.BytesIO()
        Image.fromarray(np.full((8, 9, 3), 40 * i, np.uint8)).save(file, "PNG")
        found.append(file.getvalue())
    return found


def npy() -> tuple[str, list[bytes]]:
    found = []
    for array in (np.zeros((4, 8, 8, 3), "u1"), np.ones((4, 8, 8), "<f4")):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    return ".npy", found


def npz() -> tuple[str, list[bytes]]:
    found = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, images=np.zeros((4, 8, 8, 3), "u1"), labels=np.arange(4))
        found.append(file.getvalue())
    return ".npz", found


def tar() -> tuple[str, list[bytes]]:
    found = []
    for style in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=style) as archive:
            for i, content in enumerate(pictures()):
                for suffix, part in ((".png", content), (".cls", b"%d" % i), (".json", b"{}")):
                    name = f"{'long/' * 30 if style != tarfile.USTAR_FORMAT else ''}{i}{suffix}"
                    about = tarfile.TarInfo(name)
                    about.size = len(part)
                    archive.addfile(about, io.BytesIO(part))
        found.append(file.getvalue())
    return ".tar", found


def parquet() -> tuple[str, list[bytes]]:
    table = pa.table({"image": pictures(), "label": [0, 1, 0, 1]})
    found = []
    for options in ({}, {"compression": "none", "use_dictionary": False}, {"row_group_size": 2}):
        file = io.BytesIO()
        pq.write_table(table, file, **options)
        found.append(file.getvalue())
    return ".parquet", found


def arrow() -> tuple[str, list[bytes]]:
    table = pa.table({"image": pictures(), "label": [0, 1, 0, 1]})
    found = []
    for make in (pa.ipc.new_file, pa.ipc.new_stream):
        file = io.BytesIO()
        with make(file, table.schema) as writer:
            writer.write_table(table)
        found.append(file.getvalue())
    return ".arrow", found


def lists() -> tuple[str, list[bytes]]:
    return ".csv", [b"path,label\na.png,cat\nb.png,dog\n", b"a.png\tcat\n", b'path\n"a""b"\n']


FILES: dict[str, Callable[[], tuple[str, list[bytes]]]] = {
    "npy": npy,
    "npz": npz,
    "tar": tar,
    "parquet": parquet,
    "arrow": arrow,
    "csv": lists,
}
TARGETS = {"jpeg": native, "render": native} | dict.fromkeys(FILES, in_python)

if __name__ == "__main__":
    sys.exit(main())
