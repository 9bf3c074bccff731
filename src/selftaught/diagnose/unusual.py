"""Settings of a method that are far from their defaults, by what they are for."""

from selftaught.signature import departures

FAR = 4.0
"""Times its default from which a setting may explain what went wrong."""


def unusual(method: object) -> dict[str, str]:
    """Fields of `Exam`: a temperature far below or above its default, a weight far from it."""
    found: dict[str, str] = {}
    for role, name, value, default in departures(method):
        if default > 0 and not default / FAR < value < default * FAR:
            words = f"{name} is {value:g}, by default {default:g}"
            if role.name == "temperature":
                found.setdefault("sharp" if value < default else "soft", words)
            elif role.name == "weight":
                found.setdefault("weight", words)
    return found
