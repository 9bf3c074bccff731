"""Modules that methods are built of."""

from .heads import Prototypes, mlp
from .norm import SyncBatchNorm, synchronize
from .queue import Queue
from .target import ema, frozen_copy

__all__ = ["Prototypes", "Queue", "SyncBatchNorm", "ema", "frozen_copy", "mlp", "synchronize"]
