"""Samples decoded once and kept as pixels, for data sets that fit into memory."""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import final

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.memory import SHARE, free_memory
from selftaught.data.source import Samples, Source
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

PROBED = 200
"""Samples from whose sizes the memory is estimated."""

BLOCK = 64 << 20
"""Bytes allocated at a time."""


@final
class CachedSource(Source):
    """Pixels in memory, which forked worker processes share; the rest is the original's."""

    def __init__(self, original: Source, pixels: list[np.ndarray | BadSample]):
        self.original, self.pixels = original, pixels
        self.labels, self.classes, self.skipped = (
            original.labels,
            original.classes,
            original.skipped,
        )
        self.numbered = original.numbered

    def __len__(self) -> int:
        return len(self.pixels)

    def load(self, i: int) -> np.ndarray:
        found = self.pixels[i]
        if isinstance(found, BadSample):
            raise BadSample(found.reason)
        return found

    def name(self, i: int) -> str:
        return self.original.name(i)

    def fingerprint(self) -> str:
        return self.original.fingerprint()

    def stamp(self, i: int) -> str:
        return self.original.stamp(i)

    def blocks(self) -> np.ndarray:
        return self.original.blocks()


def cached(samples: Samples, threads: int = 1) -> Samples:
    """The same samples, decoded now and kept as uint8 pixels.

    Args:
        samples: to be decoded; those that cannot be are remembered with their reasons.
        threads: that decode.

    Raises:
        UserError: they would take more than `SHARE` of the free memory, or are no pixels.
    """
    if samples.kind is not None and not samples.kind.native:
        raise UserError(
            f"--cache keeps images in memory as pixels, and these are {samples.kind.many}, which "
            "have none: leave it away"
        )
    need, free = estimate(samples), free_memory()
    size = f"{need / 2**30:.1f} GiB" if need >= 2**30 else f"{need / 2**20:.0f} MiB"
    if free is not None and need > SHARE * free:
        raise UserError(
            f"{len(samples):,} images would take {size} as pixels, and {free / 2**30:.1f} GiB of "
            "memory are free: leave --cache away, or store the images smaller"
        )
    log.info("keeping %s images in memory, about %s", f"{len(samples):,}", size)
    block, used = np.empty(0, np.uint8), 0
    kept: list[np.ndarray | BadSample] = []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(samples), 16 * threads):  # no more than these wait, decoded
            rows = range(start, min(start + 16 * threads, len(samples)))
            for pixels in pool.map(lambda i: _decoded(samples, i), rows):
                if isinstance(pixels, BadSample):
                    kept.append(pixels)
                    continue
                if used + pixels.size > block.size:
                    block, used = np.empty(max(BLOCK, pixels.size), np.uint8), 0
                place = block[used : used + pixels.size].reshape(pixels.shape)
                place[...] = pixels
                used += pixels.size
                kept.append(place)
    found = Samples(CachedSource(samples.source, kept), channels=samples.channels, layout="HWC")
    return found if samples.kind is None else found.seen_as(samples.kind)


def _decoded(samples: Samples, i: int) -> np.ndarray | BadSample:
    try:
        pixels, _ = samples.open(i).read()
        return pixels
    except BadSample as error:
        return error


def estimate(samples: Samples) -> float:
    """Bytes that all samples take as pixels, from the sizes of some."""
    sizes = []
    for i in np.linspace(0, len(samples) - 1, min(PROBED, len(samples))).astype(int).tolist():
        try:
            picture = samples.open(i)
            sizes.append(picture.height * picture.width * samples.channels)
        except BadSample:
            continue
    return float(np.mean(sizes)) * len(samples) if sizes else 0.0
