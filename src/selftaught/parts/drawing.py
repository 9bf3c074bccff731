"""Marks in images, for the pictures that a method gives of what it did."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

COLORS = (
    (0.90, 0.16, 0.16),
    (0.10, 0.62, 0.92),
    (0.98, 0.80, 0.10),
    (0.25, 0.80, 0.30),
    (0.85, 0.30, 0.85),
    (1.00, 0.55, 0.10),
)
"""Red, green and blue of the first marks; further ones begin anew."""

MATCHES = 5
"""Matching cells that are shown of a pair of views."""


def boxed(images: Tensor, boxes: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images with frames, the k-th of each image in the k-th color.

    Args:
        images: [B, C, H, W], normalized; where C is not 3 the frames are light and dark.
        boxes: [B, K, 4] left, top, right, bottom in pixels, last ones outside; the first on top.
        mean, std: of each channel, what the images were normalized with.
    """
    drawn = images.clone()
    channels, height, width = images.shape[1:]
    rgb = torch.tensor(COLORS)
    rgb = rgb if channels == 3 else rgb.mean(1, keepdim=True).expand(-1, channels)
    colors = ((rgb - torch.tensor(mean)) / torch.tensor(std)).to(images)[..., None, None]
    thick = max(1, min(height, width) // 64)
    for image, places in zip(drawn, boxes.round().int().tolist()):
        for k, (left, top, right, bottom) in reversed(list(enumerate(places))):
            rows, columns = slice(top + thick, bottom - thick), slice(left + thick, right - thick)
            inside = image[:, rows, columns].clone()
            image[:, top:bottom, left:right] = colors[k % len(COLORS)]
            image[:, rows, columns] = inside
    return drawn


def framed(
    images: Tensor,
    cells: Tensor,
    grid: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """`boxed`, around some cells.

    Args:
        images, mean, std: as of `boxed`.
        cells: [B, K] which cells, row by row.
        grid: rows and columns of cells that an image has.
    """
    height, width = images.shape[2:]
    row, column = cells // grid[1], cells % grid[1]
    edges = [
        column * width // grid[1],
        row * height // grid[0],
        (column + 1) * width // grid[1],
        (row + 1) * height // grid[0],
    ]
    return boxed(images, torch.stack(edges, -1).float(), mean, std)


class Matches(NamedTuple):
    """Cells of one view and what they match in another.

    cells: [B, K] of the first, the best match first. found: [B, K] of the second. columns: both
    views with these cells framed, a match in one color.
    """

    cells: Tensor
    found: Tensor
    columns: dict[str, Tensor]


def matches(
    views: Sequence[Tensor],
    features: Sequence[Tensor],
    grid: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Matches:
    """The few cells of a view that match best, by cosine, and those of the other that they match.

    Args:
        views: two [B, C, H, W].
        features: of their cells, two [B, N, D].
        grid: rows and columns of cells of a view.
        mean, std: as of `boxed`.
    """
    one, other = (normalize(f, dim=-1) for f in features)
    best, where = (one @ other.mT).max(2)
    cells = best.topk(min(MATCHES, best.shape[1])).indices
    found = where.gather(1, cells)
    one, other = (framed(x, c, grid, mean, std) for x, c in zip(views, (cells, found)))
    return Matches(cells, found, {"one view": one, "the other": other})


def verdicts(found: Matches, same: Tensor) -> list[str]:
    """How many matches of each image are right; same: bool [B, N, N], cells of one place."""
    rows = torch.arange(len(same), device=same.device)[:, None]
    right = same[rows, found.cells, found.found]
    return [answered(int(n), right.shape[1]) for n in right.sum(1)]


def answered(right: int, count: int) -> str:
    """So many of so many answers, ticked where all are right."""
    return f"{right} of {count} right{' ✓' if right == count else ''}"
