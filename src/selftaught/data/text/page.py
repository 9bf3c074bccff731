"""The first words of a text as a picture, where a picture is asked for."""

import textwrap

import numpy as np
from PIL import Image, ImageDraw

LETTER, LINE = 10, 12
"""Height in pixels of letters, and of a line of them."""


def page(text: str, side: int) -> np.ndarray:
    """uint8 [1, side, side]: as much of a text as there is room for, dark on light."""
    made = Image.new("L", (side, side), 255)
    letters = max(1, 2 * side // LETTER)  # half as wide as high
    start = " ".join(text[: letters * (side // LINE + 1)].split())
    lines = textwrap.wrap(start, letters)[: max(1, side // LINE)]
    ImageDraw.Draw(made).multiline_text((2, 1), "\n".join(lines), 0, font_size=LETTER, spacing=1)
    return np.asarray(made)[None]
