"""Counting: tiles, and both forms of the loss with their gradients."""

import torch

from selftaught.methods.pretext.counting import count, quarters
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    for form, name, margin in (("paper", "paper", "M"), ("port", "tfport", "M_tfport")):
        parts, other = [golden.leaf(f"t{j}") for j in range(1, 5)], golden.leaf("y")
        total = torch.stack(parts).sum(0)
        terms = count(golden["dx"], total, other, golden.hyper[margin], form)
        for term, kind in zip(terms, ("pair", "unpair")):
            close(term, golden[f"{name}.{kind}"])
        loss = sum(terms)
        close(loss, golden[f"{name}.loss"])
        for grad, leaf in zip(torch.autograd.grad(loss, (parts[0], other)), ("t1", "y")):
            close(grad, golden[f"{name}.grad_{leaf}"])
    image = golden["tiles.image"].permute(0, 3, 1, 2)
    assert torch.equal(quarters(image).permute(0, 1, 3, 4, 2), golden["tiles.t"])
