"""Several datasets, one after the other, as one."""

from collections.abc import Sequence
from typing import final

import numpy as np

from selftaught.data.skipped import Skipped
from selftaught.data.source import Raw, Source, digest


@final
class Joined(Source):
    """The samples of several sources in their order; classes are told by their names."""

    def __init__(self, sources: Sequence[Source]):
        self.sources = list(sources)
        self.starts = np.cumsum([0, *map(len, self.sources)])
        self.labels, self.classes = _classes(self.sources)
        self.skipped = self.sources[0].skipped if len(self.sources) == 1 else Skipped()
        held = [source.held for source in self.sources if source.held is not None]
        self.held = min(held, default=None)
        self.numbered = all(source.numbered for source in self.sources)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def load(self, i: int) -> Raw:
        source, at = self._at(i)
        return source.load(at)

    def name(self, i: int) -> str:
        source, at = self._at(i)
        return source.name(at)

    def fingerprint(self) -> str:
        return digest(*(source.fingerprint() for source in self.sources))

    def stamp(self, i: int) -> str:
        source, at = self._at(i)
        return source.stamp(at)

    def blocks(self) -> np.ndarray:
        return np.concatenate([s.blocks() + start for s, start in zip(self.sources, self.starts)])

    def _at(self, i: int) -> tuple[Source, int]:
        which = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.sources[which], i - int(self.starts[which])


def _classes(sources: Sequence[Source]) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels of all, -1 where a source has none; None and None where no source has any."""
    if all(source.labels is None for source in sources):
        return None, None
    names = [_names(source) for source in sources]
    every = sorted({name for own in names for name in own})
    number = {name: i for i, name in enumerate(every)}
    parts = []
    for source, own in zip(sources, names):
        if source.labels is None:
            parts.append(np.full(len(source), -1))
            continue
        of = np.array([number[name] for name in own] + [-1])  # the last one is that of -1
        parts.append(of[np.where(source.labels < 0, len(own), source.labels)])
    return np.concatenate(parts).astype(np.int64), every


def _names(source: Source) -> list[str]:
    """What the labels of a source stand for."""
    if source.labels is None:
        return []
    if source.classes is not None:
        return list(source.classes)
    return [str(i) for i in range(int(source.labels.max(initial=-1)) + 1)]
