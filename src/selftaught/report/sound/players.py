"""A few samples to be heard, where something can be heard of them."""

import base64
from html import escape

import numpy as np

from selftaught import kinds
from selftaught.augment.sound import Stretch
from selftaught.data.sound.files import as_wav, wave
from selftaught.report.html import Section
from selftaught.report.seen import Seen

SHOWN = 8
SECONDS, RATE = 4.0, 8000
"""Of a sample that is played, and values a second: all of them take half a megabyte of the page."""


def sections(seen: Seen) -> list[Section]:
    """Players beside the pictures of some samples drawn at random; none where there is no sound."""
    drawn = np.random.default_rng(0).permutation(len(seen))[:SHOWN].tolist()
    players = [(i, _player(seen, i)) for i in drawn]
    body = "".join(
        f'<div class="sample">{seen.figure(i, caption=seen.label(i))}{player}</div>'
        for i, player in players
        if player
    )
    if not body:
        return []
    note = (
        f"Of each of these, drawn at random, the loudest {SECONDS:g} seconds at most, at {RATE:,} "
        "values a second and of one loudness: smaller than what the encoder hears."
    )
    return [Section("Listen", f'<div class="samples">{body}</div>', note)]


def _player(seen: Seen, i: int) -> str:
    found = kinds.of(seen.samples).heard(seen.samples.source.load(i))
    if found is None:
        return ""
    name = escape(seen.name(i))
    data = base64.b64encode(playable(*found)).decode()
    return f'<audio controls title="{name}" src="data:audio/wav;base64,{data}"></audio>'


def playable(mono: np.ndarray, rate: int) -> bytes:
    """The loudest part of a wave [n] as a small WAV file."""
    part = Stretch(min(len(mono), round(SECONDS * rate)), loudest=True)(mono[None])[0]
    small = wave(as_wav(part, rate, floats=True), min(rate, RATE))
    return as_wav(small / max(1e-6, float(np.abs(small).max())), min(rate, RATE))
