"""What is particular to W-MSE, DCCA, DCCAE and ACE, beyond the contract and the golden values."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from selftaught import pretrain
from selftaught.augment import View, Views, sample_rng
from selftaught.augment.pairs import Halves
from selftaught.backbones import Image
from selftaught.errors import TrainingError, UserError
from selftaught.method import Batch
from selftaught.methods.correlation.ace import ACE
from selftaught.methods.correlation.dcca import DCCA
from selftaught.methods.correlation.dccae import DCCAE
from selftaught.methods.correlation.w_mse import WMSE
from selftaught.objectives.ace import ace, maximal_correlation, running_lines, supersmoother
from selftaught.objectives.canonical import canonical_correlations
from selftaught.objectives.whitening import cholesky_whiten


def tiny() -> Image:
    return Image("test_resnet", 32)


def embeddings(method: WMSE, count: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (count, method.dim)
    return [torch.randn(shape, generator=generator).requires_grad_() for _ in range(method.count)]


def test_w_mse_gives_both_views_gradient_and_by_name_one():
    """A published port holds the second view of a pair fixed, and loses half of the gradient."""
    gradients = {}
    for one_sided in (False, True):
        method = WMSE(tiny(), hidden=8, dim=4, group=8, one_sided=one_sided)
        torch.manual_seed(0)
        views = embeddings(method)
        method.compare(torch.stack(views)).backward()
        gradients[one_sided] = [float(z.grad.abs().sum()) for z in views]
    assert min(gradients[False]) > 0
    assert gradients[True] == [pytest.approx(gradients[False][0]), 0.0]


@pytest.mark.parametrize("count", [2, 4])
def test_w_mse_whitens_each_group_of_each_view(count):
    method = WMSE(tiny(), hidden=8, dim=3, group=8, draws=2, count=count)
    pipeline = method.views(32)
    assert len(pipeline(np.zeros((40, 40, 3), np.uint8), sample_rng(0, 0, 0))) == count
    views = embeddings(method, 21)
    loss = method.compare(torch.stack(views))
    assert 0 < loss < 4
    white = cholesky_whiten(views[0].detach()[:8])
    torch.testing.assert_close(white.mT.cov(), torch.eye(3), rtol=1e-4, atol=1e-4)
    same = views[0].detach()
    assert method.compare(torch.stack([same] * count)) == pytest.approx(0, abs=1e-5)


def test_time_is_estimated_on_as_many_images_as_whitening_needs(photos, tmp_path, caplog):
    """Eight images, which do for other methods, cannot be whitened in eight dimensions."""
    method = WMSE(tiny(), hidden=16, dim=8, group=None)
    data = photos * 2
    caplog.set_level("INFO", "selftaught")
    pretrain(method, data, tmp_path / "run", epochs=1, batch=16, workers=0, evaluate=False)
    assert re.search(r"about \S+ [GM]iB of memory and .+ of time", caplog.text)
    (row,) = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    assert 0 < float(row.split(",")[3]) < 4


def test_whitening_says_what_it_needs():
    with pytest.raises(UserError, match=r"group=100 .* dim=64.*set group to 128 or more"):
        WMSE(tiny(), group=100)
    with pytest.raises(UserError, match=r"4 samples cannot be whitened in 4 dimensions"):
        cholesky_whiten(torch.randn(4, 4))
    with pytest.raises(TrainingError, match="do not vary in every direction"):
        cholesky_whiten(torch.ones(8, 3))
    with pytest.raises(UserError, match="count=1"):
        WMSE(tiny(), count=1)


@pytest.mark.parametrize("kind", [WMSE, DCCA, DCCAE, ACE])
def test_batches_hold_more_samples_than_dimensions(kind):
    """What the engine refuses before training starts."""
    assert kind(tiny(), dim=20).needs.batch in (40, 41)


def test_correlation_says_what_it_needs():
    with pytest.raises(UserError, match=r"modalities of 8 and 7 samples.*same sample"):
        canonical_correlations(torch.randn(8, 2), torch.randn(7, 2))
    with pytest.raises(UserError, match="5 samples in 5 and 2 dimensions are perfectly"):
        canonical_correlations(torch.randn(5, 5), torch.randn(5, 2))


def test_correlations_are_those_of_shared_directions():
    a = torch.randn(4000, 3, dtype=torch.float64)
    b = torch.cat([a[:, :1] * 2 + 1, torch.randn(4000, 2, dtype=torch.float64)], 1)
    turned = a @ torch.randn(3, 3, dtype=torch.float64)
    found = canonical_correlations(turned, b, 1e-9, 1e-9)
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert found[1:].max() < 0.1


@pytest.mark.parametrize("kind", [DCCA, ACE])
@pytest.mark.parametrize("pair", ["halves", "crops"])
@pytest.mark.parametrize("shared", [False, True])
def test_two_networks_or_one_for_halves_or_crops(kind, pair, shared):
    method = kind(tiny(), dim=2, pair=pair, shared=shared)
    views = method.views(32)(np.zeros((40, 50, 3), np.uint8), sample_rng(0, 0, 0))
    assert [v.shape for v in views] == [(3, 32, 16 if pair == "halves" else 32)] * 2
    method.loss(Batch([torch.randn(6, *v.shape) for v in views], torch.arange(6))).backward()
    assert (method.other is None) == shared
    if not shared:
        assert type(method.other) is Image
        assert all(p.grad is not None for p in method.other.parameters())
        assert not torch.equal(method.other_head.weight, method.head.weight)


def test_halves_are_left_and_right():
    whole = Views((View(9, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0),))
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    left, right = Halves(whole)(image, sample_rng(0, 0, 0))
    (view,) = whole(image, sample_rng(0, 0, 0))
    assert np.array_equal(left, view[..., :4])
    assert np.array_equal(right, view[..., 5:])


def test_dccae_decodes_what_it_saw():
    method = DCCAE(tiny(), dim=2, hidden=8, side=4, weight=10.0)
    views = [torch.randn(6, 3, 32, 16) for _ in range(2)]
    assert method.shrunk(views[0]).shape == (6, 3 * 4 * 2)
    terms = method.loss(Batch(views, torch.arange(6)))
    assert terms["reconstruction"] > 0
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None for p in method.parameters())
    with pytest.raises(UserError, match="weight must be at least 0, got -1"):
        DCCAE(tiny(), weight=-1.0)


def test_ace_ends_at_the_most_correlated_transforms():
    """Networks that are tables over categories: their exact answer is a singular pair."""
    generator = torch.Generator().manual_seed(0)
    joint = torch.rand(5, 4, generator=generator, dtype=torch.float64) ** 3
    counts = (joint / joint.sum() * 4000).round().long() + 1
    drawn = torch.arange(20).repeat_interleave(counts.flatten())
    x, y = drawn // 4, drawn % 4
    method = ACE(tiny(), dim=1, eps=1e-9)
    phi = nn.Parameter(torch.randn(5, 1, generator=generator, dtype=torch.float64))
    theta = nn.Parameter(torch.randn(4, 1, generator=generator, dtype=torch.float64))
    optimizer = torch.optim.SGD([phi, theta], 1.0)
    for _ in range(400):
        optimizer.zero_grad()
        method.alternate(phi[x], theta[y]).backward()
        optimizer.step()
    found = maximal_correlation(counts.numpy())
    correlation = torch.corrcoef(torch.stack([phi[x, 0], theta[y, 0]]))[0, 1]
    assert correlation.item() == pytest.approx(found.correlation, abs=1e-3)
    ours = torch.corrcoef(torch.stack([phi[:, 0].detach(), torch.from_numpy(found.phi[0])]))
    assert abs(ours[0, 1]) > 0.99


def test_classical_ace_finds_the_transforms_of_a_known_function():
    draws = np.random.default_rng(0)
    x = draws.uniform(-1, 1, (2, 400))
    y = np.exp(x[0] ** 2 * 2 + np.sin(3 * x[1]) + 0.05 * draws.normal(size=400))
    found = ace(x, y)
    assert found.correlation > 0.98
    assert found.theta.mean() == pytest.approx(0, abs=1e-12)
    assert found.theta.std() == pytest.approx(1)
    assert abs(np.corrcoef(found.theta, np.log(y))[0, 1]) > 0.98
    assert abs(np.corrcoef(found.phi[0], x[0] ** 2)[0, 1]) > 0.98


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros((2, 20)), np.zeros(19), "do not belong together"),
        (np.zeros((1, 5)), np.arange(5.0), "10 samples or more, got 5"),
        (np.full((1, 20), np.nan), np.arange(20.0), "not finite"),
        (np.arange(20.0), np.zeros(20), "never varies"),
    ],
)
def test_classical_ace_says_what_it_needs(x, y, words):
    with pytest.raises(UserError, match=words):
        ace(x, y)


def test_maximal_correlation_says_what_it_needs():
    with pytest.raises(UserError, match="at least 2 categories"):
        maximal_correlation(np.ones((1, 4)))
    with pytest.raises(UserError, match="never occurs"):
        maximal_correlation(np.array([[1.0, 0.0], [1.0, 0.0]]))


def test_smoothers_reproduce_lines_and_survive_ties():
    x = np.sort(np.random.default_rng(0).normal(size=100))
    np.testing.assert_allclose(supersmoother(x, 3 * x - 1), 3 * x - 1, atol=1e-9)
    smooth, residual = running_lines(np.zeros(20), np.arange(20.0), 0.2)
    assert np.isfinite(smooth).all()
    assert np.isfinite(residual).all()
