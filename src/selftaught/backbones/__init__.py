"""Encoders under one contract: a width, pooled features, local features."""

from selftaught.backbones.encoder import Encoder, Features, is_encoder, outputs
from selftaught.backbones.image.encoder import Image, backbone
from selftaught.backbones.image.layers import layers
from selftaught.backbones.positions import interpolate, rotary, sincos, sincos_clip
from selftaught.backbones.predictor import Predictor
from selftaught.backbones.video.encoder import ClipEncoder
from selftaught.backbones.wrapped import Wrapped, build, encoder_of, untrained

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
