"""A few samples that move, where anything moves in them."""

import numpy as np

from selftaught import kinds
from selftaught.data import BadSample
from selftaught.report.html import Section, figure
from selftaught.report.image.pictures import THUMB, animated, url
from selftaught.report.seen import Seen

SHOWN = 8


def sections(seen: Seen) -> list[Section]:
    """Some clips, drawn at random; none where nothing moves."""
    kind = kinds.of(seen.samples)
    drawn = np.random.default_rng(0).permutation(len(seen))[:SHOWN].tolist()
    body = "".join(_playing(seen, i) for i in drawn if kind.moves)
    if not body:
        return []
    note = (
        "Of each of these, drawn at random, the middle, eight frames a second: smaller than what "
        "the encoder sees."
    )
    return [Section("Watch", f'<div class="samples">{body}</div>', note)]


def _playing(seen: Seen, i: int) -> str:
    """Nothing where a frame is damaged that the encoder does not look at."""
    try:
        frames = kinds.of(seen.samples).moving(seen.samples.read(i), THUMB)
    except BadSample:
        return ""
    return figure(url(animated(frames), "webp"), seen.name(i), seen.label(i))
