"""PIRL: steps with noise-contrastive estimation and cross entropy, and the head over tiles."""

from unittest import mock

import torch
from torch import Tensor

from selftaught.methods.contrastive.pirl import PIRL, side_by_side
from tests.adapters import Golden, close
from tests.adapters.moco_v2 import Encoder


def model(memory: Tensor, **options: object) -> PIRL:
    samples, dim = memory.shape
    encoder = Encoder(1, 1)
    method = PIRL(encoder, samples, dim=dim, **options).double()  # type: ignore[arg-type]
    method.memory.items.copy_(memory)
    return method


def check(golden: Golden) -> None:
    hyper = golden.hyper
    close(
        side_by_side(
            golden["concat_in"], golden["concat_in"].shape[0] // len(golden["concat_out"])
        ),
        golden["concat_out"],
    )
    assert hyper["eps_nce"] == torch.finfo(torch.float32).eps
    for prefix, objective in (("", "nce"), ("ce_", "cross_entropy")):
        method = model(
            golden[f"{prefix}memory0"],
            negatives=hyper["num_negatives"],
            temperature=hyper["temperature"],
            memory_momentum=hyper["memory_momentum"],
            weights=tuple(hyper["loss_weights"]),
            objective=objective,
        )
        assert method.samples == hyper["n_data"]
        for i in range(len(golden.starting(f"{prefix}idx_patch"))):
            _check_step(golden, method, prefix, i)
        if objective == "nce":
            close(method.memory.partition, golden["Z"])


def _check_step(golden: Golden, method: PIRL, prefix: str, i: int) -> None:
    index = golden[f"{prefix}y{i}"]
    kept = index >= 0  # the reference drops the rows of other images, the engine replaces them
    patch, image = golden.leaf(f"{prefix}patch{i}"), golden.leaf(f"{prefix}image{i}")
    drawn = [golden[f"{prefix}idx_patch{i}"], golden[f"{prefix}idx_image{i}"]]
    with mock.patch.object(method.memory, "draw", side_effect=drawn):
        terms = method.discriminate(patch[kept], image[kept], index[kept])
    loss = torch.stack(list(terms.values())).sum()
    close(loss, golden[f"{prefix}loss{i}"])
    loss.backward()
    close(patch.grad, golden[f"{prefix}grad_patch{i}"])
    close(image.grad, golden[f"{prefix}grad_image{i}"])
    close(method.memory.items, golden[f"{prefix}memory{i + 1}"])
