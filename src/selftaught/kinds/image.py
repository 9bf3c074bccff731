"""Images: uint8 [H, W, channels]."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selftaught.data.image.formats import IMAGE
from selftaught.kinds import Facts, Floor, Kind
from selftaught.nouns import BLANK
from selftaught.sides import area, both

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from selftaught.backbones import Encoder
    from selftaught.data import Samples


@dataclass(frozen=True)
class Image(Kind):
    """Pictures of any format, as `open_data` reads them by its own options."""

    word = "image"
    one, many, unit, counted, axes = "image", "images", "px", "shorter side", 4
    suffixes = IMAGE
    columns = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp")
    encoder = "image.encoder:Image"
    blank_words = BLANK
    task = "image-feature-extraction"
    native = photos = translates = True
    places = "image"
    about_floors = "Pixels: the mean of each image removed. "

    def decode(self, raw: Any, name: str) -> "np.ndarray":
        from selftaught.data import Samples
        from selftaught.data.arrays import items

        return Samples(items([raw])).read(0)

    def facts(self, sample: "np.ndarray") -> Facts:
        spread = int(sample.max()) - int(sample.min())
        return Facts(min(sample.shape[:2]), spread <= 1, sample.tobytes())

    def described(self, samples: "Samples", some: Sequence[int]) -> list[tuple[str, str]]:
        """From what files say before their pixels."""
        from selftaught.data import BadSample

        headers = []
        for i in some:
            try:
                headers.append(samples.header(i))
            except BadSample:
                continue
        if not headers:
            return []
        rows = []
        for name, values in (
            ("width", sorted(h.width for h in headers)),
            ("height", sorted(h.height for h in headers)),
        ):
            low, middle, high = values[0], values[len(values) // 2], values[-1]
            text = f"{low} px" if low == high else f"{low} to {high} px, median {middle}"
            rows.append((name, text))
        for name, counted in (
            ("channels", Counter(str(h.channels) for h in headers)),
            ("format", Counter(h.format for h in headers)),
        ):
            told = counted.most_common(8)
            rows.append((name, ", ".join(v if len(counted) == 1 else f"{v}: {n}" for v, n in told)))
        return rows

    def plain(self, size: Any) -> Any:
        from selftaught import augment

        return augment.plain(size)

    def prepare(self, views: Any, encoder: Any, channels_last: bool = False) -> Any:
        from selftaught.augment.image.device import normalize

        return normalize(views, encoder.mean, encoder.std, channels_last)

    def bytes(self, size: Any, channels: int) -> int:
        return channels * area(size)

    def blank(self, count: int, encoder: Any) -> "Tensor":
        import torch

        return torch.zeros(count, encoder.channels, *both(encoder.size), dtype=torch.uint8)

    def build(self, **given: Any) -> "Encoder":
        """Of timm by its name, or a module of one's own by the function that builds it."""
        from selftaught.backbones import build

        return build(**given)

    def floors(self) -> Mapping[str, Floor]:
        from selftaught.kinds.floors.image import Pixels

        return {"pixels 8x8": Pixels(8), "pixels 16x16": Pixels(16)}

    def pictures(self, view: "np.ndarray") -> "list[np.ndarray]":
        """The images [C, h, w] of an array; of a stack of them each."""
        if view.dtype != "uint8" or view.ndim < 3:
            return []
        return list(view.reshape(-1, *view.shape[-3:]))

    def inputs(self, views: Any) -> list["Tensor"]:
        """Floats [N, C, H, W]; of stacks [B, V, C, H, W] too."""
        from selftaught.augment.pipeline import tensors

        found = [x for x in tensors(views) if x.ndim >= 4 and x.is_floating_point()]
        return [x.flatten(0, -4) for x in found]

    def thumbnail(self, sample: "np.ndarray", side: int) -> "np.ndarray":
        return self.plain(side)(sample)
