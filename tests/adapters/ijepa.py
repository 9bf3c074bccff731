"""I-JEPA: masks replayed draw by draw, their statistics, the whole loss, the target, schedules."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught import masks
from selftaught.engine.optim import Rates
from selftaught.methods.predictive.ijepa import IJEPA
from selftaught.parts import ema
from tests.adapters import Golden, close, momenta, warm
from tests.replay import Replay
from tests.vits import vit


def check(golden: Golden) -> None:
    method = build(golden)
    _end_to_end(golden, method)
    for name in sorted({n.rsplit(".", 1)[0] for n in golden.arrays if n.startswith("mask.")}):
        _replay(golden, name)
    _random(golden)
    for name in golden.arrays:
        if name.startswith("size."):
            _sizes(golden, name)
    for name in sorted({n.split(".")[1] for n in golden.arrays if n.startswith("stat.")}):
        _statistics(golden, name)
    _schedules(golden, method)


def build(golden: Golden) -> IJEPA:
    hyper, given = golden.hyper, golden.starting("e2e.enc.")
    own = golden.starting("e2e.pred.")
    image = vit(
        given,
        hyper["img"],
        hyper["patch"],
        hyper["heads"],
        hyper["mlp_ratio"],
        golden["e2e.imgs"].shape[1],
    )
    method = IJEPA(
        image,
        own["predictor_embed.bias"].shape[0],
        len({n.split(".")[1] for n in own if n.startswith("predictor_blocks.")}),
        hyper["pheads"],
        hyper["mlp_ratio"],
    ).double()
    close(image.net.pos_embed, given["pos_embed"])
    close(method.predictor.predictor_pos_embed, own["predictor_pos_embed"])
    image.net.load_state_dict(given)
    method.target.net.load_state_dict(golden.starting("e2e.tgt."))
    method.predictor.load_state_dict(own)
    return method


def _numbered(golden: Golden, prefix: str) -> Tensor:
    """Arrays `prefix`0, `prefix`1, ... as one."""
    count = sum(bool(re.fullmatch(re.escape(prefix) + r"\d+", n)) for n in golden.arrays)
    return torch.stack([golden[f"{prefix}{i}"] for i in range(count)])


def _end_to_end(golden: Golden, method: IJEPA) -> None:
    images = golden.leaf("e2e.imgs")
    context, target = _numbered(golden, "e2e.enc_mask"), _numbered(golden, "e2e.pred_mask")
    repeated = images.repeat(len(context), 1, 1, 1)
    close(
        method.backbone.features(repeated, context.flatten(0, 1)).local,
        golden["e2e.context_tokens"],
    )
    close(method.truth(images, context, target), golden["e2e.targets"])
    close(method.predict(images, context, target), golden["e2e.pred"])
    loss = method.distance(images, context, target)
    close(loss, golden["e2e.loss"])
    loss.backward()
    close(images.grad, golden["e2e.grad_imgs"])
    close(method.predictor.mask_token.grad, golden["e2e.grad_mask_token"])

    old, online = torch.nn.Module(), torch.nn.Module()
    old.x = torch.nn.Parameter(golden["ema.k"], requires_grad=False)
    online.x = torch.nn.Parameter(golden["ema.q"])
    ema(old, online, golden.given("ema.")["m"])
    close(old.x, golden["ema.k_after"])


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `masks.multiblock` by the reference's names; its shipped settings otherwise."""
    side = given["img"] // given["patch"]
    return {
        "grid": (side, side),
        "target_scale": tuple(given["pred_mask_scale"]),
        "context_scale": tuple(given["enc_mask_scale"]),
        "aspect": tuple(given["aspect_ratio"]),
        "targets": given.get("npred", 4),
        "contexts": given.get("nenc", 1),
        "min_keep": given.get("min_keep", 10),
        "overlap": given.get("allow_overlap", False),
        "reference": True,
    }


def _replay(golden: Golden, name: str) -> None:
    given = golden.own(f"{name}.")
    draws = Replay(golden[f"{name}.u"], golden[f"{name}.randint"])
    context, target = _numbered(golden, f"{name}.enc"), _numbered(golden, f"{name}.pred")
    batch = context.shape[1]
    drawn = masks.multiblock(draws, batch, **_options(given))
    assert torch.equal(drawn.context, context)
    assert torch.equal(drawn.targets, target)
    assert draws.exhausted()


def _random(golden: Golden) -> None:
    orders = golden["random.perms"]
    draws = Replay([golden["random.u"]], orders=orders)
    ratio = golden.given("random.").get("ratio", (0.4, 0.6))
    ends = tuple(ratio) if isinstance(ratio, list | tuple) else (ratio, ratio)
    drawn = masks.random_split(draws, *orders.shape, ends)
    assert torch.equal(drawn.context[0], golden["random.enc"])
    assert torch.equal(drawn.targets[0], golden["random.pred"])


def _sizes(golden: Golden, name: str) -> None:
    options = _options(golden.own(name))
    grid = options["grid"]
    for u, expected in zip(np.linspace(0, 0.999, len(golden[name])), golden[name].tolist()):
        draws = Replay([u, u])
        target = masks.draw_size(draws, grid, options["target_scale"], options["aspect"], True)
        context = masks.draw_size(draws, grid, options["context_scale"], (1.0, 1.0), True)
        assert [*target, *context] == expected


def _statistics(golden: Golden, name: str) -> None:
    """Frequencies and lengths against a sample of ours of the same size.

    Batches are independent, so the difference of two means over `runs` batches has a standard error
    of sqrt(2 / runs) deviations of one batch: 6 of them, or for lengths a Kolmogorov-Smirnov
    distance of sqrt(-log(1e-9 / 2) / runs), happen by chance once in 1e8 tests.
    """
    arrays = golden.starting(f"stat.{name}.")
    given = golden.own(f"size.{name}", f"stat.{name}.")
    options = _options(given)
    batch = int(given.get("B") or golden.setting(f"stat.{name}.", "batch", r"batch of (\d+)"))
    runs = len(arrays["enc_keep"])
    draws = np.random.default_rng(0)
    drawn = [masks.multiblock(draws, batch, **options) for _ in range(runs)]
    cells = options["grid"][0] * options["grid"][1]
    for kind, parts in (
        ("enc", [b.context for b in drawn]),
        ("pred", [b.targets for b in drawn]),
    ):
        seen = torch.stack(
            [p.flatten().bincount(minlength=cells) / (p.numel() / p.shape[2]) for p in parts]
        )
        expected = arrays[f"{kind}_freq"]
        error = (2 / runs) ** 0.5 * seen.std(0).reshape(expected.shape)
        ours = seen.mean(0).reshape(expected.shape)
        assert torch.all((ours - expected).abs() <= 6 * error), kind
        assert torch.equal(expected == 0, ours == 0), kind  # the last row and column
        lengths = np.array([p.shape[2] for p in parts])
        distance = _kolmogorov_smirnov(lengths, arrays[f"{kind}_keep"].numpy())
        assert distance < (-np.log(1e-9 / 2) / runs) ** 0.5, kind


def _kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    at = np.union1d(a, b)
    below = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def _schedules(golden: Golden, method: IJEPA) -> None:
    given, decay = golden.given("sched.lr"), golden.given("sched.wd")
    steps = given["T_max"]
    recipe = replace(
        IJEPA.recipe,
        lr=given["ref_lr"],
        warmup=warm(given) / steps,
        warmup_from=given["start_lr"] / given["ref_lr"],
        end=given["final_lr"] / given["ref_lr"],
        weight_decay=(decay["ref_wd"], decay["final_wd"]),
    )
    plan = Rates(recipe, recipe.batch, steps, steps)
    rates = [plan.lr(step) for step in range(len(golden["sched.lr"]))]
    decays = [plan.weight_decay(step) for step in range(len(golden["sched.wd"]))]
    close(torch.tensor(rates, dtype=torch.float64), golden["sched.lr"])
    close(torch.tensor(decays, dtype=torch.float64), golden["sched.wd"])
    expected = golden["sched.ema"]
    method.momentum = float(expected[0]), float(expected[-1])  # the index does not name them
    close(momenta(method, torch.linspace(0, 1, len(expected)).tolist()), expected)
