"""Modules that methods are built of."""

from .buffers import unchanged
from .heads import (
    Prototypes,
    bottleneck_head,
    each_cell,
    mlp,
    projected_cells,
    prototype_head,
    simclr_head,
)
from .memory import MemoryBank
from .multicrop import each_size
from .norm import SyncBatchNorm, same_statistics, synchronize
from .predictor import DirectPredictor, Turns
from .queue import Queue
from .standardize import Standardize
from .target import ema, frozen_copy
from .teacher import Frozen, fingerprint

__all__ = [
    "DirectPredictor",
    "Frozen",
    "MemoryBank",
    "Prototypes",
    "Queue",
    "Standardize",
    "SyncBatchNorm",
    "Turns",
    "bottleneck_head",
    "each_cell",
    "each_size",
    "ema",
    "fingerprint",
    "frozen_copy",
    "mlp",
    "projected_cells",
    "prototype_head",
    "same_statistics",
    "simclr_head",
    "synchronize",
    "unchanged",
]
