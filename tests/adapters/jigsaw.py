"""Jigsaw: sets of orders, tiles, their standardization, and how their features are laid."""

import re

import numpy as np
import torch
from torch import Tensor

from selftaught.augment import cut_tiles
from selftaught.methods.pretext.jigsaw import _lexicographic, lay, permutations, standardize
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    sets = [m for n in golden.arrays if (m := re.fullmatch(r"perm\.M(\d+)_N(\d+)\.(max_\w+)", n))]
    assert sets
    for found in sets:
        tiles, count, rule = int(found[1]), int(found[2]), found[3]
        first = golden.own(found[0], f"{found[0]}.")["j0"]
        orders = torch.from_numpy(permutations(count, tiles, rule, first).copy())
        assert torch.equal(orders, golden[f"{found[0]}.exact"].long())
        close(hamming(orders), golden[f"{found[0]}.exact.hamming"])
        expected = golden[found[0]].long()
        close(hamming(expected), golden[f"{found[0]}.hamming"])
        if rule == "max_min":
            assert torch.equal(orders, expected)
        else:  # the reference breaks ties of a mean by its rounding: another set, by the same rule
            check_farthest(orders)
            check_farthest(expected)

    for published in golden.starting("published.").values():
        check_farthest(published.long())
        check_farthest(torch.from_numpy(permutations(*published.shape, "max_avg").copy()))

    # VISSL cuts column by column and shifts (x, y); ours are in reading order, (down, right).
    image, jitter = golden["tiles.image"].numpy(), golden["tiles.jitter"].numpy()
    patches = golden["tiles.patches"]
    grid = jitter.shape[-1]
    cut = torch.from_numpy(cut_tiles(image, jitter[::-1].swapaxes(1, 2), patches.shape[-1]))
    columns = cut.unflatten(0, (grid, grid)).transpose(0, 1).flatten(0, 1)
    assert torch.equal(columns, patches)

    close(standardize(golden["norm.tile"]), golden["norm.out"])
    assert standardize(torch.full((3, 5, 5), 0.1)).abs().max() < 1e-6, "no noise from a plain tile"

    features, orders = golden["concat.emb"], golden["concat.perms"]
    laid = lay(features, orders.expand(len(features), -1, -1))
    assert torch.equal(laid, golden["concat.cfn"])
    channels_first = laid.unflatten(1, features.shape[1:]).transpose(1, 2).flatten(1)
    assert torch.equal(channels_first, golden["concat.google"])


def check_farthest(orders: Tensor) -> None:
    """Each order is as far from those before it, in the mean, as any that is not among them."""
    known = _lexicographic(orders.shape[1])
    alike = np.zeros(known.shape[1], np.int64)
    taken = np.zeros(known.shape[1], bool)
    for i, order in enumerate(orders.numpy()):
        common = (known == order[:, None]).sum(0)
        assert common.max() == len(order), "no order of the tiles"
        assert i == 0 or alike[common.argmax()] == alike[~taken].min()
        alike += common
        taken[common.argmax()] = True


def hamming(orders: Tensor) -> Tensor:
    """Smallest, mean and largest distance between two different rows."""
    apart = (orders[:, None] != orders).sum(2)[~torch.eye(len(orders), dtype=torch.bool)].double()
    return torch.stack([apart.min(), apart.mean(), apart.max()])
