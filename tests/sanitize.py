"""The native library under address and undefined-behavior sanitizers, fuzzed.

    python tests/sanitize.py [--rounds 3]

Builds a copy of the library with GCC's or Clang's sanitizers (the system's compiler; Linux), and
runs the tests that feed its entry points sizes, strides, parameters and damaged files at their
limits, each round with other random examples. Nothing of the working tree is changed. The first
error that a sanitizer finds ends it, with its report and exit status.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
TESTS = "survive or damaged or jpegs or rare or odd_sizes or channels or strides"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    runtimes = [found for name in ("libasan.so", "libubsan.so") if (found := runtime(name))]
    if not runtimes:
        raise SystemExit("the compiler has no address sanitizer (libasan.so)")
    with tempfile.TemporaryDirectory() as scratch:
        for part in ("src", "tests"):
            shutil.copytree(ROOT / part, Path(scratch, part), ignore=shutil.ignore_patterns("*.so"))
        for file in ("hatch_build.py", "pyproject.toml"):
            shutil.copy(ROOT / file, scratch)
        flags = {"CFLAGS": FLAGS, "CXXFLAGS": FLAGS, "LDFLAGS": FLAGS}
        subprocess.run(
            [sys.executable, "hatch_build.py"], cwd=scratch, env=os.environ | flags, check=True
        )
        # Python was not built with the sanitizer, whose runtime must come first all the same, and
        # frees little of what it allocates before it ends.
        env = os.environ | {
            "PYTHONPATH": str(Path(scratch, "src")),
            "LD_PRELOAD": " ".join(runtimes),
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",  # files, too, lie in memory that is watched
        }
        for seed in range(args.rounds):
            tests = ["tests/test_native.py", "-x", "-k", TESTS, f"--hypothesis-seed={seed}"]
            done = subprocess.run([sys.executable, "-m", "pytest", *tests], cwd=scratch, env=env)
            if done.returncode:
                return done.returncode
    return 0


def runtime(name: str) -> str:
    """Where the compiler has a library; "" where it has none."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    done = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True)
    path = done.stdout.strip()
    return path if os.path.isabs(path) else ""


if __name__ == "__main__":
    sys.exit(main())
