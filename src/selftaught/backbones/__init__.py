"""Encoders under one contract: a width, pooled features, local features."""

from .image import Features, Image, backbone
from .positions import interpolate, sincos

__all__ = ["Features", "Image", "backbone", "interpolate", "sincos"]
