"""Which patches of an image are hidden, block by block, by the numbers that papers ask for."""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from selftaught.masks import Draws, Grid, Range


def add_block(
    draws: Draws,
    hidden: np.ndarray,
    area: Range,
    limit: float,
    aspect: Range = (0.3, 1 / 0.3),
    tries: int = 10,
) -> int:
    """Hide one more block of patches, as BEiT does (Bao et al., 2022, Algorithm 1), and as iBOT and
    DINOv2 do after it; returns how many patches that were seen it hides, 0 after `tries` in vain.

    A block is smaller than the grid in both directions, lies anywhere in it, and may overlap what
    is hidden already. Four draws an attempt: area, logarithm of the aspect ratio, top, left.

    Args:
        draws: source of randomness.
        hidden: bool [rows, columns], changed in place.
        area: bounds between which the area in patches is drawn, in either order.
        limit: most patches that it may newly hide.
        aspect: smallest and largest height / width.
        tries: see above.
    """
    rows, columns = hidden.shape
    low, high = (math.log(bound) for bound in aspect)
    for _ in range(tries):
        size = area[0] + (area[1] - area[0]) * draws.random()
        ratio = math.exp(low + (high - low) * draws.random())
        height, width = round((size * ratio) ** 0.5), round((size / ratio) ** 0.5)
        if height < rows and width < columns:
            top = int(draws.integers(0, rows - height + 1))
            left = int(draws.integers(0, columns - width + 1))
            block = hidden[top : top + height, left : left + width]
            if 0 < (added := block.size - int(block.sum())) <= limit:
                block[:] = True
                return added
    return 0


def blocks(
    draws: Draws,
    grid: Grid,
    count: float,
    smallest: float,
    largest: float = math.inf,
    aspect: Range = (0.3, 1 / 0.3),
) -> np.ndarray:
    """bool [rows, columns]: about `count` patches hidden in blocks, never more.

    Fewer where no block fits any more: on small grids that may be none.

    Args:
        draws: source of randomness.
        grid: rows and columns of patches, at least 1 x 1.
        count: patches to hide; need not be whole.
        smallest, largest: bounds of a block's area in patches. Near the end, what is left to hide
            may be less than `smallest`: areas are then drawn between the two.
        aspect: smallest and largest height / width of a block.
    """
    hidden = np.zeros(grid, dtype=bool)
    covered = 0
    while covered < count:
        room = min(count - covered, largest)
        added = add_block(draws, hidden, (smallest, room), room, aspect)
        if not added:
            break
        covered += added
    return hidden


def inverse_block(
    draws: Draws, grid: Grid, count: int, aspect: Range = (0.5, 2.0), roll: bool = True
) -> np.ndarray:
    """CAPI's masking (Darcet et al., 2025, Section 3.3): all is hidden but one block.

    Exactly `count` patches are, so that the last row of the block may be a part of one. With
    `roll` it may go over an edge and on at the other one, so that no place is seen more often.

    Args:
        draws: source of randomness: aspect, then place.
        grid: rows and columns of patches.
        count: patches to hide, fewer than there are.
        aspect: smallest and largest height / width of the block, as far as the grid has room.
        roll: see above.

    Returns:
        bool [rows, columns], True where hidden.
    """
    rows, columns = grid
    seen = rows * columns - count
    low, high = (math.log(bound) for bound in aspect)
    shape = math.exp(low + (high - low) * draws.random())
    width = min(columns, max(1, round((seen / shape) ** 0.5)))
    width = max(width, math.ceil(seen / rows))
    height = math.ceil(seen / width)
    hidden = np.ones(grid, bool)
    block = np.arange(height * width).reshape(height, width) >= seen
    if roll:
        hidden[:height, :width] = block
        shift = int(draws.integers(0, rows)), int(draws.integers(0, columns))
        return np.roll(hidden, shift, (0, 1))
    top, left = draws.integers(0, rows - height + 1), draws.integers(0, columns - width + 1)
    hidden[top : top + height, left : left + width] = block
    return hidden


def by_ratio(
    draws: Draws,
    grid: Grid,
    ratios: tuple[float, ...],
    spreads: tuple[float, ...],
    single: bool = False,
) -> np.ndarray:
    """iBOT's masking (Zhou et al., 2022, Section 3.3): bool [rows, columns], True where hidden.

    A ratio is drawn around each of `ratios`, and one of these is taken by chance; the paper's are
    0, which hides nothing, and 0.3 +- 0.2.

    Args:
        draws: source of randomness; the ratios are drawn first, then which, then the blocks.
        grid: rows and columns of patches, at least 1 x 1.
        ratios: of hidden patches, each in [0, 1].
        spreads: for each ratio, how far it may be off to either side.
        single: whether to hide single patches, not blocks.
    """
    drawn = [r + s * (2 * draws.random() - 1) if s else r for r, s in zip(ratios, spreads)]
    ratio = drawn[int(draws.integers(0, len(drawn)))] if len(drawn) > 1 else drawn[0]
    count, patches = ratio * grid[0] * grid[1], grid[0] * grid[1]
    if single:
        return (draws.permutation(patches) >= patches - int(count)).reshape(grid)
    return blocks(draws, grid, count, smallest=(min(grid) // 3) ** 2)


def ratio_steps(images: int, share: float, ratio: Range) -> Tensor:
    """[M + 1] bounds of the hidden ratio of M = int(images * share) images, evenly spread.

    Args:
        images: of the batch.
        share: of the images that hide anything, in [0, 1].
        ratio: smallest and largest ratio of hidden patches.
    """
    return torch.linspace(*ratio, int(images * share) + 1)


def spread_ratios(
    draws: Draws,
    images: int,
    grid: Grid,
    share: float = 0.5,
    ratio: Range = (0.1, 0.5),
    smallest: int = 4,
) -> Tensor:
    """DINOv2's masking (Oquab et al., 2024): bool [images, N], True where hidden.

    Ratios of the images that hide anything are spread evenly over `ratio`, one drawn between each
    two of `ratio_steps`, so that batches hide about equally much. Blocks cover at most half of the
    grid each.

    Args:
        draws: source of randomness; the images' places in the batch are drawn last.
        images: of the batch, all global views counted.
        grid: rows and columns of patches, at least 1 x 1.
        share: of the images that hide anything, in [0, 1].
        ratio: smallest and largest ratio of hidden patches.
        smallest: area of a block in patches.
    """
    patches = grid[0] * grid[1]
    hidden = torch.zeros(images, patches, dtype=torch.bool)
    for row, (low, high) in enumerate(pairwise(ratio_steps(images, share, ratio).tolist())):
        count = int(patches * (low + (high - low) * draws.random()))
        drawn = blocks(draws, grid, count, smallest, patches / 2)
        hidden[row] = torch.from_numpy(drawn.reshape(-1))
    return hidden[torch.from_numpy(draws.permutation(images))]
