"""Supervised contrastive loss; with a class an image it is SimCLR's."""

import torch

from selftaught.objectives.contrastive import nt_xent
from selftaught.objectives.negatives import supervised
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    temperature, base = golden.hyper["temperature"], golden.hyper["base_temperature"]
    features, labels = golden.leaf("features"), golden["labels"]
    alone = torch.arange(len(labels))
    for name, label in (("supcon", labels), ("unsup", alone)):
        loss = supervised(features, label, temperature, base)
        close(loss, golden[f"loss_{name}"])
        (grad,) = torch.autograd.grad(loss, features)
        close(grad, golden[f"grad_{name}"])
    close(supervised(features, labels, temperature, base, one=True), golden["loss_one"])
    if features.shape[1] == 2 and temperature == base:
        z1, z2 = features.unbind(1)
        close(nt_xent(z1, z2, temperature) / 2, golden["loss_unsup"])
