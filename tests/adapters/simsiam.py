"""SimSiam: steps of training with the predictor's constant rate, and its distance."""

from dataclasses import replace

import torch

from selftaught.engine.optim import Rates, build
from selftaught.method import Batch
from selftaught.methods.distillation.simsiam import SimSiam, distance
from tests.adapters import Golden, close
from tests.adapters.moco_v2 import Encoder


def _renamed(name: str) -> str:
    return name.replace("encoder.fc.", "projector.").replace("encoder.", "backbone.")


def check(golden: Golden) -> None:
    hyper = golden.hyper
    dim, inputs = golden["p0.encoder.l1.weight"].shape
    method = SimSiam(Encoder(inputs, dim), dim=hyper["dim"], bottleneck=hyper["pred_dim"])  # type: ignore[arg-type]
    method.double()
    method.load_state_dict({_renamed(n): t for n, t in golden.starting("p0.").items()})

    recipe = replace(
        SimSiam.recipe,
        lr=hyper["lr"],
        momentum=hyper["sgd_momentum"],
        weight_decay=hyper["weight_decay"],
        constant=("predictor",) if hyper["fix_pred_lr"] else (),
    )
    epochs = int(golden.setting("lr0", "epochs", r"E=(\d+)"))
    plan = Rates(recipe, recipe.batch, epochs, 1)
    optimizer = build(method, recipe)
    steps = len(golden.starting("x1_"))
    for i in range(steps):
        x1, x2 = golden[f"x1_{i}"], golden[f"x2_{i}"]
        plan.apply(optimizer, i)
        rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        close(
            [rates[id(method.backbone.l1.weight)], rates[id(method.predictor[0].weight)]],
            golden[f"lr{i}"],
        )
        loss = method.loss(Batch([x1, x2], torch.arange(len(x1))))
        close(loss, golden[f"loss{i}"])
        optimizer.zero_grad()
        loss.backward()
        close(method.backbone.l1.weight.grad, golden[f"grad_l1_{i}"])
        optimizer.step()
    state = method.state_dict()
    for name, value in golden.starting(f"p{steps}.").items():
        close(state[_renamed(name)], value)

    p, z = golden.leaf("lp"), golden.leaf("lz")
    loss = distance(p, z)
    close(loss, golden["l"])
    loss.backward()
    close(p.grad, golden["l_grad"])
    assert z.grad is None
