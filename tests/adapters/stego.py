"""STEGO: correspondences, clusters, the CRF and its loss, and matched clusters."""

import numpy as np
import torch
from torch.nn.functional import normalize

from selftaught.evaluate.image.places import _confusion, matched, mean_iou, segments
from selftaught.methods.dense.stego import (
    PRESETS,
    Rule,
    clustering,
    correspondence,
    correspondences,
    log_shares,
    sample,
    shuffled,
)
from selftaught.objectives.mean_field import crf_loss, mean_field
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    losses(golden)
    clusters(golden)
    fields(golden)
    metrics(golden)


def losses(golden: Golden) -> None:
    hyper = golden.hyper
    rule = Rule(hyper["pointwise"], hyper["zero_clamp"], hyper["stabalize"])
    shifts = hyper["intra"], hyper["inter"], hyper["negs"]
    code, code_pos = golden.leaf("code"), golden.leaf("code_pos")
    orders = list(golden["perms"])
    for order, expected in zip(orders, golden["super_perms"]):
        assert torch.equal(shuffled(order), expected)
    own, near, other = correspondences(
        (golden["feats"], golden["feats_pos"]),
        (code, code_pos),
        (golden["u1"], golden["u2"]),
        orders,
        shifts,
        rule,
    )
    close(own, golden["pos_intra_loss"])
    close(near, golden["pos_inter_loss"])
    close(other, golden["neg_inter_loss"])
    weights = PRESETS["default"].weights
    total = sum(w * loss for w, loss in zip(weights, (own, near, other)))
    close(total, golden["total"])
    for grad, name in zip(torch.autograd.grad(total, (code, code_pos)), ("code", "code_pos")):
        close(grad, golden[f"grad_{name}"])
    f, c = (sample(golden[x], 2 * golden["u1"] - 1) for x in ("feats", "code"))
    close(correspondence(f, f, c, c, shifts[0], rule)[1], golden["pos_intra_cd"])


def clusters(golden: Golden) -> None:
    codes, centers = golden["code"], golden.leaf("probe.clusters")
    loss, shares = clustering(codes, centers)
    close(loss, golden["probe.loss_hard"])
    assert torch.equal(shares.argmax(1), golden["probe.assign"])
    close(torch.autograd.grad(loss, centers)[0], golden["probe.grad_clusters"])
    for alpha, expected in golden.starting("probe.loss_soft").items():
        close(clustering(codes, centers, float(alpha))[0], expected)
    for alpha, expected in golden.starting("probe.log_probs").items():
        close(log_shares(codes, centers, float(alpha)), expected)


def fields(golden: Golden) -> None:
    codes, hyper = golden.leaf("crfloss.codes"), golden.own("crfloss.")
    names = {"w1": "near", "w2": "smooth"}
    loss = crf_loss(
        normalize(codes, dim=1, eps=1e-10),
        golden["crfloss.guidance"],
        golden["crfloss.coords"],
        **{names.get(k, k): v for k, v in hyper.items()},
    )
    close(loss, golden["crfloss.value"])
    close(torch.autograd.grad(loss, codes)[0], golden["crfloss.grad_codes"])

    logits, image = golden["densecrf.logits"], golden["densecrf.image"].permute(2, 0, 1)
    for name in golden.starting("densecrf.Q"):
        count, _, kind = name.partition("_")
        expected, found = golden[f"densecrf.Q{name}"], mean_field(logits, image, int(count))
        if kind == "exact":
            close(found, expected)
        else:  # the lattice is an approximation: what it decides is what can be compared
            assert (found.argmax(0) == expected.argmax(0)).double().mean() > 0.9
            if count == "1":
                close(found, expected, rtol=0, atol=0.05)


def metrics(golden: Golden) -> None:
    found, truth = golden["metric.pred"].numpy(), golden["metric.label"].numpy()
    count = len(golden["metric.stats"])
    truth = np.where(found >= 0, truth, -1)  # the reference ignores either
    confusion = _confusion(truth, found, count)
    assert np.array_equal(confusion.T, golden["metric.stats"].numpy())
    confusion = matched(confusion)
    close(100 * np.nanmean(mean_iou(confusion)), golden["metric.miou"])
    close(100 * np.trace(confusion) / confusion.sum(), golden["metric.acc"])
    if {*truth.tolist()} >= {*range(count)}:  # else that score has fewer classes to match
        score = segments(found[None, None], truth[None, None], ignore=(-1,))
        close(score.value, golden["metric.miou"])
