"""What `check` may be asked for: each option once. Nothing heavy is imported."""

from dataclasses import dataclass
from typing import Literal

from selftaught.roles import Count, Number, Positive
from selftaught.signature import Options


@dataclass(frozen=True)
class Checking(Options):
    """How `check` reads data, and what it counts.

    Args:
        full: decode every image, and compare pixels; otherwise read headers, and compare files.
        workers: processes that read; 0 reads in this one, none stands for one a processor.
        labels: column, .npz array or .json field of labels; for a folder a CSV of path,label.
        kind: what a sample is, such as image or series, where the data does not show it.

    Other Args:
        column: column of a table, array of a .npz or extension in a tar that holds the images.
        path_column: column of a list that holds the paths, where it is not found by itself.
        channels: channels that every image must give.
        value_range: values that become 0 and 255, for images of more than 8 bits.
        truncated: whether images that end early count as unreadable, or are kept.
        max_pixels: width x height above which an image is refused; a file that is too small to be
            a picture of so many is refused before, unless another number is given.
        nodata: value for missing ones (NaN, or what a GeoTIFF names), in images of more than 8
            bits; also one that stands for missing ones itself.
        layout: order of an array's axes; HWC unless given, refused where it looks like CHW.
        tiny: shorter side in pixels below which an image counts as tiny.
        timeout: seconds after which a sample counts as unreadable.
        progress: show a progress bar, where standard error is a terminal.
    """

    full: bool = True
    workers: Number | None = None
    column: str | None = None
    labels: str | None = None
    kind: str | None = None
    path_column: str | None = None
    channels: Count = 3
    value_range: tuple[float, float] | None = None
    truncated: Literal["skip", "keep"] = "skip"
    max_pixels: Count = 179_000_000
    nodata: float | None = None
    layout: Literal["HWC", "CHW"] | None = None
    tiny: Number = 32
    timeout: Positive = 60.0
    progress: bool = True
