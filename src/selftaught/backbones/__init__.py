"""Encoders under one contract: a width, pooled features, local features."""

from .clip import Clip
from .encoder import Encoder, Features, is_encoder, outputs
from .foreign import Foreign, build, encoder_of, untrained
from .image import Image, backbone
from .layers import layers
from .positions import interpolate, rotary, sincos, sincos_clip
from .predictor import Predictor

__all__ = [
    "Clip",
    "Encoder",
    "Features",
    "Foreign",
    "Image",
    "Predictor",
    "backbone",
    "build",
    "encoder_of",
    "interpolate",
    "is_encoder",
    "layers",
    "outputs",
    "rotary",
    "sincos",
    "sincos_clip",
    "untrained",
]
