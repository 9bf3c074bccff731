"""Backbones: any timm model, any size, any channels, with features that mean what they say."""

import logging

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from selftaught.backbones import Image, backbone, interpolate, sincos
from selftaught.backbones.image.create import create
from selftaught.errors import UserError
from selftaught.parts import synchronize
from tests.pool import Pool

CONVOLUTIONAL = (
    "resnet18",
    "convnext_atto",
    "efficientnet_b0",
    "regnetx_002",
    "mobilenetv3_small_050",
    "test_resnet",
    "test_efficientnet",
    "test_nfnet",
)
TRANSFORMERS = (
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "swin_tiny_patch4_window7_224",
    "vit_little_patch16_reg4_gap_256",  # registers, no class token
    "vit_tiny_r_s16_p8_224",  # convolutions under its tokens
    "eva02_tiny_patch14_224",
    "test_vit",
    "test_vit2",  # no class token, norm after pooling
    "test_vit3",  # attention pooling
    "test_vit4",  # a register, no class token, RMS norms
    "test_maxvit",
)
ROTARY = (
    "vit_tiny_patch16_dinov3_qkvb",  # no table, a class token and registers
    "vit_small_patch16_rope_mixed_224",  # turns learned by each head of each block
    "vit_small_patch16_rope_ape_224",  # a table beside them
)
PLAIN = ("test_vit", "test_vit2", "test_vit3", "test_vit4", *ROTARY)
CLASSY = ("test_vit", *ROTARY)


@pytest.mark.parametrize("size", [32, 70])
@pytest.mark.parametrize("name", CONVOLUTIONAL + TRANSFORMERS)
def test_features_of_any_model(name, size):
    if name in TRANSFORMERS:
        size = {32: 32, 70: 64 if "14" not in name else 70}[size]
    elif name == "convnext_atto" and size == 70:
        size = 72  # a multiple of its patches
    net = backbone(name, size, channels=2).eval()
    x = torch.randn(2, 2, size, size)
    with torch.no_grad():
        pooled, local, grid = net.features(x)
        torch.testing.assert_close(net(x), pooled)
    assert pooled.shape == (2, net.dim)
    assert local.shape == (2, grid[0] * grid[1], net.local_dim)
    if size == 32:
        assert min(grid) >= 4
    assert torch.isfinite(pooled).all()
    assert pooled.std(0).min() >= 0


def seen(net: Image, size: int) -> tuple[bool, bool]:
    """Whether the last row and the last column of an image reach the features."""
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    row, column = x.clone(), x.clone()
    row[:, :, -1] += 3
    column[..., -1] += 3
    with torch.no_grad():
        for p in net.parameters():  # blocks that begin as their shortcuts
            if not bool(p.any()):
                p.fill_(1)
        start, *others = net.eval()(torch.cat([x, row, column])).double()
    return tuple(not torch.equal(o, start) for o in others)


@pytest.mark.parametrize(
    ("name", "size", "sizes"),
    [
        ("beit_base_patch16_224", 100, "96 or 112"),
        ("mixer_s32_224", 100, "96 or 128"),
        ("resmlp_12_224", 100, "96 or 112"),
        ("gmlp_ti16_224", 71, "64 or 80"),
        ("cait_xxs24_224", 100, "96 or 112"),
        ("pit_ti_224", 100, "96 or 104"),
        ("convmixer_768_32", 100, "98 or 105"),
        ("visformer_tiny", 100, "98"),
        ("tnt_s_patch16_224", 100, "96"),
        ("convit_tiny", 79, "64 or 80"),
        ("sequencer2d_s", 100, "98 or 105"),
        ("convnext_atto", 70, "68 or 72"),
        ("test_convnext", 102, "100 or 104"),
        ("inception_v3", 96, "93"),
    ],
)
def test_sizes_that_a_network_would_cut_are_refused(name, size, sizes):
    with pytest.raises(UserError, match=f"never reach the features of {name}.*use size {sizes}"):
        backbone(name, size)
    for word in sizes.split(" or "):
        assert seen(backbone(name, int(word)), int(word)) == (True, True)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 97),
        ("resnet18d", 101),
        ("regnetx_002", 100),
        ("vgg11", 70),
        ("densenet121", 97),
        ("mobilenetv3_small_050", 101),
        ("tf_efficientnet_b0", 99),
        ("swin_tiny_patch4_window7_224", 100),
        ("swinv2_cr_tiny_224", 100),
        ("convnext_atto", 100),
        ("pvt_v2_b0", 99),
        ("davit_tiny", 99),
        ("test_resnet", 33),
    ],
)
def test_sizes_that_are_padded_are_seen_whole(name, size):
    assert seen(backbone(name, size), size) == (True, True)


def test_looking_leaves_the_weights_and_the_generator_alone():
    torch.manual_seed(0)
    looked = create("resnet18", 101, 3, False, 0.0)
    after = torch.rand(1)
    torch.manual_seed(0)
    plain = create("resnet18", 96, 3, False, 0.0)  # needs no look
    assert torch.rand(1) == after
    for (k, v), w in zip(looked.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(v, w), k
    assert looked.training
    assert all(p.grad is None and p.requires_grad for p in looked.parameters())


def test_parts_of_images_are_whole_in_patches_of_any_network():
    assert backbone("test_convnext", 64).fit(41) == 40
    assert backbone("swin_tiny_patch4_window7_224", 64).fit(41) % 2 == 0
    assert backbone("resnet18", 64).fit(41) == 41


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "test_vit4", "test_vit2", "eva"])
def test_images_that_are_not_square(name):
    name, unit = ("eva02_tiny_patch14_224", 28) if name == "eva" else (name, 32)
    net = backbone(name, 64 if unit == 32 else 56).eval()
    x = torch.randn(2, 3, 2 * unit, 3 * unit)
    with torch.no_grad():
        tall, wide = net.features(x.mT), net.features(x)
    assert tall.grid == wide.grid[::-1]
    assert wide.grid[0] * 3 == wide.grid[1] * 2
    for found in (tall, wide):
        assert found.pooled.shape == (2, net.dim)
        assert found.local.shape[1] == found.grid[0] * found.grid[1]


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_any_number_of_channels(name, channels):
    net = backbone(name, 32, channels)
    assert net(torch.randn(2, channels, 32, 32)).shape == (2, net.dim)
    assert len(net.mean) == len(net.std) == channels
    if channels == 3:
        assert net.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("size", [4, 8, 20, 28, 40, 48, 63])
@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_convnext"])
def test_small_images_keep_a_map(name, size):
    grid = backbone(name, size).eval().features(torch.randn(2, 3, size, size)).grid
    assert min(grid) >= 4


def test_resnet_stem_of_small_images_is_the_papers():
    net = backbone("resnet18", 32).net
    assert (net.conv1.kernel_size, net.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(net.maxpool, nn.Identity)
    assert net.layer2[0].conv1.stride == net.layer2[0].downsample[0].stride == (2, 2)


def test_stem_of_large_images_is_untouched():
    ours, theirs = backbone("resnet18", 64).net, timm.create_model("resnet18", num_classes=0)
    assert str(ours) == str(theirs)


def without_layer_scale(net: Image) -> Image:
    """`net`, whose fresh blocks change their tokens by more than a hundred-thousandth."""
    for name, parameter in net.named_parameters():
        if "gamma" in name:
            nn.init.ones_(parameter)
    return net


@pytest.mark.parametrize(
    "name", [*PLAIN, "vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224"]
)
def test_tokens_are_timms(name):
    """At the size that a ViT was made for, what we assemble is what timm computes."""
    net = without_layer_scale(backbone(name, 32)).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net.tokens(x)[0], net.net.forward_features(x))
        torch.testing.assert_close(net(x), net.net(x))


@pytest.mark.parametrize("name", PLAIN)
def test_hidden_patches_are_never_seen(name):
    net = without_layer_scale(backbone(name, 64)).eval()
    keep = torch.tensor([[3, 0, 9], [15, 4, 7]])
    x = torch.randn(2, 3, 64, 64)
    hidden = torch.ones(2, 16, dtype=torch.bool).scatter(1, keep, False)
    pixels = hidden.view(2, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    noise = torch.where(pixels, torch.randn_like(x), x)
    with torch.no_grad():
        seen = net.features(x, keep)
        torch.testing.assert_close(seen.local, net.features(noise, keep).local)
        token = torch.randn(net.dim)
        replaced = [net.features(y, replace=(hidden, token)).local for y in (x, noise)]
        torch.testing.assert_close(*replaced)
        everything = torch.arange(16).expand(2, -1)
        torch.testing.assert_close(net.features(x, everything).local, net.features(x).local)
        flipped = net.features(x, everything.flip(1)).local
        torch.testing.assert_close(flipped.flip(1), net.features(x).local)
    assert seen.local.shape == (2, 3, net.dim)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("pool", ["class", "mean"])
@pytest.mark.parametrize("class_token", [True, False])
def test_arranged_tokens(name, pool, class_token):
    """Every token is normalized, each weight is used, and the config rebuilds the network."""
    net = Image(name, 64, pool=pool, class_token=class_token, positions="sincos").eval()
    x = torch.randn(2, 3, 64, 64)
    pooled, local, _ = without_layer_scale(net).features(x)
    if name != "test_vit4":  # whose norms do not center
        torch.testing.assert_close(local.mean(2), torch.zeros(2, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(local.square().mean(2), torch.ones(2, 16), atol=1e-3, rtol=0)
    has_class = class_token and name in CLASSY
    if pool == "mean" or not has_class:
        torch.testing.assert_close(pooled, local.mean(1))
    else:
        torch.testing.assert_close(pooled, net.tokens(x)[0][:, 0])
    (pooled.sum() + local.square().sum()).backward()
    assert not [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]
    again = Image(**net.config).eval()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(x), net(x))


def test_norms_of_vits_have_the_papers_epsilon():
    for name in ("vit_tiny_patch16_224", "deit_tiny_patch16_224"):
        norms = [m for m in backbone(name, 32).modules() if isinstance(m, nn.LayerNorm)]
        assert {m.eps for m in norms} == {1e-6}


def test_sincos_tells_the_column_first():
    table = sincos((2, 3), 8)[0]
    torch.testing.assert_close(table[0, :4], table[3, :4])  # same column
    torch.testing.assert_close(table[3, 4:], table[5, 4:])  # same row
    assert not torch.equal(table[0, :4], table[1, :4])
    with pytest.raises(UserError, match="multiple of 4, got 6"):
        sincos((2, 2), 6)


@pytest.mark.parametrize(("offset", "smooth"), [(0.0, False), (0.1, False), (0.0, True)])
def test_interpolated_positions(offset, smooth):
    table = torch.randn(1, 2 + 12, 8, dtype=torch.float64)
    same = interpolate(table, (3, 4), (3, 4), 2, offset, smooth)
    assert same is table
    for new in ((6, 8), (2, 3), (5, 2)):
        found = interpolate(table, (3, 4), new, 2, offset, smooth)
        assert found.shape == (1, 2 + new[0] * new[1], 8)
        torch.testing.assert_close(found[:, :2], table[:, :2])
    flat = interpolate(torch.ones_like(table), (3, 4), (7, 5), 2, offset, smooth)
    torch.testing.assert_close(flat, torch.ones_like(flat))


@pytest.mark.parametrize("how", ["plain", "offset", "smooth"])
def test_positions_of_larger_images_are_carried_over_as_asked(how):
    net = Image("test_vit", 64, resample=how).eval()
    nn.init.normal_(net.net.pos_embed)
    x = torch.randn(1, 3, 96, 96)
    table = net.net.pos_embed.detach()
    found = net(x)
    options = {"offset": 0.1 if how == "offset" else 0.0, "smooth": how == "smooth"}
    large = Image("test_vit", 96).eval()
    large.load_state_dict(
        net.state_dict() | {"net.pos_embed": interpolate(table, (4, 4), (6, 6), 1, **options)}
    )
    torch.testing.assert_close(large(x), found)
    assert Image(**net.config).resample == how
    others = [Image(**net.config | {"resample": h}).eval() for h in ("plain", "offset", "smooth")]
    for other in others:
        other.load_state_dict(net.state_dict())
    assert sum(torch.allclose(other(x), found) for other in others) == 1


def test_dino_and_its_heirs_resample_as_their_code_does():
    from selftaught.methods.distillation.dino import DINO

    small = {"prototypes": 8, "hidden": 8, "bottleneck": 4}
    assert DINO(Image("test_vit", 64), **small).encoder.resample == "offset"
    assert DINO(Image("test_vit", 64, resample="smooth"), **small).encoder.resample == "smooth"


# Pretrained weights; timm's own door to the network stands in for it.


@pytest.fixture
def hub(monkeypatch):
    """timm's hub, holding weights of ones for whatever is asked for."""

    def load(net: nn.Module, **_):
        full = timm.create_model(net.pretrained_cfg["architecture"])
        return {name: torch.ones_like(x) for name, x in full.state_dict().items()}

    def weights(model, pretrained_cfg, num_classes, in_chans, filter_fn, strict, **_):
        state = load(model)
        if filter_fn is not None:
            state = filter_fn(state, model)
        from timm.models import adapt_input_conv

        first = pretrained_cfg["first_conv"] + ".weight"
        state[first] = adapt_input_conv(in_chans, state[first])
        model.load_state_dict(
            {n: x for n, x in state.items() if not n.startswith(pretrained_cfg["classifier"])}
        )

    monkeypatch.setattr("timm.models._builder.load_pretrained", weights)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_pretrained_weights_fit_any_channels(hub, channels, caplog):
    net = backbone("test_resnet", 64, channels, pretrained=True)
    assert net.net.conv1[0].weight.sum() != 0
    assert torch.all(net.net.layer1[0].conv1.weight == 1)
    assert not caplog.records
    given = net.net.pretrained_cfg["mean"]
    expected = given if channels == 3 else (sum(given) / 3,) * channels
    assert net.mean == pytest.approx(expected)


def test_pretrained_weights_under_an_adapted_stem_are_named(hub, caplog):
    with caplog.at_level(logging.WARNING, "selftaught"):
        net = backbone("resnet18", 32, pretrained=True).net
    assert "new random weights in conv1, pretrained ones everywhere else" in caplog.text
    assert not torch.all(net.conv1.weight == 1)
    assert torch.all(net.layer1[0].conv1.weight == 1)


def test_pretrained_vit_keeps_all_weights_at_small_patches(hub, caplog):
    net = backbone("test_vit", 32, pretrained=True)
    assert net.patch == 4
    assert torch.all(net.net.blocks[0].attn.qkv.weight == 1)
    assert not caplog.records


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_the_size_of_patches_can_be_asked_for(name):
    net = backbone(name, 64, patch_size=2 if name.startswith("swin") else 8).eval()
    assert net.features(torch.zeros(1, 3, 64, 64)).local.shape[1] == (16 if net.stem == 2 else 64)
    assert Image(**net.config).stem == net.stem
    assert net.partner("resnet18").config["patch_size"] is None
    assert net.partner().stem == net.stem


def test_pretrained_weights_are_carried_to_other_patches(hub):
    net = backbone("test_vit", 64, pretrained=True, patch_size=8)
    assert net.patch == 8
    assert torch.all(net.net.blocks[0].attn.qkv.weight == 1)


def test_pretrained_without_a_network(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    with pytest.raises(
        UserError,
        match=r"could not be had \(OSError: Network is .* pretrained to false",
    ):
        backbone("resnet18", 32, pretrained=True)


# Errors, in words.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet81",), r"no backbone is called 'resnet81': did you mean resnet"),
        (("ResNet18",), r"did you mean resnet18\?"),
        (("no such thing",), "no backbone is called"),
        (("resnet18", 0), "size must be at least 1, got 0"),
        (("resnet18", 64, 0), "channels must be at least 1, got 0"),
        (
            ("vit_tiny_patch16_224", 100),
            "which 100 px is no multiple of; use size 96",
        ),
        (("vit_tiny_patch16_224", 31), r"use size 30"),
        (("vit_small_patch32_384", 72), "use size 64"),
        (("gcvit_xxtiny", 32), r"cannot take images of 32 px .* its own size, 224 px"),
        (("resnet18", 64, 3, False, 1.0), "drop_path must be at least 0 and below 1, got 1"),
        (
            ("resnet18", 64, 3, False, 0.0, 8),
            "does not begin with patches.* leave out patch_size",
        ),
        (("test_vit", 64, 3, False, 0.0, 0), "at least 1, got 0"),
        (("test_vit", 64, 3, False, 0.0, 24), "which 64 px is no multiple of; use size 72"),
        (("vgg11", 64, 3, False, 0.1), "has no stochastic depth; set drop_path to 0"),
    ],
)
def test_arguments_that_cannot_work(arguments, message):
    with pytest.raises(UserError, match=message):
        backbone(*arguments)


def test_images_smaller_than_a_patch():
    net = backbone("vit_tiny_patch16_224", 64)
    with pytest.raises(UserError, match="images of 8 px are smaller than the 16-px patches"):
        net(torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("name", ["test_resnet", "deit_tiny_distilled_patch16_224"])
def test_networks_that_cannot_skip_patches(name):
    net = backbone(name, 64)
    x, keep = torch.randn(2, 3, 64, 64), torch.zeros(2, 1, dtype=torch.long)
    kind = type(net.net).__name__
    for use in (
        lambda: net.features(x, keep),
        lambda: net.tokens(x),
        lambda: net.patch,
        lambda: net.arrange("mean"),
    ):
        with pytest.raises(UserError, match=f"{kind}, which cannot skip .* vit_small_patch16_224"):
            use()


# Batch norms that timm fuses with activations.


def _norm_in_two(
    rank: int, x: Tensor, state: dict[str, Tensor]
) -> tuple[Tensor, Tensor, list[str]]:
    net = _fused()
    net.load_state_dict(state)
    net = synchronize(net).train()
    part = x.chunk(2)[rank].clone().requires_grad_()
    out = net(part)
    out.square().sum().backward()
    return out.detach(), part.grad, list(net.state_dict())


def _fused() -> nn.Sequential:
    return nn.Sequential(
        BatchNormAct2d(3, act_layer=nn.PReLU), nn.Conv2d(3, 4, 1), BatchNormAct2d(4)
    ).double()


@pytest.mark.xdist_group("pool")
def test_fused_norms_are_synchronized(pool: Pool):
    """Two processes with half the batch each are one process with all of it."""
    net, x = _fused().train(), torch.randn(6, 3, 4, 4, dtype=torch.float64)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    whole = x.clone().requires_grad_()
    out = net(whole)
    out.square().sum().backward()
    parts = pool.run(_norm_in_two, x, state)
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), out.detach())
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), whole.grad)
    assert parts[0][2] == list(state)


def test_synchronized_networks_keep_their_weights_and_output():
    for name in ("test_efficientnet", "regnetx_002"):
        net = create(name, 32, 3, False, 0.0).eval()
        x, keys = torch.randn(2, 3, 32, 32), list(net.state_dict())
        with torch.no_grad():
            before = net(x)
            torch.testing.assert_close(synchronize(net)(x), before)
        assert list(net.state_dict()) == keys


@pytest.mark.parametrize("name", ["test_vit", "vit_little_patch16_reg1_gap_256", *ROTARY[:2]])
@pytest.mark.parametrize("drop_path", [0.0, 0.1])
def test_images_of_two_sizes_go_together_as_they_go_apart(name, drop_path):
    """Each image keeps stochastic depth of its own, in training alone."""
    net = Image(name, 64, drop_path=drop_path).eval()
    large, small = torch.randn(2, 3, 64, 64), torch.randn(5, 3, 32, 32)
    replace = torch.rand(2, 16) < 0.5, torch.randn(net.dim)
    found = net.features_together([large, small], replace)
    for ours, theirs in zip(found, (net.features(large, replace=replace), net.features(small))):
        assert ours.grid == theirs.grid
        torch.testing.assert_close(ours.pooled, theirs.pooled)
        torch.testing.assert_close(ours.local, theirs.local)
    one = torch.randn(1, 3, 32, 32).expand(8, -1, -1, -1)
    pooled = net.train().features_together([large, one])[1].pooled
    assert (len(pooled.detach().round(decimals=4).unique(dim=0)) > 1) == (drop_path > 0)
