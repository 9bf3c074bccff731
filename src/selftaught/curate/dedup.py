"""Which images are copies of each other, in three stages: the same bytes, nearly the same hash of
what is to be seen, near each other to an encoder and one picture when laid over each other.

Pairs that were found make groups, in which copies of copies are together; of each the largest
image stays. A chain of pairs may lead from one picture to quite another: how far the ends of a
group are apart is told, never hidden.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from selftaught.curate import prints, same
from selftaught.curate.embed import Features, engine, features
from selftaught.curate.engines import threads
from selftaught.curate.others import Others
from selftaught.curate.settings import Deduplicating
from selftaught.curate.stage import Block, Part, Stage
from selftaught.data import BadSample
from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.index import approximate
from selftaught.index.exact import nearest

STEP = 4096
"""Rows whose neighbors are looked for at a time."""


class Edge(NamedTuple):
    """Pairs of rows [P, 2] that are copies, by one of the three ways, and their cosines."""

    rows: np.ndarray
    how: str
    cosine: np.ndarray | None = None


@final
class Dedup(Stage[Deduplicating]):
    """Copies, of which one stays."""

    name: ClassVar = "dedup"
    options: ClassVar = Deduplicating

    @cached_property
    def features_key(self) -> str:
        """Of what the features were made with; empty where there are none that count."""
        embedded = any(record.name == "embed" for record in self.pool.records())
        return self.pool.record("embed")["key"] if embedded else ""

    @property
    def passes(self) -> tuple[str, ...]:
        """Hashes, unless they are left out; neighbors, where there are features."""
        asked = self.asked
        if asked.exact_only:
            return ()
        embedded = bool(self.features_key)
        return (*(("hash",) if asked.hash >= 0 else ()), *(("near",) if embedded else ()))

    def inputs(self, step: str) -> str:
        """Of hashes nothing, of neighbors what they are and how they are compared."""
        asked = self.asked
        if step == "hash":
            return ""
        if step == "near":
            how = asked.threshold, asked.candidates, asked.k
            return digest(repr(how), self.features_key, self.alive)
        return digest(super().inputs(step), self.features_key)

    def look(self, step: str, block: Block) -> Part:
        """Hash the images of a block, or look for copies of them among all."""
        return self._hash(block) if step == "hash" else self._near(block)

    def _hash(self, block: Block) -> Part:
        rows = self.rows_of("hash", block)
        with ThreadPoolExecutor(threads(self.asked.workers)) as pool:
            found = list(pool.map(self._print, rows.tolist()))
        array = np.stack(found) if found else np.empty((0, 8), np.uint64)
        return Part({"row": rows}, {"hash": array})

    def _print(self, i: int) -> np.ndarray:
        """[8] hashes; zeros where there is nothing to be hashed."""
        try:
            return prints.of(self.pool.everything, i)
        except BadSample:
            return np.zeros(8, np.uint64)

    @cached_property
    def features(self) -> Features:
        """Of the rows that came in."""
        return features(self.pool, self.alive)

    @cached_property
    def engine(self) -> approximate.Approximate | None:
        """faiss, where there are many rows and it is installed."""
        folder = self.pool.folder / "parts" / "dedup-faiss"
        names = [block.name for block in self.pool.blocks]
        return engine(
            self.features.vectors, folder, self.inputs("near")[:8], names, self.asked.least
        )

    def prepare(self, step: str) -> None:
        """Say how pairs are judged, and index the features, before jobs share the work."""
        if step == "near":
            self._judged()
            _ = self.engine

    def _judged(self) -> None:
        if self.asked.threshold is None and not same.installed():
            raise UserError(
                "to tell copies apart their pixels are compared, which needs OpenCV: pip install "
                "'selftaught[curate]', or give a cosine from which on two images are copies, such "
                "as --threshold 0.9"
            )

    def _near(self, block: Block) -> Part:
        """Pairs of a row of this block and one of its neighbors that are copies."""
        asked, found = self.asked, self.features
        first, last = block.start, block.start + block.count
        own = np.flatnonzero((found.rows >= first) & (found.rows < last))
        k = min(asked.k, len(found.rows) - 1)
        pairs, cosines = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
        for a in range(0, len(own) if k > 0 else 0, STEP):
            some = own[a : a + STEP]
            queries = found.vectors.at(some)
            if self.engine is not None:
                near = self.engine.nearest(found.vectors, queries, k, some)
            else:
                near = nearest(found.vectors, queries, k, some)
            hit = (near.similarity >= asked.least) & (near.index >= 0)
            who, rank = np.nonzero(hit)
            pairs.append(np.sort(np.stack([some[who], near.index[who, rank]], 1), axis=1))
            cosines.append(near.similarity[who, rank])
        both, first = np.unique(np.concatenate(pairs), axis=0, return_index=True)
        cosine = np.concatenate(cosines)[first]
        if asked.threshold is None and len(both):
            copies = self._looked(both)
            both, cosine = both[copies], cosine[copies]
        return Part(
            {
                "a": found.rows[both[:, 0]],
                "b": found.rows[both[:, 1]],
                "cosine": cosine.astype(np.float32),
            }
        )

    def _looked(self, both: np.ndarray) -> np.ndarray:
        """[P] bool: which pairs of features are one picture."""
        rows = self.features.rows
        looker, found = same.Looker(self.pool.everything), np.zeros(len(both), bool)
        step = same.KEPT // 4
        # a thread of ours a core: those of BLAS beside them would wait for each other
        with threadpool_limits(1), ThreadPoolExecutor(threads(self.asked.workers)) as pool:
            for a in range(0, len(both), step):
                pairs = rows[both[a : a + step]]
                seen = looker.all(np.unique(pairs).tolist(), pool.map)
                ones, others = ([seen[i] for i in side] for side in pairs.T.tolist())
                found[a : a + step] = list(pool.map(same.same, ones, others))
        return found

    # ------------------------------------------------------------------------------------- verdict

    def edges(self) -> list[Edge]:
        """All pairs of rows that were found to be copies."""
        scan = self.pool.verdict("scan")
        rows = np.flatnonzero(self.alive)
        _, first, which = np.unique(scan["hash"][rows], return_index=True, return_inverse=True)
        equal = np.stack([rows[first[which]], rows], 1)
        found = [Edge(equal[equal[:, 0] != equal[:, 1]], "exact")]
        if "hash" in self.passes:
            place, hashes = self.hashes()
            # of equal hashes one stands for all: of ten thousand copies not all pairs are needed
            _, first, which = np.unique(hashes[:, 0], return_index=True, return_inverse=True)
            equal = np.stack([place[first[which]], place], 1)
            near = prints.pairs(hashes[first], self.asked.hash)
            pairs = np.concatenate([equal[equal[:, 0] != equal[:, 1]], place[first][near]])
            found.append(Edge(pairs, "perceptual"))
        if "near" in self.passes:
            told = self.columns("near", ("a", "b", "cosine"))
            found.append(Edge(np.stack([told["a"], told["b"]], 1), "embedding", told["cosine"]))
        return found

    def hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows [n] that have hashes, and these [n, 8]."""
        rows = self.columns("hash", ("row",))["row"]
        every = np.concatenate(self.arrays("hash", "hash"))
        has = every.any(1)
        return rows[has], every[has]

    def gather(self) -> dict[str, Any]:
        """Groups, and which of each stays."""
        rows, edges = np.flatnonzero(self.alive), self.edges()
        place = np.full(self.pool.count, -1)
        place[rows] = np.arange(len(rows))
        group = components(len(rows), [place[edge.rows] for edge in edges])
        keep = self._largest(rows, group)
        reason = np.full(len(rows), "", object)
        how, cosine = self._ways(rows, place, edges, keep)
        copies = np.flatnonzero(keep != rows)
        for i in copies:
            reason[i] = f"{how[i]} copy: of row {keep[i]}"
        if self.asked.against is not None:
            others = Others(self, self.asked.against)
            of, name = others.copies(rows, self.asked.against_threshold)
            spoiled = np.isin(group, group[of])
            for i in np.flatnonzero(spoiled):
                reason[i] = f"copy of {self.asked.against}: {name.get(int(i), 'by a copy of it')}"
        sizes = np.bincount(group, minlength=len(rows))[group]
        return {
            "row": rows,
            "reason": reason,
            "group": np.where(sizes > 1, group, -1),
            "keeps": keep,
            "similarity": cosine,
        }

    def _largest(self, rows: np.ndarray, group: np.ndarray) -> np.ndarray:
        """[n] for each row the row of its group that stays: of most pixels, then bytes, then the
        first."""
        scan = self.pool.verdict("scan")
        area = scan["width"][rows].astype(np.int64) * scan["height"][rows]
        order = np.lexsort((rows, -scan["bytes"][rows], -area, group))
        first = np.flatnonzero(np.diff(group[order], prepend=-1))
        best = np.empty(len(rows), np.int64)
        best[group[order[first]]] = rows[order[first]]
        return best[group]

    def _ways(
        self, rows: np.ndarray, place: np.ndarray, edges: list[Edge], keep: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """How each row was found to be a copy, the plainest way, and its cosine to what is kept, or
        NaN where nothing is embedded."""
        how = np.full(len(rows), "", object)
        for edge in reversed(edges):
            how[place[edge.rows].reshape(-1)] = edge.how
        cosine = np.full(len(rows), np.nan, np.float32)
        if "near" in self.passes:
            at = self.features.place(self.pool.count)
            both = np.flatnonzero((at[rows] >= 0) & (at[keep] >= 0) & (rows != keep))
            for a in range(0, len(both), STEP):
                some = both[a : a + STEP]
                one, other = (self.features.vectors.at(at[x[some]]) for x in (rows, keep))
                cosine[some] = (one * other).sum(1).numpy()
        return how, cosine

    def told(self, columns: Mapping[str, Any]) -> str:
        """How many groups there are, and whether one is a chain."""
        group = columns["group"]
        sizes = np.bincount(group[group >= 0]) if (group >= 0).any() else np.zeros(1, int)
        chained, lowest = chains(columns)
        text = f"{(sizes > 1).sum():,} groups, the largest of {sizes.max():,}"
        if chained:
            text += (
                f"; in {chained:,} a chain of copies leads to one that is unlike what is kept "
                f"(cosines down to {lowest:.2f}): see the report"
            )
        return text if sizes.max() > 1 else "no copies"


CHAINED = 0.4
"""Cosine to what is kept of its group below which an image is there by a chain of others."""


def chains(columns: Mapping[str, Any]) -> tuple[int, float]:
    """Groups with a member that is unlike the one that is kept, and the lowest cosine."""
    low = columns["similarity"] < CHAINED  # NaN is not
    found = np.unique(columns["group"][low & (columns["group"] >= 0)])
    return len(found), float(np.nanmin(columns["similarity"])) if low.any() else 1.0


def components(count: int, pairs: list[np.ndarray]) -> np.ndarray:
    """[count] the group of each position, by pairs [P, 2]; groups are numbered by their first."""
    joined = np.concatenate([np.empty((0, 2), np.int64), *pairs])
    ones = np.ones(len(joined), bool)
    graph = coo_matrix((ones, (joined[:, 0], joined[:, 1])), (count, count))
    of = connected_components(graph, directed=False)[1]
    first = np.full(of.max(initial=-1) + 1, count)
    np.minimum.at(first, of, np.arange(count))
    return np.argsort(np.argsort(first))[of].astype(np.int64)
