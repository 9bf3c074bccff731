"""Surveyors' format, LAS, and its compressed form, LAZ."""

import io
from importlib import import_module
from typing import Any

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.points.cloud import Cloud
from selftaught.errors import UserError


def parsed(raw: bytes) -> Cloud:
    """The points of a .las or .laz: a map of the land.

    Raises:
        BadSample: it is damaged.
        UserError: what reads it is not installed.
    """
    laspy = needed()
    try:
        with laspy.open(io.BytesIO(raw)) as file:
            promised = file.header.point_count
            found = file.read()
    except (laspy.LaspyException, ValueError, EOFError, OSError, RuntimeError) as error:
        raise BadSample(f"cannot be read: {error}") from error
    if len(found.points) < promised:
        raise BadSample(f"is cut short: {len(found.points):,} of {promised:,} points are there")
    places = np.stack([np.asarray(c, np.float64) for c in (found.x, found.y, found.z)], 1)
    return Cloud(places, np.asarray(found.intensity, np.float32), map=True)


def needed() -> Any:
    """The module that reads maps; UserError where it, or what unpacks LAZ, is absent."""
    try:
        import_module("lazrs")
        return import_module("laspy")
    except ImportError as error:
        raise UserError(
            "LAS and LAZ files need laspy and lazrs, which are not installed: pip install "
            "'selftaught[points]'"
        ) from error
