"""Linear classifiers on frozen features, as papers train them: by gradient descent, and exactly."""

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.evaluate.scores import Score, Task, split, standardized

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
"""Learning rates for 256 samples a step that `linear` chooses from: those of DINOv2's code."""

PENALTIES = tuple(10.0**e for e in range(-5, 2))
"""Values of C that `logistic` chooses from: the inverse of the weight of the squared norm."""

BATCH, STEPS, PASSES = 256, 1000, 10
"""Samples a step; steps at least; passes over the samples at least."""

ITERATIONS = 200
"""Of L-BFGS at most, for each C; the next one starts where the last one ended."""


def linear(
    train: Any,
    test: Any = None,
    *,
    encoder: nn.Module | str | Path | None = None,
    seed: int = 0,
) -> Score:
    """Linear classification by gradient descent: the sweep of DINOv2 (arXiv 2304.07193, appendix).

    SGD with momentum 0.9, a cosine schedule and no weight decay, for 13 learning rates and for
    each kind of features that there is (last layer, last four, mean of patches; see
    `Embeddings.extra`). The best on a fifth of the training samples is then trained on all of them;
    test samples are never looked at. Features are standardized, and those of plain views: unlike
    in the paper nothing is augmented.

    Args:
        train, test, encoder: as of `knn`.
        seed: of the initial weights, of the order of samples and of the part held out.

    Raises:
        UserError: labels are missing, or features do not fit.
    """
    task = Task.of(train, test, encoder)
    start = time.perf_counter()
    kinds = {"last layer": (task.train_x, task.test_x)} | dict(task.extra)
    y = task.train_y
    fit, held = (torch.from_numpy(i).to(y.device) for i in split(y.cpu().numpy(), seed))
    best = (-1, "last layer", RATES[-4])
    how = "too few training samples to choose"
    if len(held):
        for kind, (x, _) in kinds.items():
            (x,) = standardized(x)
            heads = descend(x[fit], y[fit], RATES, task.classes, seed)
            right = (predictions(x[held], *heads) == y[held, None]).sum(0).tolist()
            # of equally good ones the first kind, and the highest rate
            score, rate = max(zip(right, RATES))
            best = max(best, (score, kind, rate), key=lambda found: found[0])
        how = (
            f"best of {len(RATES)} rates"
            + (f" and {len(kinds)} kinds of features" if len(kinds) > 1 else "")
            + f" on {len(held)} held-out training samples"
        )
    _, kind, rate = best
    x, test_x = standardized(*kinds[kind])
    heads = descend(x, y, (rate,), task.classes, seed)
    protocol = (
        f"{task.protocol}; softmax regression by SGD on standardized features of the {kind}, "
        f"learning rate {rate:g} for {BATCH} samples, {how}"
    )
    return task.score("linear", predictions(test_x, *heads)[:, 0], protocol, start)


def descend(
    x: Tensor, y: Tensor, rates: tuple[float, ...], classes: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """One linear classifier a learning rate, all trained at once on the same batches by SGD.

    Args:
        x: [N, D].
        y: [N].
        rates: peak learning rates for `BATCH` samples a step.
        classes: C.
        seed: of weights and order.

    Returns:
        Weights [D, H, C] and biases [H, C] of the H classifiers.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(x)
    batch = min(BATCH, count)
    steps = max(STEPS, PASSES * count // batch)
    heads = Heads(x, rates, classes, batch, generator)
    for step, rows in enumerate(_batches(count, batch, steps, generator)):
        rows = rows.to(x.device)
        heads.step(x[rows], y[rows], step / steps)
    return heads.parameters


class Heads:
    """Linear classifiers, one a learning rate, trained at once by SGD with momentum 0.9.

    Args:
        like: features [N, D], of which they take width, type and place.
        rates: peak learning rates for `BATCH` samples a step.
        classes: C.
        batch: samples a step.
        generator: of the weights, alike for all rates.
    """

    def __init__(
        self,
        like: Tensor,
        rates: tuple[float, ...],
        classes: int,
        batch: int,
        generator: torch.Generator,
    ):
        self.shape = len(rates), classes
        weight = (0.01 * torch.randn(like.shape[1], 1, classes, generator=generator)).to(like)
        self.weight = weight.repeat(1, len(rates), 1).flatten(1)
        self.bias = like.new_zeros(len(rates) * classes)
        self.rate = like.new_tensor(rates).repeat_interleave(classes) * batch / BATCH
        self.momenta = torch.zeros_like(self.weight), torch.zeros_like(self.bias)

    def step(self, x: Tensor, y: Tensor, progress: float) -> None:
        """One step on features [B, D] of classes [B]; the rate falls by a cosine of `progress`."""
        error = torch.addmm(self.bias, x, self.weight).unflatten(1, self.shape).softmax(-1)
        error[torch.arange(len(x)), :, y] -= 1  # what cross entropy sends back
        error = error.flatten(1) / len(x)
        now = self.rate * (0.5 * (1 + np.cos(np.pi * progress)))
        for parameter, momentum, gradient in zip(
            (self.weight, self.bias), self.momenta, (x.T @ error, error.sum(0))
        ):
            parameter -= now * momentum.mul_(0.9).add_(gradient)

    @property
    def parameters(self) -> tuple[Tensor, Tensor]:
        """Weights [D, H, C] and biases [H, C]."""
        return self.weight.unflatten(1, self.shape), self.bias.unflatten(0, self.shape)


def predictions(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[N, H] classes, by each of the H classifiers of `descend`."""
    return torch.cat(
        [(torch.einsum("nd,dhc->nhc", part, weight) + bias).argmax(-1) for part in x.split(1024)]
    )


def _batches(count: int, batch: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(count, generator=generator)
        yield order[:batch]
        order = order[batch:]


def logistic(
    train: Any,
    test: Any = None,
    *,
    encoder: nn.Module | str | Path | None = None,
    seed: int = 0,
) -> Score:
    """Logistic regression by L-BFGS (scikit-learn) on standardized features of the last layer.

    Of seven penalties the one is taken that is best on a fifth of the training samples, which are
    then all used; test samples are never looked at.

    Args:
        train, test, encoder: as of `knn`.
        seed: of the part held out.

    Raises:
        UserError: labels are missing, or features do not fit.
    """
    task = Task.of(train, test, encoder)
    start = time.perf_counter()
    x, test_x = (
        v.numpy() for v in standardized(task.train_x.cpu().double(), task.test_x.cpu().double())
    )
    y = task.train_y.cpu().numpy()
    fit, held = split(y, seed)
    chosen, how = 1e-2, "too few training samples to choose"
    if len(held):
        right = [
            int((model.predict(x[held]) == y[held]).sum())
            for model in _path(x[fit], y[fit], PENALTIES)
        ]
        chosen = PENALTIES[int(np.argmax(right))]  # of equally good ones the strongest penalty
        how = f"best of {len(PENALTIES)} on {len(held)} held-out training samples"
    (model,) = _path(x, y, (chosen,))
    if model.n_iter_.max() >= ITERATIONS:
        how += f"; stopped after {ITERATIONS} iterations"
    predicted = torch.from_numpy(model.predict(test_x)).to(task.test_y.device)
    protocol = (
        f"{task.protocol}; logistic regression by L-BFGS on standardized features, C={chosen:g}, "
        f"{how}"
    )
    return task.score("logistic", predicted, protocol, start)


def _path(x: np.ndarray, y: np.ndarray, penalties: tuple[float, ...]) -> Iterator[Any]:
    """The model for each C, ascending: from one to the next is shorter than from nothing."""
    from sklearn.exceptions import ConvergenceWarning  # which takes a second to import
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    for c in penalties:
        model.set_params(C=c)
        with warnings.catch_warnings():  # the protocol says it
            warnings.simplefilter("ignore", ConvergenceWarning)
            yield model.fit(x, y)
