"""Public checkpoints: carried over exactly or refused; training on from them is watched."""

import argparse
import logging

import pytest
import timm
import torch

from selftaught import export
from selftaught.backbones import Image, interpolate
from selftaught.backbones.weights.told import weights_command
from selftaught.errors import UserError
from selftaught.methods.masked.mae import MAE
from selftaught.methods.predictive.ijepa import IJEPA


def vit(**options) -> Image:
    return Image("test_vit", 64, **options)


def published(image: Image, class_token: bool = True) -> dict[str, torch.Tensor]:
    """Weights of its network as the papers' code names them, all of them random."""
    state = {k: torch.randn_like(v) for k, v in image.net.state_dict().items()}
    for name in ("weight", "bias"):
        if f"fc_norm.{name}" in state:
            state[f"norm.{name}"] = state.pop(f"fc_norm.{name}")
    if not class_token:
        del state["cls_token"]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    return state


def test_mae(tmp_path):
    state = published(vit())
    more = {"mask_token": torch.zeros(1), "decoder_embed.bias": torch.zeros(1)}
    torch.save({"model": state | more, "args": argparse.Namespace(a=1)}, tmp_path / "mae.pth")
    image = vit(weights=tmp_path / "mae.pth")
    for name, x in image.net.state_dict().items():
        assert torch.equal(x, state[name]), name
    before = {k: v.clone() for k, v in image.net.state_dict().items()}
    method = MAE(image, dim=32, depth=1, heads=2)
    for name, x in method.backbone.net.state_dict().items():
        assert torch.equal(x, before[name]), name
    assert method.backbone.net.norm.eps == 1e-6
    assert method.backbone.net.pos_embed.requires_grad


@pytest.mark.parametrize(
    "name",
    [
        "test_vit2",  # averages patches
        "test_vit3",  # pools by attention, without a class token
        "vit_xsmall_patch16_clip_224",  # whose norms have another epsilon
    ],
)
def test_a_vit_of_timms_computes_from_its_file_what_it_does_in_timm(name, tmp_path):
    net = timm.create_model(name, img_size=64, num_classes=3).eval()
    with torch.no_grad():  # an epsilon shows where variances are small
        net.patch_embed.proj.weight.mul_(0.01)
    torch.save(net.state_dict(), tmp_path / "vit.pth")
    image = Image(name, 64, weights=tmp_path / "vit.pth").eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert image(x).equal(net.forward_head(net.forward_features(x), pre_logits=True))
    again = Image(**image.config)  # as a run's teacher and its export are built
    again.load_state_dict(image.state_dict())
    assert again.eval()(x).equal(image(x))


def test_ijepas_target_encoder_has_no_class_token(tmp_path):
    state = published(vit(), class_token=False)
    networks = {"target_encoder": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}
    networks["encoder"] = {f"module.{k}": torch.zeros_like(v) for k, v in state.items()}
    torch.save(networks, tmp_path / "ijepa.pth")
    image = vit(weights=tmp_path / "ijepa.pth")
    assert image.prefix == 0
    method = IJEPA(image, dim=32, depth=1, heads=2)
    for network in (method.backbone.net, method.target.net):
        for name, x in network.state_dict().items():
            assert torch.equal(x, state[name]), name
    again = export.load(export.save(method.encoder, tmp_path / "encoder"))
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again(x), method.encoder.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("registers", [False, True])
def test_dinov2_brings_its_own_resampling(registers, tmp_path):
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    plain = Image(name, 70)
    state = published(plain)
    theirs = {k.replace("blocks.", "blocks.0."): v for k, v in state.items()}
    table = torch.randn(1, 1 + 8 * 8, 384)
    theirs["pos_embed"] = table
    if registers:
        theirs["register_tokens"] = theirs.pop("reg_token")
    saved = {"teacher": {f"backbone.{k}": v for k, v in theirs.items()} | {"dino_head.a": table}}
    torch.save(saved, tmp_path / "dinov2.pth")
    image = Image(name, 70, weights=tmp_path / "dinov2.pth")
    assert image.resample == ("smooth" if registers else "offset")
    net = image.net
    assert torch.equal(net.blocks[3].ls1.gamma, state["blocks.3.ls1.gamma"])
    grids = (8, 8), (5, 5)
    if registers:
        expected = interpolate(table[:, 1:], *grids, smooth=True)
        torch.testing.assert_close(net.cls_token, state["cls_token"] + table[:, :1])
        assert torch.equal(net.reg_token, state["reg_token"])
    else:
        expected = interpolate(table, *grids, prefix=1, offset=0.1)
    torch.testing.assert_close(net.pos_embed, expected)


DINOV3 = "vit_tiny_patch16_dinov3_qkvb"


def dinov3() -> tuple[Image, dict[str, torch.Tensor]]:
    """A network, and its weights under its authors' names; the biases of keys are masked."""
    plain = Image(DINOV3, 64, pool="class").eval()
    state = {k: torch.randn_like(v) * 0.1 for k, v in plain.net.state_dict().items()}
    plain.net.load_state_dict(state)
    theirs = {"mask_token": torch.zeros(1), "rope_embed.periods": torch.ones(16)}
    for name, x in state.items():
        if name.endswith("q_bias"):
            value = state[name.replace("q_bias", "v_bias")]
            joined = torch.cat([x, torch.full_like(x, 5.0), value])
            theirs[name.replace("q_bias", "qkv.bias")] = joined
            theirs[name.replace("q_bias", "qkv.bias_mask")] = torch.ones_like(joined)
        elif not name.endswith("v_bias"):
            name = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
            theirs[name.replace("reg_token", "storage_tokens")] = x
    return plain, theirs


@pytest.mark.parametrize("published", [True, False])
def test_dinov3(published, tmp_path, capsys):
    """By its authors' names and by timm's; what it gives is the class token."""
    plain, theirs = dinov3()
    path = tmp_path / "dinov3.pth"
    torch.save(theirs if published else plain.net.state_dict(), path)
    image = Image(DINOV3, 64, weights=path).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(image(x), plain(x))
        assert torch.equal(image(x), image.tokens(x)[0][:, 0])
    method = MAE(image, dim=32, depth=1, heads=2)
    for name, weight in method.backbone.net.state_dict().items():
        assert torch.equal(weight, plain.net.state_dict()[name]), name
    assert not capsys.readouterr().out


def test_dinov3_without_biases(tmp_path, capsys):
    """Those of the smaller networks are all zeros, and their backbone has none."""
    name = DINOV3.removesuffix("_qkvb").replace("tiny", "small")
    wide = {k: v for k, v in Image(name, 64).net.state_dict().items() if "gamma" not in k}
    wide["reg_token"] += 1
    own = wide | {f"blocks.{i}.ls{n}.gamma": torch.ones(384) for i in range(12) for n in (1, 2)}
    own["storage_tokens"] = own.pop("reg_token")
    for value in (0.0, 0.5):
        biases = {f"blocks.{i}.attn.qkv.bias": torch.full((3 * 384,), value) for i in range(12)}
        torch.save(own | biases, tmp_path / f"{value}.pth")
    image = Image(name, 64, weights=tmp_path / "0.0.pth")
    assert torch.equal(image.net.reg_token, wide["reg_token"])
    assert not capsys.readouterr().out
    with pytest.raises(UserError, match=f"biases .* use backbone {name}_qkvb"):
        Image(name, 64, weights=tmp_path / "0.5.pth")
    with pytest.raises(UserError, match=r"use a backbone named \.\.\._dinov3"):
        Image("vit_small_patch16_224", 64, weights=tmp_path / "0.0.pth")


def test_mae_at_another_size_is_bicubic_without_antialias(tmp_path):
    torch.save({"model": published(vit())}, tmp_path / "mae.pth")
    table = torch.load(tmp_path / "mae.pth")["model"]["pos_embed"]
    image = Image("test_vit", 96, weights=tmp_path / "mae.pth")
    expected = interpolate(table, (4, 4), (6, 6), prefix=1)
    torch.testing.assert_close(image.net.pos_embed, expected)


def changed(**changes) -> dict[str, torch.Tensor]:
    return published(vit()) | changes


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(pos_embed=torch.zeros(1, 17, 64)), r"all zeros: .* without positions"),
        (changed(pos_embed=torch.ones(1, 15, 64)), "has 15 positions, which are no square"),
        ({"vit.embeddings.cls_token": torch.ones(1)}, r"holds no ViT .* begin with vit"),
        (
            changed(**{"blocks.0.ls1.gamma": torch.ones(64)}),
            r"1 are not known .*\.\.\._dinov2",
        ),
        (
            changed(**{"patch_embed.proj.weight": torch.ones(64, 3, 14, 14)}),
            "of 14 px, those of this test_vit of 16 px; use a backbone named patch14",
        ),
        (
            changed(**{"patch_embed.proj.weight": torch.ones(768, 3, 16, 16)}),
            "width 768, this test_vit 3 and 64; .* vit_base_patch16",
        ),
        ({}, "holds no weights by name"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(state, message, tmp_path):
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=message):
        vit(weights=tmp_path / "x.pth")


PREFIXED = [
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "base_encoder.",
    "backbone.vit.",
    "net.",
    "module.encoder.trunk.",
]


def nested(state: dict, zeros: dict):
    """Several networks in one file, of which `state` is the encoder."""

    def named(prefix: str, weights: dict = state) -> dict:
        return {prefix + k: v for k, v in weights.items()}

    yield {"teacher": named("backbone."), "student": named("module.backbone.", zeros)}
    yield named("teacher.") | named("student.", zeros)
    yield {"state_dict": named("teacher_backbone.vit.") | named("student_backbone.vit.", zeros)}
    yield {"state_dict": named("module.base_encoder.") | named("module.momentum_encoder.", zeros)}
    yield {"state_dict": named("module.encoder_q.") | named("module.encoder_k.", zeros)}
    yield {"model": zeros, "model_ema": state, "epoch": 3}
    yield {"state_dict": zeros, "state_dict_ema": state}
    yield {"target_encoder": named("module."), "encoder": named("module.", zeros)}
    yield {"state_dict": named("backbone.") | named("momentum_backbone.", zeros)}
    yield {"model": {"model": {"state_dict": named("_orig_mod.")}}, "optimizer": {"state": {0: 1}}}
    yield named("model.") | {
        "optimizer": {"state": named("", {k: {"a": v} for k, v in zeros.items()})}
    }


def of_vit() -> tuple[dict, dict]:
    state = published(vit())
    return state, {k: torch.zeros_like(v) for k, v in state.items()}


@pytest.mark.parametrize("prefix", PREFIXED)
def test_prefixes_are_taken_off(prefix, tmp_path):
    state, _ = of_vit()
    torch.save({prefix + k: v for k, v in state.items()}, tmp_path / "x.pth")
    loaded = vit(weights=tmp_path / "x.pth").net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in loaded.items())


@pytest.mark.parametrize("case", range(11))
def test_the_encoder_is_found_among_networks(case, tmp_path):
    state, zeros = of_vit()
    torch.save(list(nested(state, zeros))[case], tmp_path / "x.pth")
    loaded = vit(weights=tmp_path / "x.pth").net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in loaded.items())


def test_several_networks_are_not_guessed_between(tmp_path):
    state, zeros = of_vit()
    torch.save({"a": state, "b": zeros}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"several networks \(a, b\)"):
        vit(weights=tmp_path / "x.pth")
    looks = weights_command(str(tmp_path / "x.pth")).looks
    assert any(
        "there is as much under b.: where the two differ the file is refused" in x for x in looks
    )
    torch.save({"a": state, "b": state}, tmp_path / "x.pth")
    assert vit(weights=tmp_path / "x.pth").trained
    for other in ({"student": zeros, "teacher": state}, {"a": state, "momentum_b": zeros}):
        torch.save(other, tmp_path / "x.pth")
        assert weights_command(str(tmp_path / "x.pth")).looks == ()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_what_torch_has_averaged_is_taken(name, tmp_path):
    """Its copies count what they are the mean of."""
    made = Image(name, 64)
    averaged = torch.optim.swa_utils.AveragedModel(made.net)
    averaged.update_parameters(made.net)
    assert "n_averaged" in averaged.state_dict()
    torch.save({"state_dict_ema": averaged.state_dict()}, tmp_path / "x.pth")
    loaded = Image(name, 64, weights=tmp_path / "x.pth").net.state_dict()
    assert all(torch.equal(x, loaded[k]) for k, x in made.net.state_dict().items())


def test_heads_are_left_out_and_named(tmp_path, caplog):
    state, _ = of_vit()
    heads = {f"{h}.weight": torch.zeros(3, 64) for h in ("fc", "head", "projector.0", "queue")}
    torch.save(state | heads, tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, "selftaught"):
        vit(weights=tmp_path / "x.pth")
    assert "4 weights of fc, head, projector, queue" in caplog.text


@pytest.mark.parametrize("channels", [1, 4, 12])
def test_weights_of_three_channels_are_spread(channels, tmp_path, caplog):
    state, _ = of_vit()
    torch.save(state, tmp_path / "x.pth")
    image = vit(weights=tmp_path / "x.pth", channels=channels)
    own, first = image.net.patch_embed.proj.weight, state["patch_embed.proj.weight"]
    spread = first.sum(1, keepdim=True)
    if channels > 1:  # the colors in turns, of the same sum for an image of one value
        spread = first[:, [c % 3 for c in range(channels)]] * 3 / channels
    torch.testing.assert_close(own, spread)
    assert f"spread over {channels}" in caplog.text
    torch.save(image.net.state_dict(), tmp_path / "y.pth")
    with pytest.raises(UserError, match=f"{channels} channels, this test_vit of 3; use --channels"):
        vit(weights=tmp_path / "y.pth")


def test_weights_that_are_no_numbers(tmp_path):
    state, _ = of_vit()
    state["blocks.0.norm1.weight"][3] = float("nan")
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(
        UserError, match=r"1 of \d+ weights .* no numbers \(blocks.0.norm1.weight\)"
    ):
        vit(weights=tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("name", "prefix", "head"),
    [
        ("resnet18", "", "fc"),
        ("resnet18", "module.encoder_q.", "fc"),
        ("resnet18", "module.backbone.", "projector"),
        ("test_convnext", "model.", "head.fc"),
        ("mobilenetv3_small_050", "_orig_mod.", "classifier"),
        ("swin_tiny_patch4_window7_224", "encoder.", "head"),
    ],
)
def test_other_networks_by_timms_names(name, prefix, head, tmp_path):
    size = 224 if "swin" in name else 64
    theirs = Image(name, size).eval()
    with torch.no_grad():
        for x in theirs.net.parameters():
            x.add_(torch.randn_like(x) * 0.05)
    state = {prefix + k: v for k, v in theirs.net.state_dict().items()}
    state |= {f"{prefix}{head}.weight": torch.zeros(9, 8)}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    ours = Image(name, size, weights=tmp_path / "x.pth").eval()
    x = torch.randn(2, 3, size, size)
    assert torch.equal(ours(x), theirs(x))
    assert ours.trained


def test_torchvisions_resnet(tmp_path):
    import torchvision

    theirs = torchvision.models.resnet18(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    ours = Image("resnet18", 96, weights=tmp_path / "x.pth").eval()
    x = torch.randn(2, 3, 96, 96)
    pooled = torch.nn.Sequential(*list(theirs.children())[:-1], torch.nn.Flatten())
    torch.testing.assert_close(ours(x), pooled(x))


def test_other_networks_that_do_not_fit(tmp_path):
    state = Image("resnet18", 64).net.state_dict()
    torch.save(dict(list(state.items())[: len(state) // 2]), tmp_path / "half.pth")
    with pytest.raises(UserError, match=r"weights are missing .*a part of .*`selftaught weights"):
        Image("resnet18", 64, weights=tmp_path / "half.pth")
    torch.save(state, tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"another shape .* below 64 px the first layers of"):
        Image("resnet18", 32, weights=tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"does not fit resnet34|weights are missing"):
        Image("resnet34", 64, weights=tmp_path / "whole.pth")
    with pytest.raises(UserError, match="holds no ViT"):
        vit(weights=tmp_path / "whole.pth")
    torch.save(published(vit()), tmp_path / "vit.pth")
    with pytest.raises(UserError, match=r"resnet18 of timm|does not fit"):
        Image("resnet18", 64, weights=tmp_path / "vit.pth")


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    torch.save({"model": Evil()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="could run code; save its state dict alone"):
        vit(weights=tmp_path / "x.pth")
    with pytest.raises(UserError, match="cannot be read"):
        vit(weights=tmp_path / "none.pth")
    assert "ran" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"could run code.*names \w+\.print"):
        Image("test_resnet", 64, weights=tmp_path / "x.pth")
