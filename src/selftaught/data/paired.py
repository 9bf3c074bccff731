"""Things that were seen twice: in colors and in depth, by a camera and by a radar."""

from pathlib import PurePath
from typing import final

from selftaught.data.image.picture import Ready
from selftaught.data.selection import Selected, select
from selftaught.data.source import Samples, digest
from selftaught.errors import UserError


@final
class Paired:
    """The samples of two datasets, position by position; for pipelines that take two images."""

    def __init__(self, first: Samples, second: Samples):
        self.first, self.second = first, second
        self.channels, self.labels = first.channels, first.labels

    def __len__(self) -> int:
        return len(self.first)

    @property
    def fingerprint(self) -> str:
        return digest(self.first.fingerprint, self.second.fingerprint)

    def of(self, samples: Samples) -> "Paired":
        """The pairs of `samples`, which `select` made of the first."""
        assert isinstance(samples.source, Selected)
        return Paired(samples, select(self.second, samples.source.positions))

    def open(self, i: int) -> Ready:
        """Both pictures of thing `i`; BadSample where one of them cannot be read."""
        return Ready((self.first.read(i), self.second.read(i)))


def pair(first: Samples, second: Samples) -> Paired:
    """Each sample with its partner: the file of the same name, or the row of the same number.

    Names are those below the datasets' folders, without endings; rows are those of tables and
    arrays, of which both have equally many.

    Raises:
        UserError: a sample has no partner.
    """
    if first.source.numbered and second.source.numbered:
        if len(first) != len(second):
            raise UserError(
                f"the two modalities have {len(first):,} and {len(second):,} images, and row i of "
                "one belongs to row i of the other: give as many of both"
            )
        return Paired(first, second)
    names, others = ([_stem(s.name(i)) for i in range(len(s))] for s in (first, second))
    partners = {name: i for i, name in enumerate(others)}
    alone = [name for name in names if name not in partners]
    if alone:
        raise UserError(
            f"{len(alone):,} of {len(first):,} images have no partner of the same name among the "
            f"{len(second):,} of the second modality, such as {alone[0]}; give both the same "
            "names, the endings aside"
        )
    return Paired(first, select(second, [partners[name] for name in names]))


def _stem(name: str) -> str:
    """What identifies a sample in its dataset: `shard.tar::KEY`, `table.parquet::ROW`, a path."""
    return str(PurePath(name.rpartition("::")[2]).with_suffix(""))
