"""What a run folder holds; whatever is missing or damaged is None or empty."""

import csv
import logging
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import kinds
from selftaught.data import quarantine
from selftaught.errors import UserError
from selftaught.evaluate import curve
from selftaught.evaluate.curve import Curve
from selftaught.export.facts import (
    CONFIG,
    DIAGNOSIS,
    KEPT,
    SETTINGS,
    TRIED,
    content,
    evaluations,
    trained,
)
from selftaught.kinds import Kind
from selftaught.report.charts import Point

log = logging.getLogger("selftaught")

_ZIP = (zipfile.BadZipFile, zlib.error, KeyError)
"""What a damaged archive raises, beside errors of reading."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder as it was found.

    text: run.yaml as it stands. settings: its content. curves: column -> (step, value), NaN where
    a row has none. scores: of training itself and of evaluations, the newest last, each what
    `Comparison.as_dict` gives. views: name -> uint8 [n, C, h, w]. bad: unreadable file -> why.
    encoder, diagnosis, kept, tried: what the files of these names say. looks: at the encoder while
    it trained.
    """

    path: Path
    text: str
    settings: dict[str, Any]
    curves: dict[str, list[Point]]
    scores: list[dict[str, Any]]
    views: dict[str, np.ndarray]
    bad: dict[str, str]
    encoder: dict[str, Any]
    diagnosis: dict[str, Any]
    kept: dict[str, Any]
    tried: dict[str, Any]
    looks: Curve | None

    @property
    def kind(self) -> Kind:
        """What its samples are; images where no file says it, or not so that it can be made."""
        said = self.encoder.get("kind") or self.settings.get("sample")
        try:
            return kinds.made(said if isinstance(said, dict) else None)
        except (UserError, TypeError):
            return kinds.images()


def read(path: Path) -> RunFolder:
    """What is in the run folder `path`.

    Raises:
        UserError: there is no such folder, or nothing of a run in it.
    """
    trained(path)
    return RunFolder(
        path=path,
        text=_text(path / SETTINGS),
        settings=content(path / SETTINGS),
        curves=_curves(path / "metrics.csv"),
        scores=evaluations(path),
        views=_views(path / "views.npz"),
        bad=_bad(path / quarantine.FILE),
        encoder=content(path / CONFIG),
        diagnosis=content(path / DIAGNOSIS),
        kept=content(path / KEPT),
        tried=content(path / TRIED),
        looks=curve.read(path / curve.FILE),
    )


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="backslashreplace") if path.is_file() else ""


def _curves(path: Path) -> dict[str, list[Point]]:
    try:
        rows = list(csv.DictReader(_text(path).splitlines()))
    except csv.Error as error:
        log.warning("%s is damaged (%s); the report leaves it out", path, error)
        return {}
    columns = list(rows[0]) if rows else []
    curves: dict[str, list[Point]] = {c: [] for c in columns if isinstance(c, str) and c != "step"}
    for row in rows:
        step = _float(row.get("step"))
        if math.isfinite(step):
            for name, points in curves.items():
                points.append((step, _float(row[name])))
    return curves


def _float(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _views(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {
                name: file[name]
                for name in sorted(file.files, key=lambda n: (len(n), n))
                if file[name].dtype == np.uint8 and file[name].ndim == 4
            }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, EOFError, RuntimeError, *_ZIP) as error:
        log.warning("%s is damaged (%s); the report leaves it out", path, error)
        return {}


def _bad(path: Path) -> dict[str, str]:
    try:
        return {name: bad.reason for name, bad in quarantine.load(path).items()}
    except UserError as error:
        log.warning("%s; the report leaves it out", error)
        return {}
