"""Whether what a probe tells of images holds when they are changed to mislead it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.evaluate.scores import Score, Task, fit_ridge, mean_score, moments, solve_ridge

BUDGETS = (1, 4)
"""Of 255 gray levels, by which a number of an image may be changed at most."""

STEPS = 10
"""Of projected gradient descent, each 2.5 / STEPS of the budget."""

NAMES = tuple(f"{kind} {b}/255" for kind in ("FGSM", "PGD") for b in BUDGETS)


@dataclass(frozen=True)
class Linear:
    """The ridge classifier of `probe` as a matrix: `fit_ridge` tells classes alone.

    mean, scale: [D] of the training features. weight: [D, K]. bias: [K].
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    @staticmethod
    def of(task: Task, seed: int) -> tuple["Linear", float]:
        """Fitted on the training features, and its strength."""
        _, strength, _ = fit_ridge(task.train_x, task.train_y, seed)
        x = task.train_x.cpu().double()
        mean, scale = moments(x)
        found = solve_ridge((x - mean) / scale, task.train_y.cpu())
        weight = found.basis / found.shrunk(strength) @ found.right
        return Linear(mean, scale, weight, found.bias - found.mean @ weight), strength

    def __call__(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, K] scores of the classes."""
        mean, scale, weight, bias = (
            x.to(features) for x in (self.mean, self.scale, self.weight, self.bias)
        )
        return (features - mean) / scale @ weight + bias


class Attack:
    """What a probe says of images, then of each after it was changed to mislead the probe.

    The attacker knows all weights (white box) and raises the score of the best other class above
    that of the class which was told: by the sign of one gradient (FGSM, Goodfellow et al., 2015,
    https://arxiv.org/abs/1412.6572), or by steps of such gradients from a random start (PGD, Madry
    et al., 2018, https://arxiv.org/abs/1706.06083).

    Args:
        probe: of the network's pooled features.
        seed: of the random starts.
    """

    def __init__(self, probe: Linear, seed: int):
        self.probe, self.seed = probe, seed

    def __call__(self, network: Any, x: Tensor) -> Tensor:
        """Normalized images [B, C, H, W] -> [B, 1 + attacks] classes."""
        with torch.inference_mode(False), torch.enable_grad():
            return self.attacked(network, x.clone().float()).double()

    def attacked(self, network: Any, x: Tensor) -> Tensor:
        mean, std = (x.new_tensor(v)[..., None, None] for v in (network.mean, network.std))
        black, white = -mean / std, (1 - mean) / std
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            told = self.probe(network(x)).argmax(1)
        found = [told]
        for budget in BUDGETS:
            step = self.slope(network, x, told).sign() * budget / 255 / std
            found.append(self.say(network, (x + step).clamp(black, white)))
        for budget in BUDGETS:
            most = budget / 255 / std
            start = 2 * torch.rand(x.shape, generator=generator).to(x) - 1
            changed = (x + most * start).clamp(black, white)
            for _ in range(STEPS):
                moved = changed + 2.5 / STEPS * most * self.slope(network, changed, told).sign()
                changed = moved.clamp(x - most, x + most).clamp(black, white)
            found.append(self.say(network, changed))
        return torch.stack(found, 1)

    @torch.no_grad()
    def say(self, network: Any, x: Tensor) -> Tensor:
        return self.probe(network(x)).argmax(1)

    def slope(self, network: Any, x: Tensor, told: Tensor) -> Tensor:
        """Gradient of how far the best other class is above the one that was told."""
        x = x.detach().requires_grad_()
        scores = self.probe(network(x))
        own = scores.gather(1, told[:, None])
        others = scores.scatter(1, told[:, None], -torch.inf).amax(1, keepdim=True)
        return torch.autograd.grad((others - own).sum(), x)[0]


def on_attacked(
    task: Task, classes: np.ndarray, rows: np.ndarray, strength: float, start: float
) -> Score:
    """The share of test images that are told right, and still are after an attack.

    The value is the mean over attacks, `Score.parts` has each, and the clean images.

    Args:
        task: of the probe.
        classes: [R, 1 + attacks] that were told of the test samples `rows`, as of `Attack`.
        rows: [R].
        strength: of the ridge classifier.
        start: when it began.
    """
    y = task.test_y.cpu().numpy()[rows]
    right = y == classes.T
    held = right[1:] & right[0]
    return mean_score(
        "attacked probe",
        held.mean(0),
        f"{task.protocol}; ridge classifier (strength {strength:g}), white-box attacks through the "
        f"encoder on {len(y)} test images, by at most {_told(BUDGETS)} of 255 levels: FGSM, and "
        f"PGD of {STEPS} steps",
        start,
        "right",
        parts={"clean": 100 * float(right[0].mean())}
        | dict(zip(NAMES, (100 * held.mean(1)).tolist(), strict=True)),
    )


def _told(budgets: Sequence[int]) -> str:
    return " and ".join(map(str, budgets))
