"""Sounds: recordings in files of any format, at any rate."""
