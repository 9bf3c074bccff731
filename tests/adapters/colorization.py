"""Colorization: bins, rebalancing, soft encoding, weighted loss and gradient, decoding."""

import torch

from selftaught.backbones import Image
from selftaught.methods.pretext.colorization import (
    Colorization,
    boost,
    cross_entropy,
    encode,
    rebalancing,
)
from selftaught.parts.gamut import annealed_mean, bins, prior
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    hyper = golden.hyper
    centers = bins().double()
    assert torch.equal(centers, golden["pts_in_hull"].double())
    close(prior(), golden["prior_probs"], rtol=1e-5)  # the package holds millionths
    factors = rebalancing(golden["prior_probs"], hyper["gamma"], hyper["alpha"])
    close(factors, golden["prior_factor"])

    ab, logits = golden["ab"], golden.leaf("logits")
    neighbors, sigma = golden["enc_idx"].shape[1], hyper.get("sigma", 5.0)
    which, weights = encode(ab, centers, neighbors, sigma)
    assert torch.equal(which, golden["enc_idx"].long())
    close(weights, golden["enc_wts"])
    weight = boost(ab, which, factors)
    close(weight, golden["boost"])

    close(cross_entropy(logits, which, weights), golden["ce"])
    for form, name in (("plain", "unweighted"), ("rebalanced", "weighted")):
        method = Colorization(Image("test_resnet", 32), form, neighbors, sigma).double()
        method.factors.copy_(factors)
        terms = method.compare(logits, ab)
        pixels = ab[0, 0].numel()  # the reference's sum over the pixels of an image
        loss = pixels * sum(terms.values())
        close(loss, golden[f"loss_{name}"])
        close(pixels * terms["plain"], golden["loss_unweighted"])
    expected = golden["grad_logits_slice"]
    step = -(-logits.shape[1] // expected.shape[1])
    close(torch.autograd.grad(loss, logits)[0][:, ::step], expected)
    close(annealed_mean(logits, centers, hyper["T"]), golden["decode"])
