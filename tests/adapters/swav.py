"""SwAV: prototypes, assignments, loss and gradient, with and without the queue; learning rate."""

from dataclasses import replace

import torch
from torch import nn

from selftaught.engine.optim import Rates
from selftaught.methods.clustering.swav import SwAV
from tests.adapters import NUMBER, Golden, close


def model(golden: Golden, queue: int = 0) -> SwAV:
    """The method without its network: embeddings are what the file starts from."""
    backbone = nn.Identity()
    prototypes, dim = golden["proto_raw"].shape
    backbone.dim = dim  # type: ignore[assignment]
    hyper = golden.hyper
    method = SwAV(
        backbone,  # type: ignore[arg-type]
        prototypes,
        hidden=1,
        dim=dim,
        temperature=hyper["temperature"],
        epsilon=hyper["epsilon"],
        iterations=hyper["sinkhorn_iterations"],
        queue=queue,
        queue_start=0.0,
    ).double()
    with torch.no_grad():
        method.scores.weight.copy_(golden["proto_raw"])
    method.normalize_prototypes()
    return method


def check(golden: Golden) -> None:
    views = sum(golden.hyper["nmb_crops"])
    z = golden.leaf("emb")
    per_view = z.unflatten(0, (views, -1))

    method = model(golden)
    close(method.scores.weight, golden["proto"])
    loss = method.swap(per_view)
    close(loss, golden["loss"])
    loss.backward()
    close(z.grad, golden["grad_emb"])
    close(method.scores.weight.grad, golden["grad_proto"])
    for i in golden.hyper["crops_for_assign"]:
        close(method.goals(i, per_view[i], method.scores(per_view[i])), golden[f"q{i}"])

    length = golden["queue0"].shape[1]
    method = model(golden, length)
    method.earlier.copy_(golden["queue0"])
    close(method.goals(0, per_view[0], method.scores(per_view[0])), golden["q0_queue"])
    method.earlier.copy_(golden["queue0"])
    close(method.swap(per_view), golden["loss_queue"])
    close(method.earlier, golden["queue1"])
    method.earlier.copy_(golden["queue0"])
    method.earlier[:, -1] = 0
    close(method.swap(per_view), golden["loss_queue_empty"])

    every, per_epoch, epochs, warmup, low, high, end = (
        golden.setting("lr_schedule", key, words)
        for key, words in (
            ("every", r"every (\d+)"),
            ("steps_per_epoch", r"(\d+) steps/epoch"),
            ("epochs", r", (\d+) epochs"),
            ("warmup_epochs", r"warmup (\d+)"),
            ("start_warmup", f"from {NUMBER}"),
            ("base_lr", rf"from \S+ to {NUMBER}"),
            ("final_lr", f"cosine to {NUMBER}"),
        )
    )
    recipe = replace(
        SwAV.recipe, lr=high, warmup=warmup / epochs, warmup_from=low / high, end=end / high
    )
    plan = Rates(recipe, recipe.batch, int(per_epoch * epochs), int(per_epoch))
    rates = [plan.lr(i) for i in range(0, int(per_epoch * epochs), int(every))]
    close(rates, golden["lr_schedule"])
