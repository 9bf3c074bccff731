"""Faults of run folders, disks and memory, for `faults.py`, which imports this file.

Each is a scenario as described there: it is handed an empty folder, starts real processes, does
them harm, and asserts what they did.
"""

import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from faults import LONG, Run, can_mount, command, images, scenario

SHORT = ["--epochs", "2", "--workers", "0", "--log-every", "1"]


def finished(place: Path, out: str = "run") -> Path:
    """A run that has ended."""
    Run(command(place, *SHORT, out=out), place).ends(0)
    return place / out


def tool(place: Path, *words: str, before: Callable[[], None] | None = None) -> Run:
    return Run([sys.executable, "-m", "selftaught", *words], place, before)


def file_size(most: int) -> Callable[[], None]:
    """Of a process that cannot write longer files, as on a disk that is full."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return limit


# disks ------------------------------------------------------------------------------------------


@scenario(limit=400)
def no_room_for_a_checkpoint(place: Path) -> None:
    """No file can grow beyond 60 KB: the settings fit, the first checkpoint does not."""
    run = Run(command(place, *SHORT), place, file_size(60_000))
    run.ends(1, "could not be written|cannot be written", "File too large")
    Run(command(place, *SHORT, "--resume"), place).ends(0)


@scenario(limit=400)
def no_room_for_an_export(place: Path) -> None:
    """A disk that is full at `export` and `report` is no bad argument: exit 1."""
    run = str(finished(place))
    for words in (["export", run, "--to", "safetensors", "--out", "e"], ["report", run]):
        tool(place, *words, before=file_size(2000)).ends(1, "cannot be written", "File too large")
        tool(place, *words).ends(0)
    assert not list((place / "run").glob(".*"))


@scenario(limit=400, root=True)
def small_disk(place: Path) -> None:
    """A disk that fills up while it trains: exit 1, and with room again it goes on."""
    if not can_mount():
        return no_room_for_a_checkpoint(place)
    inside = """
        mkdir disk && mount -t tmpfs -o size=64m tmpfs disk || exit 9
        "$@" --out disk/run &
        until ls disk/run/checkpoints/step-*.pt; do sleep 0.1; kill -0 $! || exit 8; done
        cat /dev/zero > disk/ballast
        wait $!; echo "full: $?"
        rm disk/ballast
        "$@" --out disk/run --resume --epochs 4 --force; echo "resumed: $?"
        cp disk/run/metrics.csv .
    """
    words = command(place, *LONG)
    at = words.index("--out")
    del words[at : at + 2]
    run = Run(["unshare", "-m", "sh", "-c", inside, "sh", *words], place)
    run.ends(0, "No space left on device", "full: 1\n", "resumed: 0\n", within=300)
    assert _steps(place) == list(range(1, len(_steps(place)) + 1))
    return None


def _steps(folder: Path) -> list[int]:
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    return [int(row.split(",")[0]) for row in rows]


# memory -----------------------------------------------------------------------------------------


@scenario(limit=400)
def little_memory(place: Path) -> None:
    """A step wants two gigabytes more than the process may have: saved, exit 75, what would fit."""
    (place / "program.py").write_text(
        f"""
import resource, sys
from pathlib import Path
import torch
from selftaught.cli import main
from selftaught.methods import SimCLR
before, seen = SimCLR.after_step, []
def after_step(self):
    before(self)
    seen.append(1)
    if len(seen) == 4:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 2**29,) * 2)
        real = type(self).loss
        type(self).loss = lambda self, batch: (torch.ones(2**29), real(self, batch))[1]
SimCLR.after_step = after_step
sys.exit(main({command(place, *SHORT)[3:]!r}))
"""
    )
    run = Run([sys.executable, place / "program.py"], place)
    run.ends(75, "memory ran out at step 5 of 10", "saved at step 4", "--effective-batch 8")
    Run(command(place, *SHORT, "--resume"), place).ends(0)


# two writers, and none --------------------------------------------------------------------------


@scenario(limit=400)
def two_writers(place: Path) -> None:
    """`--resume` and `--overwrite` while the run goes on: refused; free again once it is killed."""
    first = Run(command(place, *LONG), place)
    first.trains(2)
    for more in ("--resume", "--overwrite"):
        second = Run(command(place, *LONG, more), place)
        second.ends(2, f"is in use: process {first.process.pid} on ")
    first.send(signal.SIGKILL)
    first.process.wait()
    third = Run(command(place, *LONG, "--resume"), place)
    third.until("resuming at step")
    third.send(signal.SIGTERM)
    third.ends(75)
    steps = _steps(place / "run")
    assert steps == list(range(1, len(steps) + 1)), steps


@scenario(limit=400)
def two_that_overwrite(place: Path) -> None:
    """Two at once move an earlier run aside: one trains, the other is told, nothing is lost."""
    finished(place)
    both = [Run(command(place, *SHORT, "--overwrite"), place) for _ in range(2)]
    codes = sorted(run.process.wait(100) for run in both)
    assert codes in ([0, 0], [0, 2]), [run.said for run in both]
    kept = [p for p in place.glob("run*") if (p / "encoder.json").exists()]
    assert len(kept) == codes.count(0) + 1


# killed -----------------------------------------------------------------------------------------


@scenario(limit=600)
def killed_at_any_moment(place: Path) -> None:
    """SIGKILL at random moments, export and report included; what remains is the whole run."""
    rng = random.Random(0)
    words = [*SHORT, "--save-every", "0"]
    whole = place / "whole"
    Run(command(place, *words, out="whole"), place).ends(0)
    for turn in range(8):
        more = ["--resume"] if (place / "run" / "run.yaml").exists() else ["--overwrite"]
        run = Run(command(place, *words, *more), place)
        time.sleep(rng.uniform(4, 12))
        run.send(signal.SIGKILL)
        run.process.wait()
        assert "Traceback" not in run.said, (turn, run.said)
    if not (place / "run" / "checkpoints" / "finished").exists():
        Run(command(place, *words, "--resume"), place).ends(0)
    times = ("images_per_second", "data_wait")
    same = [_columns(p / "metrics.csv", times) for p in (whole, place / "run")]
    assert same[0] == same[1]
    assert not list((place / "run").glob(".*")), list((place / "run").glob(".*"))


def _columns(path: Path, but: tuple[str, ...]) -> list[list[str]]:
    head, *rows = [line.split(",") for line in path.read_text().splitlines()]
    return [[v for name, v in zip(head, row) if name not in but] for row in rows]


@scenario(limit=600)
def stopped_in_every_phase(place: Path) -> None:
    """SIGTERM while it opens, looks, trains, exports and reports: exit 75, and --resume ends it."""
    (place / "program.py").write_text(
        f"""
import sys, time
from selftaught import export, report
from selftaught.cli import main
def held(module, name, phase):
    real = getattr(module, name)
    def act(*given, **more):
        if sys.argv[1] == phase:
            print("in " + phase, flush=True)
            time.sleep(60)
        return real(*given, **more)
    setattr(module, name, act)
held(export, "save", "export")
held(report, "write", "report")
sys.exit(main({command(place, *SHORT)[3:]!r} + sys.argv[2:]))
"""
    )
    program = [sys.executable, place / "program.py"]
    for sign in ("measuring memory", "looking at the data", "step 1/", "in export", "in report"):
        shutil.rmtree(place / "run", ignore_errors=True)
        run = Run([*program, sign.removeprefix("in ")], place)
        run.until(sign)
        run.send(signal.SIGTERM)
        run.ends(75, "--resume", within=30)
        Run([*program, "none", "--resume"], place).ends(0)
        assert _steps(place / "run") == list(range(1, 11))


# damaged ----------------------------------------------------------------------------------------


@scenario(limit=400)
def damaged_checkpoints(place: Path) -> None:
    """Half of the newest, a flipped byte, no checksum: the one before; all damaged: exit 1."""
    run = Run(command(place, *LONG), place)
    run.trains(6)
    run.send(signal.SIGTERM)
    run.ends(75)
    store = place / "run" / "checkpoints"
    newest = max(store.glob("step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1000])
    resumed = Run(command(place, *LONG, "--resume"), place)
    resumed.until("falling back to the one before")
    resumed.trains(int(newest.stem[5:]) + 2)
    resumed.send(signal.SIGTERM)
    resumed.ends(75)
    for file in store.glob("step-*.sha256"):
        file.write_text("")
    resumed = Run(command(place, *LONG, "--resume"), place)
    resumed.until("has no checksum")
    resumed.until("resuming at step")  # what it finds is told before there is a run to stop
    resumed.send(signal.SIGTERM)
    resumed.ends(75)
    for file in store.glob("step-*.pt"):
        file.write_bytes(b"none")
    Run(command(place, *LONG, "--resume"), place).ends(1, "checkpoints .* are damaged")


@scenario(limit=400)
def strangers(place: Path) -> None:
    """Files that are none of ours in a run folder: words, not tracebacks."""
    run = finished(place)
    (run / "checkpoints" / "step-xyz.pt").write_bytes(b"?")
    (run / "metrics.csv").write_bytes((run / "metrics.csv").read_bytes() + b"\xff\xfe\n")
    (run / "scores.json").write_bytes(b"[" * 100_000)
    (run / "views.npz").write_bytes(b"PK\x03\x04")
    more = ["--epochs", "3", "--workers", "0", "--resume"]
    Run(command(place, *more), place).ends(0, "no whole rows")
    tool(place, "report", str(run)).ends(0)


@scenario(limit=400)
def names_that_terminals_obey(place: Path) -> None:
    """Escape codes, newlines and formulas in names: shown as text, listed as text."""
    folder = images(place)
    (folder / "=x\x1b]0;title\x07\nerror: forged.png").write_bytes(b"none")
    run = Run(command(place, *SHORT, "--max-bad", "0.5"), place)
    run.ends(0, r"=x\\x1b\]0;title\\x07\\nerror: forged.png cannot be read")
    assert not any(c < " " and c != "\n" for c in run.said), run.said
    assert "'=x" in (place / "run" / "bad_files.csv").read_text()


@scenario(limit=400)
def output_without_room(place: Path) -> None:
    """Standard output on a full disk: told, exit 1; a reader that has had enough: 141 or 0."""
    words = f"{sys.executable} -m selftaught methods --json"
    full = subprocess.run(f"{words} > /dev/full", shell=True, capture_output=True, text=True)
    assert full.returncode == 1, full
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    cut = ["bash", "-c", f"{words} | head -c 1; exit ${{PIPESTATUS[0]}}"]
    assert subprocess.run(cut, capture_output=True).returncode in (0, 141)
