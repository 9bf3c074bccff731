"""Whatever may happen to a run from outside: signals, kills, full disks, odd files, wrong words.

Runs are those of the command line. What needs a process of its own is one, `python -m selftaught`;
the rest calls `main` here, which spares seconds of imports.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from selftaught import evaluate
from selftaught.cli import main
from selftaught.data import quarantine
from selftaught.engine import plan as engine
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.run import Run
from selftaught.errors import Interrupted, TrainingError
from tests.children import other_children
from tests.test_engine import Killed, curve, killed_after, make, photos, train

SMALL = ["--backbone", "test_resnet", "--size", "32", "--batch", "8", "--precision", "fp32"]
PAPER = ["--recipe", "paper"]
STEPS = 40
LONG = ["--epochs", "8", "--log-every", "1", "--save-every", "0.002", "--workers", "2"]
QUEUE = ["moco_v2", "--dim", "16", "--queue", "12"]
TARGET = ["byol", "--hidden", "32", "--dim", "16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """40 photos in two classes."""
    place = tmp_path_factory.mktemp("data") / "phötos"
    for i, pixels in enumerate(photos(40)):
        file = place / "ab"[i % 2] / f"{i:02}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return place


def words(method: Sequence[str], data: Path, out: Path, *more: str) -> list[str]:
    return ["pretrain", method[0], str(data), *method[1:], *SMALL, "--out", str(out), *more]


def start(arguments: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """`python -m selftaught` in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "selftaught", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        start_new_session=True,
    )


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int) -> None:
    """Until a checkpoint of `step` or later is in the run folder."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1]
        if any(int(f.stem.split("-")[1]) >= step for f in out.glob("checkpoints/step-*.pt")):
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} never came")


def ended(process: subprocess.Popen[str], seconds: int = 240) -> tuple[int, str]:
    """Exit code and standard error; nothing of the process group may be left.

    seconds: after which it hangs. Two processes that share two cores with five others needed 90.
    """
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as late:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        raise AssertionError(f"it did not end within {seconds} s: {errors}") from late
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return process.returncode, errors
        time.sleep(0.1)
    raise AssertionError("it left processes behind")


def assert_same(a: Any, b: Any, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def last(out: Path) -> dict[str, Any]:
    state = Checkpoints(out / "checkpoints").load()
    assert state is not None
    return state


# stopped and killed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "stops"),
    [
        (QUEUE, [(signal.SIGUSR1, 75), (signal.SIGKILL, -9)]),
        (TARGET, [(signal.SIGINT, 130), (signal.SIGKILL, -9)]),
    ],
    ids=["queue", "target"],
)
def test_a_run_that_is_stopped_again_and_again_is_the_uninterrupted_run(
    method, stops, folder, tmp_path
):
    options = [*LONG, "--no-evaluate"]
    assert main(words(method, folder, tmp_path / "whole", *options)) == 0
    out, resume = tmp_path / "run", []
    for turn, (number, code) in enumerate(stops):
        process = start(words(method, folder, out, *options, *resume))
        resume = ["--resume"]
        wait_for_step(process, out, 15 * turn + random.randint(3, 12))
        begun = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # a terminal sends it to all processes
        else:
            process.send_signal(number)
        found, errors = ended(process)
        assert found == code, errors
        assert "Traceback" not in errors
        if number != signal.SIGKILL:
            assert time.monotonic() - begun < 10
            assert "saved; repeat the command with --resume to go on" in errors
    assert main(words(method, folder, out, *options, "--resume")) == 0
    assert curve(out) == curve(tmp_path / "whole")
    assert [int(r["step"]) for r in curve(out)] == list(range(1, STEPS + 1))
    assert_same(last(out), last(tmp_path / "whole"))


def test_a_second_signal_ends_at_once():
    script = """
import os, signal
from selftaught.engine.signals import StopSignals
with StopSignals() as signals, signals.deferred():
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.received == signal.SIGTERM
    os.kill(os.getpid(), signal.SIGINT)
    print("still here")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_hangup_stops_a_run_unless_it_is_to_be_survived():
    script = """
import os, signal
from selftaught.engine.signals import StopSignals
for handler in (signal.SIG_DFL, signal.SIG_IGN):  # nohup ignores it
    signal.signal(signal.SIGHUP, handler)
    with StopSignals() as signals:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            print("goes on")
        except KeyboardInterrupt:
            print("stops", signals.exit_code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.split("\n")[:2], done.stderr) == (["stops 129", "goes on"], "")


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "2> >(head -c 1 > /dev/null)"])
def test_a_run_outlives_who_reads_what_it_says(closed, folder, tmp_path):
    command = words(TARGET, folder, tmp_path / "run", "--epochs", "1", "--workers", "0")
    line = f"{sys.executable} -m selftaught {' '.join(map(str, command))} {closed}"
    done = subprocess.run(["bash", "-c", line], timeout=120)
    assert done.returncode == 0
    assert (tmp_path / "run" / "encoder.safetensors").exists()


def on_second_epoch(method, act):
    """`method`, whose second look at the whole dataset is disturbed by `act`."""
    seen = []

    def on_epoch(self, corpus):
        seen.append(1)
        if len(seen) == 2:
            read = corpus.watch

            def watch(item):
                act()
                read(item)

            corpus.watch = watch
        return type(self).on_epoch(self, corpus)

    method.on_epoch = MethodType(on_epoch, method)
    return method


CLUSTERED = ("deepcluster", "sela", "pcl")
"""Methods that look at the whole dataset before their second epoch."""


def kill_a_worker() -> None:
    for child in other_children():
        child.kill()
        child.join()


def stop_the_run() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize(
    ("name", "act", "workers", "message"),
    [
        ("deepcluster", kill_a_worker, 1, "died or hung .*saved at step 3"),
        *((n, stop_the_run, 0, "stopped at step 3 of 9 and saved") for n in CLUSTERED),
    ],
)
def test_what_comes_while_images_are_clustered_loses_nothing(name, act, workers, message, tmp_path):
    def fresh():
        method = make(name)
        if name == "pcl":  # begins with the second epoch
            method.cluster_start = 1 / 3
        return method

    whole = train(tmp_path / "whole", method=fresh(), epochs=3)
    with pytest.raises(Interrupted, match=message) as caught:
        train(tmp_path / "run", method=on_second_epoch(fresh(), act), workers=workers, epochs=3)
    assert caught.value.exit_code == 75
    resumed = train(tmp_path / "run", method=fresh(), epochs=3, resume=True).state_dict()
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    assert all(torch.equal(x, resumed[key]) for key, x in whole.state_dict().items())


@pytest.mark.usefixtures("unfinished")
def test_methods_know_how_far_training_is_when_an_epoch_begins(tmp_path):
    method, seen = make("deepcluster"), []

    def on_epoch(self, corpus):
        seen.append(self.progress)
        return type(self).on_epoch(self, corpus)

    method.on_epoch = MethodType(on_epoch, method)
    train(tmp_path / "run", method=method, epochs=4)
    assert seen == [0, 0.25, 0.5, 0.75]


def test_a_run_that_is_stopped_after_its_last_step_is_finished_by_resuming(
    folder, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    command = words(TARGET, folder, out, "--epochs", "1", "--workers", "0")

    def stopped(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "compare", stopped)
        assert main(command) == 75
    assert f"what is done is in {out}: repeat the command with --resume" in capsys.readouterr().err
    assert last(out)["step"] == 5
    assert not (out / "report.html").exists()
    assert main([*command, "--resume"]) == 0
    assert (out / "report.html").exists()
    assert (out / "scores.json").exists()
    assert main([*command, "--resume"]) == 2
    assert "is finished (5 steps); to extend it" in capsys.readouterr().err


def test_a_signal_before_the_first_step_is_told(tmp_path, monkeypatch):
    def stopped(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "estimate", stopped)
        with pytest.raises(Interrupted, match="with --resume to go on") as caught:
            train(tmp_path / "run")
    assert caught.value.exit_code == 75
    train(tmp_path / "run", resume=True)
    assert len(curve(tmp_path / "run")) == 6


def test_an_extension_that_is_killed_before_its_first_checkpoint_resumes(tmp_path):
    train(tmp_path / "run")
    with pytest.raises(Killed):
        train(tmp_path / "run", method=killed_after(make(), 1), resume=True, epochs=3)
    train(tmp_path / "run", resume=True, epochs=3)
    assert [int(r["step"]) for r in curve(tmp_path / "run")] == list(range(1, 10))


# disks --------------------------------------------------------------------------------------------


def filled_after(method, steps: int, act):
    def after_step(self):
        type(self).after_step(self)
        steps_done.append(1)
        if len(steps_done) == steps:
            act()

    steps_done: list[int] = []
    method.after_step = MethodType(after_step, method)
    return method


def test_a_disk_that_fills_up_ends_the_run_and_keeps_the_last_checkpoint(tmp_path, disk, caplog):
    whole = train(tmp_path / "whole", save_every=0)
    size = Checkpoints(tmp_path / "whole" / "checkpoints").path(6).stat().st_size
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"step 5 could not be written: .*File too large"):
        train(out, method=filled_after(make(), 4, lambda: disk(size // 2)), save_every=0)
    assert "step 4 could not be written" in caplog.text
    assert "the one of step 3 is intact, training goes on" in caplog.text
    assert not list(out.rglob("*.tmp"))
    disk(resource.RLIM_INFINITY)
    resumed = train(out, resume=True, save_every=0)
    assert curve(out) == curve(tmp_path / "whole")
    assert_same(dict(resumed.state_dict()), dict(whole.state_dict()))


# TensorBoard's own thread dies of the same disk, now or a moment later
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_else_cannot_be_written_ends_the_run_in_words(folder, tmp_path, disk, capsys):
    command = words(TARGET, folder, tmp_path / "run", "--workers", "0", "--log-every", "1")
    for size, code in ((200, 2), (20_000, 1)):  # no room for the settings, none for the views
        disk(size)
        assert main(command) == code
        errors = capsys.readouterr().err
        assert "cannot be written (File too large)" in errors
        command = [*command, "--overwrite"]


def test_too_little_space_is_told_before_the_first_step(folder, tmp_path, monkeypatch, capsys):
    usage = type("", (), {"free": 2**20})
    monkeypatch.setattr(engine.shutil, "disk_usage", lambda _: usage)
    assert main(words(TARGET, folder, tmp_path / "run")) == 2
    assert "1 MiB of space left; three checkpoints need about" in capsys.readouterr().err


# odd files ----------------------------------------------------------------------------------------


def odd_files(place: Path) -> None:
    """Images of every mode, and files that are none."""
    rng = np.random.default_rng(0)
    color = Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    place.mkdir()
    for mode in ("L", "LA", "P", "1", "RGBA", "I;16"):
        image = Image.fromarray(rng.integers(0, 2**16, (40, 48), dtype=np.uint16))
        (image if mode == "I;16" else color.convert(mode)).save(place / f"{mode[:2]}.png")
    color.convert("CMYK").save(place / "cmyk.jpg")
    color.resize((1, 1)).save(place / "one.png")
    color.resize((400, 3)).save(place / "flat.png")
    color.save(place / "moving.gif", save_all=True, append_images=[color.rotate(90)])
    color.save(place / "grün \n.webp")
    color.save(place / "deflate.tiff", compression="tiff_deflate")
    exif = Image.Exif()
    exif[0x0112] = 6
    color.save(place / "turned.jpg", exif=exif)
    (place / "loop").symlink_to(place)
    (place / "nowhere.jpg").symlink_to(place / "gone.jpg")
    # and what cannot be read
    whole = {f: (place / f).read_bytes() for f in ("turned.jpg", "RG.png", "deflate.tiff")}
    (place / "x-empty.jpg").write_bytes(b"")
    (place / "x-text.jpg").write_text("no image")
    (place / "x-half.jpg").write_bytes(whole["turned.jpg"][:900])
    (place / "x-head.png").write_bytes(whole["RG.png"][:20])
    (place / "x-half.png").write_bytes(whole["RG.png"][:2000])
    damaged = bytearray(whole["RG.png"])
    damaged[len(damaged) // 2] ^= 255
    (place / "x-crc.png").write_bytes(damaged)
    (place / "x-half.tiff").write_bytes(whole["deflate.tiff"][:300])
    damaged = bytearray(whole["deflate.tiff"])
    damaged[20:200] = bytes(180)
    (place / "x-data.tiff").write_bytes(damaged)
    huge = bytearray(whole["RG.png"])
    huge[16:24] = b"\0\0\x75\x30" * 2  # 30,000 x 30,000, so its header says
    (place / "x-huge.png").write_bytes(huge)


def test_a_folder_of_odd_files_is_checked_refused_and_trained_on(tmp_path, capfd):
    given = os.environ.get("SELFTAUGHT_NASTY")
    place = Path(given) if given else tmp_path / "odd"
    if not given:
        odd_files(place)
    assert main(["check", str(place), "--out", str(tmp_path / "checked"), "--workers", "2"]) == 0
    listed = quarantine.load(tmp_path / "checked" / quarantine.FILE)
    if not given:
        assert {n for n in listed if not n.startswith("x-")} == set()
        assert len(listed) == 9
    capfd.readouterr()

    command = words(TARGET, place, tmp_path / "refused", "--epochs", "4", "--workers", "2")
    assert main(command) == 3
    out, errors = capfd.readouterr()
    assert "images cannot be read, more than --max-bad allows; the first:\n  " in errors
    assert not noise(errors)

    command = words(TARGET, place, tmp_path / "run", "--epochs", "4", "--max-bad", "0.6")
    assert main([*command, "--workers", "2"]) == 0
    out, errors = capfd.readouterr()
    assert not noise(errors + out)
    met = quarantine.load(tmp_path / "run" / quarantine.FILE)
    assert met
    assert met.keys() <= listed.keys()

    command = words(TARGET, place, tmp_path / "clean", "--epochs", "1", "--workers", "2")
    assert main([*command, "--quarantine", str(tmp_path / "checked" / quarantine.FILE)]) == 0
    assert not (tmp_path / "clean" / quarantine.FILE).exists()


def noise(text: str) -> list[str]:
    """Lines that a C library wrote past us."""
    signs = ("TIFF", "libpng", "jpeg:", "Warning:", "Corrupt", "Premature", "Traceback")
    return [line for line in text.splitlines() if any(s in line for s in signs)]


def test_a_dataset_without_a_single_image_is_an_error(tmp_path, capsys):
    for i in range(10):
        (tmp_path / f"{i}.jpg").write_text("no image")
    for more in ([], ["--max-bad", "1"]):
        assert main(words(TARGET, tmp_path, tmp_path / "run", "--overwrite", *more)) == 3
        assert "none of 10 images that were looked at can be used" in capsys.readouterr().err


# wrong words --------------------------------------------------------------------------------------


def test_what_cannot_work_is_one_sentence_before_anything_is_done(folder, tmp_path, capsys):
    single, few, other, file = (tmp_path / n for n in ("single", "few", "other", "file"))
    (tmp_path / "empty").mkdir()
    for place, count in ((single, 1), (few, 5)):
        place.mkdir()
        for i in range(count):
            Image.fromarray(photos(1)[0]).save(place / f"{i}.png")
    other.mkdir()
    (other / "run.yaml").write_text("method: byol\n")
    file.write_text("")
    (tmp_path / "typed.yaml").write_text("method: byol\ntraining: {epochs: many}\n")
    (tmp_path / "keyed.yaml").write_text("method: byol\ntraining: {epohcs: 3}\n")
    out, data = str(tmp_path / "out"), str(folder)
    vit = ["--backbone", "test_vit"]
    cases: list[tuple[list[str], str]] = [
        (["byol", str(tmp_path / "empty")], "holds no images"),
        (["byol", str(folder) + "x"], "does not exist: did you mean"),
        (["byol", str(single), *SMALL], "2 at least, and there is 1: add images"),
        (["byol", str(few), *SMALL], "5 images are fewer than a batch of 8; use --batch 5"),
        (
            ["moco_v2", data, *SMALL, *PAPER],
            "a queue of 65536 embeddings is longer than the dataset of 40",
        ),
        (["mae", data, *SMALL], "test_resnet"),
        (["mae", data, *vit, "--size", "17", "--batch", "8"], "no multiple of; use size 16"),
        (["moco_v9", data], "did you mean"),
        (["byol", data, "--epohcs", "3"], "did you mean --epochs"),
        (["byol", data, "--config", str(tmp_path / "typed.yaml")], "training.epochs must be"),
        (["byol", data, "--config", str(tmp_path / "keyed.yaml")], "did you mean epochs"),
        (["byol", data, *SMALL, "--out", "/proc/none/run"], "another folder with --out"),
        (["byol", data, *SMALL, "--out", str(file)], "is a file; name a folder with --out"),
        (["byol", data, *SMALL, "--out", str(file / "run")], "is a file"),
        (["byol", data, *SMALL, "--out", str(other)], "is not empty: continue that run with"),
        (["byol", data, *SMALL, "--labels", "none.csv"], "none.csv is neither a file"),
        (["byol", data, *SMALL, "--test", str(tmp_path / "none")], "none does not exist"),
        (["byol", str(few), "--test", data, "--batch", "4"], "--test needs labels in the training"),
        (["byol", data, *SMALL, "--test", str(few)], "has no labels"),
        (["byol", data, *SMALL, "--weight-decay", "-1"], "--weight-decay must be at least 0"),
        (["byol", data, *SMALL, "--epochs", "0"], "--epochs must be at least 1"),
        (["byol", data, *SMALL, "--lr", "nan"], "lr"),
        (["byol", data, *SMALL, "--batch", "9", "--devices", "2"], "split evenly over 2 processes"),
        (["byol", data, *SMALL, "--resume"], "holds no run to resume"),
    ]
    for arguments, message in cases:
        if "--out" not in arguments:
            arguments = [*arguments, "--out", out]
        code = main(["pretrain", *arguments])
        errors = capsys.readouterr().err
        assert (code, message in errors) == (2, True), (arguments, code, errors)
        assert errors.startswith("error: "), errors
        assert len(errors.splitlines()) == 1, errors
    assert not Path(out).exists()


# sizes and places ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize(
    ("method", "count", "batch", "steps"),
    [
        ("simclr", 8, 8, 2),  # the batch is the dataset
        ("byol", 13, 4, 6),  # an image is left over
        ("moco_v2", 24, 8, 6),  # a queue of 12 takes one and a half batches
        ("swav", 9, 8, 2),
        ("deepcluster", 8, 8, 2),
    ],
)
def test_sizes_that_do_not_divide_train_and_resume(method, count, batch, steps, tmp_path):
    options = {"data": photos(count), "batch": batch, "save_every": 0}
    train(tmp_path / "whole", method=make(method, count), **options)
    dying = killed_after(make(method, count), steps - 1)
    with pytest.raises(Killed):
        train(tmp_path / "run", method=dying, **options)
    train(tmp_path / "run", method=make(method, count), resume=True, **options)
    assert len(curve(tmp_path / "run")) == steps
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


OFFLINE = """
import socket, sys
def refuse(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise AssertionError(f"it connects to {address}")
    return real(self, address)
real, socket.socket.connect = socket.socket.connect, refuse
from selftaught.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_bare_environment_is_enough_and_nothing_is_written_elsewhere(folder, tmp_path):
    """python -O, no locale, no home, no network, data that is only read."""
    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    for path in (*before, folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    here = os.environ
    environment = {k: here[k] for k in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if k in here}
    environment |= {k: str(tmp_path / "home") for k in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    command = words(TARGET, folder, tmp_path / "run", "--epochs", "1", "--workers", "2")
    done = subprocess.run(
        [sys.executable, "-O", "-c", OFFLINE, *command],
        capture_output=True,
        cwd=tmp_path / "cwd",
        env=environment | {"LC_ALL": "C", "OMP_NUM_THREADS": "1"},
    )
    for path in (*before, folder):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "scores.json").exists()
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert not list((tmp_path / "home").iterdir())
    assert not list((tmp_path / "cwd").iterdir())


def test_training_leaves_the_process_as_it_was(tmp_path):
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    train(tmp_path / "run", workers=1)
    after = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    assert after == handlers
    assert "selftaught" not in getattr(signal.getsignal(signal.SIGCHLD), "__module__", "")
    assert other_children() == []
    assert torch.tensor(5e-324, dtype=torch.float64) * 1 > 0  # values next to zero are values
