"""NNCLR: neighbors, loss and gradient of Algorithm 1, and what joins the support set."""

import torch
from torch import nn

from selftaught.methods.contrastive.nnclr import NNCLR
from tests.adapters import Golden, close
from tests.adapters.moco_v2 import Encoder


def model(temperature: float, queue: int, dim: int, both_ways: bool = False) -> NNCLR:
    encoder: nn.Module = Encoder(1, 1)
    return NNCLR(
        encoder,  # type: ignore[arg-type]
        temperature,
        hidden=1,
        dim=dim,
        predictor_hidden=1,
        queue=queue,
        both_ways=both_ways,
    ).double()


def check(golden: Golden) -> None:
    size, dim = golden["queue"].shape
    assert size == golden.hyper["queue_size"]
    for name, both_ways in (("loss", False), ("loss_symmetrised", True)):
        method = model(golden.hyper["temperature"], size, dim, both_ways)
        method.support.items.copy_(golden["queue"])
        method.support.head.copy_(golden["ptr"])
        for view in (1, 2):
            found = golden["queue"][golden[f"nn_idx{view}"]]
            assert torch.equal(method.nearest(golden[f"z{view}"]), found)
        p1, p2 = golden.leaf("p1"), golden.leaf("p2")
        loss = method.contrast(golden["z1"], golden["z2"], p1, p2)
        close(loss, golden[name])
        close(method.support.items, golden["queue_after"])
        if not both_ways:
            loss.backward()
            close(p1.grad, golden["grad_p1"])
            close(p2.grad, golden["grad_p2"])
