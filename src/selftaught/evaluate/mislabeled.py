"""What a probe is worth where many of the labels that it learns from are wrong."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.evaluate.scores import Score, Task, fit_ridge, mean_score

SHARES = (0.2, 0.4, 0.6)
"""Of the training labels, which are wrong."""


def noisy_labels(
    train: Any,
    test: Any = None,
    *,
    shares: Sequence[float] = SHARES,
    encoder: nn.Module | str | Path | None = None,
    seed: int = 0,
) -> Score:
    """Accuracy of the probe after 20, 40 and 60 % of the training labels were made wrong.

    Each of these labels is another class, every other one as likely (symmetric noise); those that
    are wrong at 20 % are so at 40 %, too, and they are alike for all encoders. Nothing is cleaned:
    the strength is chosen by wrong labels, as it would be. Test labels stay. The value is the mean
    over shares, `Score.parts` has each.

    Args:
        train, test, encoder: as of `knn`.
        shares: of wrong labels, from 0 to 1.
        seed: of what is drawn, and of `probe`.

    Raises:
        UserError: labels are missing, a share is out of bounds, or features do not fit.
    """
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise UserError(f"shares={list(shares)} of wrong labels must be from 0 to 1, one at least")
    task, start = Task.of(train, test, encoder), time.perf_counter()
    right = []
    for share in shares:
        wrong = mislabeled(task.train_y.cpu(), task.classes, share, seed)
        classify, _, _ = fit_ridge(task.train_x, wrong.to(task.train_y.device), seed)
        right.append((classify(task.test_x) == task.test_y).cpu().double().numpy())
    names = [f"{100 * share:g} % wrong" for share in shares]
    return mean_score(
        "probe, noisy labels",
        np.mean(right, 0),
        f"{task.protocol}; ridge classifier, {', '.join(names)} training labels, each another "
        "class at random",
        start,
        "right",
        parts=dict(zip(names, (100 * each.mean() for each in right), strict=True)),
    )


def mislabeled(y: Tensor, classes: int, share: float, seed: int) -> Tensor:
    """[N] labels 0..C-1 of which round(share * N) are another class."""
    rng = np.random.default_rng(seed)
    order, shift = rng.permutation(len(y)), rng.integers(1, classes, len(y))
    rows = torch.from_numpy(order[: round(share * len(y))])
    changed = y.clone()
    changed[rows] = (y[rows] + torch.from_numpy(shift)[rows]) % classes
    return changed
