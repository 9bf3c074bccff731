"""Masks of clips, whose patches are numbered frame by frame, and row by row in each."""

import math
from typing import Literal

import numpy as np
import torch

from selftaught.errors import UserError

from . import Blocks, Draws, Range, block_size

ClipGrid = tuple[int, int, int]
"""Frames (of patches, such as pairs of pictures), rows and columns."""


def tubes(draws: Draws, batch: int, grid: ClipGrid, ratio: float = 0.9) -> Blocks:
    """V-JEPA's tubes (Bardes et al., 2024): places hidden for as long as the clip lasts.

    int(places * (1 - ratio)) places are seen, but at least 1, and where there are two or more, 1
    less than all. Where there is one alone it is seen and a target.

    Args:
        draws: source of randomness; one permutation for each clip.
        batch: B.
        grid: of patches, at least 1 x 1 x 1.
        ratio: fraction of the places that is hidden.
    """
    frames, places = grid[0], grid[1] * grid[2]
    kept = min(max(1, int(places * (1 - ratio))), max(1, places - 1))
    order = np.stack([draws.permutation(places) for _ in range(batch)])
    parts = order[:, :kept], order[:, kept:] if places > 1 else order
    starts = np.arange(frames)[:, None] * places
    context, targets = (
        torch.from_numpy((np.sort(part, 1)[:, None] + starts).reshape(1, batch, -1))
        for part in parts
    )
    return Blocks(context, targets)


def clip_block_size(
    draws: Draws, grid: ClipGrid, time: Range, space: Range, aspect: Range
) -> ClipGrid:
    """Frames, rows and columns of a block; duration, area and height / width are drawn apart."""
    long, large, tall = (low + draws.random() * (high - low) for low, high in (time, space, aspect))
    height, width = block_size(grid[1:], large, tall)
    return max(1, int(grid[0] * long)), min(grid[1], height), min(grid[2], width)


def multiblock_clip(
    draws: Draws,
    batch: int,
    grid: ClipGrid,
    blocks: int = 8,
    time: Range = (1.0, 1.0),
    space: Range = (0.15, 0.15),
    aspect: Range = (0.75, 1.5),
    seen_time: float = 1.0,
    max_keep: int | None = None,
    roles: Literal["cut", "all_targets", "all_context", "swapped"] = "cut",
    tries: int = 20,
    reference: bool = False,
) -> Blocks:
    """V-JEPA's masking (Bardes et al., 2024): the union of `blocks` boxes is to be predicted from
    the rest of the clip.

    The boxes' size is drawn once for the batch, their places for each clip. Both parts are cut to
    the length of the shortest in the batch: a random subset. Where boxes cover all that may be
    seen, they are drawn again up to `tries` times, then the last ones are dropped; a single one
    that covers it is seen as well as predicted.

    With `reference`, the draws and the result are those of the papers' code: cutting keeps the
    first patches, frame by frame, which discards the ends of clips; boxes that cover everything
    are drawn again for ever in that code, which raises here.

    Args:
        draws: source of randomness: three numbers, then top, left and start of each box.
        batch: B.
        grid: of patches, at least 1 x 1 x 1.
        blocks: number of boxes in a clip; V-JEPA trains with 8 small ones and 2 large ones.
        time, space: smallest and largest duration and area, as fractions of the clip's.
        aspect: smallest and largest height / width.
        seen_time: fraction of the clip, from its start, of which anything is seen.
        max_keep: most patches that are seen, None for no limit.
        roles: `cut` as said; V-JEPA 2 has `all_targets`, all that is not seen after the cut is
            predicted; `all_context`, all that is not predicted is seen; `swapped`, the boxes are
            seen and the rest predicted.
        tries: see above.
        reference: whether to be exactly as the papers' code.

    Raises:
        UserError: `reference`, and boxes that leave nothing to see.
    """
    cells = math.prod(grid)
    size = clip_block_size(draws, grid, time, space, aspect)
    if not reference:
        size = size[0], max(size[1], 1), max(size[2], 1)
    late = np.zeros(grid, bool)
    late[max(1, int(grid[0] * seen_time)) :] = True
    hidden = [_boxes(draws, grid, size, blocks, late, tries, reference) for _ in range(batch)]
    seen = [np.flatnonzero(~late if h.all() else ~h) for h in hidden]
    asked = [np.flatnonzero(h) for h in hidden]
    most = max(1, cells - 1)  # so that something is left for the other part
    context = _cut(draws, seen, min(most, max_keep or most), reference)
    targets = _cut(draws, asked, most, reference)
    if cells == 1:
        roles = "cut"
    match roles:
        case "all_targets":
            targets = _others(context, cells)
        case "all_context":
            context = _others(targets, cells)
        case "swapped":
            context, targets = targets, context
    return Blocks(torch.from_numpy(context[None]), torch.from_numpy(targets[None]))


def _boxes(
    draws: Draws,
    grid: ClipGrid,
    size: ClipGrid,
    blocks: int,
    late: np.ndarray,
    tries: int,
    reference: bool,
) -> np.ndarray:
    """bool [T, H, W]: True in the boxes of a clip and in what is `late`."""
    unions: list[np.ndarray] = []
    for _ in range(1000 if reference else tries):
        hidden, unions = late.copy(), []
        for _ in range(blocks):
            top, left, start = (
                int(draws.integers(0, grid[axis] - size[axis] + 1)) for axis in (1, 2, 0)
            )
            hidden[start : start + size[0], top : top + size[1], left : left + size[2]] = True
            unions.append(hidden.copy())
        if not hidden.all():
            return hidden
    if reference:
        raise UserError(
            f"the reference masking needs patches that no box hides; {blocks} boxes of "
            f"{' x '.join(map(str, size))} cover all of {' x '.join(map(str, grid))}; use longer "
            "or larger clips, smaller boxes, or the default masking"
        )
    return next((union for union in reversed(unions) if not union.all()), unions[0])


def _cut(draws: Draws, parts: list[np.ndarray], most: int, reference: bool) -> np.ndarray:
    """[B, K], K the length of the shortest part and at most `most`: the first indices of each part,
    or a random subset in order.
    """
    length = min(most, *map(len, parts))
    if reference:
        return np.stack([part[:length] for part in parts])
    return np.stack([np.sort(part[draws.permutation(len(part))[:length]]) for part in parts])


def _others(parts: np.ndarray, cells: int) -> np.ndarray:
    """[B, K] -> [B, cells - K]: the indices that are not there, in order."""
    there = np.zeros((len(parts), cells), bool)
    np.put_along_axis(there, parts, True, 1)
    return np.nonzero(~there)[1].reshape(len(parts), -1)
