"""Views of clips: a stretch of time, and one crop and one draw of colors for all of its frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught.augment.image.view import DRAWS, View
from selftaught.augment.image.views import Plain as PlainImage
from selftaught.augment.image.views import Views
from selftaught.augment.pipeline import Pipeline
from selftaught.sides import Size


@dataclass(frozen=True)
class ClipViews(Pipeline):
    """Declared views, each of a random stretch of its own (CVRL, Qian et al., 2021, arXiv
    2008.03800, but for its law that near stretches are likelier than far ones).

    Args:
        views: as a method declared them for images.
        frames: of a view.
        stride: from one frame to the next, as far as the clip is long enough.
        boxes: also where the views came from, as `augment.Views` has it.
    """

    views: tuple[View, ...]
    frames: int
    stride: int
    boxes: bool = False

    def __call__(self, take: Any, rng: np.random.Generator) -> Any:
        """For each view of a `Take` uint8 [frames, C, rows, columns]."""
        views: list[np.ndarray] = []
        boxes, places = [], rng.random(len(self.views))
        rows = rng.random((len(self.views), DRAWS)).tolist()
        for view, row, place in zip(self.views, rows, places):
            numbers = stretch(take.count, self.frames, self.stride, place)
            made, box = rendered(take, numbers, view, row)
            views.append(made)
            boxes.append(box)
        return (views, np.array(boxes, np.float32)) if self.boxes else views


def rendered(
    take: Any, numbers: Sequence[int], view: View, row: Sequence[float]
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Frames of a `Take`, each cropped and colored alike, and `Params.box` of it.

    Args:
        numbers: of the frames, in any order that all of them go up, or down.
        view: as a method declared it.
        row: `DRAWS` uniform numbers.

    Returns:
        uint8 [frames, C, rows, columns].
    """
    backward = numbers[0] > numbers[-1]
    views, found = Views((view,)), []
    box: tuple[float, ...] = ()
    for frame in take.frames(numbers[::-1] if backward else numbers):
        params = view.params(row, *frame.shape[:2])
        box = params.box(*frame.shape[:2])
        found += views.render(frame, [params])
    return np.stack(found[::-1] if backward else found), box


@dataclass(frozen=True)
class Plain(Pipeline):
    """The frames in the middle of a clip, or all over it if it is short, and the center of each.

    Args:
        size: side of a frame, or (rows, columns).
        frames, stride: as of `ClipViews`.
    """

    size: Size
    frames: int
    stride: int

    def __call__(self, take: Any, rng: Any = None) -> np.ndarray:
        """uint8 [frames, C, rows, columns]."""
        image = PlainImage(self.size, self.size)
        numbers = middle(take.count, self.frames, self.stride)
        return np.stack([image(frame) for frame in take.frames(numbers)])


def stretch(count: int, frames: int, stride: int, place: float) -> Sequence[int]:
    """Numbers of `frames` frames of a clip of `count`, as far apart as `stride`, or as there is
    room for; where there are fewer frames than that some come again.

    Args:
        place: in [0, 1), where the stretch lies between the first possible place and the last.
    """
    stride = min(stride, (count - 1) // max(1, frames - 1))
    if stride < 1:
        return _evenly(count, frames)
    start = int(place * (count - (frames - 1) * stride))
    return [start + i * stride for i in range(frames)]


def middle(count: int, frames: int, stride: int) -> Sequence[int]:
    """Numbers of the frames in the middle of a clip of `count`; evenly over it if it is short."""
    if (frames - 1) * stride >= count:
        return _evenly(count, frames)
    return stretch(count, frames, stride, 0.5)


def _evenly(count: int, frames: int) -> list[int]:
    places = (np.arange(frames) + 0.5) * count / frames
    return places.astype(int).tolist()
