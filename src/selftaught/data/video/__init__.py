"""Clips, their frames, and what moves in them."""
