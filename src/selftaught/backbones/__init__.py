"""Encoders under one contract: a width, pooled features, local features."""

from .image import Features, Image, backbone

__all__ = ["Features", "Image", "backbone"]
