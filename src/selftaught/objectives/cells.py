"""Cells of two views that show the same place of an image."""

import torch
from torch import Tensor


def centers(corners: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, 4] corners of views (left, top, right, bottom; left and right swapped if flipped), in
    any unit -> [B, N, 2] (x, y) of the centers of their cells, row by row.
    """
    rows, columns = (
        (torch.arange(n, device=corners.device, dtype=corners.dtype) + 0.5) / n for n in grid
    )
    at = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).flatten(0, 1)
    return corners[:, None, :2] + at * (corners[:, None, 2:] - corners[:, None, :2])


def near(one: Tensor, other: Tensor, grid: tuple[int, int], ratio: float) -> Tensor:
    """Which cells of two views lie near each other in the image (Xie et al., 2021, Eq. 1).

    Args:
        one, other: [B, 4] corners of the views, see `centers`.
        grid: rows and columns of cells.
        ratio: of the distance of two centers to the diagonal of the larger view's cells, below
            which they are near.

    Returns:
        bool [B, N, N]: cell i of `one` is near cell j of `other`.
    """
    size = one.new_tensor([grid[1], grid[0]])
    diagonals = [((x[:, 2:] - x[:, :2]) / size).norm(dim=1) for x in (one, other)]
    apart = centers(one, grid)[:, :, None] - centers(other, grid)[:, None]
    return apart.norm(dim=3) / torch.maximum(*diagonals)[:, None, None] < ratio
