"""Encoders under one contract: a width, pooled features, local features."""

from .clip import Clip
from .foreign import Foreign, untrained
from .image import Features, Image, backbone
from .layers import layers
from .positions import interpolate, rotary, sincos, sincos_clip
from .predictor import Predictor

__all__ = [
    "Clip",
    "Features",
    "Foreign",
    "Image",
    "Predictor",
    "backbone",
    "interpolate",
    "layers",
    "rotary",
    "sincos",
    "sincos_clip",
    "untrained",
]
