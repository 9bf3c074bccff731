"""Mask samplers: on any grid, for any settings, they end and keep their promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught import masks
from selftaught.errors import UserError
from selftaught.masks import average_distance, keep_lowest, multiblock, random_split
from selftaught.masks.blocks import by_ratio, inverse_block, ratio_steps, spread_ratios

grids = st.tuples(st.integers(1, 17), st.integers(1, 17))
seeds = st.integers(0, 2**32)


@settings(max_examples=150, deadline=None)
@given(
    grids,
    seeds,
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 3),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    st.floats(0.1, 10),
    st.integers(0, 300),
    st.booleans(),
)
def test_blocks_on_any_grid(grid, seed, batch, targets, contexts, scale, shape, min_keep, overlap):
    draws = np.random.default_rng(seed)
    drawn = multiblock(
        draws,
        batch,
        grid,
        targets,
        contexts,
        target_scale=scale,
        aspect=(shape, 2 * shape),
        min_keep=min_keep,
        overlap=overlap,
    )
    cells = grid[0] * grid[1]
    assert drawn.context.shape[:2] == (contexts, batch)
    assert drawn.targets.shape[:2] == (targets, batch)
    for indices in drawn:
        assert indices.dtype == torch.int64
        assert indices.shape[2] >= 1
        assert 0 <= indices.min() <= indices.max() < cells
        assert torch.all(indices.diff(dim=2) > 0)
    for image in range(batch):
        hidden = set(drawn.targets[:, image].flatten().tolist())
        if not overlap and len(hidden) < cells:
            assert not hidden & set(drawn.context[:, image].flatten().tolist())


@settings(max_examples=100, deadline=None)
@given(st.integers(6, 20), st.integers(6, 20), seeds, st.integers(1, 4), st.booleans())
def test_reference_blocks_never_reach_the_last_row_or_column(rows, columns, seed, batch, overlap):
    draws = np.random.default_rng(seed)
    drawn = multiblock(draws, batch, (rows, columns), min_keep=2, overlap=overlap, reference=True)
    for indices in drawn:
        assert indices.div(columns, rounding_mode="floor").max() < rows - 1
        assert (indices % columns).max() < columns - 1


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 3), (1, 9)])
def test_reference_says_where_it_would_loop_for_ever(grid):
    with pytest.raises(UserError, match=r"more than 10 patches; .* use larger images"):
        multiblock(np.random.default_rng(0), 2, grid, reference=True)


@pytest.mark.parametrize(("reference", "reaches"), [(True, False), (False, True)])
def test_only_the_reference_spares_the_last_row_and_column(reference, reaches):
    draws = np.random.default_rng(0)
    drawn = [multiblock(draws, 4, (8, 6), min_keep=2, reference=reference) for _ in range(100)]
    for part in (torch.cat([b.targets.flatten() for b in drawn]),):
        count = part.bincount(minlength=48).unflatten(0, (8, 6))
        assert bool(count[-1].any()) == bool(count[:, -1].any()) == reaches
    seen = torch.cat([b.context.flatten() for b in drawn]).bincount(minlength=48)
    assert bool(seen.unflatten(0, (8, 6))[-1].any()) == reaches


def test_random_cut_does_not_prefer_the_first_rows():
    """Mirrored, the frequencies of what contexts keep are the same; the reference's fall.

    Of 400 batches of 8 the share of a half is known to about 0.002.
    """

    def upper_half(reference: bool) -> float:
        draws = np.random.default_rng(0)
        drawn = [multiblock(draws, 8, (14, 14), reference=reference).context for _ in range(400)]
        rows = torch.cat([c.flatten() for c in drawn]) // 14
        last = 12 if reference else 13  # the rows that may be seen, mirrored
        return float((rows < last / 2).double().mean() + (rows == last / 2).double().mean() / 2)

    assert abs(upper_half(reference=False) - 0.5) < 0.01
    assert upper_half(reference=True) > 0.55


def test_blocks_have_the_sizes_asked_for():
    draws = np.random.default_rng(0)
    drawn = [multiblock(draws, 2, (14, 14)) for _ in range(200)]
    lengths = torch.tensor([b.targets.shape[2] for b in drawn])
    assert 0.13 * 196 <= lengths.min() <= lengths.max() <= 0.22 * 196  # rounded to whole rows
    assert min(b.context.shape[2] for b in drawn) > 10


def test_blocks_follow_the_seed_alone():
    torch.manual_seed(3)
    first = multiblock(masks.generator(), 3, (5, 7))
    again = multiblock(masks.generator(), 3, (5, 7))
    torch.manual_seed(3)
    same = multiblock(masks.generator(), 3, (5, 7))
    assert all(torch.equal(a, b) for a, b in zip(first, same))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, again))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), seeds, st.integers(1, 4))
def test_random_split_parts_all_patches(patches, seed, batch):
    drawn = random_split(np.random.default_rng(seed), batch, patches)
    assert drawn.context.shape[2] >= 1
    assert drawn.targets.shape[2] >= 1
    if patches > 1:
        both = torch.cat([drawn.context, drawn.targets], 2).sort().values
        assert torch.equal(both, torch.arange(patches).expand_as(both))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.floats(0, 0.99), st.integers(1, 4))
def test_lowest_noise_is_kept(patches, ratio, batch):
    noise = torch.rand(batch, patches)
    keep, hidden = keep_lowest(noise, ratio)
    assert keep.shape == (batch, int(patches * (1 - ratio)))
    assert torch.equal(hidden.sum(1), torch.full((batch,), patches - keep.shape[1]))
    assert not hidden.gather(1, keep).any()
    for row, seen, unseen in zip(noise, keep, hidden):
        if len(seen) and unseen.any():
            assert row[seen].max() <= row[unseen].min()


@settings(max_examples=150, deadline=None)
@given(grids, seeds, st.floats(0, 1), st.floats(0, 0.5), st.booleans())
def test_masks_by_ratio_on_any_grid(grid, seed, ratio, spread, single):
    spread = min(spread, ratio, 1 - ratio)
    hidden = by_ratio(np.random.default_rng(seed), grid, (0.0, ratio), (0.0, spread), single=single)
    assert hidden.shape == grid
    assert hidden.dtype == bool
    assert hidden.sum() <= (ratio + spread) * hidden.size + 1e-9


@settings(max_examples=100, deadline=None)
@given(grids, seeds, st.integers(0, 9), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_spread_ratios_on_any_grid(grid, seed, images, share, low, high):
    low, high = sorted((low, high))
    hidden = spread_ratios(np.random.default_rng(seed), images, grid, share, (low, high))
    assert hidden.shape == (images, grid[0] * grid[1])
    each = hidden.sum(1)
    assert (each > 0).sum() <= int(images * share)
    assert (each <= high * hidden.shape[1] + 1e-3).all()


def test_spread_ratios_hide_about_what_is_asked_for():
    hidden = spread_ratios(np.random.default_rng(0), 64, (14, 14))
    each = hidden.sum(1).sort().values
    assert (each == 0).sum() == 32
    asked = ratio_steps(64, 0.5, (0.1, 0.5)) * 196
    assert (each[32:] <= asked[1:]).all()
    assert (each[32:] >= 0.7 * asked[:-1]).all()


@settings(max_examples=150, deadline=None)
@given(grids, seeds, st.floats(0, 1), st.booleans())
def test_all_but_one_block_is_hidden_on_any_grid(grid, seed, ratio, roll):
    count = int(ratio * (grid[0] * grid[1] - 1))
    hidden = inverse_block(np.random.default_rng(seed), grid, count, roll=roll)
    assert hidden.shape == grid
    assert hidden.sum() == count
    seen = ~hidden
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    # rows are whole but for the last, whatever edge the block goes over
    assert seen.sum() > (len(rows) - 1) * len(columns)
    if not roll:
        for places in (rows, columns):
            assert places[-1] - places[0] == len(places) - 1


def test_a_block_that_goes_over_edges_shows_no_place_more_often_than_another():
    draws = np.random.default_rng(0)
    seen = np.mean([~inverse_block(draws, (8, 8), 41) for _ in range(4000)], 0)
    assert np.abs(seen - 23 / 64).max() < 0.05
    within = np.mean([~inverse_block(draws, (8, 8), 41, roll=False) for _ in range(4000)], 0)
    assert within[3:5, 3:5].mean() > 2 * within[0, 0]


def test_average_distance_is_that_to_the_nearest_seen_pixel():
    rng = np.random.default_rng(0)
    masks = rng.random((3, 4, 5)) < 0.7
    each = []
    for mask in masks:
        pixels = mask.repeat(2, 0).repeat(3, 1)
        seen = np.argwhere(~pixels)
        each += [np.sqrt(((seen - place) ** 2).sum(1)).min() for place in np.argwhere(pixels)]
    assert average_distance(masks, (2, 3)) == pytest.approx(np.mean(each), rel=1e-12)
    one = average_distance(masks[0])
    assert one == average_distance(masks[:1])
    assert average_distance(np.zeros((4, 4), bool)) == 0
    assert average_distance(np.ones((4, 4), bool)) == np.inf
    sizes = [average_distance(np.eye(6, dtype=bool), (n, n)) for n in (1, 4, 8)]
    assert sizes == sorted(sizes), "larger squares hide what is farther away"
