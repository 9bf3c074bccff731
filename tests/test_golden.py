"""Every golden value: what training runs must give the numbers of the papers' own code."""

import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.adapters import Golden
from tests.pool import Pool

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("SELFTAUGHT_GOLDEN", HERE / "golden"))
FILES = sorted(f.stem for f in FOLDER.glob("*.npz"))
ADAPTERS = {f.stem for f in (HERE / "adapters").glob("*.py")} - {"__init__"}


def load(name: str) -> Golden:
    joint = json.loads((FOLDER / "index-joint.json").read_text())["methods"]
    masked = json.loads((FOLDER / "index-masked.json").read_text())["methods"]
    entries = {e["file"]: e for e in [*joint, *masked.values()]}
    entry = entries[f"{name}.npz"]
    arrays = entry["arrays"]
    if isinstance(arrays, list):
        arrays = {a["name"]: a for a in arrays}
    with np.load(FOLDER / f"{name}.npz") as file:
        return Golden({k: file[k] for k in file.files}, entry["hyperparameters"], arrays)


def run_adapter(name: str, rank: int | None = None) -> None:
    check = importlib.import_module(f"tests.adapters.{name}").check
    check(load(name)) if rank is None else check(load(name), rank)


def run_adapter_on_rank(rank: int, name: str) -> None:
    run_adapter(name, rank)


def test_each_file_has_an_adapter():
    assert set(FILES) <= ADAPTERS


@pytest.mark.parametrize("name", [f for f in FILES if not f.endswith("_dist2")])
def test_golden(name):
    run_adapter(name)


@pytest.mark.xdist_group("pool")
@pytest.mark.parametrize("name", [f for f in FILES if f.endswith("_dist2")])
def test_golden_in_two_processes(name, pool: Pool):
    pool.run(run_adapter_on_rank, name)
