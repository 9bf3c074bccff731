"""Curation of images: which of many are worth training on."""
