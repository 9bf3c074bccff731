"""Spectral contrastive loss and its two terms."""

from selftaught.objectives.negatives import spectral
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    z1, z2 = golden.leaf("z1"), golden.leaf("z2")
    attraction, repulsion = spectral(z1, z2, golden.hyper["mu"])
    close(attraction, golden["part1"])
    close(repulsion, golden["part2"])
    loss = attraction + repulsion
    close(loss, golden["loss"])
    loss.backward()
    close(z1.grad, golden["grad_z1"])
    close(z2.grad, golden["grad_z2"])
