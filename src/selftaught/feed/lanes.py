"""An order that is shuffled, and yet reads what lies together at about the same time.

Shards and tables are read in blocks. A permutation of all samples comes back to each block as often
as it has samples; here each comes up once. The blocks of an epoch, permuted, are laid out in lanes,
and each batch takes as many samples of every lane, from a few blocks of it that are mixed. A part
of the lanes belongs to each process, so that no block is met by two of them.
"""

from typing import final

import numpy as np

from selftaught.feed.feistel import keys_of, permuted, told_apart

LANES, MIXED = 32, 8
"""Lanes at most, and blocks of each that are mixed: so many times `BLOCK` bytes are in use at once,
by all processes together."""
_LANE = 1 << 32  # lanes are told apart from windows by the upper half of a number


@final
class Lanes:
    """Rows of any batch of any epoch, of nothing but its number: exact resume, on any number of
    processes, is for free.

    Args:
        ends: int64 [blocks], where each block of samples ends; ascending, the last is their number.
        batch: samples a batch, over all processes.
        batches: of an epoch; the samples left over have their turn in another epoch's order.
        seed: of the permutations.
        held: blocks that a process can keep, where that is few: of those a third are about to be
            dropped.

    Attributes:
        lanes: how many there are; they divide the batch.
        mixed: blocks of a lane that are mixed.
    """

    def __init__(
        self, ends: np.ndarray, batch: int, batches: int, seed: int, held: int | None = None
    ):
        self.ends, self.batch, self.seed = ends, batch, seed
        held = LANES * MIXED if held is None else max(1, held * 2 // 3)
        most = max(1, min(LANES, held // MIXED, len(ends) // 4))
        self.lanes = next(n for n in range(most, 0, -1) if batch % n == 0)
        self.mixed = max(1, min(MIXED, held // self.lanes))
        self.each = batch // self.lanes
        self.long = batches * self.each  # samples of a lane
        self._epoch: int | None = None

    def rows(self, epoch: int, number: int) -> np.ndarray:
        """int64 [batch], the samples of a batch, lane after lane."""
        self._lay(epoch)
        lane = np.repeat(np.arange(self.lanes), self.each)
        step = number * self.each + np.tile(np.arange(self.each), self.lanes)
        return self._shuffled(lane, step)

    def _lay(self, epoch: int) -> None:
        """Lay the blocks of an epoch one after the other, in their new order."""
        if epoch == self._epoch:
            return
        self._keys = keys_of(self.seed, epoch)
        self._order = permuted(np.arange(len(self.ends)), len(self.ends), self._keys)
        self._laid = np.cumsum(np.diff(self.ends, prepend=0)[self._order])
        self._epoch = epoch

    def _shuffled(self, lane: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Samples at steps of lanes.

        A lane may begin and end within a block. Every other one runs backwards, so that both that
        share a block are in it at the same time: as they begin, or as they end.
        """
        first, last = lane * self.long, (lane + 1) * self.long - 1
        backwards = lane % 2 == 1
        place = np.where(backwards, last - step, first + step)
        begin, end = self._block(first), self._block(last)
        # how many blocks of its lane come before that of a place, and which of them are mixed with
        # it; the first ones are fewer, in each lane others, so that not all go on to new ones at
        # once
        block = self._block(place)
        before = np.where(backwards, end - block, block - begin)
        early = 1 + lane % self.mixed
        window = np.where(before < early, 0, 1 + (before - early) // self.mixed)
        start = np.where(window == 0, 0, early + (window - 1) * self.mixed)
        stop = early + window * self.mixed
        low = np.where(backwards, end - stop + 1, begin + start)
        high = np.where(backwards, end - start, begin + stop - 1)
        low = np.maximum(first, self._starts(np.maximum(low, begin)))
        high = np.minimum(last, self._laid[np.minimum(high, end)] - 1)
        keys = told_apart(self._keys, lane * _LANE + window)
        return self._sample(low + permuted(place - low, high - low + 1, keys))

    def _block(self, place: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._laid, place, side="right")

    def _starts(self, block: np.ndarray) -> np.ndarray:
        return np.where(block > 0, self._laid[block - 1], 0)

    def _sample(self, place: np.ndarray) -> np.ndarray:
        """The sample at a place of the layout."""
        block = self._block(place)
        real = self._order[block]
        begins = np.where(real > 0, self.ends[real - 1], 0)
        return begins + place - self._starts(block)
