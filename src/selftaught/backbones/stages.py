"""What a network is made of from its input on: its stem, then its stages or blocks."""

from typing import Any

from timm.models import group_parameters
from torch import nn

from selftaught.backbones.encoder import Encoder
from selftaught.backbones.image.encoder import Image
from selftaught.backbones.wrapped import Wrapped


def stages(encoder: Encoder) -> list[list[str]]:
    """Names of the parameters of the stem and of each stage or block after it, in order.

    Those of timm's networks are as timm groups them. Of any other module the children count, inside
    of modules that are all there is: single layers before the first of several are the stem, with
    parameters outside of all, and each child after them is a stage.
    """
    network: Any = encoder
    of_net = isinstance(encoder, Image | Wrapped)
    net, prefix = (network.net, "net.") if of_net else (network, "")
    if isinstance(encoder, Image) or (isinstance(encoder, Wrapped) and encoder.from_timm):
        groups: Any = group_parameters(net, net.group_matcher(coarse=True))
        return [[prefix + name for name in groups[i]] for i in sorted(groups)]
    return [[prefix + name for name in part] for part in _parts(net, "")]


def _parts(module: nn.Module, prefix: str) -> list[list[str]]:
    own = [prefix + name for name, _ in module.named_parameters(recurse=False)]
    below = [(f"{prefix}{n}.", m) for n, m in module.named_children() if list(m.parameters())]
    if len(below) == 1 and not own:
        return _parts(below[0][1], below[0][0])
    of_several = [bool(list(m.children())) for _, m in below]
    layers = of_several.index(True) if any(of_several) else 0
    parts = [[name + p for p, _ in m.named_parameters()] for name, m in below]
    return [sum(parts[:layers], own), *parts[layers:]]
