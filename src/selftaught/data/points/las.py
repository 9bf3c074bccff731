"""Surveyors' format, LAS, and its compressed form, LAZ."""

import io
from importlib import import_module
from typing import Any

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.points.files import Cloud
from selftaught.errors import UserError


def parsed(raw: bytes) -> Cloud:
    """The points of a .las or .laz: a map of the land.

    Raises:
        BadSample: it is damaged.
        UserError: what reads it is not installed.
    """
    laspy = _needed()
    try:
        with laspy.open(io.BytesIO(raw)) as file:
            promised = file.header.point_count
            found = file.read()
    except (laspy.LaspyException, ValueError, EOFError, OSError, RuntimeError) as error:
        if "backend" in str(error).lower():
            raise _absent() from error
        raise BadSample(f"cannot be read: {error}") from error
    if len(found.points) < promised:
        raise BadSample(f"is cut short: {len(found.points):,} of {promised:,} points are there")
    places = np.stack([np.asarray(c, np.float64) for c in (found.x, found.y, found.z)], 1)
    return Cloud(places, np.asarray(found.intensity, np.float32), map=True)


def _needed() -> Any:
    try:
        return import_module("laspy")
    except ImportError as error:
        raise _absent() from error


def _absent() -> UserError:
    return UserError("LAS and LAZ files need laspy and lazrs: pip install 'selftaught[points]'")
