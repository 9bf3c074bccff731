"""Encoders under one contract: a width, pooled features, local features."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftaught.backbones.encoder import Encoder as Encoder
    from selftaught.backbones.encoder import Features as Features
    from selftaught.backbones.encoder import is_encoder as is_encoder
    from selftaught.backbones.encoder import outputs as outputs
    from selftaught.backbones.image.depths import depths as depths
    from selftaught.backbones.image.encoder import Image as Image
    from selftaught.backbones.image.encoder import backbone as backbone
    from selftaught.backbones.image.layers import layers as layers
    from selftaught.backbones.positions import interpolate as interpolate
    from selftaught.backbones.positions import rotary as rotary
    from selftaught.backbones.positions import sincos as sincos
    from selftaught.backbones.positions import sincos_clip as sincos_clip
    from selftaught.backbones.predictor import Predictor as Predictor
    from selftaught.backbones.video.encoder import ClipEncoder as ClipEncoder
    from selftaught.backbones.wrapped import Wrapped as Wrapped
    from selftaught.backbones.wrapped import build as build
    from selftaught.backbones.wrapped import encoder_of as encoder_of
    from selftaught.backbones.wrapped import untrained as untrained

_MODULE = {
    **dict.fromkeys(("Encoder", "Features", "is_encoder", "outputs"), "encoder"),
    **dict.fromkeys(("Image", "backbone"), "image.encoder"),
    "layers": "image.layers",
    "depths": "image.depths",
    **dict.fromkeys(("interpolate", "rotary", "sincos", "sincos_clip"), "positions"),
    "Predictor": "predictor",
    "ClipEncoder": "video.encoder",
    **dict.fromkeys(("Wrapped", "build", "encoder_of", "untrained"), "wrapped"),
}
"""Imported when asked for: what a file of weights is, is told without torch."""

__all__ = sorted(_MODULE)


_FORMER = {"Foreign": "Wrapped"}
"""What was called so before."""


def __getattr__(name: str) -> Any:
    name = _FORMER.get(name, name)
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
