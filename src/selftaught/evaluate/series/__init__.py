"""Floors of series."""
