"""Features of several of a ViT's last layers, which classifiers may choose from."""

from torch import Tensor, nn

from selftaught.backbones.encoder import Encoder
from selftaught.backbones.image.create import plain_vit
from selftaught.backbones.image.encoder import Image

LAST = 4
"""Layers that are looked at, as in DINO's and DINOv2's evaluations."""


def layers(encoder: Encoder, x: Tensor) -> dict[str, Tensor]:
    """Pooled features, [B, D] each, in the order in which they are put together.

    "patches": mean of the patches after the last layer. "last": what the encoder gives. "layer -2"
    to "layer -4": the class tokens (means of patches, where there are none) after earlier layers,
    through the final norm. Only "last" for networks that are no plain ViTs.
    """
    net = plain_vit(encoder.net) if isinstance(encoder, Image) else None
    if net is None:
        return {"last": encoder(x)}
    seen: list[Tensor] = []

    def note(_: nn.Module, __: tuple[Tensor, ...], tokens: Tensor) -> None:
        seen.append(tokens)

    hooks = [block.register_forward_hook(note) for block in list(net.blocks)[-LAST:-1]]
    try:
        found = encoder.features(x)
    finally:
        for hook in hooks:
            hook.remove()
    prefix = net.num_prefix_tokens
    earlier = {}
    for n, tokens in enumerate(reversed(seen), 2):
        normed = net.norm(tokens)
        earlier[f"layer -{n}"] = (
            normed[:, 0] if net.cls_token is not None else normed[:, prefix:].mean(1)
        )
    return {"patches": found.local.mean(1), "last": found.pooled, **earlier}
