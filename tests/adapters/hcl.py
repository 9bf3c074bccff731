"""Hard negatives: hard, easy, debiased, and with a prior that the floor of the mass stops."""

import torch

from selftaught.objectives.negatives import hard_negatives, similarities
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    temperature = golden.hyper["temperature"]
    beta, prior = golden.hyper["beta"], golden.hyper["tau_plus"]
    h1, h2 = golden.leaf("h1"), golden.leaf("h2")
    for name, hardness, chance in (
        ("hard", beta, prior),
        ("easy", 0.0, 0.0),
        ("debiased", 0.0, prior),
        *((n.removeprefix("loss_"), beta, _prior(n)) for n in golden.arrays if _is_other(n)),
    ):
        loss = sum(
            hard_negatives(*similarities(*views), temperature, hardness, chance)
            for views in ((h1, h2), (h2, h1))
        )
        loss = torch.as_tensor(loss) / 2
        close(loss, golden[f"loss_{name}"])
        if f"grad_h1_{name}" in golden:
            for grad, view in zip(torch.autograd.grad(loss, (h1, h2)), ("h1", "h2"), strict=True):
                close(grad, golden[f"grad_{view}_{name}"])


def _is_other(name: str) -> bool:
    return name.startswith("loss_hard_tau")


def _prior(name: str) -> float:
    return float(name.removeprefix("loss_hard_tau"))
