"""How large images are: one number where they are square, rows and columns where they are not."""

from collections.abc import Sequence

Size = int | tuple[int, int]
"""Pixels: the side of a square, or (rows, columns) of a rectangle."""

Sides = tuple[int, int]
"""Rows and columns, in pixels or cells."""


def both(size: Size | Sequence[int]) -> Sides:
    """Rows and columns, which of a square are alike."""
    return (size[0], size[1]) if isinstance(size, Sequence) else (size, size)


def one(size: Size | Sequence[int]) -> Size:
    """A size as it is kept: one number of a square, however it was given, else (rows, columns)."""
    if not isinstance(size, Sequence):
        return size
    rows, columns = size
    return rows if rows == columns else (rows, columns)


def short(size: Size) -> int:
    """The shorter side."""
    return min(both(size))


def told_size(size: int | tuple[int, ...]) -> str:
    """A size in a sentence: `128`, or `128 x 1024`, rows first; of clips the frames before them."""
    return str(size) if not isinstance(size, tuple) else " x ".join(map(str, size))


def as_option(size: Size) -> str:
    """A size as `--size` takes it: `128`, or `128x1024`."""
    return "x".join(map(str, both(size))) if isinstance(size, tuple) else str(size)


def told_sides(size: Size) -> str:
    """Both sides in a sentence, of a square as well: `128 x 128`."""
    return "{} x {}".format(*both(size))


def area(size: Size) -> int:
    """Pixels in all."""
    rows, columns = both(size)
    return rows * columns


def within(sides: Sequence[int], most: int) -> Sides:
    """Rows and columns, in the proportions of `sides`, of which the longer is `most`."""
    rows, columns = (max(1, round(side * most / max(sides))) for side in sides)
    return rows, columns


def part(size: Size, over: int, under: int, side: int | None = None) -> float | tuple[float, float]:
    """`over` / `under` of the sides; where `side` is given, as far as that is the shorter one.

    They need not be whole numbers of pixels, and keep their proportions.
    """
    if not isinstance(size, tuple):
        return side or size * over / under
    rows, columns = (n * side / min(size) if side else n * over / under for n in size)
    return rows, columns
