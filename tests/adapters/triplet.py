"""Triplet losses: squared, Euclidean, with swap, soft, and with batch-hard mining."""

import torch

from selftaught.objectives.metric import hardest, triplet_loss
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    margin, eps = golden.hyper["margin"], golden.hyper["eps_torch"]
    names = ("anchor", "positive", "negative")
    for kind, shift in (("squared", 0.0), ("euclid", eps)):
        a, p, n = triplet = [golden.leaf(name) for name in names]
        loss = triplet_loss(a, p, n, margin, kind == "squared", eps=shift)
        close(loss, golden[f"loss_{kind}"])
        loss.backward()
        for name, x in zip(names, triplet):
            close(x.grad, golden[f"grad_{name}_{kind}"])
    anchor, positive, negative = (golden[name] for name in names)
    close(
        triplet_loss(anchor, positive, negative, margin, swap=True, eps=eps),
        golden["loss_euclid_swap"],
    )
    close(triplet_loss(anchor, positive, negative), golden["loss_soft"])

    x, label = golden.leaf("bh_x"), golden["bh_label"]
    positive, negative = hardest(x, x, label[:, None] == label)
    assert torch.equal(label[positive], label)
    assert not (label[negative] == label).any()
    loss = triplet_loss(x, x[positive], x[negative], margin)
    close(loss, golden["bh_loss"])
    loss.backward()
    close(x.grad, golden["bh_grad_x"])
