"""Which of several networks in a file is the encoder, by what comes before its names."""

import re


def rank(prefix: str) -> int:
    """The least for the encoder: what is online, an EMA teacher, the only one, a student."""
    if "online" in prefix:
        return -1
    if re.search(r"teacher|target|ema(?![a-z])", prefix):
        return 0
    return 2 if re.search(r"student|momentum|encoder_k", prefix) else 1
