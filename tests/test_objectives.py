"""What must hold of objectives for any embeddings."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.methods.correlation.barlow_twins import BarlowTwins, decorrelation
from selftaught.methods.correlation.vicreg import VICReg, covariance, variance_hinge
from selftaught.methods.distillation.byol import regression
from selftaught.methods.distillation.simsiam import distance
from selftaught.objectives import contrastive
from selftaught.objectives.contrastive import info_nce, nt_xent
from selftaught.objectives.negatives import decoupled, hard_negatives, supervised
from selftaught.parts.shuffle import shuffled

sizes = st.tuples(st.integers(2, 9), st.integers(1, 12), st.integers(0, 2**31))


def pair(size: tuple[int, int, int]) -> tuple[Tensor, Tensor, torch.Generator]:
    """Embeddings of two views, and the generator that made them."""
    count, dim, seed = size
    rng = torch.Generator().manual_seed(seed)
    z1, z2 = torch.randn(2, count, dim, generator=rng, dtype=torch.float64)
    return z1, z2, rng


class Features(nn.Identity):
    """A backbone for methods that are handed embeddings."""

    dim = 1


def standardized(z: Tensor) -> Tensor:
    return (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()


def vicreg(z1: Tensor, z2: Tensor) -> Tensor:
    spread = variance_hinge(z1) + variance_hinge(z2)
    return F.mse_loss(z1, z2) + spread + covariance(z1) + covariance(z2)


SYMMETRIC = {
    "nt_xent": lambda a, b: nt_xent(a, b, 0.1),
    "barlow_twins": lambda a, b: decorrelation(standardized(a), standardized(b), 0.005),
    "vicreg": vicreg,
    "byol": lambda a, b: regression(a, b) + regression(b, a),
    "simsiam": lambda a, b: distance(a, b) + distance(b, a),
}
DIRECTIONS = ("nt_xent", "byol", "simsiam")
"""Those of cosines, whatever the lengths."""


@pytest.mark.parametrize("name", SYMMETRIC)
@given(sizes)
def test_order_of_the_batch_and_of_the_views_changes_nothing(name, size):
    z1, z2, rng = pair(size)
    loss = SYMMETRIC[name]
    value = loss(z1, z2)
    order = torch.randperm(len(z1), generator=rng)
    torch.testing.assert_close(loss(z1[order], z2[order]), value)
    torch.testing.assert_close(loss(z2, z1), value)


@pytest.mark.parametrize("name", DIRECTIONS)
@given(sizes, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_lengths_of_embeddings_change_nothing(name, size, first, second):
    z1, z2, _ = pair(size)
    loss = SYMMETRIC[name]
    torch.testing.assert_close(loss(first * z1, second * z2), loss(z1, z2))


@given(sizes, st.floats(0.01, 10))
def test_nt_xent_is_the_paper_s_equation(size, temperature):
    z1, z2, _ = pair(size)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similar = z @ z.T / temperature
    others = similar.masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    positive = torch.arange(len(z)).roll(len(z1))
    expected = others.logsumexp(1) - similar[torch.arange(len(z)), positive]
    torch.testing.assert_close(nt_xent(z1, z2, temperature), 2 * expected.mean())


@given(sizes, st.integers(1, 40))
def test_nt_xent_in_blocks_has_the_same_value_and_gradient(size, block):
    z1, z2, _ = pair(size)
    results = []
    for limit in (2**22, block):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(contrastive._PairCrossEntropy, "BLOCK", limit)
            a, b = z1.clone().requires_grad_(), z2.clone().requires_grad_()
            loss = nt_xent(a, b, 0.2)
            (3 * loss).backward()
            results.append((loss.detach(), a.grad, b.grad))
    torch.testing.assert_close(results[0], results[1])


def test_nt_xent_s_own_gradient_is_right():
    z1, z2, _ = pair((5, 3, 0))
    torch.autograd.gradcheck(
        lambda a, b: nt_xent(a, b, 0.5), (z1.requires_grad_(), z2.requires_grad_())
    )


def test_nt_xent_of_a_large_batch_never_holds_all_logits(monkeypatch):
    monkeypatch.setattr(contrastive._PairCrossEntropy, "BLOCK", 2**16)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    z1, z2 = torch.randn(2, 512, 16, requires_grad=True)
    with Watch():
        nt_xent(z1, z2, 0.1).backward()
    assert 0 < largest <= 2**16 < 1024**2


@given(sizes)
def test_correlations_do_not_depend_on_the_path_that_is_cheaper(size):
    """Fewer samples than dimensions take the Gram matrix; padding with zeros takes it away."""
    z1, z2, _ = pair(size)
    count, dim = z1.shape
    spread = torch.cov(z1.T).reshape(dim, dim)
    off = spread - spread.diag().diag()
    torch.testing.assert_close(covariance(z1), off.square().sum() / dim)

    a, b = standardized(z1), standardized(z2)
    c = a.T @ b / count
    weight = torch.full_like(c, 0.005).fill_diagonal_(1.0)
    expected = (weight * (c - torch.eye(dim)).square()).sum()
    torch.testing.assert_close(decorrelation(a, b, 0.005), expected)


def test_wide_embeddings_never_make_a_matrix_of_dimensions():
    z = torch.randn(4, 200_000, requires_grad=True)  # 160 GB if they did
    (covariance(z) + decorrelation(z, z.flip(0), 0.005)).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@given(sizes, st.integers(1, 20), st.floats(0.05, 5))
def test_info_nce_does_not_know_the_order_of_negatives(size, negatives, temperature):
    q, k, rng = (F.normalize(z, dim=1) if isinstance(z, Tensor) else z for z in pair(size))
    n = F.normalize(torch.randn(negatives, q.shape[1], generator=rng, dtype=q.dtype), dim=1)
    value = info_nce(q, k, n, temperature)
    torch.testing.assert_close(info_nce(q, k, n.flip(0), temperature), value)
    assert value > info_nce(q, q, n, temperature) - 1e-9  # no key is nearer than the query itself


@given(sizes, st.floats(1e-3, 1e3))
def test_barlow_twins_ignores_shift_and_scale_of_dimensions(size, scale):
    z1, z2, _ = pair((size[0] + 2, *size[1:]))
    method = BarlowTwins(Features(), hidden=1, dim=size[1]).double()  # type: ignore[arg-type]
    method.norm.eps = 1e-30  # which alone breaks it
    torch.testing.assert_close(method.compare(scale * z1 + 1, z2), method.compare(z1, z2))


def test_no_gradient_flows_through_simsiam_s_target():
    p, z = torch.randn(2, 4, 3, requires_grad=True)
    p, z = p.detach().requires_grad_(), z.detach().requires_grad_()
    distance(p, z).backward()
    assert p.grad is not None
    assert z.grad is None


def test_losses_compute_in_float32_under_autocast():
    z1, z2 = torch.randn(2, 8, 16).bfloat16()
    losses = {
        "barlow_twins": BarlowTwins(Features(), hidden=1, dim=16).compare,  # type: ignore[arg-type]
        "vicreg": VICReg(Features(), hidden=1, dim=16).compare,  # type: ignore[arg-type]
        **{name: SYMMETRIC[name] for name in DIRECTIONS},
    }
    for name, loss in losses.items():
        full = loss(z1.float(), z2.float())
        with torch.autocast("cpu", torch.bfloat16):
            half = loss(z1, z2)
        torch.testing.assert_close(half, full, msg=name)


def test_shuffling_in_one_process_changes_nothing():
    x = torch.randn(4, 3, requires_grad=True)
    out = shuffled(lambda v: 2 * v, x)
    assert torch.equal(out, 2 * x)
    assert not out.requires_grad


def test_hard_negatives_without_hardness_are_the_usual_ones_and_weigh_the_near_ones_more():
    q, k, others = (F.normalize(torch.randn(n, 8, dtype=torch.float64), dim=1) for n in (5, 5, 9))
    positive, negatives = (q * k).sum(1), q @ others.mT
    plain = hard_negatives(positive, negatives, 0.2)
    torch.testing.assert_close(plain, info_nce(q, k, others, 0.2), rtol=1e-12, atol=0)
    assert hard_negatives(positive, negatives, 0.2, hardness=1.0) > plain


def test_an_image_alone_has_no_negatives_in_words():
    with pytest.raises(UserError, match="1 image has none; take 2"):
        decoupled(torch.randn(1, 4), torch.randn(1, 4), 0.1)


def test_supervised_images_of_classes_of_their_own_have_a_finite_loss():
    views = torch.randn(4, 1, 8, requires_grad=True)
    loss = supervised(views, torch.arange(4), 0.1)
    loss.backward()
    assert loss == 0
    assert views.grad.isfinite().all()
