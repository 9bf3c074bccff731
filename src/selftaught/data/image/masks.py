"""Masks: images whose values are names of classes, not brightness."""

import io
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image

from selftaught.data.files import FileSource
from selftaught.data.image.decode import BadSample
from selftaught.data.image.picture import Ready
from selftaught.data.opening import open_data
from selftaught.data.selection import Selected, select
from selftaught.data.source import Raw, Samples
from selftaught.errors import UserError

LOOKED = 64
"""Masks that are looked at before they are learned from."""


class Masks:
    """The mask of each sample of a dataset; picklable.

    Args:
        samples: the images.
        masks: of the same dataset, as another column, or of another folder.
        positions: of the mask of each sample.
    """

    def __init__(self, samples: Samples, masks: Samples, positions: np.ndarray):
        self.samples, self.masks, self.positions = samples, masks, positions

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, rows: np.ndarray) -> "Masks":
        """Those of some of the samples."""
        return Masks(select(self.samples, rows), self.masks, self.positions[rows])

    def of(self, samples: Samples) -> "Masks":
        """Those of `samples`, which `select` made of these."""
        assert isinstance(samples.source, Selected)
        return self.select(samples.source.positions)

    def read(self, i: int) -> np.ndarray:
        """Classes of the pixels of sample `i`, int64 [H, W]; BadSample with the reason."""
        where = int(self.positions[i])
        return class_map(self.masks.source.load(where))

    def name(self, i: int) -> str:
        """What the mask of sample `i` is called."""
        return self.masks.name(int(self.positions[i]))


@final
class Masked:
    """Images with their masks; for pipelines that take both as one array."""

    def __init__(self, samples: Samples, masks: Masks):
        self.samples, self.masks = samples, masks
        self.channels, self.labels = samples.channels, samples.labels

    def __len__(self) -> int:
        return len(self.samples)

    def open(self, i: int) -> Ready:
        """Image `i`, its mask as one more channel; BadSample if one is bad, or both do not fit."""
        image, mask, name = self.samples.read(i), self.masks.read(i), self.masks.name(i)
        if mask.shape != image.shape[:2]:
            raise BadSample(
                f"its mask {name} has {mask.shape[1]} x {mask.shape[0]} pixels, the image "
                f"{image.shape[1]} x {image.shape[0]}: both must be of one size"
            )
        if mask.max() == 1 and mask.min() >= 0:  # yes or no
            mask *= 255
        if mask.min() < 0 or mask.max() > 255:
            raise BadSample(
                f"its mask {name} has values from {mask.min()} to {mask.max()}; what is learned "
                "from goes from 0 to 255"
            )
        return Ready(np.concatenate([image, mask.astype(np.uint8)[..., None]], 2))


def open_masks(source: Any, samples: Samples, masks: str | None = None) -> Masks:
    """The masks that belong to samples.

    Args:
        source: what `samples` was opened from.
        samples: the images.
        masks: folder of masks with the names of the images, whatever the extension; or the column
            that holds them, by default one called mask.

    Raises:
        UserError: there are none, or not one for each image.
    """
    if masks is not None and Path(masks).is_dir():
        found = open_data(masks)
        position = {_stem(found.name(i)): i for i in range(len(found))}
        stems = [_stem(samples.name(i)) for i in range(len(samples))]
        lost = [s for s in stems if s not in position]
        if lost:
            raise UserError(
                f"{masks} has no mask for {len(lost)} of {len(stems)} images, such as {lost[0]}; "
                "a mask has the name of its image, whatever its extension"
            )
        return Masks(samples, found, np.array([position[s] for s in stems]))
    try:
        found = open_data(source, column=masks or "mask")
    except UserError as error:
        raise UserError(
            f"masks are needed, and {masks or 'mask'} is neither a folder nor a column of "
            f"the data ({error}); name a folder of masks or a column with --masks"
        ) from error
    files = isinstance(found.source, FileSource)  # which have no columns: these are the images
    if files or len(found) != len(samples) or found.name(0) != samples.name(0):
        raise UserError(
            f"masks are needed: {masks or 'mask'} is no column of this data; name a folder "
            "of masks with the names of the images with --masks"
        )
    return Masks(samples, found, np.arange(len(samples)))


def check_degrees(masks: Masks) -> None:
    """Refuse masks of classes where masks are to say how surely a pixel is meant, from 0 to 255.

    At most `LOOKED` are read, all over the dataset.
    """
    largest = 0
    count = min(LOOKED, len(masks))
    for i in np.linspace(0, len(masks) - 1, count).astype(int):
        try:
            largest = max(largest, int(masks.read(i).max()))
        except BadSample:  # counted and listed when it is trained on
            continue
    if 1 < largest < 128:
        raise UserError(
            f"the largest value of {count} masks is {largest}: they look like masks of classes, "
            "and masks to learn from go from 0, where surely nothing is meant, to 255; masks of 0 "
            "and 1 will do"
        )


def class_map(raw: Raw) -> np.ndarray:
    """The values of a mask as they are stored, int64 [H, W]: no palette, no gray of colors."""
    if isinstance(raw, bytes):
        try:
            raw = Image.open(io.BytesIO(raw))
        except OSError as error:
            raise BadSample(f"is no image that can be read: {error}") from error
    values = np.asarray(raw)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "uib":
        raise BadSample(
            f"has values {values.dtype} of shape {list(values.shape)}; a mask has one whole number "
            "a pixel (a gray or palette PNG)"
        )
    return values.astype(np.int64)


def _stem(name: str) -> str:
    """Name without extension."""
    return name.rpartition(".")[0] or name
