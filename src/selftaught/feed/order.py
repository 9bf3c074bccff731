"""Which samples come when, and which takes the place of one that cannot be read."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler

from selftaught import dist
from selftaught.errors import UserError
from selftaught.feed.lanes import Lanes

OWN_ORDER = (
    "this method says itself which samples come when, so that they cannot be shuffled by blocks: "
    "drop --shuffle blocks"
)


class Order(Sampler[list[tuple[int, int]]]):
    """Batches of keys, for this process: a new order an epoch, from `start` within the first.

    Process r of W takes the r-th part of each batch, so that W processes see what one would.

    Args:
        length: number of samples.
        batch: samples a batch, over all processes.
        batches: of an epoch; the samples left over have their turn in another epoch's order.
        seed: of the permutations.
        lanes: which samples a batch shows, where they are shuffled by blocks; else all are
            permuted.

    Attributes:
        epochs: what the next iteration runs through.
        start: batches of the first of them that are done.
        given: order of the current epoch, where the method chose it.
    """

    def __init__(
        self, length: int, batch: int, batches: int, seed: int, lanes: Lanes | None = None
    ):
        self.length, self.batch, self.batches, self.seed = length, batch, batches, seed
        self.lanes = lanes
        self.epochs = range(0)
        self.start = 0
        self.given: Tensor | None = None

    def permutation(self, epoch: int) -> np.ndarray:
        if self.given is not None:
            return self.given.numpy()
        return np.random.default_rng([self.seed, epoch]).permutation(self.length)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch // dist.world()
        first = dist.rank() * share
        start = self.start
        for epoch in self.epochs:
            for rows in self._shown(epoch, start):
                yield [(epoch, int(row)) for row in rows[first : first + share]]
            start = 0

    def _shown(self, epoch: int, start: int) -> Iterator[np.ndarray]:
        """Samples of each batch of an epoch, of all processes."""
        if self.lanes is not None:
            if self.given is not None:
                raise UserError(OWN_ORDER)
            yield from (self.lanes.rows(epoch, i) for i in range(start, self.batches))
            return
        order = self.permutation(epoch)
        for i in range(start, self.batches):
            yield order[i * self.batch : (i + 1) * self.batch]

    def __len__(self) -> int:
        return max(0, len(self.epochs) * self.batches - self.start)


def replacement(seed: int, epoch: int, index: int, attempt: int, n: int) -> int:
    """Which of `n` samples takes the place of sample `index`, at the `attempt`-th try.

    Uniform over the others, and the same in every process, so that skipped files change neither
    the order of the rest nor the reproducibility of a run.
    """
    if n < 2:
        raise ValueError(f"a sample out of {n} has no replacement")
    word = np.random.SeedSequence([seed, epoch, index, attempt]).generate_state(1, np.uint64)[0]
    other = int(word % np.uint64(n - 1))
    return other + (other >= index)
