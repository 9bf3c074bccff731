"""Scores that images alone have."""
