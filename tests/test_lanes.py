"""The order by blocks: a permutation, told at once, alike on any number of processes."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught import dist
from selftaught.errors import UserError
from selftaught.feed.feistel import keys_of, permuted, told_apart
from selftaught.feed.lanes import Lanes
from selftaught.feed.order import Order
from tests.test_engine import curve, make, often_killed, train


@given(length=st.integers(1, 5000), seed=st.integers(0, 2**32))
def test_each_number_comes_once(length, seed):
    found = permuted(np.arange(length), length, keys_of(seed, 0))
    assert np.array_equal(np.sort(found), np.arange(length))


def test_values_do_not_change():
    """Runs are resumed by them."""
    assert permuted(np.arange(10), 10, keys_of(0, 0)).tolist() == GOLDEN_TEN
    assert permuted(np.arange(5), 10**9, keys_of(7, 3)).tolist() == GOLDEN_BILLION
    lanes = Lanes(np.arange(10, 1001, 10), 8, 125, seed=0)
    assert lanes.rows(0, 0).tolist() == GOLDEN_ROWS


GOLDEN_TEN = [0, 5, 3, 7, 6, 1, 9, 8, 4, 2]
GOLDEN_BILLION = [629739350, 9791924, 938506374, 941751993, 178102786]
GOLDEN_ROWS = [363, 386, 92, 608, 329, 991, 451, 614]


def test_permutations_are_random_and_differ():
    length = 4096
    one, other = (permuted(np.arange(length), length, keys_of(0, epoch)) for epoch in (0, 1))
    assert abs(np.corrcoef(one, np.arange(length))[0, 1]) < 0.05
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.05
    assert (one == other).sum() < 10
    # where numbers of a sixteenth go: to all sixteenths alike
    counts = np.histogram2d(np.arange(length), one, bins=16)[0]
    expected = length / 256
    assert ((counts - expected) ** 2 / expected).sum() / 225 < 1.3


def test_many_permutations_at_once_are_those_of_one():
    keys, which = keys_of(3), np.array([0, 1, 1, 5])
    places, lengths = np.array([2, 0, 1, 6]), np.array([3, 2, 2, 7])
    together = permuted(places, lengths, told_apart(keys, which))
    apart = [
        permuted(places[i : i + 1], int(lengths[i]), told_apart(keys, which[i : i + 1]))[0]
        for i in range(4)
    ]
    assert together.tolist() == apart


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=120)


@given(
    sizes=sizes,
    batch=st.integers(1, 24),
    seed=st.integers(0, 9),
    held=st.none() | st.integers(1, 40),
)
def test_an_epoch_shows_each_sample_once(sizes, batch, seed, held):
    ends = np.cumsum(sizes)
    batches = int(ends[-1]) // batch
    lanes = Lanes(ends, batch, batches, seed, held)
    assert batch % lanes.lanes == 0
    for epoch in (0, 1):
        shown = [row for b in range(batches) for row in lanes.rows(epoch, b).tolist()]
        assert len(set(shown)) == len(shown) == batches * batch
        assert not shown or 0 <= min(shown) <= max(shown) < ends[-1]


@given(sizes=sizes, batch=st.integers(1, 16), start=st.integers(0, 60))
def test_any_batch_is_told_without_those_before(sizes, batch, start):
    ends = np.cumsum(sizes)
    batches = int(ends[-1]) // batch
    order = Order(int(ends[-1]), batch, batches, 0, Lanes(ends, batch, batches, 0))
    order.epochs = range(2)
    whole = list(order)
    order = Order(int(ends[-1]), batch, batches, 0, Lanes(ends, batch, batches, 0))
    order.epochs, order.start = range(2), min(start, batches)
    assert list(order) == whole[order.start :]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_see_together_what_one_sees(world, monkeypatch):
    ends = np.cumsum(np.random.default_rng(0).integers(1, 30, 400))
    count = int(ends[-1])
    alone = Order(count, 64, count // 64, 5, Lanes(ends, 64, count // 64, 5))
    alone.epochs = range(2)
    whole = list(alone)
    parts = []
    for rank in range(world):
        monkeypatch.setattr(dist, "world", lambda: world)
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        order = Order(count, 64, count // 64, 5, Lanes(ends, 64, count // 64, 5))
        order.epochs = range(2)
        parts.append(list(order))
    together = [[key for part in some for key in part] for some in zip(*parts, strict=True)]
    assert together == whole


def read_by(order: Order, ends: np.ndarray, world: int, held: int, patch) -> float:
    """Blocks fetched of blocks that there are, by as many processes, each with a cache of so many
    that drops what was used longest ago."""
    fetched = 0
    for rank in range(world):
        patch.setattr(dist, "world", lambda: world)
        patch.setattr(dist, "rank", lambda rank=rank: rank)
        cache: dict[int, None] = {}
        for keys in order:
            for _, row in keys:
                block = int(np.searchsorted(ends, row, side="right"))
                fetched += block not in cache
                cache.pop(block, None)
                cache[block] = None
                if len(cache) > held:
                    del cache[next(iter(cache))]
    return fetched / len(ends)


@pytest.mark.parametrize("world", [1, 2])
def test_each_block_is_read_once(world, monkeypatch):
    ends = np.cumsum(np.random.default_rng(1).integers(20, 60, 1500))
    count, batch = int(ends[-1]), 64
    lanes = Lanes(ends, batch, count // batch, 0)
    order = Order(count, batch, count // batch, 0, lanes)
    order.epochs = range(1)
    held = lanes.lanes * lanes.mixed * 3 // 2 // world
    assert read_by(order, ends, world, held, monkeypatch) < 1.02
    plain = Order(count, batch, count // batch, 0)
    plain.epochs = range(1)
    assert read_by(plain, ends, world, held, monkeypatch) > 20


def test_batches_mix_blocks():
    """Of a batch, hardly any two samples lie together."""
    ends = np.arange(100, 100_001, 100)
    lanes = Lanes(ends, 256, 390, 0)
    pairs = []
    for number in range(0, 390, 10):
        blocks = lanes.rows(0, number) // 100
        pairs.append((np.bincount(blocks) * (np.bincount(blocks) - 1)).sum() / (256 * 255))
    assert np.mean(pairs) < 0.01


def test_an_order_that_a_method_gives_is_refused():
    import torch

    order = Order(100, 10, 10, 0, Lanes(np.array([100]), 10, 10, 0))
    order.epochs, order.given = range(1), torch.arange(100)
    with pytest.raises(UserError, match="drop --shuffle blocks"):
        next(iter(order))


def test_blocks_of_parts_and_of_several_sources(tmp_path):
    from selftaught.data.arrays import ArraySource
    from selftaught.data.joined import Joined
    from selftaught.data.selection import Selected

    source = ArraySource(np.zeros((600, 4, 4), np.uint8))
    assert source.blocks().tolist() == [256, 512, 600]
    some = Selected(source, np.array([0, 5, 255, 256, 599]))
    assert some.blocks().tolist() == [3, 4, 5]
    assert Joined([source, some]).blocks().tolist() == [256, 512, 600, 603, 604, 605]


def test_few_blocks_that_fit_into_memory_make_few_lanes():
    lanes = Lanes(np.arange(100, 100_001, 100), 256, 390, 0, held=30)
    assert lanes.lanes * lanes.mixed <= 20
    assert Lanes(np.arange(100, 1001, 100), 256, 3, 0, held=1).lanes == 1


@pytest.mark.usefixtures("unfinished")
def test_a_run_by_blocks_is_another_order_and_resumed_exactly(tmp_path):
    save = partial(train, shuffle="blocks", save_every=0)
    save(tmp_path / "whole")
    often_killed(tmp_path / "killed", make, save, 1, 4)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    train(tmp_path / "full")
    assert curve(tmp_path / "full") != curve(tmp_path / "whole")


@pytest.mark.parametrize("name", ["deepcluster", "stego", "exemplar_cnn"])
def test_methods_with_an_order_of_their_own_say_so_at_once(name, tmp_path):
    with pytest.raises(UserError, match=rf"{name}: this method .* drop --shuffle blocks"):
        train(tmp_path / "run", name, shuffle="blocks")
    assert not (tmp_path / "run").exists()
