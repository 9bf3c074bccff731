"""Selfie: which patches are hidden, attention pooling, scores, loss and gradient."""

import torch

from selftaught.backbones import backbone
from selftaught.masks import keep_lowest
from selftaught.methods.predictive.selfie import Selfie, matching
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    hyper, given = golden.hyper, golden.starting("enc.")
    noise, targets = golden["scores"], hyper["nt"]
    side = round(hyper["np"] ** 0.5)
    network = backbone("test_resnet", 8 * side)
    network.dim = hyper["D"]
    ratio = (targets - 0.5) / hyper["np"]  # hides `targets`, whatever the fraction rounds to
    method = Selfie(
        network, side, ratio, hyper["layers"], hyper["heads"], hyper["ff"], 0.0
    ).double()
    method.pooling.load_state_dict(
        {n.removeprefix("encoder."): w for n, w in given.items() if n.startswith("encoder.")}
    )
    method.pos_embedding.load_state_dict({"weight": given["pos_embedding.weight"]})

    seen, hidden = keep_lowest(noise, method.ratio)
    assert torch.equal(seen, golden["context_index"])
    assert torch.equal(
        hidden.nonzero()[:, 1].view(len(noise), -1), golden["target_index"].sort(1).values
    )
    embedded = golden.leaf("hidden")
    scores = method.scores(embedded, noise)
    close(scores.flatten(0, 1), golden["logits"])
    loss = matching(scores)
    close(loss, golden["loss"])
    loss.backward()
    close(embedded.grad, golden["grad_hidden"])
