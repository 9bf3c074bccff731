"""Encoders of points."""
