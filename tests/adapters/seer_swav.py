"""SEER: loss and gradient, soft and hard assignments, and numbers that vanish."""

import torch
from torch import nn

from selftaught.methods.clustering.seer import SEER
from selftaught.objectives.assignment import sinkhorn
from tests.adapters import Golden, close


def model(golden: Golden, **options) -> SEER:
    """The method without its network: scores are what the file starts from."""
    hyper = golden.hyper
    backbone = nn.Linear(1, 1)
    backbone.dim = 1  # type: ignore[assignment]
    return SEER(
        backbone,  # type: ignore[arg-type]
        golden["scores"].shape[1],
        hidden=(1,),
        dim=1,
        temperature=hyper["temperature"],
        epsilon=hyper["epsilon"],
        iterations=hyper["num_iters"],
        **options,
    )


def check(golden: Golden) -> None:
    method, crops = model(golden), golden.hyper["num_crops"]
    for prefix in ("", "dbl_"):  # one number here: log space is as good as the second branch
        scores = golden.leaf("scores")
        views = scores.unflatten(0, (crops, -1))
        close(method.goals(views[0]), golden["q0"])
        loss = method.swap(views)
        close(loss, golden[f"{prefix}loss"])
        loss.backward()
        close(scores.grad, golden[f"{prefix}grad_scores"])
    hard = model(golden, hard=0.5)
    close(hard.swap(golden["scores"].unflatten(0, (crops, -1))), golden["loss_hard"])

    # prototypes without any mass get the reference's 1e-12 beforehand: no finite score has none
    q = golden["q_zero_row_in"]
    scores = (q / q.sum() + 1e-12).log().T
    iterations = golden.about["q_zero_row_out"].get("hyperparameters") or {}
    close(sinkhorn(scores, 1.0, iterations.get("num_iters", 3)), golden["q_zero_row_out"])
    assert torch.isfinite(sinkhorn(torch.tensor([[1e4, -1e4], [1e4, 0.0]]), 0.03, 10)).all()
