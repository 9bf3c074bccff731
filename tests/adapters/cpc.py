"""CPC: predictions in space as training has them, and in time, with each code's negatives."""

from unittest import mock

import torch
from torch import Tensor, nn

from selftaught.backbones.sound.encoder import Waves
from selftaught.methods.contrastive.cpc import CPC
from selftaught.methods.contrastive.cpc_audio import CPCAudio
from selftaught.objectives.contrastive import find_first, products
from tests.adapters import Golden, close
from tests.adapters.moco_v2 import Encoder


def model(weights: Tensor, negatives: int, skip: int = 0) -> CPC:
    """weights: [K, D, A], from contexts to what follows."""
    encoder = Encoder(1, 1)
    method = CPC(encoder, 1, skip, negatives)  # type: ignore[arg-type]
    predictors = []
    for weight in weights:
        predictors.append(nn.Linear(*weight.mT.shape, bias=False).double())
        predictors[-1].weight.data.copy_(weight)
    method.predictors = nn.ModuleList(predictors)
    return method


def of_sounds(weights: Tensor, negatives: int = 0) -> CPCAudio:
    """weights: [K, D, A], from contexts to what follows."""
    method = CPCAudio(
        Waves(width=weights.shape[1], context=weights.shape[2]), len(weights), negatives
    )
    for predictor, weight in zip(method.predictors, weights, strict=True):
        predictor.weight = nn.Parameter(weight.detach().double().clone())
    return method


def check(golden: Golden) -> None:
    _check_images(golden)
    _check_all_candidates(golden)
    _check_audio(golden)
    _check_greedy_audio(golden)


def leaves(golden: Golden, name: str, *keys: str) -> list[Tensor]:
    return [golden.leaf(f"{name}.{key}") for key in keys]


def _check_images(golden: Golden) -> None:
    """Greedy InfoMax: rows of patches, negatives of the predicted rows."""
    c, z = leaves(golden, "gimv", "c", "z")
    batch, _, grid, width = z.shape
    skip = int(golden.setting("gimv.loss", "skip_step", r"skip_step\((\d+)\)"))
    drawn = golden.starting("gimv.rand_index")
    negatives = len(drawn["1"]) // (batch * width * (grid - 1 - skip))
    # there applied to z, here, the other way around, to c
    method = model(golden["gimv.W"].flatten(2).mT, negatives, skip)
    order = []
    for k in range(1, len(drawn) + 1):
        high = grid - k - skip
        ours = torch.arange(batch * high * width).view(batch, high, width)
        theirs = ours.permute(1, 2, 0)  # their rows are ordered y, x, b
        index = theirs.flatten()[drawn[str(k)]].view(*theirs.shape, negatives)
        order.append(index.permute(2, 0, 1, 3).flatten(0, 2))
    with mock.patch.object(method, "draw", side_effect=order):
        loss = method.predict(z.permute(0, 2, 3, 1), c.permute(0, 2, 3, 1))
    close(loss, golden["gimv.loss"])
    loss.backward()
    close(c.grad, golden["gimv.grad_c"])
    close(z.grad, golden["gimv.grad_z"])


def _check_all_candidates(golden: Golden) -> None:
    """The paper's: all of the batch at the predicted distance."""
    c, z = leaves(golden, "fair", "c", "z")
    loss = of_sounds(golden["fair.W"]).predict(z, c)
    close(loss, golden["derived.loss"])
    loss.backward()
    close(c.grad, golden["derived.grad_c"])
    close(z.grad, golden["derived.grad_z"])


def _check_audio(golden: Golden) -> None:
    """CPC_audio: the mean over dimensions in place of the sum, the same negatives at all steps."""
    weights, c, z = leaves(golden, "fair", "W", "c", "z")
    batch, length, _ = z.shape
    shape = (batch, -1, length - len(weights))
    time = (golden["fair.seqIdx_raw"].view(shape) + torch.arange(shape[2])) % length
    others = (golden["fair.batchIdx"].view(shape) * length + time).mT.flatten(0, 1)
    method = of_sounds(weights, others.shape[1])
    with mock.patch.object(method, "draw", return_value=others):
        loss = method.predict(z, c)
    close(loss * len(weights), golden["fair.losses"].sum())
    known = c[:, : shape[2]]
    losses, right = [], []
    for k, predictor in enumerate(method.predictors, 1):
        expected = predictor(known).flatten(0, 1)
        losses.append(method.find(expected, z, k, others))
        own = torch.arange(batch)[:, None] * length + k + torch.arange(shape[2])
        rows = torch.cat([own.flatten()[:, None], others], 1)
        scores = products(expected, z.flatten(0, 1), rows)
        right.append((scores.argmax(1) == 0).double().mean())
    close(torch.stack(losses), golden["fair.losses"])
    close(torch.stack(right), golden["fair.acc"], rtol=1e-6)
    (loss * len(weights)).backward()
    grads = [predictor.weight.grad for predictor in method.predictors]
    close(torch.stack(grads), golden["fair.grad_W"])
    close(c.grad, golden["fair.grad_c"])
    close(z.grad, golden["fair.grad_z"])


def _check_greedy_audio(golden: Golden) -> None:
    """Greedy InfoMax in time: negatives are rows of a permutation of the batch."""
    c, z = leaves(golden, "fair", "c", "z")
    batch, length, dim = z.shape
    losses, right = [], []
    for k, weight in enumerate(golden["gima.W"].split(dim), 1):
        own = torch.arange(batch * length).view(batch, length)[:, k:].flatten()
        others = golden["gima.perms"][:, -len(own) :].mT
        expected = (c[:, :-k] @ weight.mT).flatten(0, 1)
        scores = products(expected, z.flatten(0, 1), torch.cat([own[:, None], others], 1))
        losses.append(find_first(scores))
        right.append((scores.argmax(1) == 0).double().mean())
    loss = torch.stack(losses).mean()
    close(loss, golden["gima.loss"])
    close(torch.stack(right).mean(), golden["gima.acc"])
    loss.backward()
    close(c.grad, golden["gima.grad_c"])
    close(z.grad, golden["gima.grad_z"])
