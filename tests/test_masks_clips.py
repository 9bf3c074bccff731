"""Masks of clips and of text on any grid and any text; recorded draws are the golden files'."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.errors import UserError
from selftaught.masks.clips import multiblock_clip, tubes
from selftaught.masks.text import count_masked, mask_tokens

grids = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
seeds = st.integers(0, 2**32)
ranges = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple)
ROLES = ("cut", "all_targets", "all_context", "swapped")


@settings(max_examples=100, deadline=None)
@given(
    grids,
    seeds,
    st.integers(1, 4),
    st.integers(1, 9),
    st.tuples(ranges, ranges),
    st.floats(0.01, 1),
    st.one_of(st.none(), st.integers(1, 40)),
    st.sampled_from(ROLES),
)
def test_boxes_on_any_clip(grid, seed, batch, blocks, scales, seen_time, max_keep, roles):
    draws = np.random.default_rng(seed)
    time, space = scales
    drawn = multiblock_clip(
        draws,
        batch,
        grid,
        blocks,
        time,
        space,
        (0.3, 3.0),
        seen_time=seen_time,
        max_keep=max_keep,
        roles=roles,
    )
    cells = grid[0] * grid[1] * grid[2]
    for indices in drawn:
        assert indices.shape[:2] == (1, batch)
        assert indices.shape[2] >= 1
        assert 0 <= indices.min() <= indices.max() < cells
        assert torch.all(indices.diff(dim=2) > 0)
    if roles in ("all_targets", "all_context") and cells > 1:
        both = torch.cat([*drawn], 2).sort(2).values
        assert torch.equal(both, torch.arange(cells).expand_as(both))
    if max_keep and roles == "cut":
        assert drawn.context.shape[2] <= max_keep


@settings(max_examples=50, deadline=None)
@given(grids, seeds, st.integers(1, 4), st.floats(0, 1))
def test_tubes_on_any_clip(grid, seed, batch, ratio):
    drawn = tubes(np.random.default_rng(seed), batch, grid, ratio)
    places = grid[1] * grid[2]
    for indices in drawn:
        assert indices.shape[2] >= 1
        first = indices.unflatten(2, (grid[0], -1)) % places
        assert torch.equal(first, first[:, :, :1].expand_as(first))
    if places > 1:
        both = torch.cat([*drawn], 2).sort(2).values
        assert torch.equal(both, torch.arange(places * grid[0]).expand_as(both))


def test_only_the_reference_discards_the_ends_of_clips():
    ends = {}
    for reference in (True, False):
        draws = np.random.default_rng(0)
        seen = [
            multiblock_clip(draws, 8, (8, 8, 8), time=(0.3, 0.9), reference=reference).context
            for _ in range(30)
        ]
        count = torch.cat([s.flatten() for s in seen]).bincount(minlength=512).view(8, -1).sum(1)
        ends[reference] = float(count[-1] / count[0])
    assert ends[True] < 0.6
    assert 0.8 < ends[False] < 1.25


def test_reference_boxes_that_cover_everything_raise():
    with pytest.raises(UserError, match=r"2 boxes of 2 x 3 x 3 cover all of 2 x 3 x 3; .* longer"):
        multiblock_clip(
            np.random.default_rng(0),
            1,
            (2, 3, 3),
            2,
            space=(1.0, 1.0),
            aspect=(1, 1),
            reference=True,
        )


# Text.


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=0, max_size=40), seeds, st.booleans())
def test_any_text_is_masked(tokens, seed, words):
    """Ids below 2 are special, those above 6 continue words."""
    ids = np.array(tokens, np.int64)
    special = ids < 2
    masked = mask_tokens(
        np.random.default_rng(seed), ids, special, 10, 9, continues=ids > 6 if words else None
    )
    wanted = count_masked(len(ids))
    assert len(masked.positions) <= wanted
    assert bool(len(masked.positions)) == bool((~special).any())
    if not words:
        assert len(masked.positions) == min(wanted, int((~special).sum()))
    assert not special[masked.positions].any()
    assert np.all(np.diff(masked.positions) > 0)
    rest = np.setdiff1d(np.arange(len(ids)), masked.positions)
    np.testing.assert_array_equal(masked.ids[rest], ids[rest])
    np.testing.assert_array_equal(masked.labels, ids[masked.positions])


def test_a_word_does_not_reach_across_a_special_token():
    """Only in the reference: [CLS] un ##do [SEP] ##ing [SEP]."""
    ids = np.array([1, 5, 8, 2, 9, 2])
    found = {}
    for reference in (True, False):
        found[reference] = {
            tuple(
                mask_tokens(
                    np.random.default_rng(seed),
                    ids,
                    ids < 3,
                    10,
                    3,
                    continues=ids > 6,
                    ratio=0.34,
                    reference=reference,
                ).positions.tolist()
            )
            for seed in range(20)
        }
    assert found == {True: {()}, False: {(1, 2), (4,)}}


def test_a_word_longer_than_the_number_is_cut():
    masked = mask_tokens(
        np.random.default_rng(0),
        np.array([1, 5, 8, 8, 2]),
        np.array([1, 0, 0, 0, 1], bool),
        10,
        3,
        continues=np.array([0, 0, 1, 1, 0], bool),
    )
    assert masked.positions.tolist() == [1]
