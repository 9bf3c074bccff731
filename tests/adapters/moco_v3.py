"""MoCo v3: its loss, steps of training with LARS, and its schedules."""

import math
import re
from dataclasses import replace

import torch
from torch import Tensor, nn

from selftaught.engine.optim import Rates, build
from selftaught.method import Batch
from selftaught.methods.contrastive.moco_v3 import MoCoV3
from tests.adapters import Golden, close, momenta
from tests.adapters.moco_v2 import Encoder

PARTS = {
    "base_encoder.": ("backbone.", "projector."),
    "momentum_encoder.": ("target.0.", "target.1."),
    "predictor.": ("predictor.", ""),
}
HEAD = re.compile(r"(fc|head)\.(?=\d)")
"""What a head is called in the encoders: in ResNets, and in ViTs."""


def backbone(inputs: int, dim: int) -> nn.Module:
    """The references' stand-in for a ResNet, which is no ViT."""
    encoder = Encoder(inputs, dim)
    encoder.net = nn.Identity()
    return encoder


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's names -> the method's."""
    result = {}
    for name, value in state.items():
        prefix = next(p for p in PARTS if name.startswith(p))
        rest, (own, head) = name.removeprefix(prefix), PARTS[prefix]
        of_head = HEAD.match(rest)
        result[head + rest[of_head.end() :] if of_head else own + rest] = value
    return result


def model(golden: Golden) -> MoCoV3:
    state = golden.starting("p0.")
    dim, inputs = state["base_encoder.l1.weight"].shape
    layers = [
        x.shape[0] for n, x in renamed(state).items() if n.startswith("projector.") and x.ndim == 2
    ]
    method = MoCoV3(
        backbone(inputs, dim),  # type: ignore[arg-type]
        golden.hyper["T"],
        golden.hyper["m"],
        layers[0],
        layers[-1],
        layers=len(layers),
        predictor_norm="always" if "predictor.4.running_mean" in state else "never",
    ).double()
    method.load_state_dict(renamed(state), strict=False)
    return method


def momentum(golden: Golden, step: int) -> float:
    """The progress at which the momentum encoder's momentum is that of `step`."""
    start, now = golden.hyper["m"], float(golden[f"m_{step}"])
    return math.acos(2 * (1 - now) / (1 - start) - 1) / math.pi


def check(golden: Golden) -> None:
    _check_loss(golden)
    method = model(golden)
    assert not [n for n in renamed(golden.starting("p0.")) if n not in method.state_dict()]
    optimizer, _, numbers = golden.hyper["optimizer"].partition("(")
    recipe = replace(
        MoCoV3.recipe,
        optimizer=optimizer.lower(),
        lr=golden.hyper["lr"],
        weight_decay=golden.hyper["weight_decay"],
        warmup=0.0,
        schedule="constant",
    )
    if recipe.optimizer == "lars":
        momentum_of_lars, trust = map(float, re.findall(r"\d*\.?\d+", numbers))
        recipe = replace(recipe, momentum=momentum_of_lars, eta=trust)
    optimizer = build(method, recipe)
    plan = Rates(recipe, recipe.batch, 100, 10)
    steps = len(golden.starting("x1_"))
    for i in range(steps):
        x1, x2 = golden[f"x1_{i}"], golden[f"x2_{i}"]
        loss = method.loss(Batch([x1, x2], torch.arange(len(x1))))
        close(loss, golden[f"loss{i}"])
        optimizer.zero_grad()
        loss.backward()
        close(method.predictor[0].weight.grad, golden[f"grad_pred_w{i}"])
        close(method.backbone.l1.weight.grad, golden[f"grad_l1_w{i}"])
        plan.apply(optimizer, i)
        optimizer.step()
        if (
            i < steps - 1
        ):  # the reference moves its momentum encoder before it is used, by that step's m
            method.progress = momentum(golden, i + 1)
            method.after_step()
    state = method.state_dict()
    for name, value in renamed(golden.starting(f"p{steps}.")).items():
        close(state[name], value)
    _check_schedules(golden)


def _check_loss(golden: Golden) -> None:
    method = model(golden)
    q = golden.leaf("loss_q")
    loss = method.contrast(q, golden["loss_k"])
    close(loss, golden["loss_qk"])
    loss.backward()
    close(q.grad, golden["loss_qk_grad_q"])


def _check_schedules(golden: Golden) -> None:
    """Of fractional epochs: what 100 steps an epoch give at theirs."""
    at, per_epoch = golden["sched_epoch"], 100
    lr = golden.setting("lr_schedule", "lr", r"base (\d*\.?\d+)")
    batch, epochs = (
        int(golden.setting("lr_schedule", key, words))
        for key, words in (("batch_size", r"\*(\d+)/256"), ("epochs", r", (\d+) epochs"))
    )
    warmup = golden.setting("lr_schedule", "warmup_epochs", r"(\d+) warmup epochs")
    recipe = replace(MoCoV3.recipe, lr=lr, warmup=warmup / epochs)
    plan = Rates(recipe, batch, epochs * per_epoch, per_epoch)
    method = MoCoV3(backbone(2, 2), momentum=golden.hyper["m"], hidden=2, dim=2).double()  # type: ignore[arg-type]
    close(momenta(method, (at / epochs).tolist()), golden["m_schedule"])
    steps = (at * per_epoch).round().long().tolist()
    close(torch.tensor(steps) / per_epoch, at)
    close([plan.lr(s) for s in steps], golden["lr_schedule"])
