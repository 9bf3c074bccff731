"""Encoders under one contract: a width, pooled features, local features."""

from .depth import without_drop_path
from .image import Features, Image, backbone

__all__ = ["Features", "Image", "backbone", "without_drop_path"]
