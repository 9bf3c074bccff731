"""SeLa: balanced labels, when they are found, and the loss on them."""

import re

import torch
from torch.nn import functional as F

from selftaught.methods.clustering.sela import relabel_times
from selftaught.objectives.assignment import balanced_plan, cluster_cross_entropy
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    tolerance, every = re.search(  # type: ignore[union-attr]
        r"< ([\d.]+), tested every (\d+)", golden.hyper["stop"]
    ).groups()
    log_p = golden["softmax"].log()
    plan = balanced_plan(log_p, golden.hyper["lamb"], float(tolerance), int(every))
    labels = plan.argmax(1)
    close(plan.exp(), golden["plan"])
    assert torch.equal(labels, golden["labels"])
    assert torch.equal(labels.bincount(minlength=log_p.shape[1]), golden["counts"])

    epochs = int(golden.setting("opt_times", "epochs", r"E=(\d+)"))
    count, total = len(golden["opt_times"]), (epochs + 1.01) * len(log_p)
    close(relabel_times(count, total).flip(0), golden["opt_times"])

    logits = golden.leaf("ce_logits")
    given = golden["labels"][: len(logits)]
    loss = cluster_cross_entropy([logits], given[None])
    close(loss, golden["ce_loss"])
    loss.backward()
    close(logits.grad, golden["ce_grad"])
    assert torch.allclose(loss, F.cross_entropy(logits, given))
