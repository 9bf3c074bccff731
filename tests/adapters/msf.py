"""Mean Shift: steps of training with its queue and momentum encoder."""

from dataclasses import replace

import torch

from selftaught.engine.optim import Rates, build
from selftaught.method import Batch
from selftaught.methods.contrastive.mean_shift import MeanShift
from tests.adapters import Golden, close
from tests.adapters.moco_v2 import Encoder, renamed


def model(golden: Golden) -> MeanShift:
    state = renamed(golden.starting("q0."))
    width, inputs = state["0.l1.weight"].shape
    dim, hidden = state["1.3.weight"].shape
    method = MeanShift(
        Encoder(inputs, width),  # type: ignore[arg-type]
        golden.hyper["topk"],
        golden.hyper["mem_bank_size"],
        golden.hyper["m"],
        hidden,
        dim,
    ).double()
    method.online.load_state_dict(state)
    method.predictor.load_state_dict(golden.starting("pred0."))
    method.target.load_state_dict(renamed(golden.starting("t0.")))
    method.earlier.items.copy_(golden["queue0"])
    return method


def check(golden: Golden) -> None:
    hyper = golden.hyper
    recipe = replace(
        MeanShift.recipe,
        lr=hyper["lr"],
        momentum=hyper["sgd_momentum"],
        weight_decay=hyper["weight_decay"],
        schedule="constant",
    )
    method = model(golden)
    optimizer = build(method, recipe)
    plan = Rates(recipe, recipe.batch, 100, 10)
    steps = len(golden.starting("im_q"))
    for i in range(steps):
        x1, x2 = golden[f"im_q{i}"], golden[f"im_t{i}"]
        loss = method.loss(Batch([x1, x2], torch.arange(len(x1))))
        close(loss, golden[f"loss{i}"])
        close(method.earlier.items, golden[f"queue{i + 1}"])
        optimizer.zero_grad()
        loss.backward()
        close(method.predictor[3].weight.grad, golden[f"grad_pred_last{i}"])
        plan.apply(optimizer, i)
        optimizer.step()
        if i < steps - 1:  # the reference moves its target only before it is used
            method.after_step()
    for name, value in renamed(golden.starting(f"q{steps}.")).items():
        close(method.online.state_dict()[name], value)
    for name, value in renamed(golden.starting(f"t{steps}.")).items():
        close(method.target.state_dict()[name], value)
