"""A few samples that move, where anything moves in them."""

import io

import numpy as np
from PIL import Image as Picture

from selftaught import kinds
from selftaught.report.html import Section, figure
from selftaught.report.image.pictures import THUMB, url
from selftaught.report.seen import Seen

SHOWN = 8
DURATION, QUALITY = 125, 50
"""Milliseconds of a frame; of the WebP files, of which each takes some 30 kilobytes of the page."""


def sections(seen: Seen) -> list[Section]:
    """Some clips, drawn at random; none where nothing moves."""
    kind = kinds.of(seen.samples)
    drawn = np.random.default_rng(0).permutation(len(seen))[:SHOWN].tolist()
    found = [(i, kind.moving(seen.samples.read(i), THUMB)) for i in drawn if kind.moves]
    body = "".join(
        figure(url(animated(frames), "webp"), seen.name(i), seen.label(i)) for i, frames in found
    )
    if not body:
        return []
    note = (
        "Of each of these, drawn at random, the middle, eight frames a second: smaller than what "
        "the encoder sees."
    )
    return [Section("Watch", f'<div class="samples">{body}</div>', note)]


def animated(frames: np.ndarray) -> bytes:
    """uint8 [T, 3, h, w] as a WebP that is repeated without end."""
    first, *others = [Picture.fromarray(frame.transpose(1, 2, 0)) for frame in frames]
    file = io.BytesIO()
    first.save(
        file,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=DURATION,
        loop=0,
        quality=QUALITY,
    )
    return file.getvalue()
