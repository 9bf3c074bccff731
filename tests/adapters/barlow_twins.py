"""Barlow Twins: its objective alone and under a network, LARS, and the rates of both groups."""

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.engine.optim import LARS, Rates, build
from selftaught.method import Batch, Recipe
from selftaught.methods.correlation.barlow_twins import BarlowTwins
from tests.adapters import NUMBER, Golden, close


class Small(nn.Sequential):
    """A backbone that tells its width."""

    def __init__(self, inputs: int, dim: int):
        super().__init__(nn.Linear(inputs, dim), nn.BatchNorm1d(dim), nn.ReLU())
        self.dim = dim


def widths(state: dict[str, Tensor], head: str = "") -> list[int]:
    """Input width and output widths of the Linears of a head."""
    linear = [t for n, t in state.items() if re.fullmatch(rf"{head}\d+\.weight", n) and t.ndim == 2]
    return [linear[0].shape[1], *(t.shape[0] for t in linear)]


def check(golden: Golden) -> None:
    hyper = golden.hyper

    def make(backbone: Any, hidden: int, dim: int, layers: int) -> BarlowTwins:
        method = BarlowTwins(backbone, hyper["lambd"], hidden, dim, layers)
        method.norm.eps = hyper["bn_eps"]
        return method.double()

    z1, z2 = golden.leaf("z1"), golden.leaf("z2")
    method = make(Small(1, 1), 1, z1.shape[1], 1)
    loss = method.compare(z1, z2)
    close(loss, golden["loss"])
    loss.backward()
    close(z1.grad, golden["grad_z1"])
    close(z2.grad, golden["grad_z2"])
    close(method.norm(z1).T @ method.norm(z2) / len(z1), golden["c"])
    ports = golden.setting("loss_scaled_paper", "scale_loss", f"scale_loss {NUMBER}")
    close(ports * loss, golden["loss_scaled_paper"])

    state = {n.removeprefix("net."): t for n, t in golden.starting("net.").items()}
    head = widths(state, r"projector\.")
    method = make(Small(golden["x1"].shape[1], head[0]), head[1], head[-1], len(head) - 1)
    method.load_state_dict({re.sub(r"^bn\.", "norm.", n): t for n, t in state.items()})
    loss = method.loss(Batch([golden["x1"], golden["x2"]], torch.arange(len(golden["x1"]))))
    close(loss, golden["net_loss"])
    loss.backward()
    close(method.projector[0].weight.grad, golden["net_grad_proj0"])
    close(method.norm.running_mean, golden["net_bn_running_mean"])

    check_lars(golden)
    check_rates(
        golden,
        replace(
            BarlowTwins.recipe,
            lr=hyper["lr_weights"],
            bias_lr=hyper["lr_biases"] / hyper["lr_weights"],
        ),
    )


def check_lars(
    golden: Golden, prefix: str = "lars_", form: str = "lars", rate: type = float
) -> None:
    """Steps of LARS on a weight and a bias.

    Args:
        golden: the file.
        prefix: of the arrays' names.
        form: of LARS.
        rate: type that the reference holds the learning rate in.
    """
    net = nn.Module()
    net.weight = nn.Parameter(golden[f"{prefix}w0"].clone())
    net.bias = nn.Parameter(golden[f"{prefix}b0"].clone())
    first = f"{prefix}w1"
    decay, eta, momentum = (
        golden.setting(first, key, rf"\b{word}[ =]{NUMBER}")
        for key, word in (("weight_decay", "wd"), ("eta", "eta"), ("momentum", "momentum"))
    )
    if form == "lars_late":  # of the goldens alone: no recipe asks for it
        groups = [
            {"params": [net.weight]},
            {"params": [net.bias], "weight_decay": 0.0, "adapt": False},
        ]
        optimizer = LARS(groups, 0.0, momentum, decay, eta, "lars_late")
    else:
        recipe = Recipe(form, 0.0, weight_decay=decay, eta=eta, momentum=momentum)  # type: ignore[arg-type]
        optimizer = build(net, recipe)
        Rates(recipe, 256, 1, 1).apply(optimizer, 0)
    for i in range(len(golden.starting(f"{prefix}gw"))):
        lr = float(rate(golden.setting(f"{prefix}w{i + 1}", "lr", rf"\blr[ =]{NUMBER}")))
        for group in optimizer.param_groups:
            group["lr"] = lr
        net.weight.grad, net.bias.grad = golden[f"{prefix}gw{i}"], golden[f"{prefix}gb{i}"]
        optimizer.step()
        close(net.weight, golden[f"{prefix}w{i + 1}"])
        close(net.bias, golden[f"{prefix}b{i + 1}"])


def check_rates(golden: Golden, recipe: Recipe) -> None:
    """The rates of weights, and of biases where they have their own, at the recorded steps."""
    arrays = ("sched_step", "lr_schedule")
    own, said = golden.own(*arrays), golden.said(*arrays)

    def find(key: str, pattern: str, otherwise: float) -> float:
        found = re.search(pattern, said)
        return own.get(key, float(found[1]) if found else otherwise)

    epoch = int(find("steps_per_epoch", r"(\d+) steps/epoch", 50))
    epochs = int(find("epochs", r"(\d+) epochs", 100))
    warmup = find("warmup_epochs", r"(\d+)(?: warmup epochs|-epoch linear warmup)", 10)
    end = find("end", rf"to {NUMBER}\*peak", 0.001)
    lr = find("base_lr", rf"base {NUMBER}", recipe.lr)
    recipe = replace(recipe, lr=lr, warmup=warmup / epochs, end=end)
    plan = Rates(recipe, int(find("batch", r"B=(\d+)", 2048)), epoch * epochs, epoch)
    net = nn.Linear(2, 2)
    optimizer = build(net, recipe)
    rates = []
    for step in golden["sched_step"].tolist():
        plan.apply(optimizer, step)
        of = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        rates.append([of[id(net.weight)], of[id(net.bias)]])
    expected = golden["lr_schedule"]
    close(
        torch.tensor(rates, dtype=torch.float64)[:, : max(1, expected.shape[1:].numel())], expected
    )
