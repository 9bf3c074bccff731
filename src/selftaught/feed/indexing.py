"""The command `index`: where samples lie in shards, written down so that none scans again."""

from dataclasses import dataclass
from pathlib import Path

from selftaught import kinds, voice
from selftaught.data import indexed, sharded
from selftaught.data.image.formats import IMAGE
from selftaught.data.remote.address import is_address
from selftaught.errors import UserError


@dataclass(frozen=True)
class Listed:
    """What an index lists, and where it is.

    data: that was listed. folder: of the index. count: samples. shards: files they lie in. beside:
    whether the index is found by itself where the shards are named. kind: what a sample is.
    """

    data: str
    folder: Path
    count: int
    shards: int
    beside: bool
    kind: kinds.Kind

    @property
    def size(self) -> int:
        """Bytes of the index."""
        return sum(file.stat().st_size for file in self.folder.iterdir())

    def __str__(self) -> str:
        return (
            f"{self.count:,} {self.kind.many} of {self.shards:,} "
            f"shard{'s' if self.shards > 1 else ''} are listed in {self.folder} "
            f"({self.size / 2**20:,.1f} MiB)"
        )


def index(
    data: str,
    out: Path | None = None,
    *,
    column: str | None = None,
    labels: str | None = None,
    kind: str = "image",
    progress: bool = True,
) -> Listed:
    """List where samples lie in tar shards, to open millions at once (by likeness: see search).

    This is a table of places in shards, and nothing is decoded: what `search` keeps is another
    thing, which finds images by likeness. An index that lies beside its shards, as by default, is
    used by itself where they are named as DATA; any can be named as DATA itself.

    Args:
        data: tar shards: one, a pattern such as shard-{000..127}.tar, or a folder of them.
        out: folder of the index; by default selftaught-index in the folder of the shards.
        column: ending of the images in the shards, where it is not found by itself.
        labels: field of the .json members that holds the labels; .cls members are found by
            themselves.
        kind: what a sample is, such as image or sound.
        progress: show a progress bar, where standard error is a terminal.

    Raises:
        UserError: there are no shards, or nothing in them.
    """
    paths = sharded.shards_of(data)
    folder = Path(sharded.beside(paths) if out is None else out)
    if is_address(str(out or sharded.beside(paths))):
        raise UserError(
            f"an index is written to a disk, not to {out or sharded.beside(paths)}: name a folder "
            "with --out, and copy it there"
        )
    indexed.refuse_other(folder)
    of = kinds.made({"kind": kind})
    suffixes = IMAGE if of.photos else of.suffixes
    given = folder, paths, kind, column, labels, suffixes
    if progress:
        with voice.heard(), voice.counted("MiB of shards listed") as show:
            told = sharded.write(*given, lambda done, total: show(done >> 20, total >> 20))
    else:
        told = sharded.write(*given)
    beside = str(folder.absolute()) == sharded.beside(paths)
    return Listed(data, folder, told.count, len(paths), beside, of)
