"""From a dataset to batches: the order of samples, their views, and the corpus as a whole."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, default_collate

from selftaught import dist
from selftaught.augment import Views as Declared
from selftaught.augment import plain, sample_rng
from selftaught.augment.batch import Canvas, Rngs
from selftaught.augment.device import normalize
from selftaught.data import BadSample, Samples
from selftaught.data.masks import Masked
from selftaught.data.paired import Paired
from selftaught.data.quarantine import replacement
from selftaught.data.readers import Readers, scarce
from selftaught.method import Pipeline
from selftaught.parts import same_statistics

ATTEMPTS = 100
"""Replacements tried for one unreadable sample before the data counts as broken."""


class Bad(NamedTuple):
    """A sample that could not be read, and why."""

    index: int
    reason: str


class Item(NamedTuple):
    """One sample as a worker hands it over, or a whole batch of them once collated.

    The views are None where neither a sample nor any of those tried in its place can be read.
    """

    views: Any
    index: Any
    bad: list[Bad]


class Views(Dataset[Item]):
    """Samples seen through a pipeline. Keys are (epoch, index): all that randomness depends on.

    An unreadable sample is replaced by another, chosen by (seed, epoch, index) alone. Declared
    views are made by the batch, those of other pipelines one sample at a time.

    Args:
        samples: what is seen.
        pipeline: through what.
        seed: of the run.
        reduced: whether large JPEGs are decoded at a fraction of their size, as `Canvas` says.
    """

    def __init__(
        self,
        samples: Samples | Paired | Masked,
        pipeline: Pipeline,
        seed: int,
        reduced: bool = True,
    ):
        self.samples, self.pipeline, self.seed, self.reduced = samples, pipeline, seed, reduced

    def __getitem__(self, key: tuple[int, int]) -> Item:
        def make(index: int) -> Any:
            picture = self.samples.open(index)
            if not isinstance(self.pipeline, Declared):
                return self.pipeline(picture.read()[0], sample_rng(self.seed, *key))
            rngs = Rngs(self.seed, [key])
            canvas = Canvas(self.pipeline, rngs, self.samples.channels, self.reduced)
            canvas.paint(0, picture)
            return canvas.finish().result(0)

        return self._readable(key, make)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Item:
        """A batch, collated."""
        if not isinstance(self.pipeline, Declared):
            return collate([self[key] for key in keys])
        rngs = Rngs(self.seed, keys)
        canvas = Canvas(self.pipeline, rngs, self.samples.channels, self.reduced)
        items = []
        for row, key in enumerate(keys):

            def make(index: int, row: int = row) -> Any:
                canvas.paint(row, self.samples.open(index))
                return ()

            items.append(self._readable(key, make))
        item = collate(items)
        return item if item.views is None else item._replace(views=canvas.finish().result())

    def _readable(self, key: tuple[int, int], make: Callable[[int], Any]) -> Item:
        """What `make` gives for the sample, or for the first that can be read in its place."""
        epoch, index = key
        bad: list[Bad] = []
        used = index
        for attempt in range(ATTEMPTS):
            try:
                return Item(make(used), used, bad)
            except BadSample as error:
                if lack := scarce(error):
                    raise lack from None
                bad.append(Bad(used, str(error)))
            if len(self.samples) == 1:
                break
            used = replacement(self.seed, epoch, index, attempt, len(self.samples))
        return Item(None, index, bad)


def collate(items: list[Item]) -> Item:
    """Views collated, indices as [B], the unreadable ones listed."""
    return Item(
        None if any(i.views is None for i in items) else default_collate([i.views for i in items]),
        torch.tensor([i.index for i in items]),
        [b for i in items for b in i.bad],
    )


class Order(Sampler[list[tuple[int, int]]]):
    """Batches of keys, for this process: a new permutation an epoch, from `start` within the first.

    Process r of W takes the r-th part of each batch, so that W processes see what one would.

    Args:
        length: number of samples.
        batch: samples a batch, over all processes.
        batches: of an epoch; the samples left over have their turn in another epoch's order.
        seed: of the permutations.

    Attributes:
        epochs: what the next iteration runs through.
        start: batches of the first of them that are done.
        given: order of the current epoch, where the method chose it.
    """

    def __init__(self, length: int, batch: int, batches: int, seed: int):
        self.length, self.batch, self.batches, self.seed = length, batch, batches, seed
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
            order = self.permutation(epoch)
            for i in range(start, self.batches):
                rows = order[i * self.batch + first : i * self.batch + first + share]
                yield [(epoch, int(row)) for row in rows]
            start = 0

    def __len__(self) -> int:
        return max(0, len(self.epochs) * self.batches - self.start)


def loader(dataset: Views, sampler: Any, workers: int, pin: bool) -> Readers:
    """Batches of views, made in `workers` processes, in order."""
    return Readers(dataset.__getitems__, sampler, workers, pin)


def close(batches: Any) -> None:
    """End the processes of a loader, if it has any."""
    if isinstance(batches, Readers):
        batches.close()


class Whole:
    """The dataset as a whole: the `Corpus` that methods are handed.

    Args:
        samples: all of them.
        encoder: gives size and normalization.
        batch, workers: of the pass over the data.
        device: where the encoder runs.

    Attributes:
        watch: handed each batch; raises where the run is to stop.
        waiting: called while a batch is waited for; raises likewise.
    """

    def __init__(
        self,
        samples: Samples,
        encoder: Any,
        batch: int,
        workers: int,
        device: torch.device,
    ):
        self.samples, self.batch, self.workers = samples, batch, workers
        self.size, self.mean, self.std = encoder.size, encoder.mean, encoder.std
        self.device = device
        self.watch: Callable[[Item], None] = lambda _: None
        self.waiting: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self.samples)

    @torch.no_grad()
    def embed(self, encoder: nn.Module) -> Tensor:
        """[N, D] features of plain views, in dataset order, on the CPU, alike in all processes."""
        each = -(-len(self) // dist.world())
        mine = [min(dist.rank() * each + i, len(self) - 1) for i in range(each)]
        keys = [[(0, i) for i in mine[a : a + self.batch]] for a in range(0, each, self.batch)]
        dataset = Views(self.samples, plain(self.size), seed=0)
        training = encoder.training
        encoder.eval()
        same_statistics(encoder)
        out = []
        batches = loader(dataset, keys, self.workers, False)
        batches.waiting = self.waiting
        try:
            for item in batches:
                self.watch(item)
                images = item.views.to(self.device, non_blocking=True)
                out.append(encoder(normalize(images, self.mean, self.std)).float())
        finally:
            close(batches)
        encoder.train(training)
        return dist.gather(torch.cat(out))[: len(self)].cpu()
