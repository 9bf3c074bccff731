"""TensorBoard, which is an extra: imported where it is installed."""

import math
from collections.abc import Sequence
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[missing-module-attribute]
from torch.utils.tensorboard import SummaryWriter


class Board:
    """Rows of metrics for TensorBoard.

    Args:
        folder: of its event files.
        step: steps that are done; what was written of later ones is dropped.
    """

    def __init__(self, folder: Path, step: int):
        self.writer = SummaryWriter(str(folder), purge_step=step + 1, max_queue=100)
        assert self.writer.file_writer is not None  # it is there until `close`
        self.events = self.writer.file_writer

    def add(self, rows: Sequence[tuple[float, dict[str, float]]]) -> None:
        """Rows with the times at which they were made, in seconds since the epoch."""
        for when, row in rows:
            values = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in row.items()
                if name not in ("step", "epoch") and not math.isnan(value)
            ]
            self.events.add_summary(Summary(value=values), int(row["step"]), when)

    def close(self) -> None:
        self.writer.close()
