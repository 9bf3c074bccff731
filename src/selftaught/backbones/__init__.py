"""Encoders under one contract: a width, pooled features, local features."""

from .clip import ClipEncoder
from .encoder import Encoder, Features, is_encoder, outputs
from .image import Image, backbone
from .layers import layers
from .positions import interpolate, rotary, sincos, sincos_clip
from .predictor import Predictor
from .wrapped import Wrapped, build, encoder_of, untrained

__all__ = [
    "ClipEncoder",
    "Encoder",
    "Features",
    "Image",
    "Predictor",
    "Wrapped",
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
