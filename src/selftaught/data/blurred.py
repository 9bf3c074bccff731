"""Images with places in them blurred past recognition, such as faces."""

from collections.abc import Mapping
from math import ceil
from typing import final

import numpy as np
from PIL import Image, ImageFilter

from selftaught.data.image.decode import decode, from_array, from_image
from selftaught.data.source import Raw, Source, digest

ROOM = 0.3
"""Of a box's sides, that is blurred around it."""
STRENGTH = 0.3
"""Of a box's longer side, that is the standard deviation of the blur."""


@final
class Blurred(Source):
    """Another source, with boxes of some of its images blurred.

    Args:
        source: of images.
        boxes: position -> [k, 4] left, top, right, bottom as shares of width and height, upright.
    """

    def __init__(self, source: Source, boxes: Mapping[int, np.ndarray]):
        self.source, self.boxes = source, dict(boxes)
        self.labels, self.classes, self.skipped = source.labels, source.classes, source.skipped
        self.numbered, self.held = source.numbered, source.held

    def __len__(self) -> int:
        return len(self.source)

    def load(self, i: int) -> Raw:
        raw = self.source.load(i)
        return raw if i not in self.boxes else _blurred(raw, self.boxes[i], self.source.name(i))

    def name(self, i: int) -> str:
        return self.source.name(i)

    def blocks(self) -> np.ndarray:
        return self.source.blocks()

    def fingerprint(self) -> str:
        order = sorted(self.boxes)
        return digest(self.source.fingerprint(), repr(order), *(self.boxes[i] for i in order))

    def stamp(self, i: int) -> str:
        own = self.source.stamp(i)
        return digest(own, self.boxes[i]) if own and i in self.boxes else own


def _blurred(raw: Raw, boxes: np.ndarray, name: str) -> np.ndarray:
    """uint8 [H, W, 3]."""
    if isinstance(raw, bytes):
        pixels = decode(raw, channels=3, name=name)
    else:
        pixels = (from_array if isinstance(raw, np.ndarray) else from_image)(raw, channels=3)  # type: ignore[arg-type]
    image = Image.fromarray(pixels)
    for left, top, right, bottom in boxes.tolist():
        x, y = left * image.width, top * image.height
        w, h = (right - left) * image.width, (bottom - top) * image.height
        place = (
            max(0, int(x - ROOM * w)),
            max(0, int(y - ROOM * h)),
            min(image.width, ceil(x + (1 + ROOM) * w)),
            min(image.height, ceil(y + (1 + ROOM) * h)),
        )
        blur = ImageFilter.GaussianBlur(max(2.0, STRENGTH * max(w, h)))
        image.paste(image.crop(place).filter(blur), place)
    return np.array(image)
