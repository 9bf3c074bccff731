"""DINO: loss and gradient over steps, center, head, clipping, and all four schedules."""

import re
from dataclasses import replace

import torch
from torch import nn

from selftaught.engine.optim import Rates, clip
from selftaught.methods.distillation.dino import DINO
from selftaught.parts import prototype_head
from tests.adapters import NUMBER, Golden, close, momenta


def model(prototypes: int, **options) -> DINO:
    """The method without its network: logits are what the file starts from."""
    backbone = nn.Linear(1, 1)
    backbone.dim, backbone.resample = 1, None  # type: ignore[assignment]
    return DINO(backbone, prototypes, hidden=1, bottleneck=1, **options).double()  # type: ignore


def check(golden: Golden) -> None:
    hyper = golden.hyper
    epochs, warmup = hyper["nepochs"], hyper["warmup_teacher_temp_epochs"]
    method = model(
        golden["center0"].shape[-1],
        student_temp=hyper["student_temp"],
        teacher_temp=(hyper["warmup_teacher_temp"], hyper["teacher_temp"]),
        # the reference's warm-up of n epochs reaches its end in epoch n - 1
        temp_warmup=(warmup - 1 if warmup > 1 else warmup) / epochs,
        center_momentum=hyper["center_momentum"],
    )
    method.center.copy_(golden["center0"][0])
    method.progress = hyper["epoch"] / epochs
    assert abs(method.temperature / hyper["effective_teacher_temp"] - 1) < 1e-9
    for step in range(len(golden.starting("loss"))):
        student = golden.leaf(f"student{step}")
        teacher = golden[f"teacher{step}"].unflatten(0, (2, -1))
        loss = method.distill(student.unflatten(0, (hyper["ncrops"], -1)), teacher)
        close(loss, golden[f"loss{step}"])
        close(method.center, golden[f"center{step + 1}"])
        loss.backward()
        close(student.grad, golden[f"grad_student{step}"])

    temperatures = []
    for epoch in range(len(golden["teacher_temp_schedule"])):
        method.progress = epoch / epochs
        temperatures.append(method.temperature)
    close(temperatures, golden["teacher_temp_schedule"])

    check_head(golden)
    check_clip(golden)
    check_schedules(golden)


def check_head(golden: Golden) -> None:
    given = golden.starting("head.")
    mlp = sorted(
        (n for n in given if re.fullmatch(r"mlp\.\d+\.weight", n)),
        key=lambda n: int(n.split(".")[1]),
    )
    hidden, dim = given[mlp[0]].shape
    count, bottleneck = given["last_layer.weight_v"].shape
    lengths = given["last_layer.weight_g"]
    for scale in (False, True) if bool((lengths == 1).all()) else (True,):
        head = prototype_head(dim, hidden, bottleneck, count, scale, layers=len(mlp)).double()
        state = {n.removeprefix("mlp."): t for n, t in given.items() if n.startswith("mlp.")}
        last = 2 * len(mlp) - 1
        state[f"{last}.weight"] = given["last_layer.weight_v"]
        if scale:
            state[f"{last}.scale"] = lengths
        head.load_state_dict(state)
        close(head(golden["head_x"]), golden["head_out"])


def check_clip(golden: Golden) -> None:
    """Each parameter by its own norm."""
    most = golden.setting("clip_out.", "clip", rf"clip_gradients\(model, ?{NUMBER}\)")
    before = golden.starting("clip_in.")
    network = nn.Module()
    for name, gradient in before.items():
        parameter = nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient.clone()
        network.register_parameter(name.replace(".", "_"), parameter)
    clip(network, replace(DINO.recipe, clip=most))
    for name, expected in golden.starting("clip_out.").items():
        close(network.get_parameter(name.replace(".", "_")).grad, expected)


def check_schedules(golden: Golden) -> None:
    expected = golden["momentum_schedule"]
    steps = len(expected)
    method = model(2, momentum=(float(expected[0]), 1.0))
    close(momenta(method, [i / steps for i in range(steps)]), expected)

    epochs = int(golden.setting("momentum_schedule", "epochs", r"(\d+) epochs"))
    per_epoch = steps // epochs
    lr, base, batch, warmup = (
        golden.setting("lr_schedule", key, words)
        for key, words in (
            ("lr", rf"lr: {NUMBER}\*B"),
            ("base_batch", r"B/(\d+)"),
            ("batch", r"B=(\d+)"),
            ("warmup_epochs", r"(\d+) warmup epochs"),
        )
    )
    decay = tuple(
        golden.setting("wd_schedule", key, words)
        for key, words in (
            ("weight_decay", rf"{NUMBER} ->"),
            ("weight_decay_end", rf"-> {NUMBER}"),
        )
    )
    recipe = replace(DINO.recipe, lr=lr, weight_decay=decay, warmup=warmup / epochs)
    # the paper's code gives the last rate itself, whatever the batch
    recipe = replace(recipe, batch=int(base), end=1e-6 / (lr * batch / base))
    plan = Rates(recipe, int(batch), steps, per_epoch)
    close([plan.lr(i) for i in range(steps)], golden["lr_schedule"])
    close([plan.weight_decay(i) for i in range(steps)], golden["wd_schedule"])
