"""Hadsell's contrastive loss: of pairs, with and without the reference's epsilon."""

import torch

from selftaught.objectives.metric import pair_loss, squared_distances
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    margin, eps = golden.hyper["margin"], golden.hyper["eps"]
    x1, x2, target = golden.leaf("x1"), golden.leaf("x2"), golden["target"]
    squared = (x1 - x2).square().sum(1)
    loss = pair_loss(squared, target, margin, eps).mean()
    close(loss, golden["loss_ref"])
    loss.backward()
    close(x1.grad, golden["grad_x1_ref"])
    close(x2.grad, golden["grad_x2_ref"])

    exact = pair_loss(squared.detach(), target, margin, 0.0)
    close(exact, golden["per_pair_paper"])
    close(exact.mean(), golden["loss_paper"])
    close(2 * exact.mean(), golden["loss_no_half"])

    # the training's distances, of all pairs at once, are those of the pairs
    close(squared_distances(x1, x2).diagonal(), squared)
    _check_gradient_of_equal_points(margin)


def _check_gradient_of_equal_points(margin: float) -> None:
    """An epsilon under the root keeps the gradient of a pair of equal points finite."""
    x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    pair_loss(squared_distances(x, x), torch.zeros(2, 2), margin).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
