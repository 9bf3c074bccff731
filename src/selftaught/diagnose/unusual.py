"""Settings of a method that are far from their defaults, by what they are for."""

from selftaught.signature import valued

FAR = 4.0
"""Times its default from which a setting may explain what went wrong."""


def unusual(method: object) -> dict[str, str]:
    """Fields of `Exam`: a temperature far below or above its default, a weight far from it."""
    found: dict[str, str] = {}
    for name, role, value, default in valued(method):
        if role not in ("temperature", "weight") or not default:
            continue
        if not default / FAR < value < default * FAR:
            field = role if role == "weight" else "sharp" if value < default else "soft"
            found.setdefault(field, f"{name} is {value:g}, by default {default:g}")
    return found
