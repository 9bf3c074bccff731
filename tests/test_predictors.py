"""Predictors of BYOL and SimSiam: computed ones, faster ones, and ones that learn more often."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from selftaught.engine.optim import Rates
from selftaught.engine.optim import build as optimizer_of
from selftaught.method import Method
from selftaught.parts import DirectPredictor, synchronize
from tests.cases import CASES
from tests.pool import Pool
from tests.test_methods import STEPS, batch, build, optimizer, step, train

BOTH = pytest.mark.parametrize("name", ["byol", "simsiam"])


def made(name: str, **options: Any) -> Method:
    case = CASES[name]
    case = dataclasses.replace(case, options=case.options | options)
    return build(name, torch.float64, case=case)


def slow(batches: list[np.ndarray], rho: float, eps: float) -> np.ndarray:
    """sqrt of the mean of z z^T over its largest eigenvalue, by power iteration, + eps I."""
    mean = np.zeros(0)
    for i, z in enumerate(batches):
        now = sum(np.outer(row, row) for row in z) / len(z)
        mean = rho * mean + (1 - rho) * now if i else now
    x = np.ones(len(mean))
    for _ in range(5000):
        x = mean @ x
        x /= np.sqrt(x @ x)
    return np.real(scipy.linalg.sqrtm(mean / (x @ mean @ x))) + eps * np.eye(len(mean))


def test_direct_predictor_is_the_root_of_the_correlation():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(20, 6)) * [3, 2, 1, 1, 0.5, 0.2] for _ in range(3)]
    predictor = DirectPredictor(6, rho=0.3, eps=0.1).double()
    for i, z in enumerate(batches):
        predictor.follow(torch.from_numpy(z))
        expected = slow(batches[: i + 1], 0.3, 0.1)
        np.testing.assert_allclose(predictor.weight, expected, rtol=1e-9, atol=1e-12)
        out = predictor(torch.from_numpy(z)).numpy()
        np.testing.assert_allclose(out, z @ expected, rtol=1e-9, atol=1e-12)
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(predictor.weight, -expected, rtol=1e-9)
    rare = DirectPredictor(6, every=2).double()
    for z in batches[:2]:
        rare.follow(torch.from_numpy(z))
    np.testing.assert_allclose(rare.weight, slow(batches[:1], 0.3, 0.1), rtol=1e-9, atol=1e-12)
    rare.follow(torch.from_numpy(batches[2]))
    np.testing.assert_allclose(rare.weight, slow(batches, 0.3, 0.1), rtol=1e-9, atol=1e-12)


def test_direct_predictor_forgets_the_scale_and_stands_what_is_constant():
    z = torch.randn(20, 6, dtype=torch.float64)
    one, other = DirectPredictor(6).double(), DirectPredictor(6).double()
    one.follow(z)
    other.follow(1000 * z)
    torch.testing.assert_close(one.weight, other.weight)
    nothing = DirectPredictor(6)
    nothing.follow(torch.zeros(20, 6))
    torch.testing.assert_close(nothing.weight, 0.1 * torch.eye(6))
    before = one.weight.clone()
    one.eval().follow(torch.randn(20, 6, dtype=torch.float64))
    assert torch.equal(one.weight, before), "in evaluation mode it stays"


@BOTH
def test_a_direct_predictor_learns_nothing_itself_and_the_encoder_does(name):
    method = made(name, predictor_form="direct", predictor_rate=3.0)
    assert list(method.predictor.parameters()) == []
    before = method.predictor.correlation.clone()
    step(method, optimizer(method), batch(name, method))
    assert not torch.equal(method.predictor.correlation, before)
    assert all(p.grad is not None for p in method.projector.parameters() if p.requires_grad)
    assert optimizer_of(method, method.recipe).param_groups  # names nothing that is not trained


@BOTH
def test_the_predictor_s_rate_is_a_multiple_of_the_others(name):
    method = made(name, predictor_rate=10.0)
    recipe = dataclasses.replace(method.recipe, constant=(), warmup=0.0)
    made_of = optimizer_of(method, recipe)
    Rates(recipe, 256, 10, 1).apply(made_of, 0)
    rates = {id(p): group["lr"] for group in made_of.param_groups for p in group["params"]}
    own = {rates[id(p)] for p in method.predictor.parameters()}
    others = {rates[id(p)] for p in method.projector.parameters() if p.requires_grad}
    assert own == {10 * lr for lr in others}
    assert made(name).recipe.rates == ()


@BOTH
def test_the_encoder_learns_in_every_so_many_steps_alone(name):
    method = made(name, predictor_steps=3)
    opt = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.01)
    moved = []
    for i in range(7):
        before = {n: x.clone() for n, x in method.named_parameters()}
        step(method, opt, batch(name, method, epoch=i))
        after = dict(method.named_parameters())
        moved.append({n.split(".")[0] for n in after if not torch.equal(after[n], before[n])})
    slow_copy = {"target"} if name == "byol" else set()
    every = {"backbone", "projector", "predictor"} | slow_copy
    assert moved == [every, {"predictor"}, {"predictor"}] * 2 + [every]


def test_without_an_ema_the_teacher_is_the_student():
    method = made("byol", momentum=0.0, end_momentum=0.0)
    opt = optimizer(method)
    for progress in (0.0, 0.5, 0.9):
        method.progress = progress
        step(method, opt, batch("byol", method))
        pairs = zip(method.target.parameters(), method.online.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def on_rank(rank: int, name: str) -> Any:
    return trained(name)


def trained(name: str) -> Any:
    method = made(name, predictor_form="direct", predictor_steps=2)
    synchronize(method)
    losses = [float(x) for x in train(name, method, optimizer(method))]
    return losses, {n: x.detach().numpy() for n, x in method.state_dict().items()}


@pytest.mark.xdist_group("pool")
@BOTH
def test_a_direct_predictor_of_two_processes_is_that_of_one(name, pool: Pool):
    (losses, state), (_, other) = pool.run(on_rank, name)
    expected_losses, expected = trained(name)
    assert len(losses) == STEPS
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-9)
    for key, value in expected.items():
        np.testing.assert_allclose(state[key], value, rtol=1e-9, atol=1e-10, err_msg=key)
        assert np.array_equal(state[key], other[key])
