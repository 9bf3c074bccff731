"""ViTs of the golden files' sizes, which timm has no names for."""

import pytest
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from selftaught.backbones import Image
from selftaught.export import timm as export


def vit(
    weights: dict[str, Tensor], size: int, patch: int, heads: int, mlp_ratio: float, channels: int
) -> Image:
    """A float64 `Image` of `weights`, which have timm's names; no class token where they have none.

    Width and depth come from the weights.
    """
    image = Image("test_vit", 32, channels).double()
    image.size = size
    depth = len({n.split(".")[1] for n in weights if n.startswith("blocks.")})
    classy = "cls_token" in weights
    image.net = VisionTransformer(
        img_size=size,
        patch_size=patch,
        in_chans=channels,
        num_classes=0,
        global_pool="token" if classy else "avg",
        embed_dim=weights["patch_embed.proj.bias"].shape[0],
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        class_token=classy,
        fc_norm=False,
        dynamic_img_size=True,
    ).double()
    image.net.load_state_dict(weights)
    image.dim = image.local_dim = image.net.embed_dim
    return image


def beit(
    weights: dict[str, Tensor], size: int, patch: int, heads: int, mlp_ratio: float, channels: int
) -> Image:
    """A float64 `Image` of a BEiT whose blocks share a position bias; see `vit`."""
    image = Image("test_vit", 32, channels).double()
    image.name, image.size = "beit", size
    depth = len({n.split(".")[1] for n in weights if n.startswith("blocks.")})
    image.net = Beit(
        img_size=size,
        patch_size=patch,
        in_chans=channels,
        num_classes=0,
        embed_dim=weights["patch_embed.proj.bias"].shape[0],
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        init_values=0.1,
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
    ).double()
    image.dim = image.local_dim = image.net.embed_dim
    image.arrange("mean", positions="shared")
    image.double().net.load_state_dict(weights)
    return image


def without_class_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timm that has no option for them: what lost its class token it cannot build."""
    builds = export._builds
    monkeypatch.setattr(
        export, "_builds", lambda *given: given[-1] != "class_token" and builds(*given)
    )
