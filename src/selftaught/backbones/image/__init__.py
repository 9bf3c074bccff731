"""Encoders of images: timm's networks, and what they are shown."""
