"""Sounds as waves: float32 [1, values], of deviation 1."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught.data.sound import files
from selftaught.data.sound.spectrogram import spectrogram
from selftaught.kinds import Facts, Floor
from selftaught.kinds.sound import RATE, Recordings, squeezed, usual
from selftaught.roles import Positive, Several

if TYPE_CHECKING:
    from torch import Tensor

    from selftaught.augment.sound import Once, Stretch, Twice
    from selftaught.data import Samples

SECONDS = 1.28
"""Of a view at most, where nobody says otherwise (van den Oord et al., 2018)."""
STEP = 160
"""Values that an encoder sums up in one vector: a view is a multiple of it."""


@dataclass(frozen=True)
class Wave(Recordings):
    """Recordings in files of any format, of one channel or several, which are added up.

    Args:
        rate: values a second that recordings are brought to; by default what most have, 16,000 at
            most.
        window: seconds that long recordings are cut into, each a sample; by default a recording is
            one, of which a minute is read.
    """

    rate: Several | None = None
    window: Positive | None = None

    word = "wave"
    one, many, unit, counted, axes = "sound", "sounds", "values", "values", 3
    encoder = "sound.encoder:Waves"
    backbone = "cpc"

    def decode(self, raw: Any, name: str) -> np.ndarray:
        wave = files.wave(raw, self.rate or RATE)
        return (wave / max(1e-6, float(wave.std())))[None].astype(np.float32)

    def heard(self, raw: Any) -> tuple[np.ndarray, int]:
        return files.wave(raw, self.rate or RATE), self.rate or RATE

    def facts(self, sample: np.ndarray) -> Facts:
        return Facts(sample.shape[1], bool(np.ptp(sample) < 1e-6), sample.tobytes())

    def fill(self, given: dict[str, Any], samples: "Samples") -> tuple["Wave", dict[str, Any]]:
        rate, length = usual(samples, self)
        most = STEP * int(min(length, SECONDS) * rate / STEP)
        usually = {"size": max(32 * STEP, most), "channels": 1}
        return replace(self, rate=rate), usually | {k: v for k, v in given.items() if v is not None}

    def plain(self, size: int) -> "Stretch":
        from selftaught.augment.sound import Stretch

        return Stretch(size, loudest=True)

    def alike(self, size: int) -> "Twice":
        from selftaught.augment.sound import Stretch, Twice

        return Twice(Stretch(size))

    def single(self, views: Any) -> "Once":
        from selftaught.augment.sound import Once, Stretch

        (view,) = views.views
        return Once(Stretch(max(view.shape)))

    def blank(self, count: int, encoder: Any) -> "Tensor":
        import torch

        return torch.zeros(count, 1, encoder.size)

    def floors(self) -> Mapping[str, Floor]:
        from selftaught.kinds.floors.sound import CEPSTRA, OfWaves, bands, cepstra

        rate = self.rate or RATE
        return {
            "mean of bands": OfWaves(bands, rate),
            f"{CEPSTRA} cepstra": OfWaves(cepstra, rate),
        }

    def thumbnail(self, sample: np.ndarray, side: int) -> np.ndarray:
        return squeezed(self._seen(sample[0]), (side, side))

    def pictures(self, view: np.ndarray) -> list[np.ndarray]:
        if view.ndim != 2 or view.dtype.kind != "f":
            return []
        return [squeezed(self._seen(view[0]), (64, 96))]

    def _seen(self, wave: np.ndarray) -> np.ndarray:
        return spectrogram(wave, self.rate or RATE, 64, 0.01, 80.0)
