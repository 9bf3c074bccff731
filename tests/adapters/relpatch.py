"""Context prediction: the grid of patches, its pairs and their labels, and what is left of one."""

import numpy as np
import torch

from selftaught.methods.pretext.relative_patch import PLACES, lay_grid, neighbors, one_channel
from tests.adapters import Golden, close
from tests.replay import Recorded

PATCH, GAP, JITTER, CONTRAST = 96, 48, 7, 50


def check(golden: Golden) -> None:
    where = [tuple(pair) for pair in golden["labels.pairs"].tolist()]
    assert [PLACES.index(pair) for pair in where] == golden["labels.value"].tolist()

    height, width = golden.hyper["H"], golden.hyper["W"]
    draws, pairs = golden["grid.offsets_draws"].tolist(), golden["grid.offsets_pairs"].tolist()
    corners = []
    for k in range(golden.hyper["n"]):
        replay = Recorded(golden["grid.draws"][draws[k] : draws[k + 1]])
        found = lay_grid(replay, height, width, PATCH, GAP, JITTER)
        assert replay.exhausted()
        corners.append(found.reshape(-1, 2))
        of_grid, places = neighbors(*found.shape[:2])
        rows = slice(pairs[k], pairs[k + 1])
        assert torch.equal(of_grid, golden["grid.pairs"][rows])
        assert torch.equal(places, golden["grid.labels"][rows])
    assert np.array_equal(np.concatenate(corners), golden["grid.corners"].numpy())

    patch, kept = golden["prep.image"].permute(2, 0, 1), golden["prep.keep_channel"]
    noise = torch.zeros_like(patch)
    noise[torch.arange(len(patch)) != kept] = golden["prep.noise"]
    close(one_channel(patch, kept, noise, CONTRAST), golden["prep.out"])
