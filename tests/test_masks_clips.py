"""Masks of clips and of text: the papers' recorded draws, and promises on any grid."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.errors import UserError
from selftaught.masks.clips import clip_block_size, multiblock_clip, tubes
from selftaught.masks.text import count_masked, mask_tokens
from tests.adapters import Golden
from tests.replay import Recorded, Replay
from tests.test_golden import load

grids = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
seeds = st.integers(0, 2**32)
ranges = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple)
ROLES = ("cut", "all_targets", "all_context", "swapped")


def options(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `multiblock_clip` by the reference's names."""
    roles = "cut"
    for name, ours in (
        ("full_complement", "all_targets"),
        ("pred_full_complement", "all_context"),
        ("inv_block", "swapped"),
    ):
        roles = ours if given.get(name) else roles
    patch = given["spatial_patch_size"]
    return {
        "grid": (
            given["num_frames"] // given["temporal_patch_size"],
            *(side // patch for side in given["crop_size"]),
        ),
        "blocks": given["npred"],
        "time": tuple(given["temporal_pred_mask_scale"]),
        "space": tuple(given["spatial_pred_mask_scale"]),
        "aspect": tuple(given["aspect_ratio"]),
        "seen_time": given.get("max_context_frames_ratio", 1.0),
        "max_keep": given.get("max_keep"),
        "roles": roles,
        "reference": True,
    }


def shapes(golden: Golden) -> dict[str, dict[str, Any]]:
    """Settings by name; steps other than the first are described by it."""
    found = {}
    for array, about in golden.about.items():
        if (match := re.fullmatch(r"mask\.(\w+)\.step\d+\.pred", array)) and (
            "hyperparameters" in about
        ):
            found[match[1]] = about["hyperparameters"]
    return found


@pytest.mark.parametrize("file", ["vjepa", "vjepa2"])
def test_recorded_draws_give_the_papers_clip_masks(file):
    golden, settings_of = load(file), shapes(load(file))
    replayed = 0
    for array in golden.arrays:
        if not (match := re.fullmatch(r"mask\.(\w+)\.step\d+\.u", array)):
            continue
        name = array.removesuffix(".u")
        draws = Replay(golden[array], golden[f"{name}.randint"])
        context, targets = golden[f"{name}.enc"].long(), golden[f"{name}.pred"].long()
        drawn = multiblock_clip(draws, len(context), **options(settings_of[match[1]]))
        assert torch.equal(drawn.context[0], context), name
        assert torch.equal(drawn.targets[0], targets), name
        assert draws.exhausted()
        replayed += 1
    assert replayed >= 4


@pytest.mark.parametrize("file", ["vjepa", "vjepa2"])
def test_sizes_of_the_papers_clip_masks(file):
    golden = load(file)
    for name in ("long", "short", "varied"):
        given = options(golden.about[f"size.{name}"]["hyperparameters"])
        for u, expected in zip(golden["size.u"], golden[f"size.{name}"].tolist()):
            scales = (given["time"], given["space"], given["aspect"])
            assert list(clip_block_size(Replay(u), given["grid"], *scales)) == expected


@pytest.mark.parametrize("file", ["vjepa", "vjepa2"])
@pytest.mark.parametrize("name", ["short", "long"])
def test_lengths_of_the_papers_clip_masks(file, name):
    """Their mean over batches of 8, to 6 standard errors of the difference."""
    golden = load(file)
    expected = golden[f"stat.{name}.keep"].double()
    given = options(golden.about[f"size.{name}"]["hyperparameters"])
    draws, runs = np.random.default_rng(0), len(expected)
    drawn = [multiblock_clip(draws, 8, **given) for _ in range(runs)]
    ours = torch.tensor([[b.context.shape[2], b.targets.shape[2]] for b in drawn]).double()
    error = ((expected.var(0) + ours.var(0)) / runs).sqrt()
    assert torch.all((ours.mean(0) - expected.mean(0)).abs() <= 6 * error)


def test_recorded_tubes():
    golden = load("vjepa")
    given, kept = golden.about["tube.pred"]["hyperparameters"], golden["tube.shuffled"]
    orders = kept.argsort(dim=1, descending=True, stable=True)
    grid = (given["T"], 1, given["S"])
    drawn = tubes(Replay(orders=orders.numpy()), len(kept), grid, given["ratio"])
    assert torch.equal(drawn.context[0], golden["tube.enc"])
    assert torch.equal(drawn.targets[0], golden["tube.pred"])


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


@pytest.mark.parametrize("kind", ["token", "wwm"])
def test_recorded_draws_give_berts_masks(kind):
    golden = load("bert_mlm")
    given = golden.starting(f"{kind}.")
    subword = golden["vocab_is_subword"].numpy()
    assert golden.hyper["vocab"] == len(subword)
    for i, row in enumerate(given["input_ids"].numpy()):
        ids = row[: len(row) - int((row[::-1] == 0).cumprod().sum())]  # 0 pads
        special = (ids == 1) | (ids == 2)
        firsts = given["candidate_order"][slice(*given["offsets_order"][i : i + 2])].numpy()
        order = firsts.argsort().argsort()  # rank of each first position = which candidate
        draws = Recorded(given["draws"][slice(*given["offsets_draws"][i : i + 2])], [order])
        masked = mask_tokens(
            draws,
            ids,
            special,
            golden.hyper["vocab"],
            mask=3,
            continues=subword[ids] if kind == "wwm" else None,
            ratio=golden.hyper["prob"],
            most=golden.hyper["maxp"],
            reference=True,
        )
        count = len(masked.positions)
        np.testing.assert_array_equal(masked.ids, given["output_ids"][i][: len(ids)])
        np.testing.assert_array_equal(masked.positions, given["positions"][i][:count])
        np.testing.assert_array_equal(masked.labels, given["labels"][i][:count])
        assert torch.all(given["positions"][i][count:] == -1)
        assert draws.exhausted()


def test_berts_number_of_tokens():
    golden = load("bert_mlm")
    for length, expected in zip(golden["num_to_predict.len"], golden["num_to_predict.value"]):
        hyper = golden.hyper
        assert count_masked(int(length), hyper["prob"], hyper["maxp"]) == expected


def test_berts_fractions():
    golden = load("bert_mlm")
    vocabulary, draws = golden.hyper["vocab"], np.random.default_rng(0)
    ids = draws.integers(4, vocabulary, 4000)
    masked = mask_tokens(draws, ids, np.zeros(4000, bool), vocabulary, 3, ratio=1.0, most=4000)
    became = (masked.ids == 3, masked.ids == ids, (masked.ids != 3) & (masked.ids != ids))
    ours = torch.tensor([b.mean() for b in became])
    error = (golden["stat.fractions"] * (1 - golden["stat.fractions"]) / 4000).sqrt()
    assert torch.all((ours - golden["stat.fractions"]).abs() < 6 * error)


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
