"""Instance discrimination: steps with noise-contrastive estimation, full softmax, weighted kNN."""

from unittest import mock

import torch
from torch import Tensor

from selftaught.evaluate.scores import tallies
from selftaught.methods.contrastive import instdisc
from selftaught.methods.contrastive.instdisc import InstDisc
from tests.adapters import Golden, close
from tests.adapters.moco_v2 import Encoder


def model(golden: Golden, memory: Tensor, negatives: int) -> InstDisc:
    samples, dim = memory.shape
    method = InstDisc(
        Encoder(1, 1),  # type: ignore[arg-type]
        samples,
        negatives,
        golden.hyper["T"],
        dim,
        golden.hyper["memory_momentum"],
    ).double()
    method.memory.items.copy_(memory)
    return method


def check(golden: Golden) -> None:
    method = model(golden, golden["memory0"], golden.hyper["nce_k"])
    assert method.samples == golden.hyper["n_data"]
    inner = instdisc.noise_contrastive
    for i in range(len(golden.starting("idx"))):
        x, seen = golden.leaf(f"x{i}"), []

        def spied(scores: Tensor, partition: Tensor, *rest: float, seen: list = seen) -> Tensor:
            seen.append(scores / partition)
            return inner(scores, partition, *rest)

        with (
            mock.patch.object(method.memory, "draw", return_value=golden[f"idx{i}"]),
            mock.patch.object(instdisc, "noise_contrastive", spied),
        ):
            loss = method.discriminate(x, golden[f"y{i}"])
        close(seen[0], golden[f"probs{i}"])
        close(loss, golden[f"loss{i}"])
        close(method.memory.items, golden[f"memory{i + 1}"])
        loss.backward()
        close(x.grad, golden[f"grad_x{i}"])
    close(method.memory.partition, golden["Z"])
    _check_softmax(golden)
    _check_neighbors(golden)


def _check_softmax(golden: Golden) -> None:
    method = model(golden, golden["softmax_memory0"], negatives=0)
    x = golden.leaf("softmax_x")
    loss = method.discriminate(x, golden["softmax_y"])
    close(loss, golden["softmax_loss"])
    loss.backward()
    close(x.grad, golden["softmax_grad_x"])
    close(method.memory.items, golden["softmax_memory1"])


def _check_neighbors(golden: Golden) -> None:
    k = int(golden.setting("knn_scores", "k", r"k=(\d+)"))
    train, query = golden["knn_train"], golden["knn_query"]
    labels, temperature = golden["knn_train_label"], golden.hyper["T"]
    tally = torch.cat(list(tallies(train, labels, query, k, temperature)))
    unit = torch.nn.functional.normalize
    nearest = (unit(query, dim=1) @ unit(train, dim=1).mT).amax(1, keepdim=True)
    close(tally * (nearest / golden.hyper["T"]).exp(), golden["knn_scores"])
    assert torch.equal(tally.argmax(1), golden["knn_pred"])
