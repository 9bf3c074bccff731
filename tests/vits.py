"""ViTs of the golden files' sizes, which timm has no names for."""

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from selftaught.backbones import Image


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
