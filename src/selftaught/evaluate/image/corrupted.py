"""Whether what was learned on clean images holds on corrupted ones."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluate.image.changes import CORRUPTIONS
from selftaught.evaluate.scores import Score, Task, fit_ridge, mean_score, vote


def robustness(
    train: Any,
    test: Any,
    corrupted: Any,
    names: Sequence[str] = tuple(CORRUPTIONS),
    *,
    k: int = 20,
    temperature: float = 0.07,
    seed: int = 0,
) -> tuple[Score, Score]:
    """Accuracy on corrupted test images of the k-NN and of the probe of clean training images.

    The value is the mean over corruptions, `Score.parts` has each of them. `changed_features` makes
    the features of ours: noise, blur, pixelation, brightness, contrast and JPEG, mild and strong.

    Args:
        train, test: features and labels of clean images, as of `knn`.
        corrupted: [M, V, D] features of V corruptions of each sample of `test` (of `train` where
            test is None).
        names: of the V corruptions.
        k, temperature: of `knn`.
        seed: of `probe`.

    Raises:
        UserError: labels are missing, or features do not fit.
    """
    task = Task.of(train, test)
    x = torch.as_tensor(corrupted).float()
    width = task.test_x.shape[1]
    if x.dim() != 3 or x.shape[1:] != (len(names), width) or len(x) <= task.tested.max():
        raise UserError(
            f"corrupted features must be [M, {len(names)}, {width}], of each test sample and "
            f"corruption, got {list(x.shape)}"
        )
    return on_corrupted(
        task, x[task.tested], names, np.arange(len(task.tested)), k, temperature, seed
    )


def on_corrupted(
    task: Task,
    corrupted: Tensor,
    names: Sequence[str],
    rows: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
    seed: int = 0,
) -> tuple[Score, Score]:
    """Scores of `robustness` for some of the test samples of a task.

    Args:
        corrupted: [R, V, D], of the test samples `rows`.
        names: of the V corruptions.
        rows: [R].
        task, k, temperature, seed: as of `robustness`.
    """
    start = time.perf_counter()
    y = task.test_y[torch.from_numpy(rows).to(task.test_y.device)]
    x = corrupted.to(task.test_x.device).transpose(0, 1).flatten(0, 1)  # all of one kind together
    k = min(k, len(task.train_x))
    classify, strength, _ = fit_ridge(task.train_x, task.train_y, seed)
    near, straight = vote(task.train_x, task.train_y, x, k, temperature), classify(x)

    def score(name: str, how: str, predicted: Tensor, **settings: float) -> Score:
        right = (predicted.view(len(names), len(y)) == y).cpu().double().numpy()
        return mean_score(
            name,
            right.mean(0),
            f"{task.protocol}; {how} of clean training images, on {len(names)} corruptions of "
            f"each of {len(y)} test images",
            start,
            "right",
            parts=dict(zip(names, (100 * right.mean(1)).tolist(), strict=True)),
            settings=settings,
        )

    return (
        score(
            "corrupted k-NN",
            f"k-NN (cosine, k={k}, T={temperature:g})",
            near,
            k=k,
            temperature=temperature,
        ),
        score("corrupted probe", f"ridge classifier (strength {strength:g})", straight),
    )
