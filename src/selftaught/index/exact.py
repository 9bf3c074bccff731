"""The vectors of the images that are searched, wherever they lie, and exact search among them.

Vectors are read in blocks, so that no more than some hundred megabytes are ever held, be there a
million images.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 2**25
"""Numbers in the largest intermediate matrix: 128 MiB of float32."""
QUERIES = 1024
"""That are compared with a block of vectors at once."""

Progress = Callable[[int, int], None]


class Near(NamedTuple):
    """index: [Q, k] positions, most similar first; -1 where there are fewer. similarity: [Q, k]."""

    index: np.ndarray
    similarity: np.ndarray


class Vectors:
    """N vectors of unit length: some rows of arrays that are one after the other.

    Args:
        parts: [n, D] each.
        rows: [N] of all parts, counted through.
    """

    def __init__(self, parts: Sequence[np.ndarray], rows: np.ndarray):
        self.parts, self.rows = parts, rows
        self.starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        return self.parts[0].shape[1] if self.parts else 0

    def at(self, positions: np.ndarray) -> Tensor:
        """[n, D] float32 of unit length, of the positions [n]."""
        return self.of_rows(self.rows[positions])

    def of(self, parts: Sequence[np.ndarray], positions: np.ndarray) -> np.ndarray:
        """What else is known of the positions, in arrays as long as the parts."""
        return self._rows(parts, self.rows[positions])

    def of_rows(self, rows: np.ndarray) -> Tensor:
        """[n, D] float32 of unit length, of rows of the parts."""
        own = np.array(self._rows(self.parts, rows))  # torch wants no mapped file
        return F.normalize(torch.from_numpy(own).float(), dim=1)

    def _rows(self, parts: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        where = np.searchsorted(self.starts, rows, side="right") - 1
        if len(rows) and where[0] == where[-1] and (np.diff(rows) == 1).all():  # no copy
            start = rows[0] - self.starts[where[0]]
            return parts[where[0]][start : start + len(rows)]
        out = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
        for part in np.unique(where):
            mine = where == part
            out[mine] = parts[part][rows[mine] - self.starts[part]]
        return out


@torch.no_grad()
def nearest(
    vectors: Vectors,
    queries: Tensor,
    k: int,
    own: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Near:
    """The k vectors most similar to each query, by cosine, exactly.

    Args:
        vectors: N of them.
        queries: [Q, D] of unit length.
        k: as many.
        own: [Q] positions of the queries among the vectors, which are not found; -1 for none.
        device: that compares.
        progress: told of queries that are done.

    Returns:
        [Q, min(k, N)].
    """
    k = min(k, len(vectors))
    index = np.full((len(queries), k), -1)
    similarity = np.full((len(queries), k), -np.inf, np.float32)
    step = max(1, BLOCK // max(QUERIES, vectors.dim, 1))
    for a in range(0, len(queries), QUERIES):
        chunk = queries[a : a + QUERIES].to(device)
        mine = None if own is None else torch.from_numpy(own[a : a + QUERIES]).to(device)
        best = torch.full((len(chunk), k), -torch.inf, device=device)
        found = torch.full((len(chunk), k), -1, device=device)
        for b in range(0, len(vectors), step):
            some = vectors.at(np.arange(b, min(b + step, len(vectors)))).to(device)
            scores = chunk @ some.mT
            here = torch.arange(b, b + len(some), device=device)
            if mine is not None:
                scores.masked_fill_(here == mine[:, None], -torch.inf)
            best, order = torch.cat([best, scores], 1).topk(k, dim=1)
            found = torch.cat([found, here.expand(len(chunk), -1)], 1).gather(1, order)
        found[best == -torch.inf] = -1
        index[a : a + len(chunk)] = found.cpu().numpy()
        similarity[a : a + len(chunk)] = best.cpu().numpy()
        if progress is not None:
            progress(a + len(chunk), len(queries))
    return Near(index, similarity.clip(-1, 1))
