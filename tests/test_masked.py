"""MAE and I-JEPA beyond the papers' numbers: what they refuse, what they keep, what they hide."""

import math

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from selftaught import augment
from selftaught.backbones import Image, backbone, sincos
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.masked.data2vec import Data2Vec
from selftaught.methods.masked.denoising import DenoisingAutoencoder
from selftaught.methods.masked.mae import MAE
from selftaught.methods.predictive.aim import AIM
from selftaught.methods.predictive.ijepa import IJEPA

SMALL = {"dim": 32, "depth": 1}


def vit(size: int = 32, **options) -> Image:
    return Image("test_vit", size, **options)


@pytest.mark.parametrize("kind", [MAE, IJEPA])
def test_only_vits_can_skip_patches(kind):
    with pytest.raises(UserError, match=r"ResNet, which cannot skip patches; .*vit_small_patch16"):
        kind(backbone("test_resnet", 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.99}, "ratio=0.99 of 64 patches leaves 0 to see"),
        ({"ratio": 0.0}, "leaves 64 to see; at least 1 must be seen and 1 hidden"),
        ({"dim": 100, "heads": 16}, "dim=100 must be a multiple of heads=16"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"dim": 30, "heads": 2}, "a multiple of 4, got 30"),
        ({"unit": 3}, "unit=3 does not divide a grid of 8 x 8 patches"),
        ({"unit": 8}, "ratio=0.75 of 1 squares of 8 x 8 patches leaves 0 to see"),
        ({"asked": 0.5}, "asked=0.5 of the hidden patches: .*set decoder to cross"),
        ({"decoder": "cross", "heads": 5, "dim": 32}, "dim=32 must be a multiple of heads=5"),
    ],
)
def test_mae_refuses(options, message):
    with pytest.raises(UserError, match=message):
        MAE(vit(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "dim=32 must be a multiple of heads=5"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"targets": 0}, "targets must be at least 1, got 0"),
        ({"target_scale": (0.5, 0.2)}, "target_scale=0.5,0.2 must be the smallest and the largest"),
        ({"context_scale": (0.5, 1.5)}, "context_scale must be above 0 and at most 1"),
        ({"aspect": (0.0, 1.5)}, "aspect must be above 0, got"),
    ],
)
def test_ijepa_refuses(options, message):
    with pytest.raises(UserError, match=message):
        IJEPA(vit(), **SMALL | options)


def test_mae_hides_by_the_samples_own_generator():
    pipeline = MAE(vit(), heads=2, **SMALL).views(32)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    one, again, other = (pipeline(image, augment.sample_rng(0, 1, i)) for i in (5, 5, 6))
    assert one[0].shape == (3, 32, 32)
    assert one[1].shape == (64,)
    np.testing.assert_array_equal(one[1], again[1])
    assert not np.array_equal(one[1], other[1])


def made(**options) -> tuple[MAE, Batch]:
    torch.manual_seed(0)
    method = MAE(vit(), heads=2, **SMALL | options)
    count = method.views(32).count
    return method, Batch([torch.randn(3, 3, 32, 32), torch.rand(3, count)], torch.arange(3))


def test_squares_of_patches_are_hidden_together():
    method, given = made(unit=2)
    keep, hidden = method.split(given.views[1], (8, 8))
    squares = hidden.view(3, 4, 2, 4, 2).float().mean((2, 4))
    assert set(squares.unique().tolist()) == {0.0, 1.0}
    assert squares.sum((1, 2)).tolist() == [12, 12, 12]
    assert not hidden.gather(1, keep).any()
    assert keep.shape == (3, 16)


@pytest.mark.parametrize("unit", [1, 2])
def test_a_cross_decoder_tells_each_place_by_itself_and_is_asked_for_some(unit):
    method, given = made(decoder="cross", unit=unit, asked=0.25)
    images, noise = given.views
    keep, hidden = method.split(noise, (8, 8))
    asked = method.some(noise, hidden, (8, 8))
    assert asked.shape == (3, 12)
    assert hidden.gather(1, asked).all()
    tokens, grid = method.backbone.tokens(images, keep)
    every = method.decode(tokens, grid, keep)
    some = method.decode_some(tokens, grid, keep, asked)
    torch.testing.assert_close(some, every.gather(1, asked[..., None].expand_as(some)))
    method.loss(given).backward()
    lacking = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []
    painted = method.eval().show(given).columns["painted"]
    assert painted.shape == images.shape
    assert painted.isfinite().all()


def test_mae_has_no_loss_on_what_it_sees():
    torch.manual_seed(0)
    method = MAE(vit(), heads=2, normalize=False, **SMALL)
    noise = torch.rand(2, 64)
    images = torch.randn(2, 3, 32, 32)
    seen = torch.zeros(2, 64).scatter(1, noise.argsort(1)[:, :16], 1.0).view(2, 1, 8, 8)
    pixels = seen.repeat_interleave(4, 2).repeat_interleave(4, 3)
    targets: list[torch.Tensor] = []
    method.decode = lambda *_: torch.zeros(2, 64, 48)  # type: ignore[method-assign]
    for change in (pixels, 1 - pixels):
        targets.append(method.loss(Batch([images + 5 * change, noise], torch.arange(2))))
    plain = method.loss(Batch([images, noise], torch.arange(2)))
    torch.testing.assert_close(targets[0], plain)
    assert targets[1] > plain + 10


@pytest.mark.parametrize("kind", [MAE, IJEPA])
def test_from_scratch_positions_are_fixed(kind):
    method = kind(vit(), heads=2, **SMALL)
    table = method.backbone.net.pos_embed
    assert not table.requires_grad
    torch.testing.assert_close(table[:, -64:], sincos((8, 8), 64).float())


@pytest.mark.parametrize("kind", [MAE, IJEPA])
def test_pretrained_weights_are_kept(kind, monkeypatch):
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: None)
    image = vit(pretrained=True)
    before = {name: x.clone() for name, x in image.net.state_dict().items()}
    after = kind(image, heads=2, **SMALL).backbone.net.state_dict()
    for name, x in after.items():
        torch.testing.assert_close(x, before[name][:, -x.shape[1] :] if name == "pos_embed" else x)
        if name != "pos_embed":
            assert torch.equal(x, before[name]), name


def test_ijepa_encoder_is_the_target_without_class_token():
    method = IJEPA(vit(), **SMALL)
    assert method.encoder is method.target
    assert method.encoder.prefix == 0
    features = method.encoder.features(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(features.pooled, features.local.mean(1))
    assert not any(p.requires_grad for p in method.target.parameters())


@pytest.mark.parametrize("masking", ["multiblock", "reference", "random"])
def test_ijepa_masks(masking):
    """All three train; only the reference's never ask for the last row and column."""
    method = IJEPA(vit(), masking=masking, min_keep=4, contexts=2, **SMALL)
    crops = method.views(32)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    views = default_collate([crops(image, augment.sample_rng(0, 0, i)) for i in range(4)])
    views = augment.normalize(views, method.backbone.mean, method.backbone.std)
    loss = method.loss(Batch(views, torch.arange(4)))
    loss.backward()
    assert torch.isfinite(loss)
    asked = torch.cat([method.masks(8, (8, 8)).targets.flatten() for _ in range(30)])
    last = asked.bincount(minlength=64).view(8, 8)[-1].any()
    assert bool(last) == (masking != "reference")


def test_ijepa_small_patches_are_not_drowned_by_positions():
    """Tokens of 4-px patches vary about as much as positions do, as with the paper's 14 px."""
    method = IJEPA(vit(), **SMALL)
    tokens = method.backbone.net.patch_embed(torch.randn(4, 3, 32, 32))
    assert 0.3 < tokens.std() < 1


# --------------------------------------------------------------------------------------- data2vec


def test_data2vec_takes_no_goal_from_what_the_student_sees():
    """The teacher sees all, its goals have mean 0 and variance near 1, and no gradient."""
    torch.manual_seed(0)
    method = Data2Vec(vit(), layers=1)
    assert method.last == 1
    images = torch.randn(2, 3, 32, 32)
    goals = method.goals(images)
    assert goals.shape == (2, math.prod(method.grid(32)), method.backbone.dim)
    torch.testing.assert_close(goals.mean(2), torch.zeros(goals.shape[:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        goals.var(2, unbiased=False), torch.ones(goals.shape[:2]), atol=1e-2, rtol=0
    )
    assert not method.train().target.training
    assert Data2Vec(vit()).last == max(1, len(method.backbone.net.blocks) // 2)
    view, hidden = method.views(32)(np.zeros((40, 40, 3), np.uint8), augment.sample_rng(0, 0, 0))
    assert view.shape == (3, 32, 32)
    assert 0 < hidden.sum() <= method.count(method.grid(32))
    batch = Batch((images, torch.from_numpy(hidden)[None].expand(2, -1, -1)), torch.arange(2))
    with torch.no_grad():
        method.head.weight.zero_()
        method.head.bias.zero_()
    beta, mask = method.beta, torch.from_numpy(hidden).flatten()
    far = goals[:, mask].abs()
    each = torch.where(far < beta, far**2 / (2 * beta), far - beta / 2)
    torch.testing.assert_close(method.loss(batch), each.mean())


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        ("test_vit", {"ratio": 0.999}, "ratio=0.999 hides 64 of 64 patches"),
        ("test_vit", {"ratio": 0.001}, "hides 0 of 64 patches: at least 1"),
        ("test_vit", {"layers": 99}, "layers=99: test_vit has"),
        ("test_resnet", {}, "does not begin with patches"),
    ],
)
def test_data2vec_refuses(net, options, message):
    with pytest.raises(UserError, match=message):
        Data2Vec(backbone(net, 32), **options)


def test_aim_tells_patches_from_those_before_them_alone():
    torch.manual_seed(0)
    method = AIM(Image("test_vit", 32), dim=16, depth=1).eval()
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    prefix = torch.tensor([1, 20])
    told = method.tell(images, prefix)
    for place in (3, 30):  # of the patch, of 8 x 8 patches of 4 px
        (slope,) = torch.autograd.grad(told[:, place - 1].sum(), images, retain_graph=True)
        cells = slope.unflatten(3, (8, 4)).unflatten(2, (8, 4)).abs().sum((1, 3, 5)).flatten(1)
        seen = cells > 0
        assert seen[0].nonzero().flatten().tolist() == list(range(place))
        assert seen[1].nonzero().flatten().tolist() == list(range(max(place, 20)))


def test_aim_asks_for_nothing_of_its_prefix_and_uses_all_lengths():
    method = AIM(Image("test_vit", 32), normalize=False, dim=16, depth=1).eval()
    images, prefix = torch.randn(1, 3, 32, 32), torch.tensor([63])
    told = method.tell(images, prefix)[0, -1]
    true = images[0, :, -4:, -4:].permute(1, 2, 0).flatten()
    asked = method.loss(Batch((images, prefix), torch.arange(1)))
    torch.testing.assert_close(asked, (told - true).square().mean())
    pipeline = method.views(32)
    image = np.zeros((32, 32, 3), np.uint8)
    lengths = {int(pipeline(image, augment.sample_rng(0, 0, i))[1]) for i in range(2000)}
    assert lengths == set(range(1, 64))
    whole = AIM(Image("test_vit", 32), prefix=False, dim=16, depth=1).views(32)
    assert {int(whole(image, augment.sample_rng(0, 0, i))[1]) for i in range(20)} == {1}


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("test_resnet", "needs a plain ViT"),
        ("vit_small_patch16_rope_mixed_224", "has rotary positions"),
    ],
)
def test_aim_refuses_what_cannot_look_back_alone(net, message):
    with pytest.raises(UserError, match=message):  # noqa: PT012
        method = AIM(Image(net, 32), dim=16, depth=1)
        method.tell(torch.randn(1, 3, 32, 32), torch.tensor([1]))


def test_noise_of_the_denoising_autoencoder():
    image = np.full((64, 64, 3), 120, np.uint8)
    made = {}
    for noise in ("masking", "salt_and_pepper", "gaussian"):
        method = DenoisingAutoencoder(Image("test_resnet", 64), noise, amount=0.25, width=8)
        clean, corrupted = method.views(64)(image, augment.sample_rng(0, 0, 0))
        assert (clean == 120).all(), "what is to be painted has no noise"
        made[noise] = corrupted
    lost = (made["masking"] == 0).all(0)
    assert abs(lost.mean() - 0.25) < 0.03
    assert (made["masking"][:, ~lost] == 120).all()
    values, counts = np.unique(made["salt_and_pepper"], return_counts=True)
    assert values.tolist() == [0, 120, 255]
    np.testing.assert_allclose(counts / counts.sum(), [0.125, 0.75, 0.125], atol=0.02)
    moved = made["gaussian"] / 255 - 120 / 255
    assert abs(moved.std() - 0.25) < 0.02
