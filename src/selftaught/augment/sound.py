"""Views of sounds: declared for images, and made of spectrograms; or parts of waves."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from selftaught.augment.image.view import View
from selftaught.augment.image.views import Views
from selftaught.augment.pipeline import Pipeline
from selftaught.data.sound.spectrogram import stretch

LEAST = 0.5
"""Share of a spectrogram that a large crop has at least: less of a word is no word."""
RATIO = (2 / 3, 3 / 2)
"""How much crops are stretched in time beside pitch: speech is slower and faster, higher and
lower."""


@dataclass(frozen=True)
class SoundViews(Pipeline):
    """Declared views of one part of a recording, drawn anew each time it is seen.

    Args:
        views: of spectrograms; see `heard`.
        columns: of the part, from which the crops of all views are taken.
    """

    views: Views
    columns: int

    def __call__(self, sample: np.ndarray, rng: np.random.Generator) -> Any:
        """uint8 [bands, n, 1] -> what the views give."""
        return self.views(np.ascontiguousarray(stretch(sample, self.columns, rng.random())), rng)

    def replaced(self, make: Any) -> Pipeline:
        return replace(self, views=make(self.views))


def heard(view: View) -> View:
    """What a view that was declared for images is of a spectrogram, as in BYOL for audio (Niizumi
    et al., https://arxiv.org/abs/2103.06695).

    Crops in time and pitch stay, and so do changes of loudness and of contrast, halved; nothing is
    mirrored, turned, inverted or gray: time has a direction, and pitch has one.
    """
    low, high = view.scale
    brightness, contrast, _, _ = view.jitter
    return replace(
        view,
        scale=(max(low, min(LEAST, high / 2)), high),
        ratio=RATIO if view.ratio != (1, 1) else view.ratio,
        flip=0.0,
        vertical=0.0,
        turns=False,
        gray=0.0,
        solarize=0.0,
        jitter=(brightness / 2, contrast / 2, 0.0, 0.0),
    )


@dataclass(frozen=True)
class Stretch(Pipeline):
    """Any part of a wave; a shorter one is repeated.

    Args:
        count: of values.
        loudest: whether it is the loudest part, not one drawn at random.
    """

    count: int
    loudest: bool = False

    def __call__(self, wave: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """float32 [1, n] -> [1, count]."""
        have = wave.shape[1]
        if have < self.count:
            return np.resize(wave, (1, self.count))
        room = have - self.count
        if not self.loudest:
            assert rng is not None
            start = int(rng.random() * (room + 1))
        else:
            sums = np.concatenate([[0], np.cumsum(np.square(wave[0], dtype=np.float64))])
            start = int(np.argmax(sums[self.count :] - sums[: room + 1]))
        return wave[:, start : start + self.count].copy()


@dataclass(frozen=True)
class Once(Pipeline):
    """One view, as one of several."""

    view: Pipeline

    def __call__(self, sample: np.ndarray, rng: np.random.Generator) -> list[Any]:
        return [self.view(sample, rng)]


@dataclass(frozen=True)
class Twice(Pipeline):
    """Two views by the same pipeline."""

    view: Pipeline

    def __call__(self, sample: np.ndarray, rng: np.random.Generator) -> list[Any]:
        return [self.view(sample, rng), self.view(sample, rng)]
