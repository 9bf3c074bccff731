"""Rates, weight decays, parameter groups, LARS and clipping."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from selftaught import methods, schedule
from selftaught.engine.optim import LARS, Rates, build, clip
from selftaught.errors import UserError
from selftaught.method import Recipe

fractions = st.floats(0, 1)
values = st.floats(-100, 100)


@given(values, values, fractions)
def test_schedules_start_end_and_stay_between(start, end, progress):
    for shape in (schedule.cosine, schedule.linear):
        assert shape(start, end, 0.0) == pytest.approx(start)
        assert shape(start, end, 1.0) == shape(start, end, 1.5) == pytest.approx(end)
        slack = 1e-9
        assert min(start, end) - slack <= shape(start, end, progress) <= max(start, end) + slack


def test_steps_multiply_at_each_milestone():
    assert [schedule.steps(1.0, 0.5, (0.25, 0.5), p / 4) for p in range(4)] == [1, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("name", methods.files())
def test_recipes_never_leave_zero_to_peak(name):
    recipe = methods.find(name).recipe
    plan = Rates(recipe, 512, 400, 4)
    rates = [plan.lr(step) for step in range(400)]
    assert all(0 <= lr <= plan.peak * (1 + 1e-12) for lr in rates)
    assert max(rates) > 0.9 * plan.peak
    assert all(0 <= plan.weight_decay(step) < 1 for step in range(400))


@given(
    st.sampled_from(["cosine", "step", "linear", "constant"]),
    st.integers(1, 50),
    fractions,
    fractions,
    fractions,
    st.booleans(),
)
def test_any_length_and_warmup_gives_rates(shape, steps, warmup, start, cooldown, full):
    recipe = Recipe(
        "sgd",
        1.0,
        schedule=shape,
        warmup=warmup,
        warmup_from=start,
        warmup_full=full,
        cooldown=cooldown,
        milestones=(0.5,),
    )
    plan = Rates(recipe, 256, steps, 7)
    assert all(-1e-12 <= plan.lr(step) <= 1 + 1e-12 for step in range(steps))


def test_rate_follows_the_batch():
    for scaling, factor in (("linear", 4), ("sqrt", 2), ("none", 1)):
        assert Rates(Recipe("sgd", 0.1, scaling=scaling), 1024, 10, 1).peak == pytest.approx(
            0.1 * factor
        )


def test_warmup_reaches_the_peak_after_or_at_its_last_step():
    recipe = Recipe("sgd", 1.0, schedule="constant", warmup=0.4)
    assert [Rates(recipe, 256, 10, 1).lr(s) for s in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    full = Rates(replace(recipe, warmup_full=True), 256, 10, 1)
    assert [full.lr(s) for s in range(5)] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_a_rise_from_nothing_by_epoch_wastes_none():
    plan = Rates(Recipe("sgd", 1.0, warmup=0.5, by_epoch=True), 256, 8, 4)
    assert [plan.lr(step) for step in range(4)] == [0, 0.25, 0.5, 0.75]
    assert plan.lr(4) == plan.lr(7) == 1


def test_rate_by_epoch_is_the_same_all_through_an_epoch():
    plan = Rates(Recipe("sgd", 1.0, by_epoch=True), 256, 12, 4)
    rates = [plan.lr(s) for s in range(12)]
    assert rates == [r for r in rates[::4] for _ in range(4)]
    assert rates[::4] == pytest.approx([0.5 * (1 + math.cos(math.pi * e / 3)) for e in range(3)])


class Net(nn.Module):
    """Something of every kind that a method may train."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.predictor = nn.Linear(4, 4)
        self.prototypes = nn.Linear(4, 4, bias=False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def settings(net: nn.Module, recipe: Recipe, step: int = 0) -> dict[str, dict[str, Any]]:
    """What each trained parameter gets at `step`."""
    optimizer = build(net, recipe)
    Rates(recipe, 256, 10, 1).apply(optimizer, step)
    names = {id(p): name for name, p in net.named_parameters()}
    return {names[id(p)]: g for g in optimizer.param_groups for p in g["params"]}


def test_biases_and_norms_are_neither_decayed_nor_adapted():
    found = settings(Net(), Recipe("lars", 2.0, weight_decay=0.1, bias_lr=0.25))
    assert "frozen.weight" not in found
    for name, group in found.items():
        flat = name.endswith("bias") or name == "backbone.1.weight"
        assert group["weight_decay"] == (0.0 if flat else 0.1)
        assert group["adapt"] == (not flat)
        assert group["lr"] == (0.5 if flat else 2.0)


def test_rate_of_biases_is_lars_s_alone():
    """Another optimizer in place of the paper's LARS treats them like the rest."""
    found = settings(Net(), Recipe("adamw", 2.0, bias_lr=0.25))
    assert {group["lr"] for group in found.values()} == {2.0}


def test_decay_all_is_one_group():
    net = Net()
    assert len(build(net, Recipe("sgd", 0.1, weight_decay=0.1, decay_bias=True)).param_groups) == 1
    found = settings(net, Recipe("larc", 0.1, weight_decay=0.1, decay_bias=True))
    assert all(g["weight_decay"] == 0.1 and g["adapt"] for g in found.values())


def test_named_submodules_keep_their_rate_or_are_not_decayed():
    recipe = Recipe(
        "sgd", 1.0, weight_decay=(0.1, 0.3), constant=("predictor",), no_decay=("prototypes",)
    )
    found = settings(Net(), recipe, step=5)
    assert found["backbone.0.weight"]["lr"] == pytest.approx(0.5)
    assert found["backbone.0.weight"]["weight_decay"] == pytest.approx(0.2)
    assert found["predictor.weight"]["lr"] == found["predictor.bias"]["lr"] == 1.0
    assert found["prototypes.weight"]["weight_decay"] == 0.0


def test_submodules_may_have_rates_of_their_own():
    recipe = Recipe("lars", 2.0, bias_lr=0.5, rates=(("predictor", 10.0), ("backbone.1", 0.5)))
    found = settings(Net(), recipe)
    assert found["predictor.weight"]["lr"] == 20.0
    assert found["predictor.bias"]["lr"] == 10.0
    assert found["backbone.1.weight"]["lr"] == 0.5
    assert found["backbone.0.weight"]["lr"] == found["prototypes.weight"]["lr"] == 2.0


@pytest.mark.parametrize("name", ["beit", "simmim"])
def test_tokens_and_positions_of_masked_methods_are_not_decayed(name):
    from selftaught.backbones import backbone
    from selftaught.methods import find

    net = backbone("test_vit", size=32)
    method = find(name)(net)
    found = settings(method, method.recipe)
    free = {n.rpartition(".")[2] for n, group in found.items() if not group["weight_decay"]}
    assert {"cls_token", "pos_embed", "mask_token"} <= free
    assert found["backbone.net.blocks.0.mlp.fc1.weight"]["weight_decay"] == 0.05


def test_unknown_submodules_are_refused():
    with pytest.raises(UserError, match=r"names 'head', which Net does not train; it trains backb"):
        build(Net(), Recipe("sgd", 1.0, constant=("head",)))
    with pytest.raises(UserError, match=r"names 'frozen', which Net does not train"):
        build(Net(), Recipe("sgd", 1.0, rates=(("frozen", 2.0),)))


def test_rates_decay_from_layer_to_layer_of_a_vit():
    from selftaught.backbones import backbone

    net = nn.Module()
    net.backbone = backbone("test_vit", size=32)
    net.projector = nn.Linear(4, 4)
    depth = len(net.backbone.net.blocks)
    found = settings(net, Recipe("adamw", 1.0, layer_decay=0.5, patch_lr=0.2))
    rates = {name: group["lr"] for name, group in found.items()}
    assert rates["backbone.net.cls_token"] == rates["backbone.net.pos_embed"] == 0.5 ** (depth + 1)
    assert rates["backbone.net.patch_embed.proj.weight"] == 0.2 * 0.5 ** (depth + 1)
    for i in range(depth):
        assert rates[f"backbone.net.blocks.{i}.mlp.fc1.weight"] == 0.5 ** (depth - i)
    assert rates["backbone.net.norm.weight"] == rates["projector.weight"] == 1.0
    with pytest.raises(UserError, match="need a plain ViT backbone"):
        build(Net(), Recipe("adamw", 1.0, layer_decay=0.5))


def ready(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer with the recipe's peak rates."""
    optimizer = build(net, recipe)
    Rates(replace(recipe, schedule="constant"), 256, 1, 1).apply(optimizer, 0)
    return optimizer


OPTIMIZERS = ("sgd", "adam", "adamw", "adamw_bert", "lamb", "lars", "lars_tf", "larc")


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    x = torch.linspace(-1, 1, 32).view(8, 4).to(next(net.parameters()))
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (net.prototypes(net.predictor(net.backbone(x))) - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_learns_and_continues_bit_for_bit(name):
    net = Net()
    recipe = Recipe(name, 0.02)
    if name in ("lars", "lars_tf", "larc"):  # a step is a thousandth of the weight's norm
        recipe = replace(recipe, lr=20.0, bias_lr=0.002)
    optimizer = ready(net, recipe)
    losses = train(net, optimizer, 15)
    assert losses[-1] < 0.9 * losses[0]

    twin = copy.deepcopy(net)
    other = build(twin, recipe)  # rates come with the state
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(net, optimizer, 3) == train(twin, other, 3)


def test_a_weight_may_get_its_first_gradient_late():
    """As frozen prototypes do; until then it stays as it is, and then moves as in plain SGD."""
    net = nn.ModuleList([nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)])
    recipe = Recipe("sgd", lr=0.1, batch=1, momentum=0.9)
    ours = build(net, recipe)
    theirs = copy.deepcopy(net)
    plain = [torch.optim.SGD(layer.parameters(), 0.1, 0.9, fused=True) for layer in theirs]
    for step in range(4):
        for late, (a, b) in enumerate(zip(net, theirs)):
            if step >= 2 * late:
                torch.manual_seed(step)
                a.weight.grad = b.weight.grad = torch.randn(2, 3)  # type: ignore[union-attr]
        ours.step()
        for optimizer in plain:
            optimizer.step()
        for a, b in zip(net, theirs):
            assert torch.equal(a.weight, b.weight)  # type: ignore[arg-type]


def test_lars_forms_agree_while_the_rate_is_constant():
    net = Net().double()
    nets = [net, copy.deepcopy(net)]
    traces = [
        train(net, ready(net, Recipe(form, 5.0, weight_decay=0.01, bias_lr=0.01)), 5)
        for net, form in zip(nets, ("lars", "lars_tf"))
    ]
    assert traces[0] == pytest.approx(traces[1], rel=1e-12)


def test_larc_is_apex_larc_and_sgd():
    torch.manual_seed(1)
    w, zero = (nn.Parameter(x) for x in (torch.randn(3, 2).double(), torch.zeros(2).double()))
    optimizer = LARS([w, zero], 0.5, 0.9, 0.1, 0.02, "larc")
    expected, momentum = w.detach().clone(), torch.zeros(3, 2).double()
    for _ in range(3):
        w.grad, zero.grad = torch.randn(3, 2).double(), torch.full((2,), 2.0).double()
        rate = 0.02 * expected.norm() / (w.grad.norm() + 0.1 * expected.norm() + 1e-8)
        momentum = 0.9 * momentum + rate * (w.grad + 0.1 * expected)
        expected = expected - 0.5 * momentum
        if not zero.any():  # a norm of 0: neither adapted nor decayed
            optimizer.step()
            torch.testing.assert_close(zero.data, torch.full((2,), -1.0).double())
        else:
            optimizer.step()
        torch.testing.assert_close(w.data, expected)


def test_lars_of_a_zero_gradient_moves_by_momentum_alone():
    w = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([w], 0.1)
    w.grad = torch.zeros(2, 2)
    optimizer.step()
    assert torch.equal(w.data, torch.ones(2, 2))


def gradients(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def test_what_is_not_clipped_neither_changes_nor_counts():
    net = Net()
    name = next(n for n, p in net.named_parameters() if p.requires_grad and "." in n).split(".")[0]
    for p in net.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    recipe = Recipe("sgd", 1.0, clip=0.5, no_clip=(name,))
    total = clip(net, recipe)
    left = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    free = {n: g for n, g in left.items() if n.split(".")[0] == name}
    assert all((g == 1).all() for g in free.values())
    others = [g.norm() for n, g in left.items() if n not in free]
    assert torch.stack(others).norm() == pytest.approx(0.5, rel=1e-4)
    assert total == pytest.approx(math.sqrt(sum(g.numel() for g in left.values())))
    next(iter(free.values())).fill_(torch.nan)
    assert not torch.isfinite(clip(net, recipe)), "what is not clipped is still looked at"


@pytest.mark.parametrize("by", ["all", "module", "parameter"])
def test_clipped_norms_are_at_most_the_limit(by):
    net = Net()
    for i, p in enumerate(net.parameters()):
        p.grad = torch.full_like(p, 0.01 * 4**i) if p.requires_grad else None
    before = gradients(net)
    total = clip(net, Recipe("sgd", 1.0, clip=0.5, clip_by=by))
    assert total == pytest.approx(math.sqrt(sum(float(g.square().sum()) for g in before.values())))
    parts: dict[str, list[str]] = {}
    for name in before:
        key = {"all": "", "module": name.split(".")[0], "parameter": name}[by]
        parts.setdefault(key, []).append(name)
    after = gradients(net)
    for members in parts.values():
        norm = math.sqrt(sum(float(before[n].square().sum()) for n in members))
        for name in members:
            torch.testing.assert_close(after[name], before[name] * min(1.0, 0.5 / (norm + 1e-6)))


def test_without_a_limit_gradients_stay_and_their_norm_is_told():
    net = Net()
    assert clip(net, Recipe("sgd", 1.0)) == 0
    net.predictor.weight.grad = torch.full((4, 4), 3.0)
    assert clip(net, Recipe("sgd", 1.0)) == pytest.approx(12.0)
    assert torch.equal(net.predictor.weight.grad, torch.full((4, 4), 3.0))


def test_a_gradient_that_is_not_finite_is_told():
    net = Net()
    net.predictor.weight.grad = torch.full((4, 4), math.inf)
    assert not torch.isfinite(clip(net, Recipe("sgd", 1.0, clip=1.0)))
