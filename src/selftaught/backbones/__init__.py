"""Encoders under one contract: a width, pooled features, local features."""

from .foreign import Foreign, untrained
from .image import Features, Image, backbone
from .layers import layers
from .positions import interpolate, sincos

__all__ = [
    "Features",
    "Foreign",
    "Image",
    "backbone",
    "interpolate",
    "layers",
    "sincos",
    "untrained",
]
