"""A run folder and what surrounds it: one writer, memory and disks that run out, odd files."""

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from multiprocessing import synchronize
from pathlib import Path
from types import MethodType

import numpy as np
import pytest
import torch
from PIL import Image

from selftaught.cli import main
from selftaught.engine import checkpoint, lock
from selftaught.engine import run as engine
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.memory import Remembered, advice, fitting
from selftaught.errors import Interrupted, TrainingError, UserError
from selftaught.export import files
from tests.test_engine import Killed, curve, make, photos, train
from tests.test_faults import TARGET, assert_same, last, start, wait_for_step, words

TORCH = (
    "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("data") / "photos"
    for i, pixels in enumerate(photos(40)):
        file = place / "ab"[i % 2] / f"{i:02}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return place


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory) -> Path:
    """A run that has ended."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(words(TARGET, images, out, "--epochs", "1", "--workers", "0")) == 0
    return out


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


# memory -------------------------------------------------------------------------------------------


def failing_at(method, step: int, where: str, error: Exception):
    """`method`, whose `where` fails once in the middle of the step after `step` whole ones.

    Before it fails, it has drawn random numbers and changed its buffers, as a step does.
    """
    seen = []

    def act(self, *given):
        if self is method:
            seen.append(1)
            if len(seen) == step + 1:
                torch.rand(3), np.random.rand(2)
                if where == "loss":
                    type(self).loss(self, *given)
                raise error
        return getattr(type(self), where)(self, *given)

    setattr(method, where, MethodType(act, method))
    return method


ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
    RuntimeError(TORCH),
    OSError(12, "Cannot allocate memory"),
)


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        *(("simclr", error) for error in ERRORS),
        *((name, MemoryError()) for name in ("moco_v2", "barlow_twins", "mae")),
    ],
)
def test_memory_that_runs_out_in_a_step_saves_the_last_whole_one(name, error, tmp_path):
    whole = train(tmp_path / "whole", name)
    with pytest.raises(Interrupted, match=r"memory ran out at step 5 of 6") as caught:
        train(tmp_path / "run", method=failing_at(make(name), 4, "loss", error))
    assert caught.value.exit_code == 75
    said = str(caught.value)
    assert "saved at step 4" in said
    assert "--resume --force" in said
    assert "--batch 4" in said
    assert "another run" in said
    resumed = train(tmp_path / "run", name, resume=True)
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    assert_same(dict(resumed.state_dict()), dict(whole.state_dict()))


def test_memory_that_runs_out_in_the_optimizers_step_keeps_the_checkpoint_before(tmp_path):
    whole = train(tmp_path / "whole")
    method = failing_at(make(), 4, "after_step", MemoryError())
    with pytest.raises(Interrupted, match="saved at step 4"):
        train(tmp_path / "run", method=method, save_every=0)
    late = failing_at(make(), 1, "after_step", MemoryError())
    with pytest.raises(Interrupted, match="Nothing was saved yet: --overwrite"):
        train(tmp_path / "early", method=late)
    resumed = train(tmp_path / "run", resume=True)
    assert_same(dict(resumed.state_dict()), dict(whole.state_dict()))


@pytest.mark.usefixtures("unfinished")
def test_what_is_advised_works(tmp_path):
    for name, words_ in (
        ("simclr", {"batch": 4, "effective_batch": 8}),
        ("mae", {"accumulate": 2}),
    ):
        out = tmp_path / name
        with pytest.raises(Interrupted) as caught:
            train(out, method=failing_at(make(name), 4, "loss", MemoryError()))
        said = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in words_.items())
        assert f"--resume --force {said} computes" in str(caught.value)
        train(out, name, resume=True, force=True, **words_)
        assert len(curve(out)) == 6


@pytest.mark.parametrize("phase", ["estimate", "finish"])
def test_memory_that_runs_out_elsewhere_is_told(phase, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError(TORCH)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Run, phase, fail)
        with pytest.raises(Interrupted, match=r"memory ran out.*--resume") as caught:
            train(tmp_path / "run")
    assert caught.value.exit_code == 75
    train(tmp_path / "run", resume=True)
    assert len(curve(tmp_path / "run")) == 6


def test_the_batch_that_fits_follows_from_what_was_measured():
    from selftaught.engine.estimate import Estimate

    need = Estimate(memory=100 + 64 * 10, seconds=0, flops=0, each=10)
    assert fitting(64, need, 800) == 32  # it should have fitted: halved
    assert fitting(64, need, 430) == 32
    assert fitting(64, need, 270) == 16
    assert fitting(64, need, 10) == 1
    assert fitting(64, need, 10, least=8) == 8
    assert fitting(64, None, None) == 32
    assert "--accumulate 8 " in advice(256, 2, 128, 32, False, False, True)
    assert "--batch 64 would" in advice(256, 2, 128, 32, False, False, True)
    assert "no smaller part" in advice(2, 1, 2, 2, True, False, True)


def test_a_process_that_may_take_little_memory_ends_in_words(images, tmp_path):
    """Half a gigabyte more than it has when the fifth step begins, of which it wants two."""
    script = """
import resource, sys
from pathlib import Path
import torch
from selftaught.cli import main
from selftaught.methods.distillation.byol import BYOL
before, seen = BYOL.after_step, []
def after_step(self):
    before(self)
    seen.append(1)
    if len(seen) == 4:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 2**29,) * 2)
        real = type(self).loss
        type(self).loss = lambda self, batch: (torch.ones(2**29), real(self, batch))[1]
BYOL.after_step = after_step
sys.exit(main(sys.argv[1:]))
"""
    command = words(TARGET, images, tmp_path / "run", "--workers", "0", "--epochs", "2")
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, command)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 75, done.stderr
    assert "Traceback" not in done.stderr
    assert "memory ran out at step 5 of 10" in done.stderr
    assert "saved at step 4" in done.stderr
    assert last(tmp_path / "run")["step"] == 4


def test_other_commands_that_need_too_much_say_so(run, images, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError(TORCH)

    monkeypatch.setattr(torch.nn.Module, "__call__", fail)
    assert main(["evaluate", str(run), str(images), "--workers", "0"]) == 1
    assert capsys.readouterr().err.startswith("error: memory ran out")


def test_what_a_step_changes_is_put_back():
    method = make("moco_v2")
    memory = Remembered(method, torch.device("cpu"))
    before = {n: b.clone() for n, b in method.named_buffers()}
    memory.keep()
    drawn = torch.rand(3)
    for buffer in method.buffers():
        buffer.zero_()
    memory.put_back()
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(b, before[n]) for n, b in method.named_buffers())


# one writer ---------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_the_first_is(images, tmp_path, capsys):
    out = tmp_path / "run"
    command = words(TARGET, images, out, "--epochs", "400", "--save-every", "0.002")
    first = start([*map(str, command), "--workers", "2"])
    try:
        wait_for_step(first, out, 2)
        for more in (["--resume"], ["--overwrite"]):
            assert main([*command, *more]) == 2
            said = capsys.readouterr().err
            assert f"{out} is in use: process {first.pid} on " in said
            assert len(said.splitlines()) == 1
        assert not (tmp_path / "run.old-1").exists()
        assert main(["report", str(out)]) == 0  # looking is free
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    lock.claim(out)  # the kernel has taken it back, although its children may live on for seconds
    lock.release(out)
    assert not (out / lock.FILE).exists()


def test_a_run_that_ends_or_fails_leaves_no_lock(finished, images, tmp_path, capsys):
    assert not (finished / lock.FILE).exists()
    command = words(TARGET, images, finished, "--epochs", "1")
    for more, code in (([], 2), (["--resume"], 2), (["--resume", "--lr", "1"], 2)):
        assert main([*command, *more]) == code
        assert not (finished / lock.FILE).exists()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def refuse(handle):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "lock", refuse)
    train(tmp_path / "run")
    assert "has no locks (Operation not supported)" in caplog.text
    assert not (tmp_path / "run" / lock.FILE).exists()


def test_a_child_that_was_forked_holds_no_lock(tmp_path):
    lock.claim(tmp_path)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.read(reading, 1)
        os._exit(0)
    lock.release(tmp_path)
    lock.claim(tmp_path)  # while the child lives
    lock.release(tmp_path)
    os.write(writing, b"x")
    os.waitpid(child, 0)


def test_a_lock_of_a_dead_process_is_none(tmp_path):
    (tmp_path / lock.FILE).write_text("1 elsewhere\n")
    lock.claim(tmp_path)
    with pytest.raises(UserError, match=f"process {os.getpid()} on"):
        lock.claim(tmp_path)
    lock.release(tmp_path)


# disks --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("module", ["export.save", "report.write"])
def test_a_disk_that_is_full_after_training_exits_1_and_is_resumed(
    module, images, tmp_path, disk, monkeypatch, capsys
):
    command = words(TARGET, images, tmp_path / "run", "--epochs", "1", "--workers", "0")
    room, name = module.split(".")
    real = getattr(getattr(engine, room), name)

    def full(*given, **more):
        disk(100)
        return real(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(getattr(engine, room), name, full)
        assert main(command) == 1
    disk(resource.RLIM_INFINITY)
    said = capsys.readouterr().err
    assert "File too large" in said
    assert "--resume" in said.splitlines()[-1]
    assert not list((tmp_path / "run").rglob(".*"))
    assert main([*command, "--resume"]) == 0
    assert (tmp_path / "run" / "report.html").exists()


def test_a_full_disk_at_export_is_no_bad_argument(run, tmp_path, disk, capsys):
    disk(100)
    assert main(["export", str(run), "--to", "safetensors", "--out", str(tmp_path / "e")]) == 1
    assert main(["report", str(run)]) == 1
    assert main(["embed", str(run), str(run), "--out", "/proc/none/x.npz"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_input_that_fails_after_the_first_step_is_no_bad_argument(tmp_path):
    method = failing_at(make(), 3, "loss", UserError("this cannot work"))
    with pytest.raises(TrainingError, match=r"this cannot work; then repeat .* --resume"):
        train(tmp_path / "run", method=method)
    method = failing_at(make(), 0, "views", UserError("nor can this"))
    with pytest.raises(UserError, match="nor can this"):
        train(tmp_path / "other", method=method)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/data/a.jpg"), "/data/a.jpg cannot be"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "ulimit -u"),
        (OSError(28, "No space left on device"), "run cannot be written"),
        (FileNotFoundError(2, "No such file or directory", "/gone/x"), "/gone/x cannot be"),
    ],
)
def test_what_the_system_refuses_is_blamed_on_what_it_is_about(error, message, tmp_path):
    with pytest.raises(TrainingError, match=message) as caught:
        train(tmp_path / "run", method=failing_at(make(), 3, "loss", error))
    assert "--resume" in str(caught.value)


# torch's loader is half made
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_shared_memory_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    method = make()
    monkeypatch.setattr(synchronize._multiprocessing, "SemLock", refuse)
    monkeypatch.setattr(method, "after_step", multiprocessing.Lock)
    with pytest.raises(TrainingError, match=r"/dev/shm.*Read-only file system"):
        train(tmp_path / "run", method=method)


# killed -------------------------------------------------------------------------------------------


def test_what_a_killed_process_was_writing_is_swept_away(run, images, capsys):
    before = {p.name for p in run.iterdir()}
    for name in ("encoder.json", "encoder.safetensors", "export-timm"):
        left = run / f".{name}.ab12_x9z" / name
        left.parent.mkdir()
        left.mkdir() if name == "export-timm" else left.write_bytes(b"half")
    for left in (".probe-123", "metrics.csv.tmp", "run.yaml.tmp", "checkpoints/step-000000009.tmp"):
        (run / left).write_bytes(b"x")
    kept = [".hidden", ".encoder.json.ab12_x9z.bak"]
    for name in kept:
        (run / name).write_text("mine")
    (run / ".notes.abcdefgh").mkdir()
    (run / ".notes.abcdefgh" / "other").write_text("mine")
    command = words(TARGET, images, run, "--epochs", "2", "--workers", "0", "--resume")
    assert main(command) == 0
    assert {p.name for p in run.iterdir()} == before | set(kept) | {".notes.abcdefgh"}
    assert not list(run.glob("checkpoints/*.tmp"))


def test_what_is_being_written_is_not_swept(tmp_path):
    with files.atomic(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
        script = "import sys; from pathlib import Path; from selftaught.export.files import sweep;"
        subprocess.run(
            [sys.executable, "-c", f"{script} sweep(Path(sys.argv[1]))", tmp_path], check=True
        )
        assert temporary.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_process_that_is_killed_while_it_exports_is_swept_by_the_next(run):
    script = f"""
import os
from pathlib import Path
from selftaught.export.files import atomic, whole_folder
with atomic(Path({str(run)!r}) / "encoder.json"), whole_folder(Path({str(run)!r}) / "export-x"):
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script])
    assert len(list(run.glob(".*"))) == 2
    with files.atomic(run / "encoder.json") as temporary:
        temporary.write_bytes((run / "encoder.json").read_bytes())
    assert [p.name[:10] for p in run.glob(".*")] == [".export-x."]
    files.sweep(run)
    assert not list(run.glob(".*"))


# checkpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sidecar", [None, "", "no checksum", "é"])
def test_a_checkpoint_without_a_checksum_is_verified_by_its_parts(sidecar, tmp_path, caplog):
    store = Checkpoints(tmp_path)
    store.save(1, {"x": torch.ones(300)})
    store.save(2, {"x": torch.zeros(300)})
    side = checkpoint.checksum(store.path(2))
    side.unlink() if sidecar is None else side.write_text(sidecar)
    assert torch.equal(store.load()["x"], torch.zeros(300))
    assert "has no checksum" in caplog.text
    content = bytearray(store.path(2).read_bytes())
    at = content.find(bytes(200))
    content[at + 100] ^= 1
    store.path(2).write_bytes(content)
    assert torch.equal(store.load()["x"], torch.ones(300))  # the one before


@pytest.mark.parametrize("at", range(12))
def test_a_power_cut_at_any_moment_leaves_a_whole_checkpoint(at, tmp_path, monkeypatch):
    """The process ends before its `at`-th call that changes what is on the disk."""
    store = Checkpoints(tmp_path)
    store.save(1, {"x": torch.ones(3)})
    calls = []

    def cut(real):
        def call(*given, **more):
            calls.append(real)
            if len(calls) > at:
                raise Killed
            return real(*given, **more)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (torch, "save")):
            patch.setattr(owner, name, cut(getattr(owner, name)))
        for step in (2, 2):
            try:
                store.save(step, {"x": torch.full((3,), float(step))})
            except Killed:
                break
    loaded = Checkpoints(tmp_path).load()
    assert loaded["x"][0] in (1, 2)
    assert "damaged" not in str(loaded)


def test_strangers_beside_checkpoints_are_passed_over(run, images, tmp_path, caplog):
    place = run / "checkpoints"
    (place / "step-xyz.pt").write_bytes(b"?")
    (place / "step-.pt").write_bytes(b"?")
    (place / "step-000000099.pt").mkdir()
    (place / "x.tmp").mkdir()
    torch.save({"model": torch.ones(3)}, place / "step-000000098.pt")
    torch.save([1, 2], place / "step-000000097.pt")
    command = words(TARGET, images, run, "--epochs", "2", "--workers", "0", "--resume")
    assert main(command) == 0
    assert "is no checkpoint of a training" in caplog.text
    assert "is no checkpoint: it holds a list" in caplog.text


def test_a_checkpoint_of_another_training_is_refused_in_words(run, images, capsys):
    store = Checkpoints(run / "checkpoints")
    state = store.load()
    state["method"] = {"other.weight": torch.ones(2)}
    state["step"] = 3
    shutil.rmtree(store.folder)
    store.save(3, state)
    assert main(words(TARGET, images, run, "--epochs", "1", "--workers", "0", "--resume")) == 1
    said = capsys.readouterr().err
    assert "is of another training than this one" in said
    assert len(said.splitlines()[-1]) < 600


def test_beginning_with_a_run_that_is_written_to_leaves_it_alone(run, images, tmp_path):
    half = run / "checkpoints" / "step-000000009.tmp"
    half.write_bytes(b"x")
    command = words(TARGET, images, tmp_path / "new", "--epochs", "1", "--workers", "0")
    assert main([*command, "--start", str(run)]) == 0
    assert half.exists()
