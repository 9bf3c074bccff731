"""DCCA and DCCAE: correlations, the loss in all forms, gradients, reconstructions."""

import re

import torch

from selftaught.objectives.canonical import (
    canonical_correlations,
    reconstruction,
    total_correlation,
)
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    hyper = golden.hyper
    h1, h2 = golden.leaf("h1"), golden.leaf("h2")
    found = canonical_correlations(h1, h2, hyper["r1"], hyper["r2"])
    close(found, golden["singular_values"])
    loss = -total_correlation(found)
    close(loss, golden["loss_paper"])
    close(-total_correlation(found, "frobenius"), golden["loss_frobenius"])
    close(-total_correlation(found, "squares"), golden["loss_sumsq"])
    close(-total_correlation(found, "largest"), golden["loss_top1"])
    # defects of another port, told by numbers of ours: r1 joins the squares of the correlations;
    # and roots of single elements, whose gradient is nan, make more than there can be
    close(-(found.square() + hyper["r1"]).sqrt().sum(), golden["michaelvll_topk"])
    assert loss.item() > golden["michaelvll_all"].item()
    loss.backward()
    close(h1.grad, golden["grad_h1"])
    close(h2.grad, golden["grad_h2"])

    pairs = [(golden["x1"], golden.leaf("rec1")), (golden["x2"], golden.leaf("rec2"))]
    terms = torch.stack([reconstruction(x, decoded) for x, decoded in pairs])
    total = golden["loss_paper"] + golden["lam"] * terms.sum()
    close(total, golden["dccae_paper"])
    total.backward()
    close(pairs[0][1].grad, golden["dccae_grad_rec1"])
    weight = re.search(r"lam=([\d.]+)", golden.about["dccae_xdmvteam"]["meaning"])
    means = torch.stack([reconstruction(x, decoded, element_mean=True) for x, decoded in pairs])
    close(
        golden["loss_paper"] + float(weight[1]) * means.sum(),  # type: ignore[index]
        golden["dccae_xdmvteam"],
    )
