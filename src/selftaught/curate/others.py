"""Images that are not of the pool, embedded as it is: those that somebody has chosen, or a test set
that nothing may be a copy of."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from selftaught import kinds
from selftaught.curate import prints, same
from selftaught.curate.embed import Embed, engine, features
from selftaught.data import BadSample, Samples, open_data
from selftaught.data.skipped import tell
from selftaught.errors import UserError
from selftaught.evaluate.features import Embeddings, embed
from selftaught.index.exact import Near, nearest

if TYPE_CHECKING:
    from selftaught.curate.stage import Stage

BITS = 8
"""By which perceptual hashes of copies differ, where nobody says otherwise."""


class Others:
    """Other images beside those of a pool.

    Args:
        stage: whose rows they are held against.
        data: folder, list file, Parquet, tar shards or array of images.
    """

    def __init__(self, stage: "Stage", data: str):
        self.stage, self.pool = stage, stage.pool
        self.samples: Samples = open_data(data)
        tell(self.samples)
        own = {source["fingerprint"] for source in self.pool.about["sources"]}
        if self.samples.fingerprint in own or Path(data).resolve() == self.pool.folder.resolve():
            raise UserError(
                f"{data} is what {self.pool.folder} itself is made of, so that all would be copies "
                "of it: name other images"
            )

    @cached_property
    def features(self) -> Any:
        """Of the rows that came in."""
        return features(self.pool, self.stage.alive)

    @cached_property
    def embedded(self) -> Embeddings:
        """Features of these images, of those that can be read."""
        made = self.pool.stage("embed")
        assert isinstance(made, Embed)
        network = made.network
        samples = self.samples.seen_as(kinds.of(network), network.channels)
        return embed(
            network,
            samples,
            size=made.side,
            batch=made.asked.batch,
            device=made.asked.device,
            precision=made.asked.precision,
        )

    @cached_property
    def vectors(self) -> torch.Tensor:
        """[Q, D] of unit length."""
        found = self.embedded.features
        return F.normalize(torch.from_numpy(found.reshape(len(found), -1)), dim=1)

    def name(self, query: int) -> str:
        """Of one of the images that were embedded."""
        return self.samples.name(int(self.embedded.index[query]))

    def near(self, k: int, least: float = -1.0) -> Near:
        """The k rows nearest to each image; positions are those of `features`.

        Those that are less similar than `least` may be missing.
        """
        vectors = self.features.vectors
        found = engine(vectors, least=least)
        if found is not None:
            return found.nearest(vectors, self.vectors, k)
        return nearest(vectors, self.vectors, k)

    def alike(self, pairs: np.ndarray) -> np.ndarray:
        """[P] bool: which pairs [P, 2] of an image that was embedded and a position of `features`
        are one picture, by their hashes or laid over each other."""
        found = np.zeros(len(pairs), bool)
        ours, theirs = same.Looker(self.samples), same.Looker(self.pool.everything)
        hashed: dict[tuple[bool, int], np.ndarray] = {}
        for n, (query, position) in enumerate(pairs.tolist()):
            i, row = int(self.embedded.index[query]), int(self.features.rows[position])
            for key, samples in (((True, i), self.samples), ((False, row), self.pool.everything)):
                if key not in hashed:
                    hashed[key] = _hashes(samples, key[1])
            mine, other = hashed[True, i], hashed[False, row]
            bits = (
                int(np.bitwise_count(mine ^ other[0]).min()) if mine.any() and other.any() else 64
            )
            found[n] = bits <= BITS or (
                same.installed() and same.same(ours.seen(i), theirs.seen(row))
            )
        return found

    def copies(
        self, rows: np.ndarray, threshold: float | None
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Which of `rows`, by their positions there, are copies of one of these images; and of
        which.

        Args:
            rows: of the pool.
            threshold: cosine from which on two are; by default their pixels decide.
        """
        names: dict[int, str] = {}
        place = np.full(self.pool.count, -1)
        place[rows] = np.arange(len(rows))
        by_content: dict[str, str] = {}
        for i in range(len(self.samples)):
            by_content.setdefault(self.samples.source.content(i), self.samples.name(i))
        hashes = self.pool.verdict("scan")["hash"]
        for position, row in enumerate(rows.tolist()):
            if (name := by_content.get(hashes[row])) is not None:
                names[position] = name
        if "near" in self.stage.passes:
            asked: Any = self.stage.asked
            least = asked.candidates if threshold is None else threshold
            near = self.near(asked.k, least)
            who, rank = np.nonzero((near.similarity >= least) & (near.index >= 0))
            pairs = np.stack([who, near.index[who, rank]], 1)
            if threshold is None:
                pairs = pairs[self.alike(pairs)]
            for query, position in pairs.tolist():
                names.setdefault(int(place[self.features.rows[position]]), self.name(query))
        if "hash" in self.stage.passes:
            self._hashed(place, names)
        return np.array(sorted(names), np.int64), names

    def _hashed(self, place: np.ndarray, names: dict[int, str]) -> None:
        stage: Any = self.stage
        rows, hashes = stage.hashes()
        mine = np.stack([_hashes(self.samples, i) for i in range(len(self.samples))])
        has = np.flatnonzero(mine.any(1))
        for query, position in prints.pairs(mine[has], stage.asked.hash, hashes).tolist():
            names.setdefault(int(place[rows[position]]), self.samples.name(int(has[query])))


def _hashes(samples: Samples, i: int) -> np.ndarray:
    try:
        return prints.of(samples, i)
    except BadSample:
        return np.zeros(8, np.uint64)
