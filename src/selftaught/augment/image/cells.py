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
from selftaught.sides import Size, both, told_size


def cut_tiles(image: np.ndarray, jitter: np.ndarray, tile: Size) -> np.ndarray:
    """Cut one tile out of every cell of a grid that has as many rows as columns.

    Args:
        image: [C, H, W]; it is cut into `grid` rows of H // grid and columns of W // grid pixels.
        jitter: Offsets of the tiles within their cells, whole pixels, [2, grid, grid] (down and
            right, for the cell in row i and column j) or [2, C, grid, grid] (channel by channel).
        tile: Height and width of a tile, in pixels: one number for both, or (rows, columns).

    Returns:
        [grid * grid, C, *tile], in reading order.

    Raises:
        UserError: A tile would leave its cell.
    """
    channels, grid = len(image), jitter.shape[-1]
    cell, shape = [side // grid for side in image.shape[1:]], both(tile)
    for moved, room, side in zip(jitter, cell, shape):
        if moved.min() < 0 or moved.max() + side > room:
            raise UserError(
                f"A tile of {side} pixels at offset {moved.min()}..{moved.max()} leaves its cell "
                f"of {room}: offsets must lie in 0..{room - side}"
            )
    offsets = jitter if jitter.ndim == 4 else jitter[:, None]
    down, right = np.broadcast_to(offsets, (2, channels, grid, grid))
    tiles = np.empty((grid, grid, channels, *shape), image.dtype)
    for i, j, c in np.ndindex(grid, grid, channels):
        y, x = i * cell[0] + down[c, i, j], j * cell[1] + right[c, i, j]
        tiles[i, j, c] = image[c, y : y + shape[0], x : x + shape[1]]
    return tiles.reshape(grid * grid, channels, *shape)


@dataclass(frozen=True)
class Tiles(Pipeline):
    """A view cut into a grid of tiles, each shifted at random within its cell.

    Args:
        view: The image that is cut; its sides must be multiples of `grid`.
        grid: Cells along a side.
        tile: Height and width of a tile, in pixels: one number for both, or (rows, columns).
        channel_shift: Largest further shift of single channels against each other, in pixels;
            it hides the lens's chromatic aberration, which gives a tile's place away.

    Raises:
        UserError: The view does not divide into cells, or a tile does not fit into its cell.
    """

    view: View
    grid: int = 3
    tile: Size = 64
    channel_shift: int = 0

    def __post_init__(self) -> None:
        if any(side % self.grid for side in self.view.shape) or self.channel_shift < 0:
            raise UserError(
                f"a view of {told_size(self.view.size)} pixels has no {self.grid} x {self.grid} "
                f"whole cells, or channel_shift={self.channel_shift} is below 0"
            )
        for tile, cell in zip(both(self.tile), (side // self.grid for side in self.view.shape)):
            if not 1 <= tile <= cell - self.channel_shift:
                raise UserError(
                    f"tiles of {told_size(self.tile)} pixels, with channels moved by up to "
                    f"{self.channel_shift}, do not fit the {cell}-pixel cells of a {self.grid} x "
                    f"{self.grid} puzzle of {told_size(self.view.size)} pixels: use larger images "
                    "(--size), or a smaller channel_shift"
                )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Make the tiles of `image`, uint8 [H, W, C]: uint8 [grid * grid, C, *tile].

        Raises:
            UserError: `image` is not a uint8 array [H, W, C] with pixels.
        """
        check_image(image)
        params = self.view.params(rng.random(DRAWS).tolist(), *image.shape[:2])
        whole = render_view(image, self.view, params)
        grid, channels = self.grid, len(whole)
        sides = zip(self.view.shape, both(self.tile))
        room = [side // grid - tile - self.channel_shift for side, tile in sides]
        most = np.array(room)[:, None, None, None]
        jitter = rng.integers(0, most, (2, 1, grid, grid), endpoint=True)
        shift = rng.integers(0, self.channel_shift, (2, channels, grid, grid), endpoint=True)
        return cut_tiles(whole, jitter + shift, self.tile)
