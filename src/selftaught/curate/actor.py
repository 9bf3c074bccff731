"""A stage in a process of its own, for Ray."""

from typing import Any

from selftaught.curate.pool import Pool
from selftaught.curate.stage import Block


class Actor:
    """Does blocks of one stage of a pool; begun anew after a crash, it is none the worse.

    Args:
        folder: of the pool.
        name: of the stage.
        given: its options.
    """

    def __init__(self, folder: str, name: str, given: dict[str, Any]):
        self.stage = Pool(folder).stage(name, given)

    def do(self, step: str, block: Block) -> None:
        """Do a block."""
        self.stage.do(step, block)
