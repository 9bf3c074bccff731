"""PIRL in two processes: one memory, which takes in the embeddings of both, one partition."""

from unittest import mock

import torch

from selftaught import dist
from tests.adapters import Golden, close
from tests.adapters.pirl import model


def check(golden: Golden, rank: int) -> None:
    rows = golden[f"r{rank}_idx"]
    # memories differ at first, and the reference averages them; ours are alike by construction
    memory = dist.mean(golden[f"r{rank}_memory_local0"])
    method = model(
        memory,
        negatives=rows.shape[-1] - 1,
        temperature=golden.hyper["T"],
        memory_momentum=golden.hyper["momentum"],
    )
    with mock.patch.object(method.memory, "draw", side_effect=list(rows)):
        terms = method.discriminate(
            golden[f"r{rank}_patch"], golden[f"r{rank}_image"], golden[f"r{rank}_y"]
        )
    close(torch.stack(list(terms.values())).sum(), golden[f"r{rank}_loss"])
    close(method.memory.items, golden["memory1"])
    close(method.memory.partition, golden["Z"])
