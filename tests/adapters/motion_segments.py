"""Watching objects move: what is sure of a soft mask, the loss over that, and its gradient."""

import torch

from selftaught.methods.pretext.motion import cross_entropy, trimap
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    goal = trimap(golden["soft_mask"], golden.hyper["lo"], golden.hyper["hi"])
    assert torch.equal(goal, golden["trimap"])
    logits = golden.leaf("logits")
    loss = cross_entropy(logits, goal)
    close(loss, golden["loss"])
    close(torch.autograd.grad(loss, logits)[0], golden["grad_logits"])
