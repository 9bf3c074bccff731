"""Checkpoints that are whole or absent: atomic, checksummed, with a fall-back to the one before."""

import hashlib
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from selftaught.errors import TrainingError

log = logging.getLogger("selftaught")

KEEP = 2
"""Newest checkpoints that are kept: one may be damaged."""

FINISHED = "finished"
"""File beside the checkpoints that holds the number of steps once the run is complete."""

_NAME = re.compile(r"step-([0-9]{9,15})\.pt")
_PARTS = ("step", "steps", "method", "optimizer", "precision", "random", "given", "bad", "data")
"""What the checkpoint of a training holds."""

_MIB = 2**20


class Checkpoints:
    """The checkpoints of one run, in `folder`, one file a step."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.failures = 0

    @classmethod
    def of(cls, run: Path) -> "Checkpoints":
        """Those of the run in the folder `run`."""
        return cls(run / "checkpoints")

    def steps(self) -> list[int]:
        """Steps with a checkpoint, newest first; files and folders of other names are strangers."""
        found = (_NAME.fullmatch(f.name) for f in self.folder.glob("step-*.pt") if f.is_file())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write `state`; a first failure is survived where an older checkpoint exists.

        Raises:
            TrainingError: the second failure in a row, or the first without an older checkpoint.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.path(step), state)
        except OSError as error:
            self.failures += 1
            message = f"the checkpoint of step {step} could not be written: {error}"
            older = self.steps()
            if self.failures > 1 or not older:
                raise TrainingError(f"{message}; the run stops here") from error
            log.warning("%s; the one of step %d is intact, training goes on", message, older[0])
            return
        self.failures = 0
        for old in self.steps()[KEEP:]:
            self.path(old).unlink()
            checksum(self.path(old)).unlink(missing_ok=True)

    @property
    def finished(self) -> int | None:
        """Steps of the training that was exported and reported on; None while none was."""
        try:
            return int((self.folder / FINISHED).read_text())
        except (OSError, ValueError):
            return None

    def finish(self, step: int) -> None:
        """Note that nothing is left to do after `step`."""
        (self.folder / FINISHED).write_text(f"{step}\n")

    def training(self) -> dict[str, Any] | None:
        """`load`, where files that hold something else than a training count as damaged."""
        return self.load(_PARTS)

    def load(self, parts: Iterable[str] = ()) -> dict[str, Any] | None:
        """The newest checkpoint that is whole and has these parts; None where there is none at all.

        Raises:
            TrainingError: checkpoints exist, and all are damaged.
        """
        steps = self.steps()
        for step in steps:
            try:
                state = read(self.path(step))
                if missing := [part for part in parts if part not in state]:
                    raise ValueError(
                        f"{self.path(step)} is no checkpoint of a training: it holds no "
                        f"{', '.join(missing)}"
                    )
            except ValueError as error:
                log.warning("%s; falling back to the one before", error)
                continue
            if step != steps[0]:
                log.warning("resuming from step %d: %d steps are lost", step, steps[0] - step)
            return state
        if steps:
            raise TrainingError(
                f"all {len(steps)} checkpoints in {self.folder} are damaged; train anew with "
                "--overwrite, which moves this run aside"
            )
        return None


def checksum(path: Path) -> Path:
    """Where the checksum of the checkpoint `path` is kept."""
    return path.with_suffix(".sha256")


def write(path: Path, state: dict[str, Any]) -> None:
    """Save `state` under `path` so that a crash at any moment leaves the old file or the new one.

    The checksum follows its file: what a power cut leaves without one is whole nevertheless.

    Raises:
        OSError: it could not be written, in words; nothing is left behind.
    """
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if checksum(path).exists():  # of the file that goes
            checksum(path).unlink()
            sync_folder(path.parent)
        os.replace(temporary, path)
        sync_folder(path.parent)
        with temporary.open("w") as file:
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, checksum(path))
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch hides a full disk behind a RuntimeError
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free
        need = max(size_of(state), written)
        if free >= need and isinstance(error, RuntimeError):
            raise OSError(
                f"File too large: {path.parent} takes {written / _MIB:.1f} MiB of it, though "
                f"{free / _MIB:.0f} MiB are free, as where files or users have a limit ({error})"
            ) from error
        if free < need:
            raise OSError(
                f"no space left in {path.parent}: it needs {need / _MIB:.0f} MiB, "
                f"{free / _MIB:.0f} MiB are free ({error})"
            ) from error
        raise


def read(path: Path) -> dict[str, Any]:
    """A checkpoint, after its checksum was compared; never runs code from the file.

    Without a checksum, such as after a power cut, the file's own ones decide, and that is said.
    Tensors are mapped: their bytes are read as they are looked at, by the processes of a machine
    once, and never written back. Copy those that are changed for long.

    Raises:
        ValueError: it is damaged, in words.
    """
    try:
        expected = checksum(path).read_text("ascii", "replace") if checksum(path).is_file() else ""
        if re.fullmatch("[0-9a-f]{64}", expected.strip()):
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if expected.strip() != found:
                raise ValueError(f"{path} is damaged: its checksum does not fit")
        else:
            with zipfile.ZipFile(path) as parts:
                if broken := parts.testzip():
                    raise ValueError(f"{path} is damaged: {broken} in it is not as it was written")
            log.warning("%s has no checksum in %s; its parts are whole", path, checksum(path).name)
        mapped = os.name == "posix"  # elsewhere a file that is mapped cannot be removed
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint: it holds a {type(state).__name__}")
    return state


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def size_of(state: Any) -> int:
    """Bytes of the tensors in a nested state."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(size_of(v) for v in state.values())
    if isinstance(state, list | tuple):
        return sum(size_of(v) for v in state)
    return 0
