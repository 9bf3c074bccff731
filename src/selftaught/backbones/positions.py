"""Positions of patches: sin-cos tables, rotations, and tables carried to another grid."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.sides import Size, both

Grid = tuple[int, int]
"""Rows and columns."""
ClipGrid = tuple[int, int, int]
"""Frames, rows and columns."""


Resample = Literal["plain", "offset", "smooth"]
"""How a table is carried to another grid, always bicubically. plain: between the grids' corners
(MAE, BEiT, I-JEPA). offset: by (new + 0.1) / old, a guard against rounding (DINO, iBOT, DINOv2).
smooth: antialiased (timm; DINOv2 with registers)."""


def grid_of(count: int, size: Size | None, patch: int) -> Grid | None:
    """Rows and columns of `count` patches of `patch` px, as images of `size` have them, or, where
    that is not known, as a square has them; None where they have others.
    """
    side = math.isqrt(count)
    rows, columns = (side, side) if size is None else (n // patch for n in both(size))
    return (rows, columns) if rows * columns == count else None


def sincos(
    grid: Grid, dim: int, prefix: int = 0, first: Literal["columns", "rows"] = "columns"
) -> Tensor:
    """Fixed positions of images: [1, prefix + rows * cols, dim], float64.

    One half of the channels tells the column, the other the row; each half is the sines, then the
    cosines, of the coordinate times 10000 ** (-k / (dim / 4)), k < dim / 4. Rows of `prefix` tokens
    (class token, registers) are zero. The papers' models hold it in float32.

    Args:
        grid: rows and columns.
        dim: a multiple of 4.
        prefix: see above.
        first: what the first half tells: columns in MAE and I-JEPA, rows in V-JEPA.
    """
    if dim % 4:
        raise UserError(f"sin-cos positions need a width that is a multiple of 4, got {dim}")
    row, col = _each_axis(grid, (dim // 2, dim // 2))
    table = torch.cat([col, row] if first == "columns" else [row, col], 1)
    return F.pad(table, (0, 0, prefix, 0))[None]


def sincos_clip(grid: ClipGrid, dim: int, uniform: bool = True) -> Tensor:
    """Fixed positions of clips: [1, frames * rows * cols, dim], float64 (V-JEPA).

    Frame, row and column have a part of the channels each, in this order; see `sincos`.

    Args:
        grid: frames, rows and columns.
        dim: even; a multiple of 8 unless `uniform`.
        uniform: whether the parts are of one width, the last one cut off at `dim`, as in the
            released models; otherwise the frame has a half, row and column a quarter each.
    """
    if dim % (2 if uniform else 8):
        raise UserError(
            f"sin-cos positions of clips need a width that is a multiple of {2 if uniform else 8}, "
            f"got {dim}"
        )
    third = 2 * math.ceil(dim / 6)
    widths = (third,) * 3 if uniform else (dim // 2, dim // 4, dim // 4)
    return torch.cat(_each_axis(grid, widths), 1)[None, :, :dim]


def rotary(grid: tuple[int, ...], dim: int, tiled: bool = False) -> Tensor:
    """Sines, then cosines, of rotary positions: [N, 2 * dim], float64, as timm's attention takes.

    Each axis of the grid turns pairs of neighboring channels (Su et al., 2021), as many for one
    axis as for another, by the coordinate times 10000 ** (-k / pairs); what is left over at the end
    is not turned.

    Args:
        grid: of patches: frames, rows and columns, or the last ones of these.
        dim: width of a head of the attention.
        tiled: as in V-JEPA 2, whose two channels of a pair are turned by different angles: channel
            c by that of pair c % pairs. This is no rotation, but what its weights have learned.
    """
    pairs = dim // (2 * len(grid))
    if not pairs:
        raise UserError(
            f"rotary positions on {len(grid)} axes need heads of a width of at least "
            f"{2 * len(grid)}, got {dim}"
        )
    angles = [
        angle.repeat(1, 2) if tiled else angle.repeat_interleave(2, 1)
        for angle in _each_axis(grid, (pairs,) * len(grid), angles=True)
    ]
    angle = F.pad(torch.cat(angles, 1), (0, dim - 2 * pairs * len(grid)))
    return torch.cat([angle.sin(), angle.cos()], 1)


def _each_axis(
    grid: tuple[int, ...], widths: tuple[int, ...], angles: bool = False
) -> list[Tensor]:
    """[N, width] of each axis for all places, row by row: sines and cosines, or angles alone."""
    parts = []
    for axis, (count, width) in enumerate(zip(grid, widths)):
        waves = width if angles else width // 2
        frequency = 10000.0 ** (-torch.arange(waves, dtype=torch.float64) / waves)
        angle = torch.arange(count, dtype=torch.float64)[:, None] * frequency
        part = angle if angles else torch.cat([angle.sin(), angle.cos()], 1)
        shape = [1] * len(grid) + [width]
        shape[axis] = count
        parts.append(part.view(shape).expand(*grid, width).flatten(0, -2))
    return parts


def resampled(table: Tensor, old: Grid, new: Grid, prefix: int, how: Resample) -> Tensor:
    """`interpolate` as `how` says."""
    return interpolate(
        table, old, new, prefix, 0.1 if how == "offset" else 0.0, smooth=how == "smooth"
    )


def interpolate(
    table: Tensor, old: Grid, new: Grid, prefix: int = 0, offset: float = 0.0, smooth: bool = False
) -> Tensor:
    """A table [1, prefix + N, D] of positions on the grid `old`, bicubically carried to `new`.

    Three forms are around, and each set of published weights wants its own.

    Args:
        table: its first `prefix` rows are kept.
        old, new: rows and columns.
        prefix: number of class and register tokens with a row.
        offset: 0 samples between the grids' corners (MAE, BEiT); 0.1 scales by (new + 0.1) / old
            instead, as DINO, iBOT and DINOv2 do against rounding.
        smooth: whether to antialias (timm; DINOv2 with registers).
    """
    if old == new:
        return table
    grid = table[:, prefix:].mT.unflatten(2, old)
    grid = F.interpolate(
        grid,
        size=None if offset else new,
        scale_factor=tuple((n + offset) / o for n, o in zip(new, old)) if offset else None,
        mode="bicubic",
        antialias=smooth,
    )
    return torch.cat([table[:, :prefix], grid.flatten(2).mT], 1)
