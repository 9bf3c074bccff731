"""The contract of methods that compare two modalities of different kinds: images and texts."""

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.engine.randomness import seed_all
from selftaught.engine.settings import Settings
from selftaught.engine.views import views_of
from selftaught.errors import UserError
from selftaught.method import Batch, encoders, prepared
from selftaught.methods import InfoNCE, VICReg
from selftaught.parts import synchronize
from tests.cases import CAPTIONS, PAIRS, paired
from tests.pool import Pool
from tests.test_methods import APART, BATCH, STEPS, image, optimizer, rows, same, step, total

each = pytest.mark.parametrize("name", sorted(PAIRS))


def build(name: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    method = paired(name).to(dtype).train()
    seed_all(1 + APART * dist.rank())
    return method


def batch(method: Any, epoch: int = 0, count: int = BATCH) -> Batch:
    """The first `count` pairs, through the views that the engine makes of the method's."""
    pipeline = views_of(method, 32, Settings())
    samples = [
        pipeline((image(i, 32), CAPTIONS[i]), augment.sample_rng(0, epoch, i)) for i in range(count)
    ]
    left, right = prepared(method, default_collate(samples))
    dtype = next(method.parameters()).dtype
    return Batch([left.to(dtype), right], torch.arange(count), torch.arange(count))


def train(method: Any, opt: torch.optim.Optimizer, start: int = 0) -> list[Tensor]:
    share = BATCH // dist.world()
    mine = slice(dist.rank() * share, (dist.rank() + 1) * share)
    losses = []
    for epoch in range(start, start + STEPS):
        seed_all(epoch + APART * dist.rank())
        losses.append(step(method, opt, rows(batch(method, epoch), mine)))
    return losses


def clip_loss(image_features: np.ndarray, text_features: np.ndarray, scale: float) -> float:
    """Fig. 3 of Radford et al. (2021), one row and one column at a time."""

    def cross_entropy(scores: list[float], right: int) -> float:
        most = max(scores)
        return most + math.log(sum(math.exp(s - most) for s in scores)) - scores[right]

    a = [v / math.sqrt(float(v @ v)) for v in image_features]
    b = [v / math.sqrt(float(v @ v)) for v in text_features]
    logits = [[scale * float(v @ w) for w in b] for v in a]
    count = len(a)
    of_images = sum(cross_entropy(logits[i], i) for i in range(count)) / count
    of_texts = sum(cross_entropy([r[i] for r in logits], i) for i in range(count)) / count
    return (of_images + of_texts) / 2


def test_infonce_of_two_modalities_is_the_formula_of_clip():
    method = build("infonce", torch.float64).eval()
    views = batch(method)
    with torch.no_grad():
        assert float(method.log_scale.exp()) == pytest.approx(1 / 0.07)
        method.log_scale.fill_(2.5)
        first = method.backbone(views.views[0]) @ method.projector.weight.T
        second = method.other(views.views[1]) @ method.other_projector.weight.T
        found = float(method.loss(views))
    expected = clip_loss(first.numpy(), second.numpy(), math.exp(2.5))
    assert found == pytest.approx(expected, rel=1e-9)
    (guess,) = method.reference_losses(BATCH)
    assert guess.value == pytest.approx(math.log(BATCH))


def test_the_scale_is_learned_and_kept_below_a_hundred():
    method = build("infonce")
    opt = optimizer(method)
    before = float(method.log_scale.detach())
    train(method, opt)
    assert float(method.log_scale.detach()) != before
    with torch.no_grad():
        method.log_scale.fill_(7.0)
    method.loss(batch(method))
    assert float(method.log_scale.detach().exp()) == pytest.approx(100.0)


@each
def test_each_side_gets_what_its_encoder_takes(name):
    method = build(name)
    left, right = batch(method).views
    assert left.shape == (BATCH, 3, 32, 32)
    assert left.dtype == torch.float32
    assert right.shape == (BATCH, 16)
    assert right.dtype == torch.int64
    first, second = encoders(method)
    embedding, other = (
        method.get_submodule(n) for n in (method.insight.embedding, method.insight.other)
    )
    assert embedding(first(left)).shape == other(second(right)).shape


@each
def test_gradient_reaches_all_of_both_sides(name):
    method = build(name)
    total(method.loss(batch(method))).backward()
    lacking = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []
    for part in ("backbone", "other"):
        some = [p.grad for n, p in method.named_parameters() if n.startswith(f"{part}.")]
        assert sum(float(g.abs().sum()) for g in some) > 0, part


@each
def test_the_order_of_pairs_does_not_matter_and_who_belongs_to_whom_does(name):
    method = build(name, torch.float64)
    whole = batch(method)
    with torch.no_grad():
        loss = float(total(method.loss(whole)))
        turned = float(total(method.loss(rows(whole, torch.arange(BATCH).flip(0)))))
        left, right = whole.views
        other = float(total(method.loss(whole._replace(views=[left, right.roll(1, 0)]))))
    assert turned == pytest.approx(loss, rel=1e-9)
    assert other != pytest.approx(loss, rel=1e-6)


@each
def test_continues_bit_for_bit_from_its_state(name):
    method = build(name)
    opt = optimizer(method)
    train(method, opt)
    file = io.BytesIO()
    torch.save((method.state_dict(), opt.state_dict()), file)
    expected = train(method, opt, STEPS)
    torch.manual_seed(1)
    other = paired(name)
    again = optimizer(other)
    file.seek(0)
    state, opt_state = torch.load(file, weights_only=True)
    other.load_state_dict(state)
    again.load_state_dict(opt_state)
    assert torch.equal(torch.stack(train(other, again, STEPS)), torch.stack(expected))
    assert same(other.state_dict(), method.state_dict()) == []


def train_on_rank(rank: int, name: str) -> tuple[list[float], dict[str, np.ndarray]]:
    return trained(name)


def trained(name: str) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses, and the state after some steps in float64, batch norms of all processes."""
    method = build(name, torch.float64)
    synchronize(method)
    losses = [float(x) for x in train(method, optimizer(method))]
    return losses, {n: x.numpy() for n, x in method.state_dict().items()}


@pytest.mark.xdist_group("pool")
@each
def test_two_processes_equal_one(name, pool: Pool):
    (losses, state), (other_losses, other_state) = pool.run(train_on_rank, name)
    assert losses == other_losses
    assert [n for n in state if not np.array_equal(state[n], other_state[n])] == []
    expected_losses, expected = trained(name)
    np.testing.assert_allclose(losses, expected_losses, 1e-9)
    assert state.keys() == expected.keys()
    for n in state:
        np.testing.assert_allclose(state[n], expected[n], 1e-9, 1e-10, err_msg=n)


def test_an_encoder_of_another_kind_makes_modalities_of_views():
    method = build("vicreg")
    assert method.pair == "modalities"
    assert method.needs.second == "other"
    assert VICReg.needs.second == ""
    assert VICReg(Image("test_resnet", 32), hidden=8, dim=4).other is None


def test_a_second_network_like_one_of_texts_is_refused():
    texts = paired("infonce").other
    with pytest.raises(UserError, match=r"this one takes texts: name the data .* --second"):
        InfoNCE(texts, pair="modalities")
