"""Which points of a scan are seen."""

import numpy as np

from selftaught.data.image.decode import BadSample


def near(sample: np.ndarray, reach: float) -> np.ndarray:
    """bool [N]: which points of [N, C] lie within reach, in meters ahead and sideways."""
    return np.abs(sample[:, :2]).max(1) < reach


def within(sample: np.ndarray, reach: float) -> np.ndarray:
    """The points within reach; BadSample where there is none."""
    kept = sample[near(sample, reach)]
    if not len(kept):
        raise BadSample(f"has no point within {reach:g} m ahead and sideways: use a larger --reach")
    return kept


def drawn(sample: np.ndarray, count: int, rng: "np.random.Generator") -> np.ndarray:
    """[N, C] -> [count, C], some points or all, in any order; those come again that are needed."""
    return sample[np.resize(rng.permutation(len(sample))[:count], count)]
