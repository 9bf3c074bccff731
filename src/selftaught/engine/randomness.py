"""Every generator that a method may draw from: seeded, kept and put back."""

import random
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Start every generator that a method may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def random_state(device: torch.device) -> dict[str, Any]:
    """Of every generator that a method may draw from, as tensors and plain values."""
    version, keys, gauss = random.getstate()
    name, words, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": [version, list(keys), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(words).astype(np.int64)), *rest],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put every generator where `random_state` found it."""
    torch.set_rng_state(state["torch"])
    if state["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, words, *rest = state["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), *rest))
