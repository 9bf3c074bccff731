"""Sections about sounds."""
