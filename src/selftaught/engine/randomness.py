"""Every generator that a method may draw from: seeded, kept and put back."""

import random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


def seed_all(seed: int) -> None:
    """Start every generator that a method may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


class Generators(NamedTuple):
    """States as their owners give them."""

    torch: Tensor
    device: Tensor | None
    python: Any
    numpy: Any

    @classmethod
    def now(cls, device: torch.device) -> "Generators":
        """Of all, the device's own among them where that is a GPU."""
        own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), own, random.getstate(), np.random.get_state())

    def put_back(self, device: torch.device) -> None:
        """Make them what they were."""
        torch.set_rng_state(self.torch)
        if self.device is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.device, device)
        random.setstate(self.python)
        np.random.set_state(self.numpy)


def random_state(device: torch.device) -> dict[str, Any]:
    """Of every generator that a method may draw from, as tensors and plain values."""
    found = Generators.now(device)
    version, keys, gauss = found.python
    name, words, *rest = found.numpy
    return {
        "torch": found.torch,
        "device": found.device,
        "python": [version, list(keys), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(words).astype(np.int64)), *rest],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put every generator where `random_state` found it."""
    version, keys, gauss = state["python"]
    name, words, *rest = state["numpy"]
    Generators(
        state["torch"],
        state["device"],
        (version, tuple(keys), gauss),
        (name, words.numpy().astype(np.uint32), *rest),
    ).put_back(device)
