"""Things that were seen twice: in colors and in depth, in a photo and in words."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import PurePath
from typing import Any, Literal, NamedTuple, final

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.image.picture import Ready
from selftaught.data.named import columns
from selftaught.data.selection import Selected, select
from selftaught.data.source import Samples, digest
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

By = Literal["auto", "name", "row"]
Unpaired = Literal["refuse", "skip"]
Partners = list[list[int]]
"""Of each sample of the first modality, those of the second that belong to it."""


@final
class Paired:
    """The samples of two datasets, for pipelines that take one of each.

    Args:
        first: samples, each once.
        second: their partners, in that order.
        starts: [N + 1] where the partners of each begin among `second`; None for one of each.
    """

    def __init__(self, first: Samples, second: Samples, starts: np.ndarray | None = None):
        self.first, self.second, self.starts = first, second, starts
        self.channels, self.labels = first.channels, first.labels

    def __len__(self) -> int:
        return len(self.first)

    @property
    def fingerprint(self) -> str:
        more = () if self.starts is None else (self.starts,)
        return digest(self.first.fingerprint, self.second.fingerprint, *more)

    @property
    def rows(self) -> np.ndarray:
        """[P, 2] positions of both sides of every pair."""
        count = np.arange(len(self.second))
        if self.starts is None:
            return np.stack([count, count], 1)
        return np.stack([np.repeat(np.arange(len(self)), np.diff(self.starts)), count], 1)

    def over(self, first: Samples) -> "Paired":
        """The same pairs, whose first samples are read in another way."""
        return Paired(first, self.second, self.starts)

    def of(self, samples: Samples) -> "Paired":
        """The pairs of `samples`, which `select` made of the first."""
        assert isinstance(samples.source, Selected)
        return self.at(samples.source.positions, samples)

    def at(self, positions: np.ndarray, samples: Samples | None = None) -> "Paired":
        """The pairs of some of the first, which are `samples` where these are known."""
        samples = select(self.first, positions) if samples is None else samples
        if self.starts is None:
            return Paired(samples, select(self.second, positions))
        each = [np.arange(self.starts[i], self.starts[i + 1]) for i in positions]
        starts = np.cumsum([0, *map(len, each)])
        return Paired(samples, select(self.second, np.concatenate([*each, []])), starts)

    def open(self, i: int) -> Ready:
        """Both samples of thing `i`, the first of its partners; BadSample where one of them cannot
        be read."""
        return Ready(self.draw(i))

    def draw(self, i: int, rng: np.random.Generator | None = None) -> tuple[Any, Any]:
        """Sample `i` and one of its partners: of several any, where there is a generator."""
        start, count = i, 1
        if self.starts is not None:
            start, count = int(self.starts[i]), int(self.starts[i + 1] - self.starts[i])
        j = start + (int(rng.integers(count)) if rng is not None and count > 1 else 0)
        first = self.first.read(i)
        try:
            return first, self.second.read(j)
        except BadSample as error:
            raise BadSample(f"has a partner, {self.second.name(j)}, that {error}") from error


def pair(
    first: Samples,
    second: Samples,
    sources: tuple[Any, Any] = (None, None),
    by: By = "auto",
    unpaired: Unpaired = "refuse",
) -> Paired:
    """Each sample with its partners: of the same name, or the row of the same number.

    Names are those below the datasets' folders, without endings. Where one of both is a table, or a
    .npz with an array of words, one of its columns may name the files of the other: there may be
    several rows of a file then. Rows are those of tables and arrays, of which both have equally
    many.

    Args:
        first, second: two datasets of the same things.
        sources: what they were opened from, whose columns are looked at.
        by: name, or row: the i-th of one belongs to the i-th of the other, files in the order of
            their names; `auto` for row where neither has names.
        unpaired: whether samples of the first without a partner are refused, or left out.

    Raises:
        UserError: a sample has no partner, or names say too little.
    """
    numbered = first.source.numbered and second.source.numbered
    if by == "row" or (by == "auto" and numbered and len(first) == len(second)):
        _refuse_unequal(first, second)
        return Paired(first, second)
    # a column that names files comes before the numbers of rows, which may be such names by chance
    ways = [*_by_columns(first, second, sources), _by_stems(first, second)]
    found = max(ways, key=lambda partners: sum(map(bool, partners)))
    if numbered and by == "auto" and not any(found):
        _refuse_unequal(first, second)
    if found is ways[-1]:
        _refuse_twins(second, found)
    lone = [i for i, partners in enumerate(found) if not partners]
    if lone:
        _tell_lone(first, second, lone, unpaired)
    kept = [i for i, partners in enumerate(found) if partners]
    rows = [j for partners in found for j in partners]
    if extra := sorted({*range(len(second))} - {*rows}):
        log.info(
            "%s of %s %s belong to none of the %s, such as %s, and are not used",
            f"{len(extra):,}",
            f"{len(second):,}",
            _many(second),
            _many(first),
            second.name(extra[0]),
        )
    starts = None
    if len(rows) > len(kept):
        starts = np.cumsum([0, *(len(found[i]) for i in kept)])
    samples = select(first, kept) if lone else first
    return Paired(samples, select(second, rows), starts)


def _refuse_unequal(first: Samples, second: Samples) -> None:
    """UserError where rows cannot belong together by their numbers."""
    if len(first) == len(second):
        return
    counts = f"{len(first):,} and {len(second):,} {_many(second)}"
    if _many(first) != _many(second):
        counts = f"{len(first):,} {_many(first)} and {len(second):,} {_many(second)}"
    raise UserError(
        f"the two modalities have {counts}, and row i of one belongs to row i of the other: give "
        "as many of both, or both a column of names"
    )


def _tell_lone(first: Samples, second: Samples, lone: list[int], unpaired: Unpaired) -> None:
    """Say which samples have no partner; UserError unless they may be left out."""
    theirs = f"{len(second):,} of the second modality"
    if _many(first) != _many(second):
        theirs = f"{len(second):,} {_many(second)}"
    words = (
        f"{len(lone):,} of {len(first):,} {_many(first)} have no partner of the same name among "
        f"the {theirs}, such as {_stem(first.name(lone[0]))}"
    )
    if len(lone) == len(first):
        raise UserError(
            f"{words}; that one is called {second.name(0)}: give both the same names, the endings "
            "aside, or a table a column of the names of files, or say --pair-by row where both "
            "have the same order"
        )
    if unpaired == "refuse":
        raise UserError(
            f"{words}; give both the same names, the endings aside, or leave out those without "
            "one with --unpaired skip"
        )
    log.warning("%s: they are left out", words)


def _by_stems(first: Samples, second: Samples) -> Partners:
    """By the names of both, without endings."""
    if first.source.numbered or second.source.numbered:  # a number of a row is no name
        return [[] for _ in range(len(first))]
    places: dict[str, list[int]] = defaultdict(list)
    for i in range(len(second)):
        places[_stem(second.name(i))].append(i)
    return [places.get(_stem(first.name(i)), []) for i in range(len(first))]


def _refuse_twins(second: Samples, found: Partners) -> None:
    several = next((f for f in found if len(f) > 1), None)
    if several is not None:
        raise UserError(
            f"{second.name(several[0])} and {second.name(several[1])} of the second modality are "
            "called alike, their endings aside: rename one of them, or take it away"
        )


def _by_columns(first: Samples, second: Samples, sources: tuple[Any, Any]) -> list[Partners]:
    """By each column of one of them that names samples of the other, or what a column of that
    does."""
    sides = [_cells(samples, source) for samples, source in zip((first, second), sources)]
    found: list[Partners] = []
    for of, named in product(*sides):
        if of.own and named.own:
            continue
        for turned, known, told in ((False, of, named), (True, named, of)):
            if told.own:  # names of files name no cells
                continue
            for find in _finders(known.cells):
                partners: Partners = [[] for _ in range(len(first))]
                for i, cell in told.cells.items():
                    j = find(cell)
                    if j is not None:
                        one, other = (i, j) if turned else (j, i)
                        partners[one].append(other)
                found.append(partners)
    return found


class _Cells(NamedTuple):
    """What samples may be known by: position -> cell. own: whether these are their own names."""

    cells: dict[int, str]
    own: bool


def _cells(samples: Samples, source: Any) -> list[_Cells]:
    """The names of files; of rows, each column of words."""
    names = [samples.name(i) for i in range(len(samples))]
    if not samples.source.numbered:
        return [_Cells(dict(enumerate(names)), True)]
    place = {name: i for i, name in enumerate(names)}
    every = (cells for _, cells in columns(source, samples))
    return [_Cells({place[n]: c for n, c in cells.items() if n in place}, False) for cells in every]


def _finders(names: Mapping[int, str]) -> list[Callable[[str], int | None]]:
    """How a cell may name one of some files, the plainest first: cell -> its position or None."""

    def by(key: Callable[[str], str]) -> Callable[[str], int | None]:
        known: dict[str, int | None] = {}
        for i, name in names.items():
            word = key(name)
            known[word] = None if word in known else i  # what two are called names none
        return lambda cell: known.get(key(cell))

    def path(cell: str) -> str:
        return str(PurePath(cell.strip().replace("\\", "/")))

    return [
        by(path),
        by(lambda cell: _stem(path(cell))),
        by(lambda cell: PurePath(path(cell)).name),
        by(lambda cell: PurePath(_stem(path(cell))).name),
    ]


def _many(samples: Samples) -> str:
    return "images" if samples.kind is None else samples.kind.many


def _stem(name: str) -> str:
    """What identifies a sample in its dataset: `shard.tar::KEY`, `table.parquet::ROW`, a path."""
    path = PurePath(name.rpartition("::")[2])
    return str(path.with_suffix("")) if path.name else str(path)
