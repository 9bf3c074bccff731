"""Search by similarity: images of the same class, and copies of the same image."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.evaluate.scores import Score, Task, draws, mean_score

QUERIES = 2000
"""Test samples that search, at most: each ranks all training samples."""

RECALLS = (1, 5, 10)

CANDIDATES = 10
"""Most similar originals of each copy that the micro average ranks, as where few are looked at."""


def retrieval(
    train: Any, test: Any = None, *, encoder: nn.Module | str | Path | None = None
) -> tuple[Score, ...]:
    """Test samples search the training samples by cosine: mAP over classes, and recall@1, 5, 10.

    mAP is the mean over queries of the mean precision at the ranks of all samples of the query's
    class; recall@k the share of queries with one of their class among the k most similar.

    Args:
        train, test, encoder: as of `knn`. Of more than 2000 test samples as many are taken, spread
            evenly.

    Raises:
        UserError: labels are missing, or features do not fit.
    """
    task = Task.of(train, test, encoder)
    start = time.perf_counter()
    chosen = evenly(len(task.test_x), QUERIES).to(task.test_x.device)
    queries, wanted = F.normalize(task.test_x[chosen], dim=1), task.test_y[chosen]
    keys = F.normalize(task.train_x, dim=1)
    rows = max(1, 2**24 // len(keys))
    precision, first = [], []
    for q, y in zip(queries.split(rows), wanted.split(rows)):
        order = (q @ keys.T).argsort(1, descending=True)
        hits = task.train_y[order] == y[:, None]
        precision.append(average_precision(hits))
        # rank of the first hit, from 0; where there is none, after all
        first.append(torch.where(hits.any(1), hits.int().argmax(1), len(keys)))
    ranks = torch.cat(first).cpu().numpy()
    protocol = f"{task.protocol}; {len(ranks)} test samples search the training samples by cosine"
    ours = mean_score(
        "retrieval mAP",
        torch.cat(precision).cpu().numpy(),
        protocol,
        start,
        "mean average precision",
    )
    recalls = (
        Score(
            f"recall@{k}",
            100 * float((ranks < k).mean()),
            len(ranks),
            f"{protocol}, one of the class among the first {k}",
            time.perf_counter() - start,
            correct=ranks < k,
            measure="found",
        )
        for k in RECALLS
        if k <= len(keys)
    )
    return ours, *recalls


def average_precision(hits: Tensor) -> Tensor:
    """Hits [Q, N], most similar first -> [Q] mean precision at their ranks; 0 where none is."""
    ranks = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    precision = hits.cumsum(1) / ranks
    return (precision * hits).sum(1) / hits.sum(1).clamp(min=1)


def copies(originals: Any, copied: Any, names: tuple[str, ...] = ()) -> tuple[Score, Score]:
    """Changed copies search their originals by cosine: rank 1, and micro average precision.

    Rank 1 is the share of copies whose most similar original is their own. muAP (Douze et al.,
    2021, arXiv 2106.09672) ranks the pairs of all copies together, so that one threshold has to fit
    all of them; of each copy its 10 nearest originals are candidates.

    Args:
        originals: [N, D] features, N at least 2.
        copied: [N, V, D] features of V copies of each.
        names: of the V kinds of copies, for `Score.parts`.

    Raises:
        UserError: shapes do not fit.
    """
    start = time.perf_counter()
    keys, queries = (torch.as_tensor(v).float() for v in (originals, copied))
    if keys.dim() != 2 or queries.dim() != 3 or queries.shape[::2] != keys.shape or len(keys) < 2:
        raise UserError(
            f"copies need features [N, D] and [N, V, D] of 2 originals or more, got "
            f"{list(keys.shape)} and {list(queries.shape)}"
        )
    count, kinds = queries.shape[:2]
    similar = F.normalize(queries, dim=2).flatten(0, 1) @ F.normalize(keys, dim=1).T
    near, where = similar.topk(min(CANDIDATES, count), 1)
    hits = where == torch.arange(count).repeat_interleave(kinds)[:, None]
    rank1 = hits[:, 0].view(count, kinds).double()
    parts = dict(zip(names, (100 * rank1.mean(0)).tolist(), strict=True)) if names else {}
    protocol = (
        f"{count} images, {kinds} changed copies of each search their original among all {count} "
        "by cosine"
    )
    first = mean_score("copy rank-1", rank1.mean(1).numpy(), protocol, start, "found", parts=parts)
    order = near.flatten().argsort(descending=True, stable=True)
    hit = hits.flatten()[order].numpy()
    image = (order // (near.shape[1] * kinds)).numpy()

    def micro(weight: np.ndarray) -> float:
        w = weight[image]
        precision = np.cumsum(w * hit) / np.maximum(np.cumsum(w), 1)
        return float((w * hit * precision).sum() / (kinds * weight.sum()))

    resampled = [micro(np.bincount(rows, minlength=count)) for rows in draws(count)]
    second = Score(
        "copy muAP",
        100 * micro(np.ones(count)),
        count,
        f"{protocol}, all pairs ranked together",
        time.perf_counter() - start,
        measure="micro average precision",
        resampled=100 * np.array(resampled),
    )
    return first, second


def evenly(count: int, most: int) -> Tensor:
    """Positions of at most `most` of `count` samples, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()
