"""At which depth of a network its features are worth most: a probe on every block or stage."""

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from selftaught.backbones import Encoder, depths
from selftaught.evaluate.scores import Score, Task, fit_ridge, split

NAME = "probe by depth"


class Deep:
    """Pooled features of every depth side by side, in one tensor, and how to tell them apart."""

    def __init__(self) -> None:
        self.widths: dict[str, int] = {}

    def __call__(self, network: Encoder, x: Tensor) -> Tensor:
        """[B, C, S, S] floats -> [B, sum of widths]."""
        found = depths(network, x)
        self.widths = {name: part.shape[1] for name, part in found.items()}
        return torch.cat(list(found.values()), 1)


def by_depth(train: Any, test: Any, widths: dict[str, int], seed: int = 0) -> Score:
    """Accuracy of the ridge probe on each part of features that lie side by side.

    The value is that of the depth which is best on a fifth of the training samples, trained again
    on all of them; `Score.parts` has every depth.

    Args:
        train, test: as of `knn`, with features [N, sum of widths].
        widths: of the parts, by name, from the first block or stage on.
        seed: of `probe`, and of the samples that choose.
    """
    task, start = Task.of(train, test), time.perf_counter()
    fit, held = (torch.from_numpy(i) for i in split(task.train_y.cpu().numpy(), seed))
    sides = [x.split(list(widths.values()), 1) for x in (task.train_x, task.test_x)]
    chosen, predicted = [], []
    for x, test_x in zip(*sides):
        classify, _, _ = fit_ridge(x, task.train_y, seed)
        predicted.append(classify(test_x))
        if len(held):
            classify, _, _ = fit_ridge(x[fit], task.train_y[fit], seed)
            chosen.append(int((classify(x[held]) == task.train_y[held]).sum()))
    names = list(widths)
    # of several that are as good the deepest
    best = max(range(len(chosen)), key=lambda i: (chosen[i], i), default=len(names) - 1)
    score = task.score(
        NAME,
        predicted[best],
        f"{task.protocol}; ridge classifier after {names[best]}, of {len(names)} depths the best "
        f"on {len(held)} held-out training samples",
        start,
    )
    right = [100 * float((p == task.test_y).double().mean()) for p in predicted]
    return replace(score, parts=dict(zip(names, right)))
