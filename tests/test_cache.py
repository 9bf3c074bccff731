"""The gradient cache: the loss and gradients of a whole batch, with the memory of parts."""

import contextlib

import pytest
import torch
from torch import nn

from selftaught import dist, methods
from selftaught.backbones import Image
from selftaught.engine.cache import GradientCache
from selftaught.errors import UserError
from selftaught.objectives.contrastive import nt_xent
from selftaught.parts import synchronize
from tests.cases import CASES
from tests.pool import Pool
from tests.test_engine import curve, make, train
from tests.test_methods import batch, rows, total

NAMES = [
    *(n for n in sorted(CASES) if methods.files()[n].parent.name == "contrastive"),
    *("byol", "simsiam", "barlow_twins", "vicreg", "lejepa", "visreg", "swav", "dino", "simdino"),
]
PART = 3


def ready(name: str, net: str = "test_vit") -> nn.Module:
    torch.manual_seed(0)
    cls, case = methods.find(name), CASES[name]
    options = dict(case.options)
    options |= {"samples": 16} if "samples" in methods.signature(name) else {}
    return cls(Image(net, case.size), **options).double().train()


def gradients(method: nn.Module) -> dict[str, torch.Tensor]:
    return {n: dist.mean(p.grad) for n, p in method.named_parameters() if p.grad is not None}


def in_parts(method, views) -> torch.Tensor:
    cache = GradientCache(method, PART, contextlib.nullcontext)
    with cache.recording():
        loss = total(method.loss(views))
    loss.backward()
    cache.backward()
    return loss.detach()


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_the_whole_batch(name):
    whole, parts = ready(name), ready(name)
    views = batch(name, whole)
    torch.manual_seed(1)  # of what the loss draws
    expected = total(whole.loss(views))
    expected.backward()
    torch.manual_seed(1)
    torch.testing.assert_close(in_parts(parts, views), expected.detach(), rtol=1e-9, atol=1e-12)
    ours, theirs = gradients(parts), gradients(whole)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-9, atol=1e-12, msg=key)
    for (key, ours_), theirs_ in zip(parts.named_buffers(), whole.buffers(), strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-9, atol=1e-12, msg=key)


def test_dropout_draws_the_same_in_both_passes():
    """With noise there is nothing to compare with but the same network by hand."""
    method = ready("simclr")
    drop = nn.Dropout(0.5)
    method.backbone.net.norm_pre = drop  # timm's ViT has a slot before its blocks
    views = batch("simclr", method)
    torch.manual_seed(5)
    in_parts(method, views)
    ours = gradients(method)
    method.zero_grad()
    torch.manual_seed(5)
    images = torch.cat(views.views).split(PART)
    features = torch.cat([method.backbone(x) for x in images])
    nt_xent(*method.projector(features).chunk(2), method.temperature).backward()
    for key, value in gradients(method).items():
        torch.testing.assert_close(ours[key], value, rtol=1e-9, atol=1e-12, msg=key)


def test_running_statistics_move_once():
    method = ready("simclr", "test_resnet")
    norm = next(m for m in method.backbone.modules() if isinstance(m, nn.BatchNorm2d))
    in_parts(method, batch("simclr", method))
    assert int(norm.num_batches_tracked) == -(-2 * 8 // PART)


@pytest.mark.xdist_group("pool")
def test_two_processes_make_the_gradient_of_one(pool: Pool):
    results = pool.run(on_rank)
    method = ready("simclr")
    views = batch("simclr", method)
    expected = total(method.loss(views))
    expected.backward()
    for loss, grads in results:
        assert loss == pytest.approx(float(expected.detach()), rel=1e-9)
        for key, value in gradients(method).items():
            torch.testing.assert_close(
                torch.from_numpy(grads[key]), value, rtol=1e-9, atol=1e-12, msg=key
            )


def on_rank(rank: int):
    method = ready("simclr")
    synchronize(method)
    views = batch("simclr", method)
    share = len(views.index) // dist.world()
    loss = in_parts(method, rows(views, slice(rank * share, (rank + 1) * share)))
    return float(dist.mean(loss)), {n: g.numpy() for n, g in gradients(method).items()}


def test_training_is_that_of_the_whole_batch(tmp_path):
    for out, how in (
        ("whole", {"batch": 12}),
        ("parts", {"batch": 4, "effective_batch": 12}),
    ):
        torch.manual_seed(0)
        method = methods.find("simclr")(Image("test_vit", 32), hidden=32, dim=16)
        train(tmp_path / out, method=method, lr=0.01, **how)
    whole, parts = curve(tmp_path / "whole"), curve(tmp_path / "parts")
    assert len(whole) == len(parts) == 4
    for a, b in zip(whole, parts):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-4)


def test_batch_norms_that_see_parts_are_told(tmp_path, caplog):
    train(tmp_path / "run", batch=4, effective_batch=8, epochs=1)
    assert "batch norms of the backbone see 4 at a time" in caplog.text


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"effective_batch": 20}, r"of 20 is not made of whole batches of 8; .* 16"),
        ({"effective_batch": 16, "accumulate": 2}, "give one of them"),
        ({"effective_batch": 16, "compile": True}, "drop --compile"),
        ({"effective_batch": 32}, "24 images are fewer than a batch of 32"),
        ({"lr": 0.1, "scaling": "sqrt"}, "whatever its size"),
    ],
)
def test_settings_that_do_not_fit_are_refused(how, words, tmp_path):
    with pytest.raises(UserError, match=words):
        train(tmp_path / "run", **how)


def test_a_method_without_a_backbone_of_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="MAE does not run its backbone on whole images"):
        train(tmp_path / "run", "mae", method=make("mae"), batch=4, effective_batch=8)
