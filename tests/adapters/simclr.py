"""SimCLR: its loss in one process and between replicas, head, LARS and rates."""

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import dist
from selftaught.engine.optim import Rates
from selftaught.method import Recipe
from selftaught.objectives.contrastive import nt_xent, pair_cross_entropy
from selftaught.parts import simclr_head
from tests.adapters import NUMBER, Golden, close
from tests.adapters.barlow_twins import check_lars


def check(golden: Golden) -> None:
    temperature = golden.hyper["temperature"]
    hidden = golden.leaf("hidden")
    z1, z2 = hidden.chunk(2)
    loss = nt_xent(z1, z2, temperature)
    close(loss, golden["loss"])
    close(loss / 2, golden["loss_paper"])
    loss.backward()
    close(hidden.grad, golden["grad_hidden"])
    close(pair_cross_entropy(z1, z2, 1.0), golden["loss_no_hidden_norm_T1"])
    cosines = F.cosine_similarity(z1[:, None], z2[None], dim=2)
    close(cosines / temperature, golden["logits_ab"])
    _check_replicas_in_one_process(golden)
    _check_head(golden)
    # the reference holds its learning rates in float32, all else in float64
    check_lars(golden, "lars_", "lars_tf", np.float32)
    check_lars(golden, "larspop_", "lars_late", np.float32)
    _check_rates(golden)


def _replicas(golden: Golden) -> list[str]:
    return sorted(n for n in golden.arrays if re.fullmatch(r"r\d+_hidden", n))


def _check_replicas_in_one_process(golden: Golden) -> None:
    """The whole batch in one process has the replicas' mean loss and their gradients."""
    hidden = [golden.leaf(name) for name in _replicas(golden)]
    z1, z2 = (torch.cat(views) for views in zip(*(h.chunk(2) for h in hidden)))
    loss = nt_xent(z1, z2, golden.hyper["temperature"])
    close(loss, golden["dist_global_loss"])
    close(loss, sum(golden[f"r{r}_loss"] for r in range(len(hidden))) / len(hidden))
    loss.backward()
    for r, h in enumerate(hidden):
        close(h.grad, golden[f"r{r}_grad"])


def check_replica(golden: Golden, rank: int) -> None:
    """The same between two processes: the loss of each, and its gradient of their mean."""
    hidden = golden.leaf(f"r{rank}_hidden")
    loss = nt_xent(*hidden.chunk(2), golden.hyper["temperature"])
    close(loss, golden[f"r{rank}_loss"])
    loss.backward()
    close(hidden.grad / dist.world(), golden[f"r{rank}_grad"])
    close(dist.mean(loss.detach()), golden["dist_global_loss"])


def _check_head(golden: Golden) -> None:
    layers = len([n for n in golden.arrays if re.fullmatch(r"ph_w\d+", n)])
    weights = [golden[f"ph_w{i}"] for i in range(layers)]
    head: Any = simclr_head(len(weights[0]), *(w.shape[1] for w in weights)).double()
    for i, weight in enumerate(weights):
        linear, norm = head[3 * i], head[3 * i + 1]
        linear.weight.data.copy_(weight.T)
        norm.weight.data.copy_(golden[f"ph_gamma{i}"])
        if f"ph_beta{i}" in golden:
            norm.bias.data.copy_(golden[f"ph_beta{i}"])
        assert norm.bias.requires_grad == (f"ph_beta{i}" in golden)
        norm.eps = golden.hyper["bn_eps"]
        norm.momentum = float(np.float32(1 - golden.hyper["bn_momentum"]))  # held in float32
    assert len(head) == 3 * layers - 1
    x = golden["ph_x"]
    close(head(x), golden["ph_out"])
    for i in range(layers):
        norm = head[3 * i + 1]
        close(norm.running_mean, golden[f"ph_moving_mean{i}"])
        close(_biased(norm.running_var, len(x), 1 - norm.momentum), golden[f"ph_moving_var{i}"])


def _biased(running: Tensor, count: int, kept: float) -> Tensor:
    """torch's running variance after one step from 1, as TensorFlow has it: not over count - 1."""
    return kept + (running - kept) * (count - 1) / count


def _check_rates(golden: Golden) -> None:
    images, batch, epochs, warm = (
        int(golden.setting("lr_steps", key, words))
        for key, words in (
            ("images", r"(\d+) images"),
            ("batch", r"batch (\d+)"),
            ("epochs", r"(\d+) epochs"),
            ("warmup_epochs", r"(\d+) warmup"),
        )
    )
    total, warmup = images * epochs // batch + 1, round(warm * images // batch)
    for name, scaling in (("lr_linear", "linear"), ("lr_sqrt", "sqrt")):
        base = golden.setting(name, "base_lr", rf"{NUMBER}\*")
        recipe = Recipe(
            "lars_tf",
            base,
            batch=256 if scaling == "linear" else 1,
            scaling=scaling,
            warmup=warmup / total,
        )
        plan = Rates(recipe, batch, total, images // batch)
        rates = [plan.lr(step) for step in golden["lr_steps"].tolist()]
        # the reference computes in float32: an eps of its peak where the cosine cancels
        close(rates, golden[name], rtol=1e-6, atol=2e-7 * plan.peak)
        if f"{name}_f64" in golden:
            close(rates, golden[f"{name}_f64"])
