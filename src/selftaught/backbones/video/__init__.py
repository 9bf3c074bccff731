"""Encoders of clips."""
