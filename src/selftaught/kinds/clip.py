"""Clips: takes of video, of which frames are decoded where views want them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.image.formats import VIDEO
from selftaught.data.video.take import Shown, Take
from selftaught.errors import UserError
from selftaught.kinds import Facts, Floor, Kind
from selftaught.nouns import BLANK
from selftaught.roles import Count
from selftaught.sides import area, both, told_size

if TYPE_CHECKING:
    from torch import Tensor

    from selftaught.data import Samples

LOOKED = 20
"""Clips whose sizes are looked at."""
MOST, STEP = 112, 16
"""Side of a view, where nobody says it: at most that of the usual networks of clips, and a whole
number of patches."""

PLAYED = 16
"""Most frames of a clip that a page plays."""


@dataclass(frozen=True)
class Clip(Kind):
    """Videos, without their sound. Frames are told by their numbers: where a camera took them at
    uneven times, they are as even as others.

    Args:
        frames: of a view; of shorter clips some come again.
        stride: from one frame of a view to the next, as far as a clip is long enough.
    """

    frames: Count = 16
    stride: Count = 4

    word = "clip"
    one, many, unit, counted, axes = "clip", "clips", "px", "shorter side", 5
    blank_words = BLANK
    suffixes = VIDEO
    columns = ("video", "clip", "mp4")
    encoder = "video.encoder:ClipEncoder"
    backbone = "vit_tiny"
    translates = moves = True
    standins = {False: {"vit_small": "vit_tiny", "vit_small_rope": "vit_tiny_rope"}}  # noqa: RUF012
    extra = "video"
    about_floors = (
        "Middle frame: 8 x 8 pixels; changes: the mean absolute change of 8 x 8 gray ones from "
        "frame to frame, beside it. "
    )

    def decode(self, raw: Any, name: str) -> Take:
        if isinstance(raw, bytes):
            return Take(raw)
        raise BadSample(f"is a {type(raw).__name__}, and a clip is the bytes of a video file")

    def verify(self, sample: Take) -> None:
        sample.verify()

    def facts(self, sample: Take) -> Facts:
        frame = next(sample.frames([sample.count // 2]))
        return Facts(min(sample.sides), int(np.ptp(frame)) <= 1, sample.raw)

    def fill(self, given: dict[str, Any], samples: "Samples") -> tuple["Clip", dict[str, Any]]:
        given = {k: v for k, v in given.items() if v is not None}
        kind = replace(self, frames=given.get("frames", self.frames))
        if given.get("channels", 3) != 3:
            raise UserError(
                f"channels={given['channels']}: clips are read with their 3 colors; leave it out"
            )
        if "size" not in given:
            patch = given.get("patch_size", STEP)
            side = min(MOST, self._side(samples)) // patch * patch
            given["size"] = max(side, patch)
        return kind, given | {"frames": kind.frames}

    def _side(self, samples: "Samples") -> int:
        """The median shorter side."""
        sides = []
        for i in np.linspace(0, len(samples) - 1, min(LOOKED, len(samples))).astype(int).tolist():
            try:
                sides.append(min(samples.read(i).sides))
            except BadSample:
                continue
        if not sides:
            samples.read(0)  # says why
        return sorted(sides)[len(sides) // 2]

    def plain(self, size: Any) -> Any:
        from selftaught.augment.clip import Plain

        return Plain(size, self.frames, self.stride)

    def again(self, view: np.ndarray) -> Shown:
        return Shown(view)

    def translate(self, node: Any) -> Any:
        from selftaught.augment import Views
        from selftaught.augment.clip import ClipViews

        if not isinstance(node, Views):
            return node
        return ClipViews(node.views, self.frames, self.stride, node.boxes)

    def prepare(self, views: Any, encoder: Any, channels_last: bool = False) -> Any:
        """Bytes [B, T, C, H, W] -> floats [B, C, T, H, W]."""
        from selftaught.augment.image.device import normalize

        return _turned(normalize(views, encoder.mean, encoder.std))

    def bytes(self, size: Any, channels: int) -> int:
        return self.frames * channels * area(size)

    def blank(self, count: int, encoder: Any) -> "Tensor":
        import torch

        shape = (count, self.frames, encoder.channels, *both(encoder.size))
        return torch.zeros(shape, dtype=torch.uint8)

    def floors(self) -> Mapping[str, Floor]:
        from selftaught.kinds.floors.clip import changes, still

        return {"middle frame": still, "middle frame and changes": changes}

    def thumbnail(self, sample: Take, side: int) -> np.ndarray:
        from selftaught import augment

        return augment.plain(side)(next(sample.frames([sample.count // 2])))

    def moving(self, sample: Take, side: int) -> np.ndarray:
        from selftaught.augment.clip import Plain

        return Plain(side, min(PLAYED, max(8, self.frames)), self.stride)(sample)

    def pictures(self, view: np.ndarray) -> list[np.ndarray]:
        """Its first frame, the middle and the last, side by side."""
        if view.dtype != np.uint8 or view.ndim != 4:
            return []
        return [np.concatenate(view[[0, len(view) // 2, -1]], 2)]

    def shown(self, views: "Tensor") -> "Tensor":
        return views[:, views.shape[1] // 2]

    def at(self, size: Any) -> str:
        return f"{told_size(size)} px, {self.frames} frames"


def _turned(node: Any) -> Any:
    """Floats [B, T, C, H, W] among nested views, channels first."""
    if isinstance(node, dict):
        return {k: _turned(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return type(node)([_turned(v) for v in node])
    is_clip = getattr(node, "ndim", 0) == 5 and node.is_floating_point()
    return node.transpose(1, 2).contiguous() if is_clip else node
