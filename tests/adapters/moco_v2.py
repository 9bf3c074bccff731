"""MoCo v2 and v1: training with their queue and momentum encoder, and their rate schedules."""

import re
from dataclasses import replace

import torch
from torch import Tensor, nn

from selftaught.engine.optim import Rates, build
from selftaught.method import Batch, Recipe
from selftaught.methods.contrastive.moco_v1 import MoCoV1
from selftaught.methods.contrastive.moco_v2 import MoCoV2
from selftaught.parts.shuffle import shuffled
from tests.adapters import Golden, close


class Encoder(nn.Module):
    """The references' stand-in for a ResNet: Linear, batch norm, ReLU."""

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.dim = dim
        self.l1, self.bn = nn.Linear(inputs, dim), nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.l1(x)).relu()


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's names -> those of Sequential(backbone, projector)."""
    return {
        re.sub(r"^fc\.", "1.", n) if n.startswith("fc.") else f"0.{n}": t for n, t in state.items()
    }


def model(golden: Golden, kind: type[MoCoV1] | type[MoCoV2] = MoCoV2) -> MoCoV1 | MoCoV2:
    state = renamed(golden.starting("q0."))
    dim, inputs = state["0.l1.weight"].shape
    method = kind(
        Encoder(inputs, dim),  # type: ignore[arg-type]
        temperature=golden.hyper["T"],
        dim=golden.hyper["dim"],
        queue=golden.hyper["K"],
        momentum=golden.hyper["m"],
    ).double()
    method.online.load_state_dict(state)
    method.target.load_state_dict(state)
    method.negatives.items.copy_(golden["queue0"].T)
    return method


def check(golden: Golden, kind: type[MoCoV1] | type[MoCoV2] = MoCoV2) -> None:
    hyper = golden.hyper
    recipe = replace(
        kind.recipe,
        lr=hyper["lr"],
        momentum=hyper["sgd_momentum"],
        weight_decay=hyper["weight_decay"],
    )
    method = model(golden, kind)
    still = replace(recipe, schedule="constant", milestones=())
    optimizer = build(method, still)
    plan = Rates(still, recipe.batch, 100, 10)
    steps = len(golden.starting("im_q"))
    for i in range(steps):
        x1, x2 = golden[f"im_q{i}"], golden[f"im_k{i}"]
        logits = _logits(method, x1, x2)
        loss = method.loss(Batch([x1, x2], torch.arange(len(x1))))
        close(loss, golden[f"loss{i}"])
        close(logits, golden[f"logits{i}"])
        close(method.negatives.items.T, golden[f"queue{i + 1}"])
        close(method.negatives.head, golden[f"ptr{i + 1}"])
        optimizer.zero_grad()
        loss.backward()
        *_, last = (m for m in method.projector.modules() if isinstance(m, nn.Linear))
        close(last.weight.grad, golden[f"grad_last_w{i}"])
        plan.apply(optimizer, i)
        optimizer.step()
        if i < steps - 1:  # the reference moves its key encoder only before it is used
            method.after_step()
    for name, value in renamed(golden.starting(f"q{steps}.")).items():
        close(method.online.state_dict()[name], value)
    for name, value in renamed(golden.starting(f"k{steps}.")).items():
        close(method.target.state_dict()[name], value)
    _check_schedules(golden, recipe)


def _logits(method: MoCoV1 | MoCoV2, x1: Tensor, x2: Tensor) -> Tensor:
    """What `loss` compares, seen without moving any running statistic."""
    kept = {name: value.clone() for name, value in method.state_dict().items()}
    query = nn.functional.normalize(method.online(x1), dim=1)
    key = nn.functional.normalize(shuffled(method.target, x2), dim=1)
    positive = (query * key).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ method.negatives.items.T], 1) / method.temperature
    method.load_state_dict(kept)
    return logits.detach()


def _check_schedules(golden: Golden, recipe: Recipe) -> None:
    """The rate of each epoch, in v2's cosine and in v1's steps at named epochs."""
    told = re.search(r" at ([\d,]+)", golden.said("lr_step_schedule"))
    drops = golden.own("lr_step_schedule").get("schedule") or (told[1] if told else "").split(",")
    for name, change in {
        "lr_cos_schedule": {"schedule": "cosine", "milestones": ()},
        "lr_step_schedule": {
            "schedule": "step",
            "milestones": tuple(int(d) / len(golden["lr_step_schedule"]) for d in drops),
        },
    }.items():
        epochs, per_epoch = len(golden[name]), 3
        plan = Rates(replace(recipe, **change), recipe.batch, epochs * per_epoch, per_epoch)
        close([plan.lr(e * per_epoch + per_epoch - 1) for e in range(epochs)], golden[name])
