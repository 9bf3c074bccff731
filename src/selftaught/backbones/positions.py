"""Positions of patches: fixed sin-cos tables, and tables carried to another grid."""

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.errors import UserError

Grid = tuple[int, int]
"""Rows and columns."""


def sincos(grid: Grid, dim: int, prefix: int = 0) -> Tensor:
    """Fixed positions of MAE and I-JEPA: [1, prefix + rows * cols, dim], float64.

    The first half of the channels tells the column, the second the row; each half is the sines,
    then the cosines, of the coordinate times 10000 ** (-k / (dim / 4)), k < dim / 4. Rows of
    `prefix` tokens (class token, registers) are zero. The papers' models hold it in float32.
    """
    if dim % 4:
        raise UserError(f"sin-cos positions need a width that is a multiple of 4, got {dim}")
    frequency = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, col = (torch.arange(n, dtype=torch.float64)[:, None] * frequency for n in grid)
    row, col = (torch.cat([a.sin(), a.cos()], 1) for a in (row, col))
    table = torch.cat(
        [col.expand(grid[0], -1, -1), row[:, None].expand(-1, grid[1], -1)], 2
    ).flatten(0, 1)
    return F.pad(table, (0, 0, prefix, 0))[None]


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
