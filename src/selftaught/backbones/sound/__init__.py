"""Encoders of sounds, as waves."""
