"""A stage in a process of its own, for Ray."""

from selftaught.curate.engines import STAGES
from selftaught.curate.pool import Pool
from selftaught.curate.settings import Working
from selftaught.curate.stage import Block, Stage


class Actor:
    """Does blocks of one stage of a pool; begun anew after a crash, it is none the worse.

    Args:
        folder: of the pool.
        name: of the stage.
        asked: its options.
    """

    def __init__(self, folder: str, name: str, asked: Working):
        self.stage: Stage = STAGES[name].load()(Pool(folder), asked)

    def do(self, step: str, block: Block) -> None:
        """Do a block."""
        self.stage.do(step, block)
