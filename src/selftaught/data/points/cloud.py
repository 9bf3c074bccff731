"""The points of a file, whatever its format is."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from selftaught.data.image.decode import BadSample

INTENSITY = ("intensity", "reflectance", "reflectivity", "remission", "i", "scalar_intensity")
"""What the brightness of a point is called in files that name their columns."""


class Cloud(NamedTuple):
    """Points as a file has them. places: float64 [N, 3] in meters, of which some may not be finite.
    intensity: float32 [N], in the unit of the file; None where there is none. map: whether they are
    a map of the land, in which no sensor stands where coordinates begin."""

    places: np.ndarray
    intensity: np.ndarray | None
    map: bool = False


def of_array(found: np.ndarray) -> Cloud:
    """Points of an array [N, 3 or more], or of one with named columns; BadSample otherwise."""
    if found.dtype.names:
        return of_columns({n: found[n] for n in found.dtype.names})
    if found.dtype.kind not in "iuf" or found.ndim != 2 or found.shape[1] < 3:
        raise BadSample(
            f"is an array {list(found.shape)} of {found.dtype}, no points: [N, 3] of x, y, z in "
            "meters, or [N, 4] with intensity"
        )
    shade = found[:, 3].astype(np.float32) if found.shape[1] > 3 else None
    return Cloud(found[:, :3].astype(np.float64), shade)


def of_columns(columns: Mapping[str, np.ndarray]) -> Cloud:
    """Points of columns by their names, each [N]; BadSample where x, y or z is not among them."""
    known = {name.lower(): np.asarray(column).reshape(-1) for name, column in columns.items()}
    lost = [axis for axis in "xyz" if axis not in known]
    if lost:
        raise BadSample(
            f"has no {', '.join(lost)} among what its points have: {', '.join(columns)}"
        )
    places = np.stack([known[axis].astype(np.float64) for axis in "xyz"], 1)
    shade = next((known[n].astype(np.float32) for n in INTENSITY if n in known), None)
    return Cloud(places, shade)
