"""What is known of sounds without any training: how loud each band of pitch is, and cepstra."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selftaught.data.sound.spectrogram import spectrogram

CEPSTRA = 20
"""Coefficients of the cosine transform over the bands: the coarse shape of a spectrum."""


def bands(x: Tensor) -> Tensor:
    """uint8 [B, 1, F, T] -> [B, F], the mean level of each band."""
    return (x.float() / 255).mean((1, 3))


def bands_twice(x: Tensor) -> Tensor:
    """uint8 [B, 1, F, T] -> [B, 2 F], mean and deviation of each band."""
    x = x.float().mean(1) / 255
    return torch.cat([x.mean(2), x.std(2)], 1)


def cepstra(x: Tensor) -> Tensor:
    """uint8 [B, 1, F, T] -> [B, 60]: of each coefficient the mean, the deviation, and that of its
    change from a column to the next (MFCCs, Davis & Mermelstein, 1980)."""
    x = x.float().mean(1) / 255
    rows = x.shape[1]
    at = (torch.arange(rows) + 0.5) / rows
    waves = torch.cos(np.pi * torch.arange(min(CEPSTRA, rows))[:, None] * at) * (2 / rows) ** 0.5
    found = waves.to(x) @ x
    change = found.diff(dim=2) if found.shape[2] > 2 else torch.zeros_like(found).repeat(1, 1, 2)
    return torch.cat([found.mean(2), found.std(2), change.std(2)], 1)


@dataclass(frozen=True)
class OfWaves:
    """A floor of spectrograms, for waves [B, 1, n]."""

    floor: object
    rate: int

    def __call__(self, x: Tensor) -> Tensor:
        made = [spectrogram(w, self.rate, 64, 0.01, 80.0) for w in x[:, 0].cpu().float().numpy()]
        return self.floor(torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2))  # type: ignore[operator]
