"""Vectors of images on disk, in parts that are whole or absent.

A part is three files: what is known of its images as Parquet, the images very small, and, written
last, their vectors as a .npy, which is mapped. All names hold the mark of the encoder that made
them and a hash of what is in them: a part of another encoder, or a third of one, is never taken for
anything else, whenever a process was killed.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from selftaught import __version__
from selftaught.data.image.formats import INDEXED, SEARCHED
from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.evaluate.writing import read_table, write_table
from selftaught.export.facts import content
from selftaught.export.files import atomic, sweep

log = logging.getLogger("selftaught")

OURS = ("part-", "small-", "faiss-")
"""What names of its files begin with."""
KIND = np.float16
"""Of vectors of unit length: a cosine of two is off by less than 0.001."""


class Part(NamedTuple):
    """Images that were embedded together.

    name: of its files, without their endings. keys: [n] uint64, which image, and in which state.
    pixels: [n] uint64, alike where the encoder's views are, to the last pixel. small: [n, 256]
    uint8, the images at 16 x 16 in gray. vectors: [n, D].
    """

    name: str
    keys: np.ndarray
    pixels: np.ndarray
    small: np.ndarray
    vectors: np.ndarray


class Store:
    """Parts in a folder, or in memory alone.

    Args:
        folder: that is this index's own; None for memory.
        about: plain values by name that tell the encoder, and how it sees images, from any other.

    Raises:
        UserError: the folder holds something else.
    """

    def __init__(self, folder: Path | None, about: Mapping[str, Any]):
        self.folder, self.parts = folder, list[Part]()
        self.mark = digest(json.dumps(about, sort_keys=True))[:8]
        if folder is None:
            return
        before = _about(folder)
        if before.get("encoder") != about:
            if before:
                log.info(
                    "the index in %s was made otherwise (%s): it is made anew",
                    folder,
                    _differing(before.get("encoder"), about),
                )
            for file in sorted(folder.glob("*-*.*")):
                if file.name.startswith(OURS) and f"-{self.mark}-" not in file.name:
                    file.unlink()
            with atomic(folder / SEARCHED) as temporary:
                made = {"selftaught": __version__, "encoder": dict(about)}
                temporary.write_text(json.dumps(made, indent=2) + "\n", "utf-8")
        sweep(folder)
        for file in sorted(folder.glob(f"part-{self.mark}-*.npy")):
            part = _read(file)
            if part is not None:
                self.parts.append(part)

    @property
    def count(self) -> int:
        """Rows of all parts."""
        return sum(len(part.keys) for part in self.parts)

    def add(
        self,
        names: Sequence[str],
        keys: np.ndarray,
        pixels: np.ndarray,
        small: np.ndarray,
        vectors: np.ndarray,
    ) -> None:
        """One more part, finished when this returns.

        Args:
            names: of images, for whoever reads the files.
            keys, pixels, small, vectors: as `Part` has them; vectors of unit length.
        """
        vectors = vectors.astype(KIND)
        # parts are read, and numbered, in the order of their making
        numbers = [int(part.name.split("-")[2]) for part in self.parts]
        number = max(numbers, default=-1) + 1
        name = f"part-{self.mark}-{number:06d}-{digest(keys, vectors)[:8]}"
        if self.folder is not None:
            with atomic(self.folder / f"{name}.parquet") as temporary:
                write_table(temporary, {"name": names, "key": keys, "pixels": pixels})
            arrays = self.folder / _small(name), self.folder / f"{name}.npy"
            for place, array in zip(arrays, (small, vectors)):
                with atomic(place) as temporary:
                    np.save(temporary, array)
            small, vectors = (np.load(place, mmap_mode="r") for place in arrays)
        self.parts.append(Part(name, keys, pixels, small, vectors))


def _small(name: str) -> str:
    """The file of small pictures of a part."""
    return f"small-{name.removeprefix('part-')}.npy"


def _read(file: Path) -> Part | None:
    """The part whose vectors are in `file`; None, which is said, where it is damaged."""
    try:
        vectors = np.load(file, mmap_mode="r")
        small = np.load(file.with_name(_small(file.stem)), mmap_mode="r")
        table = read_table(file.with_suffix(".parquet"), ("key", "pixels"))
        keys, pixels = (table[name].astype(np.uint64) for name in ("key", "pixels"))
        if vectors.ndim != 2 or not len(vectors) == len(small) == len(keys):
            raise ValueError(f"{vectors.shape} and {small.shape} for {len(keys)} images")
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s is damaged (%s): its images are embedded again", file, error)
        return None
    return Part(file.stem, keys, pixels, small, vectors)


def _about(folder: Path) -> dict[str, Any]:
    """What an index in `folder` says of itself; UserError where it is something else's."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder with --index")
    if not folder.exists():
        return {}
    found = [f.name for f in folder.iterdir() if not f.name.startswith(".")]
    ours = [n for n in found if n == SEARCHED or n.startswith(OURS)]
    if INDEXED in found:
        raise UserError(
            f"{folder} lists where samples lie in shards (selftaught index), and holds nothing to "
            "search by: name another folder with --index"
        )
    if len(ours) < len(found):
        other = next(n for n in found if n not in ours)
        raise UserError(
            f"{folder} holds {other}, which is of no index: name another folder with --index"
        )
    return content(folder / SEARCHED)


def _differing(before: Any, now: Mapping[str, Any]) -> str:
    """What differs between two encoders, in words."""
    before = before if isinstance(before, dict) else {}
    parts = []
    for name, value in now.items():
        if before.get(name) != value:
            long = isinstance(value, dict) or name == "weights"
            parts.append(f"other {name}" if long else f"{name} {before.get(name)}, now {value}")
    return "; ".join(parts) or "by an older version"
