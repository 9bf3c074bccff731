"""The run folder: settings, metrics, and what may stand in it before a run starts."""

import csv
import io
import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from selftaught.data import quarantine
from selftaught.engine.lock import FILE as LOCK
from selftaught.engine.lock import claim, moved, release
from selftaught.errors import UserError
from selftaught.export.facts import SETTINGS
from selftaught.export.files import sweep

if TYPE_CHECKING:  # it waits for torch, and a wrong folder is told before
    from selftaught.engine.trackers import Follower, Row

log = logging.getLogger("selftaught")

FLUSH = 1.0
"""Seconds after which rows of metrics are written."""
HARMLESS = {
    "accelerator",
    "curve",
    "devices",
    "evaluate",
    "log_every",
    "read_timeout",
    "save_every",
    "test",
    "track",
    "workers",
}
"""Settings whose change leaves a resumed run the same run."""


def default_out(name: str, resume: bool) -> Path:
    """runs/NAME, runs/NAME-2 ...: the first that is free, or the last that exists to resume."""
    names = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in itertools.count(1))
    before, path = None, next(names)
    while path.exists():
        before, path = path, next(names)
    return before if resume and before else path


def settings_of(run: Path) -> Path:
    """The file with the settings of a run that is there; UserError where none is."""
    if not (run / SETTINGS).is_file():
        raise UserError(f"{run} holds no run (no {SETTINGS}); give the folder of a training")
    return run / SETTINGS


def occupied(out: Path, resume: bool, overwrite: bool) -> bool:
    """Whether `out` holds a run already. Nothing is written.

    Raises:
        UserError: it holds what is in the way, holds no run to resume, or cannot be read.
    """
    with _in_words(out):
        full = out.exists() and any(entry.name != LOCK for entry in out.iterdir())
        run = (out / SETTINGS).exists()
    if resume and not run:
        raise UserError(
            f"{out} holds no run to resume (no {SETTINGS}); leave --resume out to start one"
        )
    if full and not run:
        raise UserError(f"{out} is not empty and holds no run: name another folder with --out")
    if full and not (resume or overwrite):
        raise UserError(
            f"{out} is not empty: continue that run with --resume, move it aside with "
            "--overwrite, or name another folder with --out"
        )
    return full


def prepare(out: Path, resume: bool, overwrite: bool) -> None:
    """Make `out` ready for a new run, or for one that goes on, and keep other runs out of it.

    What a run that was killed left half-written there is swept away.

    Raises:
        UserError: as `occupied`, it is in use, or cannot be written.
    """
    occupied(out, resume, overwrite)
    with _in_words(out):
        out.mkdir(parents=True, exist_ok=True)
        claim(out)
        # which another run may have changed
        if occupied(out, resume, overwrite) and not resume:
            aside = next(p for i in range(1, 10**6) if not (p := Path(f"{out}.old-{i}")).exists())
            shutil.move(out, aside)
            moved(out, aside)
            release(aside)
            log.info("the earlier run in %s is now %s", out, aside)
            out.mkdir()
            claim(out)
        _sweep(out)
        probe = out / f".probe-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()


@contextmanager
def _in_words(out: Path) -> Iterator[None]:
    """A block whose troubles with the folder `out` are told with the way out."""
    try:
        yield
    except (NotADirectoryError, FileExistsError) as error:
        raise UserError(f"{out} is a file; name a folder with --out") from error
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}); name another folder with --out"
        ) from error


def _sweep(out: Path) -> None:
    """Remove what earlier processes of this run left half-written; the folder is ours alone."""
    sweep(out)
    for pattern in (".probe-*", "*.tmp", "checkpoints/*.tmp", f".{quarantine.FILE}.????????"):
        for left in out.glob(pattern):
            if left.is_file() and not left.is_symlink():
                left.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace a small file as a whole."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings that differ between two run.yaml contents and make another run: one line each."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted({*old, *new})
        if key.split(".")[-1] not in HARMLESS
        and not key.startswith(("made_by.", "chosen."))
        and old.get(key) != new.get(key)
    ]


def _flat(node: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, yaml.safe_dump(node, default_flow_style=True).strip().removesuffix("\n...")


def _rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of a run's metrics and their columns; what else stands there is told and left out."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(line.replace("\0", "") for line in file)
        try:
            every = list(reader)
        except csv.Error as error:
            log.warning("%s is damaged (%s) and starts anew", path, error)
            return [], []
    rows = [r for r in every if _is_row(r)]
    if len(rows) < len(every):  # a full disk cut one short, or somebody else wrote there
        log.warning("%s: %d lines are no whole rows and go", path, len(every) - len(rows))
    return rows, list(reader.fieldnames or []) if rows else []


def _is_row(row: dict[str, Any]) -> bool:
    step = row.get("step") or ""
    return step.isascii() and step.isdigit() and len(step) < 19 and None not in row.values()


class Metrics:
    """Rows of numbers, as CSV and for whoever else follows the run; a resumed run drops the rows it
    repeats.

    Args:
        out: run folder.
        step: steps that are done; later rows are dropped.
        followers: are handed rows whenever they are written.
        hear: is handed each row at once.
    """

    def __init__(
        self,
        out: Path,
        step: int,
        followers: "Iterable[Follower]" = (),
        hear: "Callable[[Row], None]" = lambda _: None,
    ):
        self.path = out / "metrics.csv"
        self.columns: list[str] = []
        if self.path.exists():
            rows, self.columns = _rows(self.path)
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, self.columns, extrasaction="ignore")
            if rows:
                writer.writeheader()
            writer.writerows(r for r in rows if int(r["step"]) <= step)
            write_text(self.path, text.getvalue())
        self.followers, self.hear = list(followers), hear
        self.waiting: list[tuple[float, dict[str, float]]] = []
        self.flushed = 0.0

    def add(self, row: dict[str, float]) -> None:
        """One row; the columns are those of the first. Written together with those that follow
        soon: each file opened and each thread woken costs as much as the step of a small network.
        """
        self.columns = self.columns or list(row)
        self.waiting.append((time.time(), row))
        self.hear(dict(row))
        if time.monotonic() - self.flushed >= FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        rows, self.waiting = self.waiting, []
        self.flushed = time.monotonic()
        if not rows:
            return
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            if not file.tell():
                writer.writeheader()
            writer.writerows(row for _, row in rows)
        for follower in self.followers:
            follower.add(rows)

    def note(self, row: dict[str, float]) -> None:
        """Numbers of another kind, which are no row of the CSV."""
        self.flush()
        self.hear(dict(row))
        for follower in self.followers:
            follower.add([(time.time(), row)])

    def close(self) -> None:
        try:
            self.flush()
        finally:
            for follower in self.followers:
                follower.close()
