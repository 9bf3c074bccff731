"""One pass over a dataset, in order: what evaluation, and the `Corpus` of methods, are made of."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from selftaught import dist, kinds
from selftaught.backbones import is_encoder
from selftaught.data import Samples
from selftaught.feed.readers import Readers
from selftaught.feed.views import Fetched, ViewDataset
from selftaught.parts import same_statistics


@contextmanager
def reading(
    views: ViewDataset,
    rows: Sequence[int],
    batch: int,
    workers: int,
    waiting: Callable[[], None] | None = None,
) -> Iterator[Readers]:
    """Batches of some rows, in their order; the processes that make them end with the block.

    Args:
        views: of what.
        rows: positions of samples.
        batch: rows at a time.
        workers: processes that read; 0 for this one.
        waiting: called a few times a second while a batch is waited for; it may raise.
    """
    keys = [[(0, i) for i in rows[a : a + batch]] for a in range(0, len(rows), batch)]
    with closing(Readers(views.__getitems__, keys, min(workers, len(keys)))) as items:
        items.waiting = waiting or items.waiting
        yield items


class DatasetPass:
    """The dataset as a whole: the `Corpus` that methods are handed.

    Args:
        samples: all of them.
        encoder: of the run: what is embedded by sees what it sees, where it does not say itself.
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
        self.like, self.device = encoder, device
        self.watch: Callable[[Fetched], None] = lambda _: None
        self.waiting: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @torch.no_grad()
    def embed(self, encoder: nn.Module, key: str = "") -> Tensor:
        """[N, D] features of plain views, in dataset order, on the CPU, alike in all processes."""
        own: Any = encoder if is_encoder(encoder) else self.like
        kind = kinds.of(own)
        each = -(-len(self) // dist.world())
        mine = [min(dist.rank() * each + i, len(self) - 1) for i in range(each)]
        views = ViewDataset(self.samples, kind.plain(own.size), seed=0, reduced=False)
        training = encoder.training
        encoder.eval()
        same_statistics(encoder)
        out = []
        with reading(views, mine, self.batch, self.workers, self.waiting) as items:
            for item in items:
                self.watch(item)
                images = item.views.to(self.device, non_blocking=True)
                out.append(encoder(kind.prepare(images, own)).float())
        encoder.train(training)
        return dist.gather(torch.cat(out))[: len(self)].cpu()
