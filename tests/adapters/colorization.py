"""Colorization: bins, rebalancing, soft encoding, weighted loss and gradient, decoding."""

import torch

from selftaught.methods.pretext.colorization import (
    boost,
    cross_entropy,
    encode,
    rebalancing,
)
from selftaught.parts.gamut import annealed_mean, bins, prior
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    hyper = golden.hyper
    centres = bins().double()
    assert torch.equal(centres, golden["pts_in_hull"].double())
    close(prior(), golden["prior_probs"], rtol=1e-5)
    factors = rebalancing(golden["prior_probs"], hyper["gamma"], hyper["alpha"])
    close(factors, golden["prior_factor"])

    ab, logits = golden["ab"], golden.leaf("logits")
    which, weights = encode(ab, centres, golden["enc_idx"].shape[1], sigma=5.0)
    assert torch.equal(which, golden["enc_idx"].long())
    close(weights, golden["enc_wts"])
    weight = boost(ab, which, factors)
    close(weight, golden["boost"])

    error = cross_entropy(logits, which, weights)
    close(error, golden["ce"])
    pixels = hyper["H"] * hyper["W"]  # the reference's sum over the pixels of an image
    close(pixels * error.mean(), golden["loss_unweighted"])
    loss = pixels * (error.mean() + ((weight - 1) * error).mean())
    close(loss, golden["loss_weighted"])
    expected = golden["grad_logits_slice"]
    step = -(-logits.shape[1] // expected.shape[1])
    close(torch.autograd.grad(loss, logits)[0][:, ::step], expected)
    close(annealed_mean(logits, centres, hyper["T"]), golden["decode"])
