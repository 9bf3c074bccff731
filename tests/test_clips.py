"""Positions on any axes, encoders of clips and what predicts their features."""

import pytest
import torch
from timm.layers import apply_rot_embed_cat

from selftaught.backbones import ClipEncoder, Predictor, rotary, sincos, sincos_clip
from selftaught.errors import UserError


def test_sincos_in_both_orders_on_a_grid_that_is_not_square():
    columns, rows = (sincos((2, 3), 8, 1, first)[0] for first in ("columns", "rows"))
    assert torch.equal(columns, torch.cat([rows[:, 4:], rows[:, :4]], 1))
    assert torch.equal(rows[0], torch.zeros(8))
    assert torch.equal(rows[1:4, :4], rows[1:2, :4].expand(3, -1))  # one row


@pytest.mark.parametrize(("uniform", "parts"), [(True, (8, 8, 8)), (False, (8, 4, 4))])
def test_sincos_of_clips_tells_frame_row_and_column(uniform, parts):
    table = sincos_clip((2, 3, 4), sum(parts), uniform).view(2, 3, 4, -1)
    for axis, part in enumerate(table.split(parts, 3)):
        still = part.movedim(axis, 0)
        assert not torch.equal(still[0], still[1])
        assert torch.equal(still, still[:, :1, :1].expand_as(still))
    wrong, least = (7, 2) if uniform else (12, 8)
    with pytest.raises(UserError, match=f"multiple of {least}, got {wrong}"):
        sincos_clip((2, 3, 4), wrong, uniform)


def test_rotary_positions_tell_distances_alone():
    """Products of a turned query and a turned key, along each axis; norms stay."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 14, dtype=torch.float64)
    table = rotary((3, 4, 5), 14).view(3, 4, 5, 28)
    turned_q, turned_k = (apply_rot_embed_cat(x, table) for x in (q, k))
    torch.testing.assert_close(turned_q.norm(dim=3), q.norm().expand(3, 4, 5))
    assert torch.equal(turned_q[..., 12:], q[12:].expand(3, 4, 5, 2))
    for axis in range(3):
        q0, q1, _ = turned_q.movedim(axis, 0)[:3, 0, 0]
        _, k1, k2 = turned_k.movedim(axis, 0)[:3, 0, 0]
        torch.testing.assert_close(q0 @ k1, q1 @ k2)
        assert not torch.isclose(q0 @ k1, q0 @ k2)
    tiled = apply_rot_embed_cat(q, rotary((3, 4, 5), 14, tiled=True))
    assert (tiled.norm(dim=1) / q.norm() - 1).abs().max() > 0.05
    with pytest.raises(UserError, match=r"3 axes need heads of a width of at least 6, got 4"):
        rotary((2, 2, 2), 4)


@pytest.mark.parametrize("positions", ["sincos", "rotary", "tiled"])
def test_a_clip_is_seen_in_parts_whatever_their_order(positions):
    torch.manual_seed(0)
    clip = ClipEncoder("vit_tiny", (8, 12), 4, 2, 4, 2, 24, 2, 2, 2.0, positions).eval()
    assert clip.grid == (2, 2, 3)
    video = torch.randn(2, 2, 4, 8, 12)
    everything = torch.arange(12).expand(2, -1)
    torch.testing.assert_close(clip.tokens(video, everything.flip(1)).flip(1), clip.tokens(video))
    keep = torch.stack([torch.randperm(12)[:5] for _ in range(2)])
    seen = clip.tokens(video, keep)
    assert not torch.allclose(seen, clip.tokens(video).take_along_dim(keep[..., None], 1))

    own = Predictor(24, 24, 1, 2, 2.0, clip.table(24, 2), tokens=2).eval()
    torch.nn.init.normal_(own.mask_token)
    asked = torch.stack([torch.randperm(12)[:4] for _ in range(4)])  # two sets for each clip
    found = own(seen, keep, asked)
    torch.testing.assert_close(own(seen.flip(1), keep.flip(1), asked.flip(1)).flip(1), found)
    torch.testing.assert_close(own(seen, keep, asked[2:]), found[2:])
    assert not torch.allclose(own(seen, keep, asked, token=1), found)
    assert ("predictor_pos_embed" in own.state_dict()) == (positions == "sincos")


def test_clips_that_are_no_whole_tubelets_are_refused():
    with pytest.raises(UserError, match=r"clips of 3 x 8 x 8 .* tubelets of 2 x 4 x 4; use mult"):
        ClipEncoder(size=8, frames=3, patch_size=4)
    with pytest.raises(UserError, match="dim=24 must be a multiple of heads=5"):
        ClipEncoder(size=8, frames=4, patch_size=4, width=24, heads=5)
