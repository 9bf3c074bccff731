"""Part of a dataset as a dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from selftaught.data import quarantine
from selftaught.data.source import Raw, Samples, Source, digest
from selftaught.errors import UserError


@final
class Selected(Source):
    """Some samples of another source, in a given order."""

    def __init__(self, source: Source, positions: np.ndarray):
        self.source, self.positions = source, positions
        self.labels = None if source.labels is None else source.labels[positions]
        self.classes, self.skipped = source.classes, source.skipped
        self.numbered, self.held, self.fetched = source.numbered, source.held, source.fetched

    def __len__(self) -> int:
        return len(self.positions)

    def load(self, i: int) -> Raw:
        return self.source.load(int(self.positions[i]))

    def name(self, i: int) -> str:
        return self.source.name(int(self.positions[i]))

    def fingerprint(self) -> str:
        return digest(self.source.fingerprint(), self.positions)

    def stamp(self, i: int) -> str:
        return self.source.stamp(int(self.positions[i]))

    def blocks(self) -> np.ndarray:
        block = np.searchsorted(self.source.blocks(), self.positions, side="right")
        return np.append(np.flatnonzero(np.diff(block)) + 1, len(self)).astype(np.int64)


def select(samples: Samples, positions: Sequence[int] | np.ndarray) -> Samples:
    """The samples at `positions`, read as before."""
    return samples.over(Selected(samples.source, np.asarray(positions, dtype=np.int64)))


def share(part: str | None) -> tuple[int, int]:
    """Which of how many jobs this is: `--part 2/8`, counted from 0.

    Raises:
        UserError: it is neither.
    """
    if part is None:
        return 0, 1
    own, _, of = part.partition("/")
    if not (own.isdecimal() and of.isdecimal() and int(own) < int(of)):
        raise UserError(f"part={part} must be i/n, the i-th of n counted from 0, such as 0/8")
    return int(own), int(of)


def share_of(samples: Samples, part: str) -> tuple[Samples, int]:
    """The i-th of n runs of samples that follow each other, and where in all of them it begins.

    Args:
        samples: all of them.
        part: i/n.

    Raises:
        UserError: it is no such thing, or there are fewer samples than parts.
    """
    own, of = share(part)
    first, last = (len(samples) * i // of for i in (own, own + 1))
    if first == last:
        raise UserError(f"part={part} of {len(samples):,} samples is empty: use fewer parts")
    return select(samples, np.arange(first, last)), first


def without(samples: Samples, listed: str | Path) -> Samples:
    """All samples but those in the quarantine list `listed`, as `check` writes it.

    Raises:
        UserError: there is no such list, or nothing is left.
    """
    if not Path(listed).exists():
        raise UserError(f"there is no quarantine list {listed}; `selftaught check DATA` writes one")
    bad = quarantine.positions(samples, quarantine.load(listed))
    kept = np.setdiff1d(np.arange(len(samples)), bad)
    if not len(kept):
        raise UserError(f"{listed} names all {len(samples)} images: nothing is left")
    return select(samples, kept)
