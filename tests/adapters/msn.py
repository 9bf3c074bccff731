"""MSN: terms, targets and gradients, with and without Sinkhorn; rate, decay and momentum."""

from dataclasses import replace

import torch
from torch import nn

from selftaught.engine.optim import Rates
from selftaught.methods.distillation.msn import MSN, entropy
from tests.adapters import NUMBER, Golden, close, momenta


def model(golden: Golden, **options) -> MSN:
    """The method without its network: embeddings are what the files start from."""
    backbone = nn.Linear(1, 1)
    backbone.dim, backbone.arrange = 1, lambda pool: None  # type: ignore[assignment]
    prototypes, dim = golden["prototypes"].shape
    method = MSN(
        backbone,  # type: ignore[arg-type]
        prototypes,
        hidden=1,
        dim=dim,
        temperature=golden.hyper["tau"],
        sharpen=golden.hyper["T"],
        **options,
    ).double()
    with torch.no_grad():
        method.scores.weight.copy_(golden["prototypes"])
    return method


def check(golden: Golden) -> None:
    hyper = golden.hyper
    weight = hyper["me_max_weight"]
    for prefix, iterations in (("", 3), ("nosk_", 0)):
        method = model(golden, me_max=weight, entropy=hyper["ent_weight"], iterations=iterations)
        anchors, targets = golden.leaf("anchors"), golden["targets"]
        close(method.goals(targets), golden[f"{prefix}targets_used"])
        views = anchors.unflatten(0, (hyper["num_views"], -1))
        terms = method.match(views, targets)
        close(terms["match"], golden[f"{prefix}ce"])
        close(terms["me_max"], weight * golden[f"{prefix}me_max"])
        p = method.predicted(method.scores(views))
        close(entropy(p).mean(), golden[f"{prefix}entropy"])
        loss = torch.stack(list(terms.values())).sum()
        close(loss, golden[f"{prefix}loss"])
        loss.backward()
        close(anchors.grad, golden[f"{prefix}grad_anchors"])
        close(method.scores.weight.grad, golden[f"{prefix}grad_prototypes"])
    check_schedules(golden)


def check_schedules(golden: Golden) -> None:
    steps = len(golden["lr_schedule"])
    warmup, longest, start, top, end = (
        golden.setting("lr_schedule", key, f"{word} {NUMBER}")
        for key, word in (
            ("warmup_steps", "warmup"),
            ("T_max", "T_max"),
            ("start_lr", "start"),
            ("ref_lr", "ref"),
            ("final_lr", "final"),
        )
    )
    decay = tuple(
        golden.setting("wd_schedule", key, words)
        for key, words in (("ref_wd", f"{NUMBER} ->"), ("final_wd", f"-> {NUMBER}"))
    )
    recipe = replace(
        MSN.recipe,
        lr=top,
        warmup=warmup / steps,
        warmup_from=start / top,
        end=end / top,
        horizon=longest / steps,
        weight_decay=decay,
    )
    plan = Rates(recipe, recipe.batch, steps, 1)
    close([plan.lr(i) for i in range(steps)], golden["lr_schedule"])
    close([plan.weight_decay(i) for i in range(steps)], golden["wd_schedule"])
    expected = golden["momentum_schedule"]
    method = model(golden, momentum=(float(expected[0]), 1.0))
    close(momenta(method, [i / steps for i in range(len(expected))]), expected)
