"""Classes of single points, in files beside those of the points, as SemanticKITTI has them."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from selftaught.data.source import Samples
from selftaught.errors import UserError

ENDINGS = (".label", ".npy")
"""Of files of labels: whole numbers of 32 bits, of which the lower 16 are the class and the others
the object; or an array of classes."""

UNLABELED = 0
"""The class of points that nobody has labeled, in SemanticKITTI, nuScenes and others."""

_FOLDERS = ("velodyne", "labels")
"""Of the points and their labels in SemanticKITTI: all else of a path is alike."""


class Labels:
    """The class of each point of each scan; picklable.

    Args:
        samples: the scans.
        files: of the labels of each.
    """

    def __init__(self, samples: Samples, files: list[Path]):
        self.samples, self.files = samples, files

    def __len__(self) -> int:
        return len(self.files)

    def select(self, rows: np.ndarray) -> "Labels":
        """Those of some of the scans."""
        from selftaught.data.selection import select

        return Labels(select(self.samples, rows), [self.files[i] for i in rows.tolist()])

    def read(self, i: int) -> np.ndarray:
        """Classes of the points of scan `i`, int64 [M], in the order of its file.

        Raises:
            UserError: the file holds no classes.
        """
        path = self.files[i]
        raw = path.read_bytes()
        if path.suffix.lower() == ".npy":
            try:
                found = np.load(io.BytesIO(raw), allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise UserError(f"{path} cannot be read as an array: {error}") from error
            if found.dtype.kind not in "iub" or found.ndim > 2 or found.size != found.shape[0]:
                raise UserError(
                    f"{path} is an array {list(found.shape)} of {found.dtype}; labels are a whole "
                    "number a point"
                )
            return found.reshape(-1).astype(np.int64)
        if len(raw) % 4:
            raise UserError(
                f"{path} has {len(raw):,} bytes, no whole number of labels of 4 bytes: it is cut "
                "short"
            )
        return (np.frombuffer(raw, "<u4") & 0xFFFF).astype(np.int64)


def open_labels(samples: Samples, folder: str | None) -> Labels:
    """The files with the labels of scans.

    Args:
        samples: the scans, in files.
        folder: of the labels, which are called as the scans are; in SemanticKITTI's layout folders
            called `velodyne` and `labels` stand for each other.

    Raises:
        UserError: there are none, or not of each scan.
    """
    if folder is None or not Path(folder).is_dir():
        said = "none is named" if folder is None else f"{folder} is no folder"
        raise UserError(
            f"segment needs the class of each point, and {said}: name the folder with --masks, "
            "with a file NAME.label, as SemanticKITTI has it, or NAME.npy for each scan"
        )
    known = {_key(path.relative_to(folder)): path for path in _walked(Path(folder))}
    keys = [_key(Path(samples.name(i))) for i in range(len(samples))]
    lost = [key for key in keys if key not in known]
    if lost:
        raise UserError(
            f"{folder} has no labels for {len(lost)} of {len(keys)} scans, such as "
            f"{'/'.join(lost[0])}{ENDINGS[0]}"
        )
    return Labels(samples, [known[key] for key in keys])


def _walked(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in ENDINGS and p.is_file())


def _key(path: Path) -> tuple[str, ...]:
    """What the files of a scan and of its labels have in common."""
    stem = path.name
    while Path(stem).suffix.lower() in (*ENDINGS, ".bin", ".pcd", ".ply", ".npz", ".las", ".laz"):
        stem = Path(stem).stem
    return (*(part for part in path.parts[:-1] if part not in _FOLDERS), stem)
