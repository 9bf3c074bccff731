"""Marks in images, for the pictures that a method gives of what it did."""

from collections.abc import Sequence

import torch
from torch import Tensor

COLOURS = (
    (0.90, 0.16, 0.16),
    (0.10, 0.62, 0.92),
    (0.98, 0.80, 0.10),
    (0.25, 0.80, 0.30),
    (0.85, 0.30, 0.85),
    (1.00, 0.55, 0.10),
)
"""Red, green and blue of the first marks; further ones begin anew."""


def framed(
    images: Tensor,
    cells: Tensor,
    grid: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Images with a frame around some cells, the k-th of each image in the k-th colour.

    Args:
        images: [B, C, H, W], normalized; where C is not 3 the frames are light and dark.
        cells: [B, K] which cells, row by row.
        grid: rows and columns of cells that an image has.
        mean, std: of each channel, what the images were normalized with.
    """
    drawn = images.clone()
    channels, height, width = images.shape[1:]
    rgb = torch.tensor(COLOURS)
    rgb = rgb if channels == 3 else rgb.mean(1, keepdim=True).expand(-1, channels)
    colours = ((rgb - torch.tensor(mean)) / torch.tensor(std)).to(images)[..., None, None]
    thick = max(1, min(height, width) // 64)
    for image, places in zip(drawn, cells.tolist()):
        for k, place in reversed(list(enumerate(places))):  # the best is drawn last, on top
            row, column = divmod(place, grid[1])
            top, bottom = row * height // grid[0], (row + 1) * height // grid[0]
            left, right = column * width // grid[1], (column + 1) * width // grid[1]
            inside = image[:, top + thick : bottom - thick, left + thick : right - thick].clone()
            image[:, top:bottom, left:right] = colours[k % len(COLOURS)]
            image[:, top + thick : bottom - thick, left + thick : right - thick] = inside
    return drawn
