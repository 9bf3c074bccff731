"""Points in files: what a file holds is told by its beginning, or by its ending where it has none.

KITTI's `.bin`, `.npy` and `.npz` are read here, the other formats in modules of their own.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.points import las, pcd, ply
from selftaught.data.points.cloud import INTENSITY, Cloud, of_array
from selftaught.data.series.files import SeriesSource
from selftaught.errors import UserError

POINTS = frozenset({".bin", ".npy", ".npz", ".pcd", ".ply", ".las", ".laz"})
"""Endings of files that are taken as points where points are asked for."""

_NAMES = ("points", "xyz", "xyzi", "scan", "cloud", "pc", "pointcloud", "arr_0")
_ABSURD = 1e8
"""Meters beyond which numbers are no places on Earth, but other bytes taken for numbers."""


def parsed(raw: Any, name: str) -> Cloud:
    """What a source of points gave; BadSample where it is none.

    Args:
        raw: an array [N, 3 or more]: x, y, z, intensity; or the content of a file.
        name: of the file, whose ending tells KITTI's format, which has no beginning of its own.
    """
    if not isinstance(raw, bytes):
        return of_array(np.asarray(raw))
    if not raw:
        raise BadSample("is empty")
    if raw[:6] == b"\x93NUMPY":
        return of_array(_array(raw))
    if raw[:4] == b"PK\x03\x04":
        return _of_archive(raw)
    if raw[:4] == b"LASF":
        return las.parsed(raw)
    if raw[:4] in (b"ply\n", b"ply\r"):
        return ply.parsed(raw)
    lower = name.lower()
    if lower.endswith(".pcd"):
        return pcd.parsed(raw)
    if lower.endswith(".bin"):
        return _of_floats(raw, 5 if lower.endswith(".pcd.bin") else 4)
    known = ", ".join(sorted(POINTS))
    raise BadSample(f"does not begin as points do in any of the formats that are read ({known})")


def _of_floats(raw: bytes, columns: int) -> Cloud:
    """KITTI's and nuScenes' format: float32 x, y, z, intensity (, ring), point by point."""
    if over := len(raw) % (4 * columns):
        raise BadSample(
            f"is cut short, or is not {columns} numbers of 4 bytes a point: {over} of "
            f"{len(raw):,} bytes are left over"
        )
    found = np.frombuffer(raw, "<f4").reshape(-1, columns)
    with np.errstate(invalid="ignore"):
        none = np.isnan(found[:, :3])
        # where no beam came back all three are none, as many as there may be
        absurd = (np.abs(found[:, :3]) > _ABSURD).any(1) | (none.any(1) & ~none.all(1))
        tiny = ((found != 0) & (np.abs(found) < 1e-30)).any(1)
    if (absurd | tiny).mean() > 0.25:  # of other types nearly all are
        raise BadSample(
            f"does not look like float32: {int((absurd | tiny).sum()):,} of {len(found):,} points "
            "have coordinates that are none; save them as float32 x, y, z, intensity"
        )
    return of_array(found)


def _array(raw: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(raw), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadSample(f"cannot be read as an array: {error}") from error


def _of_archive(raw: bytes) -> Cloud:
    """The points of a .npz that holds one scan."""
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            lower = {n.lower(): n for n in archive.files}
            name = next((lower[n] for n in _NAMES if n in lower), None)
            name = name or next((n for n in archive.files if _is_scan(archive[n])), None)
            if name is None:
                raise BadSample(f"has no array of points; it has {', '.join(archive.files)}")
            found = of_array(archive[name])
            shade = next((archive[lower[n]] for n in INTENSITY if n in lower), None)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BadSample(f"cannot be read as arrays: {error}") from error
    if shade is None or found.intensity is not None:
        return found
    if shade.size != len(found.places):
        raise BadSample(f"has {len(found.places):,} points and {shade.size:,} intensities")
    return found._replace(intensity=shade.reshape(-1).astype(np.float32))


def _is_scan(found: np.ndarray) -> bool:
    return found.ndim == 2 and found.shape[1] >= 3 and found.dtype.kind in "iuf"


def array_file(path: Path, column: str | None) -> SeriesSource | None:
    """The scans of a .npy [S, N, 3 or more], or those of a .npz, each an array; None of a file that
    is one scan.

    Args:
        path: of the file.
        column: the array of a .npz that holds scans [S, N, 3 or more].

    Raises:
        UserError: it cannot be read, or has no such array.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return SeriesSource(found, path.name, str(path)) if found.ndim == 3 else None
        with found:
            if column is not None and column not in found.files:
                raise UserError(f"{path} has no array {column}; it has {', '.join(found.files)}")
            arrays = [found[n] for n in found.files if column in (None, n)]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not an array that can be read: {error}") from error
    scans = [x for a in arrays for x in (a if a.ndim == 3 else [a]) if _is_scan(x)]
    if len(scans) < 2 and not any(a.ndim == 3 for a in arrays):
        return None
    return SeriesSource(scans, path.name)
