"""SwAV: assignments that are balanced over the samples of two processes."""

from selftaught.objectives.assignment import sinkhorn
from tests.adapters import Golden, close


def check(golden: Golden, rank: int) -> None:
    hyper = golden.hyper
    q = sinkhorn(golden[f"r{rank}_scores"], hyper["epsilon"], hyper["sinkhorn_iterations"])
    close(q, golden[f"r{rank}_q"])
