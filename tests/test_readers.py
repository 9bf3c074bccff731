"""Processes that read: what they hand over, and whatever may happen to one of them."""

import ctypes
import errno
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import faults
from selftaught.engine import signals
from selftaught.errors import DataError, UserError
from selftaught.evaluate.features import embed
from selftaught.feed import readers
from selftaught.feed.readers import Readers, Stuck, Unmade, limited
from tests.children import other_children

MAIN = os.getpid()


@pytest.fixture(autouse=True)
def _nobody_is_left():
    yield
    left = other_children()
    for child in left:
        child.kill()
        child.join()
    assert left == []
    assert not any("_run" in t.name for t in threading.enumerate())


@pytest.fixture(params=["memory", "socket"])
def way(request, monkeypatch):
    """Batches in memory without a name, or over the socket."""

    def none(_: str) -> int:
        raise OSError(errno.ENOSYS, "no such thing")

    if request.param == "socket":
        monkeypatch.setattr(os, "memfd_create", none, raising=False)


def square(key: int) -> dict[str, Any]:
    return {
        "image": torch.full((3, 40, 40), key % 256, dtype=torch.uint8),
        "index": torch.tensor([key, key * key]),
        "half": torch.full((key % 3, 2), key, dtype=torch.bfloat16),
        "turned": torch.arange(6.0).view(2, 3).T * key,
        "one": torch.tensor(bool(key % 2)),
        "rest": (np.arange(key), f"name {key}", None),
    }


def same(a: Any, b: Any) -> None:
    assert a.keys() == b.keys()
    for name in a.keys() - {"rest"}:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name])
    assert np.array_equal(a["rest"][0], b["rest"][0])
    assert a["rest"][1:] == b["rest"][1:]


def read(make: Callable[[int], Any], keys: Any = range(30), workers: int = 2) -> list[Any]:
    found = Readers(make, keys, workers)
    try:
        return list(found)
    finally:
        found.close()


def harmed(act: Callable[[], Any]) -> Callable[[int], Any]:
    """`square`, which does something else for key 5, in other processes alone."""

    def make(key: int) -> Any:
        if key == 5 and os.getpid() != MAIN:
            return act()
        return square(key)

    return make


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_is_made_comes_whole_and_in_order(workers, way):
    for key, found in enumerate(read(square, workers=workers)):
        same(found, square(key))


def test_common_generators_give_the_same_whichever_process_draws(way):
    def draw(_: int) -> tuple[float, float, float]:
        return random.random(), np.random.rand(), float(torch.rand(()))

    drawn = read(draw, workers=1)
    assert len(set(drawn)) == 30
    assert read(draw, workers=3) == drawn


def test_processes_are_kept_between_iterations_even_one_that_was_left(way):
    found = Readers(lambda key: (key, os.getpid()), range(20), 2)
    first = [next(iter(found)) for _ in range(3)]
    assert [key for key, _ in first] == [0, 0, 0]
    started = {child.pid for child in other_children()}
    whole = list(found)
    assert [key for key, _ in whole] == list(range(20))
    assert len(started) == 2
    assert {pid for _, pid in [*first, *whole]} <= started
    assert {child.pid for child in other_children()} == started
    found.close()
    assert [key for key, _ in found] == list(range(20))  # it can begin again
    found.close()


# frozen, killed, crashed ----------------------------------------------------------------------


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize(
    "act", [stop, lambda: ctypes.PyDLL(None).sleep(1000), lambda: time.sleep(1000)]
)
def test_one_that_hands_over_nothing_ends_the_wait(act):
    begun = time.monotonic()
    with limited(0.5), pytest.raises(Stuck, match=r"nothing for 0\.5 s.*--read-timeout") as caught:
        read(harmed(act))
    assert time.monotonic() - begun < 10
    assert caught.value.exit_code == 75


def test_one_that_stops_in_the_middle_of_a_message_ends_the_wait(monkeypatch):
    real = readers._send

    def half(pipe, number, head, parts, size):
        if number == 5:
            pipe.sendall(readers._HEAD.pack(number, 10**6, 0, False) + b"half of it")
            stop()
        real(pipe, number, head, parts, size)

    monkeypatch.setattr(readers, "_send", half)
    with limited(0.5), pytest.raises(Stuck, match=r"nothing for 0\.5 s"):
        read(square)


def test_while_one_is_frozen_others_are_asked_whether_to_wait(monkeypatch):
    def stopped() -> None:
        raise KeyboardInterrupt

    found = Readers(harmed(stop), range(30), 2)
    stream = iter(found)
    for _ in range(5):
        next(stream)
    found.waiting = stopped
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    found.close()
    assert time.monotonic() - begun < 5


def test_time_in_which_the_whole_program_was_stopped_does_not_count(monkeypatch):
    real = time.monotonic
    jumps = iter([0.0] * 3 + [1000.0] * 10**6)
    found = Readers(lambda key: time.sleep(0.5) or key, range(3), 1)
    found.limit = 5.0
    monkeypatch.setattr(readers.time, "monotonic", lambda: real() + next(jumps))
    assert list(found) == [0, 1, 2]
    found.close()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL.*lower --workers"),
        (lambda: ctypes.string_at(0), r"SIGSEGV; Fatal Python error: Seg.*test_readers.*check"),
        (lambda: os.abort(), "SIGABRT; Fatal Python error: Aborted.*selftaught check"),
        (lambda: os.write(2, b"no license\n") and os._exit(7), "exit code 7; no license"),
    ],
)
def test_one_that_dies_is_told_with_its_last_words(act, words):
    with pytest.raises(Stuck, match=words) as caught:
        read(harmed(act))
    assert "\n" not in str(caught.value)


def broken() -> None:
    raise ValueError("no such view")


def lacking() -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def refused() -> None:
    raise DataError("it is too broken")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("act", "kind", "words"),
    [
        (
            broken,
            Unmade,
            r"made: ValueError: no such view \(.*test_readers.py, line \d+, in broken",
        ),
        (lacking, Unmade, r"Too many open files.*ulimit -n"),
        (refused, DataError, "^it is too broken$"),
    ],
)
def test_what_is_raised_travels(act, kind, words, workers):
    def make(key: int) -> Any:
        return act() if key == 5 else square(key)

    with pytest.raises(kind, match=words) as caught:
        read(make, workers=workers)
    assert (
        caught.value.__cause__ is None
        or "in " + act.__name__ in str(caught.value.__cause__)
        or (workers == 0)
    )


def test_what_cannot_be_handed_over_is_told():
    with pytest.raises(Unmade, match=r"could not be made: .*lambda"):
        read(harmed(lambda: lambda: 0))


def test_they_leave_when_the_one_that_started_them_is_killed(tmp_path):
    script = """
import os, sys, time
from selftaught.feed.readers import Readers
found = Readers(lambda key: (time.sleep(0.01), os.getpid())[1], range(10**6), 3)
seen = set()
for pid in found:
    seen.add(pid)
    if len(seen) == 3:
        print(*seen, flush=True)
        os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    pids = [int(p) for p in done.stdout.split()]
    assert len(pids) == 3
    for _ in range(100):
        if not any(Path(f"/proc/{p}").exists() for p in pids):
            return
        time.sleep(0.1)
    raise AssertionError(f"{pids} are left")


# what the machine lacks ------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "words"), [(1, "one process reads"), (0, "this process reads")])
@pytest.mark.parametrize("error", [BlockingIOError(errno.EAGAIN, "try again"), MemoryError()])
def test_fewer_processes_than_asked_for_read_all_the_same(left, words, error, monkeypatch, caplog):
    asked: list[int] = []

    def room(count: int) -> None:
        asked.append(count)
        if len(asked) > left:
            raise error

    monkeypatch.setattr(readers, "_room", room)
    assert len(read(square, workers=4)) == 30
    assert f"{words} images" in caplog.text
    assert "instead of 4: no more can be started" in caplog.text


def test_without_a_thread_this_process_reads(monkeypatch, caplog):
    def start(self) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert len(read(square, workers=2)) == 30
    assert "can't start new thread" in caplog.text


def test_few_descriptors_are_shared_fairly(caplog):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used, limit = {int(f) for f in os.listdir("/proc/self/fd")}, 0
    while limit - len([f for f in used if f < limit]) < readers.SPARE + 14:
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        assert len(read(square, workers=16)) == 30
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "instead of 16: no more can be started (Too many open files)" in caplog.text


def test_a_small_dev_shm_is_told_and_not_used(monkeypatch, caplog):
    caplog.set_level("INFO", "selftaught")
    small = SimpleNamespace(f_bavail=2, f_frsize=4096)
    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda p: small if p == "/dev/shm" else real(p))
    before = set(os.listdir("/dev/shm"))
    assert len(read(square)) == 30
    assert set(os.listdir("/dev/shm")) == before
    assert caplog.text.count("/dev/shm has room for 0.0 MiB, less than") == 1


def test_a_missing_descriptor_does_not_blame_the_image(tmp_path, monkeypatch):
    def none(*_: Any, **__: Any) -> None:
        from selftaught.data import BadSample

        raise BadSample("cannot be read") from OSError(errno.EMFILE, "Too many open files")

    faults.images(tmp_path, 4)
    monkeypatch.setattr("selftaught.data.Samples.read", none)
    with pytest.raises(Unmade, match=r"Too many open files.*ulimit -n"):
        embed(torch.nn.Flatten(), tmp_path / "images", size=8, workers=0)


def test_a_script_that_is_only_imported_is_told_what_it_lacks(monkeypatch):
    import multiprocessing

    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(UserError, match='put what it runs under `if __name__ == "__main__":`'):
        readers.refuse_imported()


# signals ------------------------------------------------------------------------------------------

LONG = """
import hashlib, logging, os, signal
from selftaught.engine.signals import StopSignals
logging.basicConfig(level="INFO", format="%(message)s")
with StopSignals() as signals, signals.deferred():
    print("begins", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # handlers of Python's wait for its end
"""


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGTERM, 75),
        (signal.SIGTERM, signal.SIGINT, 130),
    ],
)
def test_a_signal_in_a_long_operation_is_answered_at_once(first, second, code):
    process = subprocess.Popen(
        [sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.3)
    process.send_signal(first)
    assert (
        process.stderr.readline() == "stopping after this step; once more ends at once, unsaved\n"
    )
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(second)
    _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (code, "")


def test_the_same_signal_twice_within_milliseconds_is_one_request(monkeypatch):
    ends, now = [], [0.0]
    monkeypatch.setattr(signals.os, "_exit", ends.append)
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    seen: list[tuple[int, float]] = []
    for number, when in ((signal.SIGTERM, 0.0), (signal.SIGTERM, 0.001)):
        now[0] = when
        signals._note(seen, number)
    assert not ends
    for number, when in ((signal.SIGINT, 0.001), (signal.SIGTERM, 0.01)):
        now[0] = when
        signals._note(seen, number)
    assert ends == [130, 75]


# whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage",
    [
        faults.small_shared_memory,
        faults.frozen_reader_and_sigterm,
        faults.raising_view,
        faults.no_guard_spawn,
        faults.no_guard_forkserver,
        faults.daemonic_process,
    ],
)
def test_a_run_survives(stage, tmp_path):
    stage(tmp_path)
