"""What a sound looks like: its level in bands of pitch over time, in bytes."""

from functools import cache

import numpy as np

WINDOW = 0.025
"""Seconds that each column looks at, at least."""
QUIET = 1e-10
"""Power below which there is silence."""


def spectrogram(wave: np.ndarray, rate: int, bands: int, hop: float, span: float) -> np.ndarray:
    """Log-mel spectrogram, uint8 [bands, columns, 1], low pitches in the last rows.

    255 is the loudest point, 0 what is `span` decibels or more below it: a step is span / 255,
    finer than what can be heard.

    Args:
        wave: float32 [n].
        rate: values a second.
        bands: mel bands, from 0 Hz to half the rate.
        hop: seconds from a column to the next; there are n / (hop * rate) of them, rounded up.
        span: decibels from black to white.
    """
    step = hop * rate
    count = max(1, int(np.ceil(len(wave) / step)))
    size = 1 << int(np.ceil(np.log2(max(WINDOW * rate, step, 16))))
    around = np.pad(wave, (size // 2, size), mode="reflect" if len(wave) > size else "constant")
    starts = np.round(np.arange(count) * step).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(around, size)[starts]
    power = np.abs(np.fft.rfft(frames * _window(size), axis=1)).astype(np.float32) ** 2
    levels = 10 * np.log10(np.maximum(power @ _bank(rate, size, bands), QUIET))
    loudest = levels.max()
    if loudest <= 10 * np.log10(QUIET):
        return np.zeros((bands, count, 1), np.uint8)
    shares = ((levels - loudest + span) / span).clip(0, 1)
    return np.ascontiguousarray((255 * shares).round().astype(np.uint8).T[::-1, :, None])


@cache
def _window(size: int) -> np.ndarray:
    return np.hanning(size + 1)[:-1].astype(np.float32)


@cache
def _bank(rate: int, size: int, bands: int) -> np.ndarray:
    """[size // 2 + 1, bands] triangles of equal width on the mel scale; each column sums to 1.

    A band that is narrower than the distance of two frequencies has what lies next to its middle.
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    at = np.linspace(0, rate / 2, size // 2 + 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    bank = np.minimum((at - low) / (middle - low), (high - at) / (high - middle)).clip(0)
    empty = np.flatnonzero(bank.sum(0) == 0)
    bank[np.abs(at - middle).argmin(0)[empty], empty] = 1
    return (bank / bank.sum(0)).astype(np.float32)


def stretch(sample: np.ndarray, columns: int, place: float | None = None) -> np.ndarray:
    """`columns` of a spectrogram [bands, n, 1]; a shorter one is repeated.

    Args:
        place: in [0, 1), where it lies from the first to the last; None for the loudest one, since
            recordings are often padded with silence, and what they are called after is not in it.
    """
    have = sample.shape[1]
    if have < columns:
        return np.ascontiguousarray(
            np.resize(sample.swapaxes(0, 1), (columns, len(sample), 1)).swapaxes(0, 1)
        )
    room = have - columns
    if place is not None:
        start = int(place * (room + 1))
    else:
        sums = np.concatenate([[0], np.cumsum(sample.sum((0, 2), dtype=np.int64))])
        start = int(np.argmax(sums[columns:] - sums[: room + 1]))
    return sample[:, start : start + columns]
