"""Candidates from faiss, where it is installed, ranked exactly: a million images in milliseconds.

Vectors are grouped around centroids (an inverted file), 8 bits a number, and the groups nearest to
the query are looked at. How many is chosen by measuring: as many as find 99 % of the 10 most
similar images, which are known exactly for some queries. Where only what is alike from some cosine
on is asked for, as copies are, it is 99 % of that, which takes far fewer.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.export.facts import content
from selftaught.export.files import atomic
from selftaught.index.exact import BLOCK, Near, Vectors, nearest

log = logging.getLogger("selftaught")

ENOUGH = 100_000
"""Images above which an approximate search is worth its memory."""
RECALL = 0.99
TRIED = 200
"""Images that recall is measured on."""
ROWS = 65_536
"""Vectors that are added at a time."""
TAIL = 0.1
"""Share of vectors that came later and are compared one by one, at most."""
ROUGH = 0.05
"""By which a similarity of 8 bits a number is off, at most; 0.01 was the most that was measured."""


def installed() -> bool:
    """Whether there is faiss."""
    return find_spec("faiss") is not None


def needed() -> None:
    """Refuse to go on without faiss: UserError."""
    if not installed():
        raise UserError(
            "--engine faiss needs faiss, which is not installed: pip install selftaught[search], "
            "or leave --engine out for exact search"
        )


@dataclass(frozen=True)
class Approximate:
    """A faiss index of the first `covered` rows of a store.

    probed: groups that are looked at. recall: of the 10 most similar, measured. least: cosine from
    which on others are found, and recall is of those.
    """

    index: Any
    covered: int
    probed: int
    recall: float
    least: float = -1.0

    def candidates(self, queries: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
        """[Q, count] similarities, about, from the highest on, and rows; -1 where there are
        fewer."""
        self.index.nprobe = self.probed
        return self.index.search(np.ascontiguousarray(queries.cpu().numpy()), count)

    def nearest(
        self, vectors: Vectors, queries: Tensor, k: int, own: np.ndarray | None = None
    ) -> Near:
        """As `exact.nearest` of the same vectors; candidates are compared exactly.

        What came later than faiss' part is compared one by one, and a query for which too few
        candidates are left is answered exactly. Of what is less similar than `least`, some may be
        missing.
        """
        k = min(k, len(vectors))
        positions = np.full(int(vectors.starts[-1]), -1)
        positions[vectors.rows] = np.arange(len(vectors))
        late = np.flatnonzero(vectors.rows >= self.covered)
        count, bar = 4 * k + 16, self.least - ROUGH
        parts = []
        for some, mine in _chunks(queries.cpu(), own, max(1, BLOCK // (count * vectors.dim))):
            about, rows = self.candidates(some, count)
            found = np.where((rows >= 0) & (about >= bar), positions[rows], -1)
            if mine is not None:
                found[found == mine[:, None]] = -1
            scores = _compared(vectors, some, found)
            # all that were asked for were similar enough, and there may be more of them
            cut = (rows[:, -1] >= 0) & (about[:, -1] >= bar) | (self.least <= -1)
            if len(late):
                others = Vectors(vectors.parts, vectors.rows[late])
                there = None if mine is None else _within(late, mine)
                more = nearest(others, some, k, there)
                found = np.concatenate([found, np.where(more.index < 0, -1, late[more.index])], 1)
                scores = np.concatenate([scores, more.similarity], 1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            parts.append([*(np.take_along_axis(x, order, 1) for x in (found, scores)), cut])
        index, similarity, cut = (np.concatenate(x) for x in zip(*parts))
        index[np.isinf(similarity)] = -1
        wanted = min(k, len(vectors) - (own is not None))
        lacking = np.flatnonzero(cut & (index[:, :wanted] < 0).any(1))
        if len(lacking):
            exact = nearest(vectors, queries[lacking], k, None if own is None else own[lacking])
            index[lacking], similarity[lacking] = exact
        return Near(index, similarity.clip(-1, 1))


def _compared(vectors: Vectors, queries: Tensor, found: np.ndarray) -> np.ndarray:
    """[Q, C] float32 cosines of each query and its candidates [Q, C], -inf where there is none."""
    who, which = np.nonzero(found >= 0)
    scores = np.full(found.shape, -np.inf, np.float32)
    if len(who):
        known = vectors.at(found[who, which])
        scores[who, which] = (queries[torch.from_numpy(who)] * known).sum(1).numpy()
    return scores


def opened(
    vectors: Vectors,
    folder: Path | None,
    mark: str,
    names: Sequence[str],
    least: float = -1.0,
) -> Approximate:
    """What was kept in `folder`, or made now, and kept there where there is a folder.

    Args:
        vectors: that are searched.
        folder, mark: of the store; the mark tells one `least` from another.
        names: of its parts, in their order.
        least: cosine from which on others are to be found; -1 for the nearest, however far.

    Raises:
        UserError: faiss is not installed.
    """
    needed()
    found = None if folder is None else _kept(folder, mark, vectors, names)
    if found is None:
        found = _made(vectors, least)
        if folder is not None:
            _keep(found, folder, mark, names)
    return found


def _made(vectors: Vectors, least: float) -> Approximate:
    faiss = _faiss()
    rows = int(vectors.starts[-1])
    groups = max(1, min(round(4 * rows**0.5), rows // 39))  # 39 for a centroid: faiss warns below
    index = faiss.index_factory(vectors.dim, f"IVF{groups},SQ8", faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    drawn = rng.permutation(rows)[: 64 * groups]
    log.info("building an approximate index of %s vectors in %s groups", f"{rows:,}", groups)
    index.train(vectors.of_rows(np.sort(drawn)).numpy())
    for a in range(0, rows, ROWS):
        index.add(vectors.of_rows(np.arange(a, min(a + ROWS, rows))).numpy())
    tried = np.unique(np.linspace(0, len(vectors) - 1, TRIED).astype(int))
    queries = vectors.at(tried)
    exact = nearest(vectors, queries, 10)
    wanted = np.where(exact.similarity >= least, exact.index, -1)
    if least > -1:  # what is that alike may be rare: some is made, as unlike as it may be
        queries = torch.cat([queries, _turned(queries, least, rng)])
        made = np.full((len(tried), wanted.shape[1]), -1)
        made[:, 0] = tried
        wanted = np.concatenate([wanted, made])
    probed, recall = 0, 0.0
    while recall < RECALL and probed < groups:
        probed = min(max(2 * probed, 1), groups)
        found = Approximate(index, rows, probed, recall).candidates(queries, 4 * 10 + 16)[1]
        hit = (found[:, :, None] == vectors.rows[wanted][:, None]).any(1)
        recall = float(hit[wanted >= 0].mean())
    return Approximate(index, rows, probed, recall, least)


def _turned(queries: Tensor, cosine: float, rng: np.random.Generator) -> Tensor:
    """[Q, D] of unit length, each at this cosine to its query, any way."""
    drawn = torch.from_numpy(rng.normal(size=tuple(queries.shape))).float()
    across = F.normalize(drawn - (drawn * queries).sum(1, keepdim=True) * queries, dim=1)
    return cosine * queries + max(0.0, 1 - cosine**2) ** 0.5 * across


def _keep(made: Approximate, folder: Path, mark: str, names: Sequence[str]) -> None:
    name = f"faiss-{mark}-{digest(*names)[:8]}"
    for old in folder.glob("faiss-*"):
        old.unlink()
    with atomic(folder / f"{name}.ivf") as temporary:
        _faiss().write_index(made.index, str(temporary))
    with atomic(folder / f"{name}.json") as temporary:
        about = {n: getattr(made, n) for n in ("probed", "recall", "least")}
        about = {"parts": list(names), **about}
        temporary.write_text(json.dumps(about, indent=2) + "\n", "utf-8")


def _kept(folder: Path, mark: str, vectors: Vectors, names: Sequence[str]) -> Approximate | None:
    """An index of the first of the parts, or of all; None where none is worth being used."""
    for file in folder.glob(f"faiss-{mark}-*.json"):
        about = content(file)
        parts, probed = about.get("parts"), about.get("probed")
        if not isinstance(parts, list) or parts != list(names[: len(parts)]):
            continue
        covered = int(vectors.starts[len(parts)])
        if covered < (1 - TAIL) * vectors.starts[-1] or not isinstance(probed, int):
            continue
        try:
            index = _faiss().read_index(str(file.with_suffix(".ivf")))
        except RuntimeError as error:
            log.warning("%s is damaged (%s) and made anew", file.with_suffix(".ivf"), error)
            continue
        if (index.ntotal, index.d) == (covered, vectors.dim):
            recall, least = float(about.get("recall", 0.0)), float(about.get("least", -1.0))
            return Approximate(index, covered, probed, recall, least)
    return None


def _faiss() -> Any:
    return import_module("faiss")


def _chunks(
    queries: Tensor, own: np.ndarray | None, step: int
) -> Iterator[tuple[Tensor, np.ndarray | None]]:
    for a in range(0, len(queries), step):
        yield queries[a : a + step], None if own is None else own[a : a + step]


def _within(some: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Where in the sorted `some` the positions are; -1 where they are not."""
    where = np.searchsorted(some, positions).clip(0, len(some) - 1)
    return np.where(some[where] == positions, where, -1)
