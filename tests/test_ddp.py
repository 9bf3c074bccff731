"""Training in two processes, as the command line starts it: one run folder, one's loss, one end."""

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selftaught.cli import main
from selftaught.data import quarantine
from tests.test_engine import curve, photos
from tests.test_faults import ended, last, start, wait_for_step, words

SIMCLR = ["simclr", "--hidden", "32", "--dim", "16"]
TWO = ["--accelerator", "cpu", "--devices", "2"]
# The weights hardly move, so that rounding does not grow: what is compared is which images come
# when, and what each step reports. Gradients over processes are compared in test_joint_dist.
SAME = ["--no-evaluate", "--log-every", "1", "--workers", "0", "--lr", "0.000001"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """40 photos, and two files that are none."""
    place = tmp_path_factory.mktemp("data")
    for i, pixels in enumerate(photos(40)):
        Image.fromarray(pixels).save(place / f"{i:02}.png")
    for i in (7, 8):
        (place / f"{i:02}.png").write_text("no image")
    return place


def losses(out: Path) -> np.ndarray:
    return np.array([float(r["loss"]) for r in curve(out)])


def partner(process: subprocess.Popen[str]) -> int:
    """The process that the engine starts for the second device, as soon as there is one."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            if b"pretrain" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        time.sleep(0.01)
    raise AssertionError("no second process was started")


def test_two_processes_are_one_run_which_one_goes_on_with(folder, tmp_path):
    options = [*SAME, "--epochs", "6", "--max-bad", "0.1"]
    assert main(words(SIMCLR, folder, tmp_path / "one", *options)) == 0
    out = tmp_path / "two"
    process = start(words(SIMCLR, folder, out, *options, *TWO, "--save-every", "0.001"))
    wait_for_step(process, out, 5)
    process.send_signal(signal.SIGTERM)  # one process is told, both stop
    code, errors = ended(process)
    assert code == 75, errors
    assert errors.count("saved; repeat the command with --resume") == 1
    assert "Traceback" not in errors
    done = last(out)["step"]
    assert 5 <= done < 30
    assert [int(r["step"]) for r in curve(out)] == list(range(1, done + 1))
    assert main(words(SIMCLR, folder, out, *options, "--resume")) == 0
    np.testing.assert_allclose(losses(out), losses(tmp_path / "one"), rtol=1e-4)
    # what either process could not read, the run knows
    lists = [quarantine.load(p / quarantine.FILE) for p in (out, tmp_path / "one")]
    assert lists[0].keys() == lists[1].keys()
    assert {s.first_step for s in lists[0].values()} == {s.first_step for s in lists[1].values()}


def test_too_much_that_cannot_be_read_by_both_together_ends_both(folder, tmp_path):
    """Each process meets one bad file at most, and one is allowed."""
    options = [*SAME, "--epochs", "12", "--max-bad", "0.03"]
    code, errors = ended(start(words(SIMCLR, folder, tmp_path / "run", *options, *TWO)))
    assert code == 3, errors
    assert errors.count("2 of 40 images cannot be read, more than --max-bad allows") == 1
    assert "Traceback" not in errors
    assert len(quarantine.load(tmp_path / "run" / quarantine.FILE)) == 2


def test_a_process_that_is_lost_ends_the_other(folder, tmp_path):
    options = [*SAME, "--epochs", "200", "--max-bad", "0.1", "--save-every", "0.001"]
    process = start(words(SIMCLR, folder, tmp_path / "run", *options, *TWO))
    wait_for_step(process, tmp_path / "run", 1)
    begun = time.monotonic()
    subprocess.run(["kill", "-9", str(partner(process))], check=True)
    code, errors = ended(process)
    assert time.monotonic() - begun < 20
    # Fabric kills the first process when another has failed, and on a busy machine it is quicker
    # than the first process's own end, which has said what happened by then
    assert code in (75, -9), errors
    assert "another of the 2 processes of this run has ended" in errors
    assert "Traceback" not in errors
    assert last(tmp_path / "run")["step"] >= 1


def test_a_process_whose_starter_is_lost_does_not_wait_for_it(folder, tmp_path):
    """Killed while the second process starts, before the two have met."""
    process = start(words(SIMCLR, folder, tmp_path / "run", *SAME, *TWO))
    partner(process)
    process.kill()
    assert ended(process)[0] == -9


def test_what_cannot_work_is_told_once(folder, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "other").write_text("")
    code, errors = ended(start(words(SIMCLR, folder, out, *TWO)))
    assert code == 2
    assert errors.startswith(f"error: {out} is not empty")
    assert len(errors.splitlines()) == 1
