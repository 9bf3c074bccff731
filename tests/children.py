"""Processes that tests start, told from those of the pool. Processes that read import this, not
torch."""

import multiprocessing
from typing import Any

POOL = "pool"
"""How names of processes of the pool begin."""


def other_children() -> list[Any]:
    """Processes that this one started, without those of a pool."""
    return [c for c in multiprocessing.active_children() if not c.name.startswith(POOL)]
