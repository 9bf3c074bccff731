"""Which images are like those that somebody has chosen: their nearest, or their whole groups."""

from typing import Any, ClassVar, final

import numpy as np

from selftaught.curate.clusters import levels
from selftaught.curate.embed import features
from selftaught.curate.others import Others
from selftaught.curate.settings import Retrieving
from selftaught.curate.stage import Stage
from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.vectors import nearest

MORE = 8
"""Neighbors that are looked at beyond those that are wanted, since copies of a query are none."""


@final
class Retrieve(Stage[Retrieving]):
    """The nearest images of each query, or what is drawn of its group."""

    name: ClassVar = "retrieve"
    options: ClassVar = Retrieving

    def inputs(self, step: str) -> str:
        """The options, the features and the queries."""
        if not self.asked.query:
            raise UserError(
                "retrieve looks for images like others: name them, as in selftaught curate "
                "retrieve pool/ --query curated/"
            )
        made = self.pool.record("embed").get("key", "")
        if not made:
            self.pool.verdict("embed")  # says that it is missing
        return digest(
            super().inputs(step), made, Others(self, self.asked.query).samples.fingerprint
        )

    def gather(self) -> dict[str, Any]:
        """Each row with the query that found it first, by rank, then by likeness."""
        asked, others = self.asked, Others(self, self.asked.query)
        found = features(self.pool, self.alive)
        rows = np.flatnonzero(self.alive)
        similarity = np.full(self.pool.count, -np.inf, np.float32)
        rank = np.full(self.pool.count, np.iinfo(np.int32).max, np.int32)
        query = np.full(self.pool.count, -1)
        copies = np.zeros(self.pool.count, bool)
        pairs = self._nearest(others, copies) if not asked.clusters else self._drawn(others, copies)
        self.short = int((np.bincount(pairs[0], minlength=len(others.vectors)) == 0).sum())
        for q, position, s, r in zip(*pairs):
            row = found.rows[position]
            if (r, -s) < (rank[row], -similarity[row]):
                rank[row], similarity[row], query[row] = r, s, q
        chosen = np.flatnonzero(query >= 0)
        if asked.limit is not None and len(chosen) > asked.limit:
            order = np.argsort(-similarity[chosen], kind="stable")[asked.limit :]
            query[chosen[order]] = -1
        reason = np.full(len(rows), "", object)
        reason[query[rows] < 0] = "unlike every query"
        reason[copies[rows]] = "copy of a query"
        names = [others.name(int(q)) if q >= 0 else "" for q in query[rows]]
        return {
            "row": rows,
            "reason": reason,
            "query": np.array(names, object),
            "similarity": np.where(query[rows] >= 0, similarity[rows], np.nan).astype(np.float32),
            "rank": np.where(query[rows] >= 0, rank[rows], -1),
        }

    def _nearest(self, others: Others, copies: np.ndarray) -> tuple[Any, ...]:
        """Queries, positions, cosines and ranks of the nearest rows that are no copies."""
        asked = self.asked
        near = others.near(min(asked.nearest + MORE, len(others.features.rows)))
        ok = (near.index >= 0) & (near.similarity >= asked.min_similarity)
        who, at = np.nonzero(ok)
        same = np.zeros(ok.shape, bool)
        same[who, at] = self._copies(others, np.stack([who, near.index[who, at]], 1), copies)
        ok &= ~same
        rank = ok.cumsum(1)
        who, at = np.nonzero(ok & (rank <= asked.nearest))
        return who, near.index[who, at], near.similarity[who, at], rank[who, at]

    def _drawn(self, others: Others, copies: np.ndarray) -> tuple[Any, ...]:
        """The same of rows that are drawn of the group that each query is in."""
        asked, vectors = self.asked, others.features.vectors
        (level,) = levels(vectors, [min(asked.clusters, len(vectors))], 0, seed=asked.seed)
        rng = np.random.default_rng(asked.seed)
        parts = []
        for q, cluster in enumerate(nearest(others.vectors, level.centroids).tolist()):
            own = np.flatnonzero(level.of == cluster)
            own = np.sort(rng.permutation(own)[: asked.per_cluster])
            cosine = (vectors.at(own) @ others.vectors[q]).numpy()
            ok = cosine >= asked.min_similarity
            own, cosine = own[ok], cosine[ok]
            near = np.argsort(-cosine)[: asked.nearest + MORE]
            same = np.zeros(len(own), bool)
            pairs = np.stack([np.full(len(near), q), own[near]], 1)
            same[near] = self._copies(others, pairs, copies)
            own, cosine = own[~same], cosine[~same]
            parts.append((np.full(len(own), q), own, cosine, np.ones(len(own), np.int64)))
        return tuple(np.concatenate(column) for column in zip(*parts))

    def _copies(self, others: Others, pairs: np.ndarray, copies: np.ndarray) -> np.ndarray:
        """[P] bool: which pairs of a query and a position are one picture, marked in `copies`."""
        found = others.alike(pairs)
        copies[others.features.rows[pairs[found, 1]]] = True
        return found

    def told(self, columns: Any) -> str:
        """How alike they are."""
        alike = columns["similarity"][columns["reason"] == ""]
        if not len(alike):
            return "nothing is like them"
        text = (
            f"cosines {alike.min():.2f} to {alike.max():.2f}, {np.median(alike):.2f} in the middle"
        )
        return text + (f"; {self.short:,} queries found nothing of their own" if self.short else "")
