"""Samples seen through a pipeline, alone or in batches, and what becomes of unreadable ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from selftaught.augment import Plain, Views, sample_rng
from selftaught.augment.image.batch import BatchRenderer, Rngs
from selftaught.data import BadSample, Samples
from selftaught.data.image.masks import Masked
from selftaught.data.paired import Paired
from selftaught.feed.order import replacement
from selftaught.feed.readers import scarce
from selftaught.sides import both

ATTEMPTS = 100
"""Replacements tried for one unreadable sample before the data counts as broken."""


class Bad(NamedTuple):
    """A sample that could not be read, and why."""

    index: int
    reason: str


class Fetched(NamedTuple):
    """One sample as a worker hands it over, or a whole batch of them once collated.

    The views are None where neither a sample nor any of those tried in its place can be read; so
    is the index of a sample that is left out, which a batch goes without.
    """

    views: Any
    index: Any
    bad: list[Bad]


class ViewDataset(Dataset[Fetched]):
    """Samples seen through a pipeline. Keys are (epoch, index): all that randomness depends on.

    An unreadable sample is replaced by another, chosen by (seed, epoch, index) alone, or left out.
    Declared views are made by the batch, those of other pipelines one sample at a time.

    Args:
        samples: what is seen.
        pipeline: through what, as `Method.views` gives it.
        seed: of the run.
        reduced: whether large JPEGs are decoded at a fraction of their size, as `BatchRenderer`
            says; for plain views at no less than twice what they need, which spares no detail to be
            seen.
        replaced: whether another sample takes the place of one that cannot be read.
    """

    def __init__(
        self,
        samples: Samples | Paired | Masked,
        pipeline: Callable[[Any, np.random.Generator], Any],
        seed: int,
        reduced: bool = True,
        replaced: bool = True,
    ):
        self.samples, self.pipeline, self.seed = samples, pipeline, seed
        self.reduced, self.replaced = reduced, replaced

    def __getitem__(self, index: tuple[int, int]) -> Fetched:
        return self._readable(index, lambda used: self.see(used, index))

    def __getitems__(self, keys: list[tuple[int, int]]) -> Fetched:
        """A batch, collated."""
        if not isinstance(self.pipeline, Views):
            return collate([self[key] for key in keys])
        rngs = Rngs(self.seed, keys)
        renderer = BatchRenderer(self.pipeline, rngs, self.samples.channels, self.reduced)
        items = []
        for row, key in enumerate(keys):

            def make(index: int, row: int = row) -> Any:
                renderer.add(row, self.samples.open(index))
                return ()

            items.append(self._readable(key, make))
        item = collate(items)
        if item.views is None:
            return item
        rows = [row for row, each in enumerate(items) if each.index is not None]
        views = renderer.finish().result(rows if len(rows) < len(items) else ...)
        return item._replace(views=views)

    def see(self, index: int, key: tuple[int, int]) -> Any:
        """Views of sample `index`, with the randomness of `key`; BadSample if it cannot be read."""
        pipeline, samples = self.pipeline, self.samples
        if isinstance(pipeline, Views):
            renderer = BatchRenderer(
                pipeline, Rngs(self.seed, [key]), samples.channels, self.reduced
            )
            renderer.add(0, samples.open(index))
            return renderer.finish().result(0)
        if isinstance(pipeline, Plain) and self.reduced and isinstance(samples, Samples):
            return pipeline(samples.read(index, min_side=2 * max(both(pipeline.resize))))
        rng = sample_rng(self.seed, *key)
        if isinstance(samples, Paired):
            return pipeline(samples.draw(index, rng), rng)
        return pipeline(samples.open(index).read()[0], rng)

    def _readable(self, key: tuple[int, int], make: Callable[[int], Any]) -> Fetched:
        """What `make` gives for the sample, or for the first that can be read in its place."""
        epoch, index = key
        bad: list[Bad] = []
        used = index
        for attempt in range(ATTEMPTS):
            try:
                return Fetched(make(used), used, bad)
            except BadSample as error:
                if lack := scarce(error):
                    raise lack from None
                bad.append(Bad(used, str(error)))
            if not self.replaced:
                return Fetched(None, None, bad)
            if len(self.samples) == 1:
                break
            used = replacement(self.seed, epoch, index, attempt, len(self.samples))
        return Fetched(None, index, bad)


def collate(items: list[Fetched]) -> Fetched:
    """Views collated, indices as [B], the unreadable ones listed; without what is left out."""
    kept = [i for i in items if i.index is not None]
    whole = kept and all(i.views is not None for i in kept)
    return Fetched(
        default_collate([i.views for i in kept]) if whole else None,
        torch.tensor([i.index for i in kept], dtype=torch.long),
        [b for i in items for b in i.bad],
    )
