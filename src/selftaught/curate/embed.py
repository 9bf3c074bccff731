"""What the images are to an encoder: features on disk, which the stages after this one search."""

import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

import numpy as np
import torch
from torch.nn import functional as F

from selftaught import kinds
from selftaught.backbones import Encoder
from selftaught.curate.settings import Embedded
from selftaught.curate.stage import Block, Part, Stage
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.evaluate.features import (
    Asked,
    NoneReadable,
    device_for,
    one_pass,
    running,
    tell_skipped,
)
from selftaught.index import approximate
from selftaught.index.exact import Vectors
from selftaught.index.index import about, apart, fingerprints
from selftaught.index.likeness import SIDE
from selftaught.index.store import KIND
from selftaught.sides import Size

if TYPE_CHECKING:
    from selftaught.curate.pool import Pool

log = logging.getLogger("selftaught")


@final
class Embed(Stage[Embedded]):
    """The features of each image, in half precision."""

    name: ClassVar = "embed"
    options: ClassVar = Embedded

    @property
    def passes(self) -> tuple[str, ...]:
        """One."""
        return ("look",)

    @cached_property
    def network(self) -> Encoder:
        """That embeds."""
        asked = self.asked
        if not asked.model:
            raise UserError(
                "the pool is embedded by an encoder: name a run, an encoder.safetensors or a timm "
                "model, as in selftaught curate embed pool/ --model runs/simclr-photos"
            )
        made = Asked(asked.model, None, asked.mean, asked.std, asked.weights).network(asked.size)
        if not (kind := kinds.of(made)).photos:
            raise UserError(
                f"{asked.model} is an encoder of {kind.many}, and a pool is one of images: name an "
                "encoder of images"
            )
        return made

    @property
    def side(self) -> Size:
        """Of the views."""
        return self.asked.size or self.network.size

    @cached_property
    def samples(self) -> Samples:
        """All of the pool, as the network takes it."""
        return self.pool.everything.seen_as(kinds.of(self.network), self.network.channels)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What tells the network, and how it sees images, from any other."""
        return about(self.network, self.samples, self.side, self.asked.precision)

    def inputs(self, step: str) -> str:
        """The network, wherever it was found."""
        return digest(json.dumps(self.about, sort_keys=True))

    def look(self, step: str, block: Block) -> Part:
        """Embed the images of a block."""
        rows, network, asked = self.rows_of(step, block), self.network, self.asked
        kind = kinds.of(network)
        found = [np.empty((0, network.dim), np.float32), np.empty((0, 4 + SIDE**2), np.float32)]
        index, skipped = np.empty(0, np.int64), dict[str, str]()
        if len(rows):
            where = device_for(asked.model, network, asked.device)
            with running(network, where, asked.precision) as forward:

                def prints(x: torch.Tensor) -> torch.Tensor:
                    return fingerprints(kind.shown(x))

                try:
                    found, rest = one_pass(
                        [forward, prints],
                        select(self.samples, rows),
                        self.side,
                        asked.batch,
                        asked.workers,
                    )
                    index, skipped = rest.index, rest.skipped
                except NoneReadable as error:  # others can, perhaps
                    tell_skipped(error.skipped)
                    skipped = dict(error.skipped)
        unit = F.normalize(
            torch.from_numpy(found[0].reshape(len(index), network.dim)), dim=1
        ).numpy()
        pixels, small = apart(found[1])
        at = np.full(len(rows), -1)
        at[index] = np.arange(len(index))
        every = np.zeros(len(rows), np.uint64)
        every[index] = pixels
        names = (self.samples.name(int(i)) for i in rows)
        reason = [f"unreadable: {skipped[n]}" if n in skipped else "" for n in names]
        columns = {"row": rows, "at": at, "pixels": every, "reason": np.array(reason, object)}
        return Part(columns, {"vectors": unit.astype(KIND), "small": small})

    def gather(self) -> dict[str, Any]:
        """All rows that came in."""
        return self.columns("look", ("row", "at", "pixels", "reason"))

    def facts(self) -> dict[str, Any]:
        """The network."""
        return {"encoder": self.about, "dim": self.network.dim, "side": self.side}


class Features(NamedTuple):
    """Features of some rows of a pool.

    rows: [n] of the pool. vectors: [n, D]. small: parts of small pictures, as `vectors` has its
    own. pixels: [n] alike where views are, to the last pixel.
    """

    rows: np.ndarray
    vectors: Vectors
    small: list[np.ndarray]
    pixels: np.ndarray

    def place(self, count: int) -> np.ndarray:
        """[count] for each row of the pool where it is among these; -1 where it is not."""
        place = np.full(count, -1)
        place[self.rows] = np.arange(len(self.rows))
        return place


def engine(
    vectors: Vectors,
    folder: Path | None = None,
    mark: str = "",
    names: Sequence[str] = (),
    least: float = -1.0,
) -> approximate.Approximate | None:
    """faiss, where there are many vectors and it is installed; None for exact search.

    Args:
        vectors: that are searched.
        folder, mark, names, least: where it is kept and what it finds, as `approximate.opened`
            has them.
    """
    if len(vectors) < approximate.ENOUGH:
        return None
    if not approximate.installed():
        log.info(
            "%s images are compared each with each, which takes hours: pip install "
            "'selftaught[search]' makes it minutes", f"{len(vectors):,}",
        )  # fmt: skip
        return None
    return approximate.opened(vectors, folder, mark, names, least)


def features(pool: "Pool", alive: np.ndarray) -> Features:
    """What `embed` has kept of the rows that are left.

    Args:
        pool: that was embedded.
        alive: [N] bool.

    Raises:
        UserError: it was not, or of other rows than are there now.
    """
    stage, told = pool.stage("embed"), pool.verdict("embed")
    parts = stage.arrays("look", "vectors")
    starts = np.cumsum([0, *map(len, parts)])
    block = np.searchsorted([b.start for b in pool.blocks], told["row"], side="right") - 1
    mine = (told["at"] >= 0) & alive[told["row"]]
    of_parts = (starts[block] + told["at"])[mine]
    return Features(
        told["row"][mine],
        Vectors(parts, of_parts),
        stage.arrays("look", "small"),
        told["pixels"][mine],
    )
