"""Training on several machines: jobs that are started again, and processes that are not alike."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from selftaught import dist
from selftaught.cli import main
from selftaught.engine import launchers, together
from selftaught.engine.restarts import settled
from selftaught.engine.settings import Settings
from selftaught.engine.votes import EVERY, Votes
from selftaught.errors import UserError
from selftaught.export.facts import SETTINGS
from tests.test_ddp import SAME, SIMCLR, folder, losses
from tests.test_engine import curve
from tests.test_faults import ended, start, wait_for_step, words

__all__ = ["folder"]  # a fixture


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def agent(port: int, place: Path, arguments: list[str]) -> subprocess.Popen[str]:
    """torchrun on one of two machines, with one process, standing in a folder of its own."""
    place.mkdir()
    torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    torchrun += ["--local-addr", "127.0.0.1", "--max-restarts", "2", "-m", "selftaught"]
    return subprocess.Popen(
        [sys.executable, *torchrun, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def worker(process: subprocess.Popen[str]) -> int:
    """The process that torchrun has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(
        int(child)
        for child in children
        if b"selftaught" in Path(f"/proc/{child}/cmdline").read_bytes()
    )


def test_two_machines_go_on_by_themselves_when_a_process_is_killed(folder, tmp_path):
    options = [*SAME, "--epochs", "8", "--max-bad", "0.1", "--save-every", "0.0001"]
    assert main(words(SIMCLR, folder, tmp_path / "one", *options)) == 0
    port, out = free_port(), tmp_path / "run"
    # the agent whose process was well does not count its restart: nothing else tells of it
    command = words(SIMCLR, folder, out, *options, "--accelerator", "cpu", "--auto-resume")
    first = agent(port, tmp_path / "0", command)
    time.sleep(1)  # the first has the store, and the first process
    second = agent(port, tmp_path / "1", command)
    wait_for_step(first, out, 5)
    os.kill(worker(second), signal.SIGKILL)
    errors = [process.communicate(timeout=240)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], errors
    assert f"going on with the run in {out}" in errors[0]
    assert [int(r["step"]) for r in curve(out)] == list(range(1, 41))
    np.testing.assert_allclose(losses(out), losses(tmp_path / "one"), rtol=1e-4)


SRUN = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1"}
SRUN |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}


def test_tasks_of_srun_are_one_run(folder, tmp_path):
    """With the environment that srun gives to two tasks on two nodes."""
    port = {"MASTER_PORT": str(free_port())}
    out = tmp_path / "run"
    command = words(SIMCLR, folder, out, *SAME, "--epochs", "2", "--max-bad", "0.1")
    tasks = [
        start([*command, "--accelerator", "cpu"], **SRUN, **port,
              SLURM_PROCID=n, SLURM_NODEID=n, SLURM_LOCALID="0")
        for n in ("0", "1")
    ]  # fmt: skip
    (code, first), (other, second) = map(ended, tasks)
    assert (code, other) == (0, 0), (first, second)
    assert "step 10/10" in first
    assert "step 10/10" not in second
    assert [int(r["step"]) for r in curve(out)] == list(range(1, 11))


def test_processes_of_srun_and_torchrun_are_counted(monkeypatch):
    assert launchers.launched() is None
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "32")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "8(x4)")
    there = launchers.launched()
    assert there == (8, 32)
    assert there is not None
    assert there.nodes == 4
    with pytest.raises(UserError, match="32 processes would each find another length: give --epo"):
        launchers.handed_over()
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "8(x3),4")
    with pytest.raises(UserError, match="8, 4 tasks on its nodes"):
        launchers.launched()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    there = launchers.launched()
    assert there is not None
    with pytest.raises(UserError, match="8 processes, of which 3 are on this machine"):
        assert there.nodes


def test_a_job_without_srun_waits_for_nobody(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "8")
    (plugin,) = launchers.plugins()
    assert not plugin.creates_processes_externally


def test_further_processes_are_told_how_long(monkeypatch):
    monkeypatch.setenv(launchers.STARTED_BY, str(os.getpid()))
    monkeypatch.setenv(launchers.LENGTH, "")
    launchers.hand_over({"epochs": 7})
    assert launchers.handed_over() is None  # this one has measured it
    monkeypatch.setenv(launchers.STARTED_BY, "1")
    assert launchers.handed_over() == {"epochs": 7}


def test_processes_that_are_not_alike_are_refused(monkeypatch):
    others = {together.DATA: "a", together.STEP: "-1"}
    monkeypatch.setattr(dist, "everywhere", lambda own: [own, others])
    together.alike({together.DATA: "a", together.STEP: -1})
    with pytest.raises(UserError, match=r"do not agree on the step to go on from \(10, -1\): give"):
        together.alike({together.DATA: "a", together.STEP: 10})


def test_a_vote_is_within_seconds_where_steps_are_slow(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    votes = Votes(7)
    held = []
    for step in range(8, 60):
        now[0] += 0.01 if step < 40 else 3.0
        if votes.due(step):
            held.append(step)
            votes.held(step, votes.milliseconds(step))
    assert held[:4] == [8, 8 + EVERY, 8 + 2 * EVERY, 8 + 3 * EVERY]
    assert held[4] == 8 + 4 * EVERY  # which nobody could know to be slow
    assert np.diff(held[5:]).tolist() == [1] * (len(held) - 6)


def run_at(place: Path) -> Path:
    place.mkdir()
    (place / SETTINGS).write_text("method: simclr\n")
    return place


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_job_that_is_started_again_goes_on(name, tmp_path, monkeypatch):
    out = run_at(tmp_path / "run")
    monkeypatch.setenv(name, "0")
    assert not settled(Settings(out=out)).resume
    monkeypatch.setenv(name, "1")
    found = settled(Settings(out=out, overwrite=True))
    assert (found.resume, found.overwrite) == (True, False)
    assert not settled(Settings(out=tmp_path / "none")).resume  # it ended before it began
    with pytest.raises(UserError, match=r"started again needs to know .* --out"):
        settled(Settings())


def test_auto_resume_goes_on_or_starts(tmp_path):
    out = run_at(tmp_path / "run")
    assert settled(Settings(out=out, auto_resume=True)).resume
    assert not settled(Settings(out=tmp_path / "none", auto_resume=True)).resume
    with pytest.raises(UserError, match="--overwrite moves it aside: drop one"):
        settled(Settings(out=out, auto_resume=True, overwrite=True))
    with pytest.raises(UserError, match="--auto-resume needs to know"):
        settled(Settings(auto_resume=True))
