"""Cells of an image for jigsaw puzzles (Noroozi and Favaro 2016, https://arxiv.org/abs/1603.09246).

An image is cut into a grid of cells, and from each cell a smaller tile is taken at a random
place, so that tiles cannot be joined by the lines that cross their borders.
"""

from dataclasses import dataclass

import numpy as np

from selftaught.augment.image.render import render_view
from selftaught.augment.image.view import DRAWS, View
from selftaught.augment.pipeline import Pipeline, check_image
from selftaught.errors import UserError


def cut_tiles(image: np.ndarray, jitter: np.ndarray, tile: int) -> np.ndarray:
    """Cut one tile out of every cell of a square grid.

    Args:
        image: [C, S, S]; a side is cut into `grid` cells of S // grid pixels.
        jitter: Offsets of the tiles within their cells, whole pixels, [2, grid, grid] (down and
            right, for the cell in row i and column j) or [2, C, grid, grid] (channel by channel).
        tile: Height and width of a tile, in pixels.

    Returns:
        [grid * grid, C, tile, tile], in reading order.

    Raises:
        UserError: A tile would leave its cell.
    """
    channels, side, _ = image.shape
    grid = jitter.shape[-1]
    cell = side // grid
    if jitter.min() < 0 or jitter.max() + tile > cell:
        raise UserError(
            f"A tile of {tile} pixels at offset {jitter.min()}..{jitter.max()} leaves its cell of "
            f"{cell}: offsets must lie in 0..{cell - tile}"
        )
    offsets = jitter if jitter.ndim == 4 else jitter[:, None]
    down, right = np.broadcast_to(offsets, (2, channels, grid, grid))
    tiles = np.empty((grid, grid, channels, tile, tile), image.dtype)
    for i, j, c in np.ndindex(grid, grid, channels):
        y, x = i * cell + down[c, i, j], j * cell + right[c, i, j]
        tiles[i, j, c] = image[c, y : y + tile, x : x + tile]
    return tiles.reshape(grid * grid, channels, tile, tile)


@dataclass(frozen=True)
class Tiles(Pipeline):
    """A view cut into a grid of tiles, each shifted at random within its cell.

    Args:
        view: The square image that is cut; its size must be a multiple of `grid`.
        grid: Cells along a side.
        tile: Height and width of a tile, in pixels.
        channel_shift: Largest further shift of single channels against each other, in pixels;
            it hides the lens's chromatic aberration, which gives a tile's place away.

    Raises:
        UserError: The view does not divide into cells, or a tile does not fit into its cell.
    """

    view: View
    grid: int = 3
    tile: int = 64
    channel_shift: int = 0

    def __post_init__(self) -> None:
        rows, columns = self.view.shape
        cell, rest = divmod(rows, self.grid)
        if rest or rows != columns or self.channel_shift < 0:
            raise UserError(
                f"a view of {self.view.size} pixels is no square of {self.grid} whole cells, or "
                f"channel_shift={self.channel_shift} is below 0"
            )
        if not 1 <= self.tile <= cell - self.channel_shift:
            raise UserError(
                f"tiles of {self.tile} pixels, with channels moved by up to {self.channel_shift}, "
                f"do not fit the {cell}-pixel cells of a {self.grid} x {self.grid} puzzle of "
                f"{self.view.size} pixels: use larger images (--size), or a smaller channel_shift"
            )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Make the tiles of `image`, uint8 [H, W, C]: uint8 [grid * grid, C, tile, tile].

        Raises:
            UserError: `image` is not a uint8 array [H, W, C] with pixels.
        """
        check_image(image)
        params = self.view.params(rng.random(DRAWS).tolist(), *image.shape[:2])
        square = render_view(image, self.view, params)
        grid, channels = self.grid, len(square)
        room = self.view.shape[0] // grid - self.tile - self.channel_shift
        jitter = rng.integers(0, room, (2, 1, grid, grid), endpoint=True)
        shift = rng.integers(0, self.channel_shift, (2, channels, grid, grid), endpoint=True)
        return cut_tiles(square, jitter + shift, self.tile)
