"""PixContrast: the loss of both directions, and its gradient in both views."""

import torch

from selftaught.methods.dense.pixcontrast import contrast
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    q, k = golden.leaf("q"), golden.leaf("k")
    one, other = (x.flatten(2).mT for x in (q, k))
    loss = contrast(one, other, golden["pos_mask"], golden.hyper["tau"])
    close(loss, golden["loss"])
    for grad, name in zip(torch.autograd.grad(loss, (q, k)), ("grad_q", "grad_k")):
        close(grad, golden[name])
