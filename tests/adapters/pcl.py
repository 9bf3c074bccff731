"""PCL: concentration of the clusters, loss against prototypes and queue, gradient."""

import re
from unittest import mock

import torch

from selftaught.method import Batch
from selftaught.methods.contrastive.pcl import PCL, concentration
from tests.adapters import Golden, close
from tests.adapters.moco_v2 import Encoder, renamed


def check(golden: Golden) -> None:
    hyper = golden.hyper
    state = renamed(golden.starting("enc."))
    layers = 1 if "1.weight" in state else 2
    if layers == 1:  # not in a Sequential of its own
        state = {re.sub(r"^1\.", "1.0.", name): value for name, value in state.items()}
    width, inputs = state["0.l1.weight"].shape
    dim, queue = golden["queue0"].shape
    method = PCL(
        Encoder(inputs, width),  # type: ignore[arg-type]
        len(golden["features"]),
        tuple(hyper["num_cluster"]),
        hyper["T"],
        dim,
        layers=layers,
        queue=queue,
        negatives=hyper["r"],
    ).double()
    method.online.load_state_dict(state)
    method.target.load_state_dict(state)
    method.earlier.items.copy_(golden["queue0"].T)
    logits = []
    for i, clustering in enumerate(method.clusterings):
        means, assignment = golden[f"centroids_raw{i}"], golden[f"im2cluster{i}"]
        found = concentration(golden["features"], means, assignment, hyper["T"], hyper["alpha"])
        close(found, golden[f"density{i}"], rtol=1e-6)  # float32 in the reference
        clustering.take(golden["features"], means, assignment, hyper["T"])
        if hyper["alpha"] == 10:  # the method's own
            close(clustering.density, golden[f"density{i}"], rtol=1e-6)
        close(clustering.centroids, golden[f"centroids{i}"])
        # from here on with the reference's own, rounded as it is
        clustering.density.copy_(golden[f"density{i}"])
        negatives = golden[f"neg_proto{i}"]
        for patch in (
            mock.patch.object(clustering, "absent", return_value=negatives),
            mock.patch.object(clustering, "logits", _kept(clustering.logits, logits)),
        ):
            patch.start()
    terms = method.loss(Batch([golden["im_q"], golden["im_k"]], golden["index"]))
    mock.patch.stopall()
    for i, seen in enumerate(logits):
        close(seen, golden[f"proto_logits{i}"])
    close(terms["instance"], golden["loss_infonce"])
    close(terms["prototype"], golden["loss_proto"])
    loss = torch.stack(list(terms.values())).sum()
    close(loss, golden["loss"])
    loss.backward()
    *_, last = (m for m in method.projector.modules() if isinstance(m, torch.nn.Linear))
    close(last.weight.grad, golden["grad_fc_w"])


def _kept(function, seen):  # type: ignore[no-untyped-def]
    """`function`, whose results are added to `seen`."""

    def call(*arguments):  # type: ignore[no-untyped-def]
        seen.append(function(*arguments))
        return seen[-1]

    return call
