"""Features of every depth of a network: of each block of a transformer, each stage of others."""

from typing import Any

from torch import Tensor, nn

from selftaught.backbones.encoder import Encoder
from selftaught.backbones.image.create import channels_first, plain_vit
from selftaught.backbones.image.encoder import Image
from selftaught.errors import UserError


def depths(encoder: Encoder, x: Tensor) -> dict[str, Tensor]:
    """Pooled features [B, D] after each block or stage, by timm's names of them, then "last".

    Of a plain ViT the class tokens, or means of patches where there are none, through the final
    norm; of others means over places. "last" is what the encoder gives.

    Raises:
        UserError: the network is none of timm's, whose parts have names.
    """
    if not isinstance(encoder, Image):
        raise UserError(
            f"{encoder.name} is no network of timm's, of which alone it is known what its stages "
            "are: leave layers out of the probes"
        )
    net: Any = encoder.net
    named: list[dict[str, Any]] = list(net.feature_info)
    seen: dict[str, Tensor] = {}
    hooks = [
        net.get_submodule(each["module"]).register_forward_hook(_note(seen, each["module"]))
        for each in named
    ]
    try:
        last = encoder(x)
    finally:
        for hook in hooks:
            hook.remove()
    widths = {each["module"]: each["num_chs"] for each in named}
    found = {name: _pooled(encoder, maps, widths[name]) for name, maps in seen.items()}
    return {**found, "last": last}


def _note(seen: dict[str, Tensor], name: str) -> Any:
    def note(_: nn.Module, __: Any, given: Tensor) -> None:
        seen[name] = given

    return note


def _pooled(encoder: Image, maps: Tensor, width: int) -> Tensor:
    if maps.dim() == 4:
        return channels_first(maps, width).mean((2, 3))
    net = plain_vit(encoder.net)
    if net is None:
        return maps.mean(1)
    normed = net.norm(maps)
    return normed[:, 0] if net.cls_token is not None else normed[:, net.num_prefix_tokens :].mean(1)
