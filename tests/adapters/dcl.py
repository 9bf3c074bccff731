"""Decoupled contrastive loss, plain and weighted, with and without gradient through the weights."""

import torch

from selftaught.objectives.negatives import decoupled
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    temperature, sigma = golden.hyper["temperature"], golden.hyper["sigma"]
    h1, h2 = golden.leaf("h1"), golden.leaf("h2")
    for name, how in {
        "dcl": (temperature,),
        "dclw": (temperature, sigma),
        "dclw_graddiff": (temperature, sigma, True),
    }.items():
        loss = (decoupled(h1, h2, *how) + decoupled(h2, h1, *how)) / 2
        close(loss, golden[f"loss_{name}"])
        for grad, view in zip(torch.autograd.grad(loss, (h1, h2)), ("h1", "h2"), strict=True):
            close(grad, golden[f"grad_{view}_{name}"])
    close(decoupled(h1, h2, temperature), golden["loss_ref_oneway"])
    _check_weights(golden, temperature, sigma)


def _check_weights(golden: Golden, temperature: float, sigma: float) -> None:
    """The weights are the slope of the loss along its positives' cosines, times -T B."""
    h1, h2 = golden["h1"], golden["h2"]
    weights = golden["weights"]
    cosines = torch.cosine_similarity(h1, h2)
    gap = decoupled(h1, h2, temperature) - decoupled(h1, h2, temperature, sigma)
    close(gap, ((weights - 1) * cosines).mean() / temperature)
