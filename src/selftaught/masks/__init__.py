"""Which patches a model may see: of images here and in `blocks`, of `clips`; which words of `text`.

Samplers draw from anything with the methods `random`, `integers` and `permutation` of numpy's
generators. Words: `keep` and `context` are indices of what is seen, `hidden` is True where a patch
is not seen, `targets` are indices of what must be predicted. Patches are numbered row by row.
"""

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError

Grid = tuple[int, int]
"""Rows and columns."""
Range = tuple[float, float]


class Draws(Protocol):
    """The part of `np.random.Generator` that samplers use; tests replay recorded draws instead."""

    def random(self, size: Any = None) -> Any: ...
    def integers(self, low: Any, high: Any, size: Any = None) -> Any: ...
    def permutation(self, x: int) -> np.ndarray: ...


def generator() -> np.random.Generator:
    """A generator seeded from torch's global one on the CPU, which checkpoints restore."""
    return np.random.default_rng(int(torch.randint(2**63 - 1, ())))


class Split(NamedTuple):
    """keep: [B, K] patches that are seen, in any order; hidden: [B, N] True for all others."""

    keep: Tensor
    hidden: Tensor


def keep_lowest(noise: Tensor, ratio: float) -> Split:
    """MAE's masking (He et al., 2022): `ratio` of the patches, those of highest noise, are hidden.

    Args:
        noise: [B, N] uniform, one number a patch.
        ratio: in [0, 1); int(N * (1 - ratio)) patches are kept, in the order of their noise.
    """
    keep = noise.argsort(1)[:, : int(noise.shape[1] * (1 - ratio))]
    hidden = torch.ones_like(noise, dtype=torch.bool).scatter(1, keep, False)
    return Split(keep, hidden)


def hidden_units(draws: Draws, grid: Grid, ratio: float) -> np.ndarray:
    """SimMIM's masking (Xie et al., 2022): [rows, cols], True for ceil(cells * ratio) of the cells.

    Args:
        draws: source of randomness; one permutation is drawn.
        grid: rows and columns of units, which are larger than the patches of the model.
        ratio: in [0, 1].
    """
    cells = grid[0] * grid[1]
    hidden = np.zeros(cells, bool)
    hidden[draws.permutation(cells)[: math.ceil(cells * ratio)]] = True
    return hidden.reshape(grid)


def enlarge(hidden: Tensor, grid: Grid) -> Tensor:
    """[B, h, w] on units -> [B, *grid], where `grid` is a whole multiple of h and w."""
    for axis, size in ((1, grid[0]), (2, grid[1])):
        hidden = hidden.repeat_interleave(size // hidden.shape[axis], axis)
    return hidden


def average_distance(hidden: np.ndarray, cell: tuple[int, int] = (1, 1)) -> float:
    """How far hidden pixels lie from the nearest seen one on average: AvgDist (Xie et al., 2022).

    The paper finds it to say what size and share of the masks say only together: too near, and
    what is hidden is copied from beside it; too far, and nothing is left to tell it from.

    Args:
        hidden: bool [rows, columns] of an image, or [B, rows, columns] of several.
        cell: height and width of a cell in pixels.

    Returns:
        Pixels, between centers; 0 where nothing is hidden, infinite where nothing is seen.
    """
    from scipy.ndimage import distance_transform_edt

    masks = np.kron(np.atleast_3d(hidden.T).T, np.ones((1, *cell), bool)).astype(bool)
    if masks.all((1, 2)).any():
        return math.inf
    far = np.stack([np.asarray(distance_transform_edt(mask)) for mask in masks])
    return float(far[masks].mean()) if masks.any() else 0.0


class Blocks(NamedTuple):
    """context: [E, B, K] and targets: [T, B, L], indices of patches, ascending in each mask."""

    context: Tensor
    targets: Tensor


def random_split(draws: Draws, batch: int, patches: int, ratio: Range = (0.4, 0.6)) -> Blocks:
    """I-JEPA's ablation: each patch is context or target, at random (Assran et al., 2023, Table 6).

    The share of targets, one for the batch, is uniform in `ratio`. Neither part is ever empty on
    two patches or more. Unlike that of other samplers, the order is that of the draws.
    """
    share = ratio[0] + draws.random() * (ratio[1] - ratio[0])
    kept = min(max(1, int(patches * (1 - share))), max(1, patches - 1))
    order = np.stack([draws.permutation(patches) for _ in range(batch)])
    targets = order[:, kept:] if patches > 1 else order
    return Blocks(torch.from_numpy(order[None, :, :kept]), torch.from_numpy(targets[None]))


def block_size(grid: Grid, scale: float, aspect: float) -> tuple[int, int]:
    """Rows and columns, unbounded, of a block of `scale` of the grid's area and height / width."""
    area = int(grid[0] * grid[1] * scale)
    return round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)


def multiblock(
    draws: Draws,
    batch: int,
    grid: Grid,
    targets: int = 4,
    contexts: int = 1,
    target_scale: Range = (0.15, 0.2),
    context_scale: Range = (0.85, 1.0),
    aspect: Range = (0.75, 1.5),
    min_keep: int = 10,
    overlap: bool = False,
    tries: int = 20,
    reference: bool = False,
) -> Blocks:
    """I-JEPA's masking (Assran et al., 2023, Section 3): blocks to predict, a block to see.

    The size of target blocks and that of context blocks is drawn once for the batch, positions for
    each image. A context block loses what lies in the image's targets; of `tries` positions it
    takes the first that leaves more than `min_keep` patches, otherwise the one that leaves most,
    otherwise all that is no target. Only where targets cover the whole grid are they, the last ones
    first, seen as well. Contexts are cut to the length of the shortest: a random subset.

    With `reference`, the draws and the result are those of the paper's code, quirks included: one
    draw gives a block's area and its aspect ratio; a block never reaches the last row or column;
    cutting keeps the first patches, row by row; targets too must have more than `min_keep` patches;
    a context that fails `tries` times drops the last target from what it must avoid. What would
    loop for ever in that code raises here.

    Args:
        draws: source of randomness.
        batch: B.
        grid: rows and columns of patches, at least 1 x 1.
        targets, contexts: number of blocks an image.
        target_scale, context_scale: smallest and largest area, as a fraction of the grid.
        aspect: smallest and largest height / width of targets; contexts are square.
        min_keep: see above.
        overlap: whether contexts keep what lies in targets.
        tries: see above.
        reference: whether to be exactly as the paper's code.

    Raises:
        UserError: `reference`, and blocks of more than `min_keep` patches do not fit in the grid.
    """
    sample = _multiblock_reference if reference else _multiblock
    target, context = (
        draw_size(draws, grid, scale, shape, reference)
        for scale, shape in ((target_scale, aspect), (context_scale, (1.0, 1.0)))
    )
    return sample(draws, batch, grid, targets, contexts, target, context, min_keep, overlap, tries)


def draw_size(draws: Draws, grid: Grid, scale: Range, aspect: Range, reference: bool) -> Grid:
    """Rows and columns of a block; `reference` draws area and aspect from one number."""
    u = draws.random()
    v = u if reference else draws.random()
    height, width = block_size(
        grid, scale[0] + u * (scale[1] - scale[0]), aspect[0] + v * (aspect[1] - aspect[0])
    )
    if reference:
        return min(height, grid[0] - 1), min(width, grid[1] - 1)
    return min(max(height, 1), grid[0]), min(max(width, 1), grid[1])


def _rectangles(top: np.ndarray, left: np.ndarray, size: Grid, grid: Grid) -> np.ndarray:
    """top, left: [...] -> [..., N] True inside the block."""
    row, col = np.arange(grid[0]), np.arange(grid[1])
    inside_row = (row >= top[..., None]) & (row < top[..., None] + size[0])
    inside_col = (col >= left[..., None]) & (col < left[..., None] + size[1])
    both = inside_row[..., :, None] & inside_col[..., None, :]
    return both.reshape(*top.shape, -1)


def _multiblock(
    draws: Draws,
    batch: int,
    grid: Grid,
    targets: int,
    contexts: int,
    target: Grid,
    context: Grid,
    min_keep: int,
    overlap: bool,
    tries: int,
) -> Blocks:
    def place(size: Grid, shape: tuple[int, ...]) -> np.ndarray:
        top = draws.integers(0, grid[0] - size[0] + 1, shape)
        return _rectangles(top, draws.integers(0, grid[1] - size[1] + 1, shape), size, grid)

    hidden = place(target, (targets, batch))
    free = ~np.logical_or.accumulate(hidden)  # [T, B, N]: outside the first 1, 2, ... targets
    last = free.sum(2).astype(bool).sum(0) - 1  # of the targets that leave something, per image
    allowed = np.where(last[:, None] < 0, True, free[last, np.arange(batch)])
    if overlap:
        allowed = np.ones_like(allowed)
    seen = place(context, (contexts, batch, tries)) & allowed[:, None]
    best = np.minimum(seen.sum(3), min_keep + 1).argmax(2)
    seen = np.take_along_axis(seen, best[..., None, None], 2)[:, :, 0]
    seen = np.where(seen.any(2, keepdims=True), seen, allowed)
    shortest = seen.sum(2).min()
    order = np.where(seen, draws.random(seen.shape), 2.0).argsort(2)[..., :shortest]
    return Blocks(
        torch.from_numpy(np.sort(order, 2)),
        torch.from_numpy(hidden.nonzero()[2].reshape(targets, batch, -1)),
    )


def _multiblock_reference(
    draws: Draws,
    batch: int,
    grid: Grid,
    targets: int,
    contexts: int,
    target: Grid,
    context: Grid,
    min_keep: int,
    overlap: bool,
    tries: int,
) -> Blocks:
    def place(size: Grid, avoid: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        avoid = list(avoid)
        while True:
            for _ in range(tries):
                top = np.asarray(draws.integers(0, grid[0] - size[0]))
                block = _rectangles(
                    top, np.asarray(draws.integers(0, grid[1] - size[1])), size, grid
                )
                seen = block & ~np.any(avoid, 0) if avoid else block
                if seen.sum() > min_keep:
                    return seen.nonzero()[0], block
            if not avoid:
                raise UserError(
                    f"the reference masking needs blocks of more than {min_keep} patches; on "
                    f"{grid[0]} x {grid[1]} patches it drew {size[0]} x {size[1]}; use larger "
                    "images, smaller patches, or the default masking"
                )
            avoid.pop()

    visible, hidden = [], []
    for _ in range(batch):
        placed = [place(target, []) for _ in range(targets)]
        hidden.append([indices for indices, _ in placed])
        avoid = [] if overlap else [block for _, block in placed]
        visible.append([place(context, avoid)[0] for _ in range(contexts)])
    return Blocks(_cut(visible), _cut(hidden))


def _cut(masks: list[list[np.ndarray]]) -> Tensor:
    """[B][M] arrays of indices -> [M, B, K]: the first K of each, K the length of the shortest."""
    shortest = min(len(indices) for image in masks for indices in image)
    cut = np.array([[indices[:shortest] for indices in image] for image in masks])
    return torch.from_numpy(cut.swapaxes(0, 1).copy())
