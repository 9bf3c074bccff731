"""Split-brain: bins of color and lightness, both losses, and the gradient."""

import torch

from selftaught.methods.pretext.split_brain import color_bin, cross_entropy, lightness_bin
from selftaught.parts.gamut import bins
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    color = color_bin(golden["ab"], bins())
    light = lightness_bin(golden["L"], golden.hyper["lbins"])
    assert torch.equal(color, golden["ab_target"])
    assert torch.equal(light, golden["L_target"])
    logits = golden.leaf("logits_L")
    terms = cross_entropy(golden["logits_ab"], color), cross_entropy(logits, light)
    for term, name in zip((*terms, sum(terms)), ("loss_ab", "loss_L", "loss")):
        close(term, golden[name])
    close(torch.autograd.grad(terms[1], logits)[0], golden["grad_logits_L"])
