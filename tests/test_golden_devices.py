"""Golden files of one process that hold what two devices must give, run in two."""

import importlib

import pytest

from tests.pool import Pool
from tests.test_golden import load

CHECKS = {"simclr": "check_replica", "byol": "check_device"}


def run_on_rank(rank: int, name: str) -> None:
    module = importlib.import_module(f"tests.adapters.{name}")
    getattr(module, CHECKS[name])(load(name), rank)


@pytest.mark.xdist_group("pool")
@pytest.mark.parametrize("name", CHECKS)
def test_golden_between_devices(name, pool: Pool):
    pool.run(run_on_rank, name)
