"""Faults from outside, staged for real: what must a run survive, and does it?

    python benchmarks/faults.py [NAME ...] [--list] [--jobs N] [--out FILE]

Each scenario is a function that is handed an empty folder, starts real processes, does them harm,
and asserts what they did. It runs in a process group of its own under a time limit; nothing of it
may be left afterwards. Those that need root are told where there is none. Here are the readers,
signals and limits; `faults_folder.py` has run folders, disks and memory.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SMALL = ["--backbone", "test_resnet", "--size", "32", "--batch", "8", "--precision", "fp32"]
SMALL += ["--no-evaluate", "--hidden", "16", "--dim", "8"]
LONG = ["--epochs", "200", "--save-every", "0.002", "--log-every", "1", "--workers", "2"]

Stage = Callable[[Path], None]


@dataclass(frozen=True)
class Scenario:
    """What is staged; limit: seconds; root: whether it needs to be."""

    stage: Stage
    limit: float
    root: bool

    @property
    def name(self) -> str:
        return self.stage.__name__

    @property
    def about(self) -> str:
        return (self.stage.__doc__ or "").split("\n")[0].rstrip(".")


SCENARIOS: list[Scenario] = []


def scenario(limit: float = 120.0, root: bool = False) -> Callable[[Stage], Stage]:
    """Add a function to the scenarios."""

    def add(stage: Stage) -> Stage:
        SCENARIOS.append(Scenario(stage, limit, root))
        return stage

    return add


# tools ------------------------------------------------------------------------------------------


class Run:
    """A process that is harmed; what it says is in a file."""

    def __init__(
        self, command: Sequence[Any], place: Path, before: Callable[[], None] | None = None
    ):
        self.place, self.log = place, place / f"said-{time.monotonic_ns()}"
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [str(c) for c in command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=place,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                preexec_fn=before,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def children(self) -> list[int]:
        """Processes that it has started, in order."""
        pid = self.process.pid
        try:
            return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []

    def until(self, sign: str, seconds: float = 100.0) -> float:
        """Wait until it says something (a pattern); seconds that it took."""
        begun = time.monotonic()
        while not re.search(sign, self.said):
            assert self.process.poll() is None, f"ended without {sign!r}:\n{self.said}"
            assert time.monotonic() - begun < seconds, f"no {sign!r} in {seconds} s:\n{self.said}"
            time.sleep(0.02)
        return time.monotonic() - begun

    def trains(self, step: int, seconds: float = 100.0) -> None:
        """Wait until a checkpoint of `step` or later is in the run folder."""
        end = time.monotonic() + seconds
        while not any(
            int(f.stem.split("-")[1]) >= step for f in self.place.glob("run/checkpoints/step-*.pt")
        ):
            assert self.process.poll() is None, f"ended before step {step}:\n{self.said}"
            assert time.monotonic() < end, f"no step {step} in {seconds} s:\n{self.said}"
            time.sleep(0.02)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self, code: int, *signs: str, within: float = 100.0) -> None:
        """Wait for its end: the exit code, and what it must have said; never a traceback."""
        try:
            found = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended after {within} s:\n{self.said}") from None
        assert found == code, f"exit code {found}, not {code}:\n{self.said}"
        for sign in signs:
            assert re.search(sign, self.said), f"it never said {sign!r}:\n{self.said}"
        assert "Traceback" not in self.said, self.said


def images(place: Path, count: int = 40) -> Path:
    folder = place / "images"
    if not folder.exists():
        folder.mkdir()
        rng = np.random.default_rng(0)
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def command(place: Path, *more: str, out: str = "run") -> list[str]:
    """The words that train a small SimCLR."""
    words = ["pretrain", "simclr", str(images(place)), *SMALL, "--out", str(place / out), *more]
    return [sys.executable, "-m", "selftaught", *words]


def script(place: Path, body: str, more: str = "epochs=2, workers=2", guard: bool = True) -> Path:
    """A Python program: `body`, and a training of `data` that it defines."""
    call = f"pretrain(method, data(), out='run', batch=8, evaluate=False, {more})"
    main = f"""
        from selftaught import backbone, pretrain
        from selftaught.errors import SelftaughtError
        from selftaught.methods import SimCLR
        import logging, sys
        logging.basicConfig(level="INFO", format="%(message)s")
        method = SimCLR(backbone("test_resnet", size=32), hidden=16, dim=8)
        try:
            {call}
        except SelftaughtError as error:
            print(error)
            sys.exit(error.exit_code)
        print("trained")
    """
    main = textwrap.dedent(main)
    if guard:
        main = 'if __name__ == "__main__":\n' + textwrap.indent(main, "    ")
    file = place / "program.py"
    file.write_text(textwrap.dedent(body) + main)
    return file


ITEMS = """
import ctypes, os, signal, time
import numpy as np

class Items:
    def __len__(self):
        return 40
    def __getitem__(self, i):
        if i == 20 and os.getpid() != FIRST:
            self.harm()
        return np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)

FIRST = os.getpid()

def data():
    return Items()
"""
"""A dataset of which one item does harm, in the processes that read alone."""


def harm(place: Path, act: str, more: str = "epochs=2, workers=2", begin: str = "") -> Run:
    """Start a training on a dataset whose item 20 does `act`."""
    body = begin + ITEMS.replace("self.harm()", act)
    return Run([sys.executable, script(place, body, more)], place)


def method_of(name: str) -> str:
    return f"import multiprocessing\nmultiprocessing.set_start_method({name!r}, force=True)\n"


# readers that die, hang and fail ---------------------------------------------------------------


@scenario(limit=300, root=True)
def small_shared_memory(place: Path) -> None:
    """/dev/shm of 64 KiB: it trains, says so, and goes on with --resume."""
    if can_mount():
        inside = ["unshare", "-m", "sh", "-c"]
        mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
        prefix = [*inside, mount, "sh"]
    else:  # the measured size is injected
        hook = place / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(SMALL_SHM)
        prefix = ["env", f"PYTHONPATH={hook}"]
    run = Run([*prefix, *command(place, *LONG)], place)
    run.trains(3)
    run.send(signal.SIGTERM)
    run.ends(75, "/dev/shm has room for", "saved; repeat the command with --resume")
    Run([*prefix, *command(place, *LONG, "--epochs", "4", "--resume", "--force")], place).ends(0)


SMALL_SHM = """
import os, types
real = os.statvfs
os.statvfs = lambda path: (
    types.SimpleNamespace(f_bavail=16, f_frsize=4096) if path == "/dev/shm" else real(path)
)
"""


def can_mount() -> bool:
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"]
    return subprocess.run(probe, capture_output=True).returncode == 0


@scenario(limit=300)
def frozen_reader(place: Path) -> None:
    """A process that reads is stopped (SIGSTOP): saved after the limit, exit 75, resumed."""
    run = Run(command(place, *LONG, "--read-timeout", "3"), place)
    run.trains(3)
    begun = time.monotonic()
    os.kill(run.children[0], signal.SIGSTOP)
    run.ends(75, "has handed over nothing for 3 s.*--read-timeout", "saved at step", within=63)
    assert time.monotonic() - begun < 63
    Run(command(place, *LONG, "--epochs", "4", "--resume", "--force"), place).ends(0)


@scenario()
def frozen_reader_and_sigterm(place: Path) -> None:
    """SIGTERM while a frozen process is waited for is answered at once."""
    run = Run(command(place, *LONG), place)
    run.trains(3)
    for child in run.children:
        os.kill(child, signal.SIGSTOP)
    time.sleep(2)
    run.send(signal.SIGTERM)
    run.ends(75, "stopped at step .* and saved", within=10)


@scenario()
def frozen_reader_of_features(place: Path) -> None:
    """A process that reads for `embed` is stopped: bounded there too."""
    (place / "program.py").write_text(
        textwrap.dedent(f"""
            import sys
            from selftaught import backbone, embed
            from selftaught.feed.readers import limited
            from selftaught.errors import Interrupted
            def shown(done, count):
                print("done", done, flush=True)
            with limited(3):
                try:
                    embed(backbone("test_resnet", size=32), {str(images(place))!r}, batch=1,
                          workers=2, progress=lambda *n: (shown(*n), __import__("time").sleep(.2)))
                except Interrupted as error:
                    print(error)
                    sys.exit(error.exit_code)
        """)
    )
    run = Run([sys.executable, place / "program.py"], place)
    run.until("done 2\n")
    for child in run.children:
        os.kill(child, signal.SIGSTOP)
    run.ends(75, "has handed over nothing for 3 s", within=30)


@scenario()
def reader_that_holds_the_interpreter(place: Path) -> None:
    """An item whose C code neither returns nor lets other Python run."""
    run = harm(place, "ctypes.PyDLL(None).sleep(1000)", "epochs=2, workers=2, read_timeout=3")
    run.ends(75, "has handed over nothing for 3 s", within=90)


@scenario(limit=300)
def killed_reader(place: Path) -> None:
    """A process that reads is killed, as by the system when memory runs out."""
    run = Run(command(place, *LONG), place)
    run.trains(3)
    os.kill(run.children[-1], signal.SIGKILL)
    run.ends(75, "SIGKILL", "often memory ran out: lower --workers", "saved at step", within=20)
    Run(command(place, *LONG, "--epochs", "4", "--resume", "--force"), place).ends(0)


@scenario()
def crashing_reader(place: Path) -> None:
    """An item that crashes its reader (segmentation fault): the place in the code is told."""
    run = harm(place, "ctypes.string_at(0)")
    run.ends(75, "SIGSEGV", "program.py.*line .* in __getitem__", "selftaught check")


@scenario()
def raising_reader(place: Path) -> None:
    """An item that raises: it is told and listed, another takes its place."""
    run = harm(place, "raise RuntimeError('no item ' + str(i))")
    run.ends(0, "Items::20 cannot be read .*RuntimeError: no item 20", "trained")


@scenario()
def raising_view(place: Path) -> None:
    """A bug in a view: its own error and place are told, the run is saved."""
    run = broken_view(place, "raise RuntimeError('a DataLoader of my own')")
    run.ends(
        1,
        r"RuntimeError: a DataLoader of my own \(.*program.py, line \d+, in views",
        "saved at step",
    )


@scenario()
def exiting_reader(place: Path) -> None:
    """An item that ends its process."""
    run = harm(place, "print('no license', file=__import__('sys').stderr, flush=True); os._exit(7)")
    run.ends(75, "exit code 7", "no license")


@scenario(limit=300)
def slow_item(place: Path) -> None:
    """An item slower than the limit: the option is named, and helps."""
    run = harm(place, "time.sleep(6)", "epochs=1, workers=2, read_timeout=2")
    run.ends(75, "where a batch may take longer, say so with --read-timeout")
    run = harm(place, "time.sleep(6)", "epochs=1, workers=2, read_timeout=60, overwrite=True")
    run.ends(0, "trained")


@scenario()
def unpicklable_data(place: Path) -> None:
    """Data that cannot be sent to other processes, where Python does not fork."""
    body = method_of("spawn") + ITEMS.replace("return Items()", "return Here()").replace(
        "self.harm()", "pass"
    )
    body += "\nclass Here(Items):\n    def __init__(self):\n        self.key = lambda x: x\n"
    run = Run([sys.executable, script(place, body)], place)
    run.ends(0, "images are read in this process.*lambda", "trained")


@scenario()
def unpicklable_views(place: Path) -> None:
    """Views that cannot be handed over: the error travels."""
    run = broken_view(place, "return real(self, keys)._replace(bad=[lambda: 0])")
    run.ends(1, "a batch could not be made: .*lambda", "saved at step")


def broken_view(place: Path, act: str) -> Run:
    """Start a training whose second epoch does `act`."""
    body = f"""
        import selftaught.feed.views as feed
        real = feed.ViewDataset.__getitems__
        def views(self, keys):
            if keys[0][0] == 1:
                {act}
            return real(self, keys)
        feed.ViewDataset.__getitems__ = views
        def data():
            return {str(images(place))!r}
    """
    return Run([sys.executable, script(place, body)], place)


# start methods -------------------------------------------------------------------------------


def without_guard(place: Path, start: str, body: str = "") -> Run:
    folder = str(images(place))
    body = method_of(start) + (body or f"def data(): return {folder!r}")
    more = "epochs=2, workers=2, overwrite=True"
    return Run([sys.executable, script(place, body + "\n", more, guard=False)], place)


@scenario()
def no_guard_spawn(place: Path) -> None:
    """A script without a main guard, under spawn (macOS, Windows)."""
    without_guard(place, "spawn").ends(0, "trained")


@scenario()
def no_guard_forkserver(place: Path) -> None:
    """A script without a main guard, under forkserver (Python 3.14 on Linux)."""
    without_guard(place, "forkserver").ends(0, "trained")


@scenario(limit=300)
def no_guard_and_own_data(place: Path) -> None:
    """A script without a main guard whose data only it defines: one sentence says what to write."""
    for start in ("spawn", "forkserver"):
        run = without_guard(place, start, ITEMS.replace("self.harm()", "pass"))
        assert run.process.wait(100) == 2, run.said
        assert 'put what it runs under `if __name__ == "__main__":`' in run.said, run.said


@scenario(limit=300)
def guard_and_own_data(place: Path) -> None:
    """The same with the guard."""
    for start in ("spawn", "forkserver"):
        body = method_of(start) + ITEMS.replace("self.harm()", "pass")
        more = "epochs=1, workers=2, overwrite=True"
        Run([sys.executable, script(place, body, more)], place).ends(0, "trained")


@scenario()
def daemonic_process(place: Path) -> None:
    """Training in a daemonic process, which may start no others."""
    folder = str(images(place))
    program = script(place, f"def data(): return {folder!r}\n", guard=False).read_text()
    inner = textwrap.indent(program.replace("sys.exit", "raise SystemExit"), "    ")
    (place / "outer.py").write_text(
        f"import multiprocessing\ndef work():\n{inner}\n"
        "if __name__ == '__main__':\n"
        "    p = multiprocessing.Process(target=work, daemon=True)\n"
        "    p.start(); p.join(); raise SystemExit(p.exitcode)\n"
    )
    run = Run([sys.executable, place / "outer.py"], place)
    run.ends(0, "daemonic process may start no others", "trained")


# signals -------------------------------------------------------------------------------------


@scenario(limit=200)
def signals_in_training(place: Path) -> None:
    """Ctrl-C, SIGTERM and SIGUSR1: answered in words at once, saved, exit codes as documented."""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)):
        shutil.rmtree(place / "run", ignore_errors=True)
        run = Run(command(place, *LONG), place)
        run.trains(3)
        run.send(number)
        run.ends(code, r"(?m)^stopping after this step", "saved; repeat the command", within=10)


STEP = """
import torch
from selftaught.methods import SimCLR
def after_step(self):
    x = torch.ones(9000, 9000)
    print("in step", flush=True)
    x @ x
SimCLR.after_step = after_step
def data():
    return FOLDER
"""
"""A step that is one long operation, during which no handler of Python's is called."""


@scenario(limit=200)
def second_signal_in_a_long_step(place: Path) -> None:
    """A step of a minute: the first signal is answered within a second, the second ends."""
    body = STEP.replace("FOLDER", repr(str(images(place))))
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75)):
        more = "epochs=2, workers=1, overwrite=True"
        run = Run([sys.executable, script(place, body, more)], place)
        run.until("in step")
        time.sleep(0.5)
        run.send(number)
        assert run.until("stopping after this step; once more ends at once") < 2
        run.send(number)
        run.ends(code, within=3)


@scenario(limit=300)
def signal_in_evaluation(place: Path) -> None:
    """SIGTERM while the encoder is scored: exit 75, finished by --resume."""
    folder = images(place)
    for i, file in enumerate(sorted(folder.glob("*.png"))):
        target = folder / "ab"[i % 2] / file.name
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
    body = f"""
        from selftaught import evaluate
        import ctypes, os
        real = evaluate.compare
        def compare(*a, **k):
            print("scoring", flush=True)
            if not os.path.exists("again"):
                __import__("time").sleep(60)
            return real(*a, **k)
        evaluate.compare = compare
        def data():
            return {str(folder)!r}
    """
    program = script(place, body, "epochs=1, workers=0, resume=bool(sys.argv[1:])")
    program.write_text(program.read_text().replace("evaluate=False, ", ""))
    run = Run([sys.executable, program], place)
    run.until("scoring")
    run.send(signal.SIGTERM)
    run.ends(75, "repeat the command with --resume", within=10)
    (place / "again").touch()
    Run([sys.executable, program, "resume"], place).ends(0, "trained")


@scenario(limit=200)
def killed_and_resumed(place: Path) -> None:
    """kill -9 in an epoch: the resumed run is the uninterrupted one, to the last bit."""
    options = ["--epochs", "8", *LONG[2:]]
    Run(command(place, *options, out="whole"), place).ends(0)
    run = Run(command(place, *options), place)
    run.trains(11)
    run.send(signal.SIGKILL)
    assert run.process.wait(10) == -9
    Run(command(place, *options, "--resume"), place).ends(0)
    weights = [(place / out / "encoder.safetensors").read_bytes() for out in ("whole", "run")]
    assert weights[0] == weights[1]


@scenario(limit=200)
def lost_rank(place: Path) -> None:
    """One of two processes of a training is killed: the other ends in words, exit 75."""
    options = [*LONG, "--accelerator", "cpu", "--devices", "2", "--workers", "1"]
    run = Run(command(place, *options), place)
    run.trains(3)
    os.kill(second_rank(run), signal.SIGKILL)
    run.ends(75, "--resume", within=60)


def second_rank(run: Run) -> int:
    """The process that trains beside the first one, known by its rank."""
    for child in run.children:
        if b"\0LOCAL_RANK=1\0" in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
            return child
    raise AssertionError("no second rank")


# limits --------------------------------------------------------------------------------------


@scenario(limit=300)
def few_descriptors(place: Path) -> None:
    """`ulimit -n` of 32, 40 and 64: it trains with fewer processes, or says what it lacks."""
    import resource

    for count in (32, 40, 64):

        def limit(count: int = count) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

        options = ["--epochs", "2", "--workers", "8", "--overwrite"]
        run = Run(command(place, *options), place, limit)
        code = run.process.wait(100)
        assert "Traceback" not in run.said, run.said
        assert code == 0 or (code in (1, 2, 75) and "ulimit" in run.said), f"{code}:\n{run.said}"
        if code == 0 and count < 64:
            assert "instead of 8" in run.said, run.said


@scenario(limit=300, root=True)
def few_processes(place: Path) -> None:
    """Few processes and threads (`ulimit -u`): it trains with fewer, or says what it lacks."""
    images(place)
    os.chmod(place, 0o777)
    rights = "+dac_override,+dac_read_search"  # to read this Python, wherever it is
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]  # root has no limit
    nobody += [f"--inh-caps={rights}", f"--ambient-caps={rights}", "prlimit"]
    options = ["--epochs", "1", "--workers", "12", "--overwrite"]
    for count in (1, 10):
        run = Run([*nobody, f"--nproc={count}", *command(place, *options)], place)
        code = run.process.wait(100)
        assert "Traceback" not in run.said, run.said
        if code == 0:
            assert "instead of 12: no more can be started" in run.said, run.said
        else:
            assert code == 1, run.said
            assert "raise `ulimit -u`" in run.said, run.said


# all of them ---------------------------------------------------------------------------------


def staged(one: Scenario) -> tuple[bool, float, str]:
    """Run a scenario; whether it was survived, in how many seconds, and what was wrong."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        os.chmod(folder, 0o755)
        process = subprocess.Popen(
            [sys.executable, __file__, "--stage", one.name, folder],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code = process.wait(one.limit)
            why = ""
        except subprocess.TimeoutExpired:
            code, why = 1, f"not over after {one.limit:g} s; "
        left = _group(process.pid)
        if left:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            why += "" if why else "it left processes behind; "
        said.seek(0)
        why += said.read().decode(errors="replace") if code else ""
    return not why, time.monotonic() - begun, why


def _group(leader: int) -> bool:
    """Whether a process group still has members, after a moment to end."""
    for _ in range(50):
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


def main() -> int:
    """Stage those that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true", help="name them, stage none")
    parser.add_argument("--jobs", type=int, default=2, help="how many are staged at a time")
    parser.add_argument("--out", type=Path, help="Markdown file for the result")
    parser.add_argument("--stage", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    known = {s.name: s for s in SCENARIOS}
    if asked.stage:
        known[asked.stage[0]].stage(Path(asked.stage[1]))
        return 0
    if unknown := [n for n in asked.names if n not in known]:
        parser.error(f"no scenario {unknown[0]}; --list names them")
    chosen = [known[n] for n in asked.names] if asked.names else SCENARIOS
    width = max(len(s.name) for s in chosen)
    if asked.list:
        for one in chosen:
            print(f"{one.name:<{width}}  {one.about}")
        return 0
    able = [one for one in chosen if not (one.root and os.geteuid())]
    begun, rows, survived = time.monotonic(), [], 0
    with ThreadPoolExecutor(asked.jobs) as jobs:
        for one, (good, seconds, why) in zip(able, jobs.map(staged, able)):
            survived += good
            word = "survived" if good else "FAILED"
            rows.append(f"| `{one.name}` | {one.about} | {seconds:.0f} | {word} |")
            print(f"{one.name:<{width}}  {word:<8}  {seconds:6.1f} s  {one.about}")
            if why:
                print(textwrap.indent(why.strip()[-3000:], "    "))
            sys.stdout.flush()
    for one in chosen:
        if one not in able:
            rows.append(f"| `{one.name}` | {one.about} | | not staged: it needs root |")
            print(f"{one.name:<{width}}  not staged: it needs root")
    said = f"{survived} of {len(able)} survived"
    print(f"{said}, in {time.monotonic() - begun:.0f} s")
    if asked.out:
        asked.out.write_text(_page(said, time.monotonic() - begun, rows), encoding="utf-8")
    return int(survived < len(able))


def _page(said: str, seconds: float, rows: list[str]) -> str:
    from machine import describe, sentence

    words = " ".join(sys.argv[1:])
    return f"""# Faults

    python benchmarks/faults.py {words}

{sentence(describe())}

**{said}**, in {seconds:.0f} s. Seconds are of the whole scenario, of which several processes may be
part; every process begins with seconds of imports.

| scenario | what is staged, and must come of it | s | |
| --- | --- | ---: | --- |
{chr(10).join(rows)}
"""


if __name__ == "__main__":
    import faults  # the one module that both files add their scenarios to; this one is __main__
    import faults_folder  # noqa: F401

    sys.exit(faults.main())
