"""From a dataset to batches: the order of samples, their views, and the corpus as a whole."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from selftaught import dist
from selftaught.augment import plain, sample_rng
from selftaught.augment.device import normalize
from selftaught.data import BadSample, Samples
from selftaught.data.quarantine import replacement
from selftaught.method import Pipeline

ATTEMPTS = 100
"""Replacements tried for one unreadable sample before the data counts as broken."""

HANG = 600.0
"""Seconds after which a worker that hands over nothing counts as hung."""


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

    An unreadable sample is replaced by another, chosen by (seed, epoch, index) alone.
    """

    def __init__(self, samples: Samples, pipeline: Pipeline, seed: int):
        self.samples, self.pipeline, self.seed = samples, pipeline, seed

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        bad: list[Bad] = []
        used = index
        for attempt in range(ATTEMPTS):
            try:
                image = self.samples.read(used)
                views = self.pipeline(image, sample_rng(self.seed, epoch, index))
                return Item(views, used, bad)
            except BadSample as error:
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


def _quiet(_: int) -> None:
    """A worker leaves Ctrl-C to the main process, which saves first, and is not heard.

    C libraries write about damaged files to standard error, past Python; what Python raises comes
    back through the queue.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def loader(dataset: Views, sampler: Any, workers: int, pin: bool) -> DataLoader[Item]:
    """Batches of views, made in `workers` processes, in order."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        timeout=HANG if workers else 0,
        worker_init_fn=_quiet if workers else None,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        # without one of its own it draws from the global generator, at each iteration and so once
        # more in a resumed run
        generator=torch.Generator(),
    )


def close(batches: DataLoader[Item]) -> None:
    """End the processes of a loader; left to the collector of garbage, each costs five seconds."""
    stream, batches._iterator = batches._iterator, None
    if stream is not None:
        stream._shutdown_workers()  # type: ignore[attr-defined]


class Whole:
    """The dataset as a whole: the `Corpus` that methods are handed.

    Args:
        samples: all of them.
        encoder: gives size and normalization.
        batch, workers: of the pass over the data.
        device: where the encoder runs.

    Attributes:
        watch: handed each batch; raises where the run is to stop.
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
        out = []
        batches = loader(dataset, keys, self.workers, False)
        try:
            for item in batches:
                self.watch(item)
                images = item.views.to(self.device, non_blocking=True)
                out.append(encoder(normalize(images, self.mean, self.std)).float())
        finally:
            close(batches)
        encoder.train(training)
        return dist.gather(torch.cat(out))[: len(self)].cpu()
