"""Scores of points, beside those of whole scans."""
