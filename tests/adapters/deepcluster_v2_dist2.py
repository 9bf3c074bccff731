"""DeepCluster-v2's spherical k-means over embeddings that two processes hold."""

import torch

from selftaught import dist
from selftaught.vectors import spherical_kmeans
from tests.adapters import Golden, close


def check(golden: Golden, rank: int) -> None:
    memory, first = golden[f"r{rank}_memory"], golden["r0_memory"]
    index = dist.gather(golden[f"r{rank}_index"])
    for head, rows in enumerate(golden.starting("init_rows").values()):
        iterations = golden.setting(f"centroids{head}", "kmeans_iters", r"after (\d+) ")
        bank = head % len(memory)
        start = first[bank][rows]
        centroids, assignment = spherical_kmeans(memory[bank], start, int(iterations))
        close(centroids, golden[f"centroids{head}"])
        assert torch.equal(golden["assignments"][head][index], dist.gather(assignment))
