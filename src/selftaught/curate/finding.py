"""Search among the images that a pool has left, with the features that it has kept."""

from typing import Any

import numpy as np

from selftaught.curate.embed import Embed
from selftaught.curate.pool import Pool
from selftaught.errors import UserError
from selftaught.evaluate.features import device_for
from selftaught.evaluate.settings import Searching
from selftaught.index.commands import Searched, checked, searched
from selftaught.index.index import Index
from selftaught.index.queries import opened
from selftaught.index.store import Part, Store

OWN = ("index", "size", "weights", "backbone", "mean", "std", "path_column")
"""Options of `search` that a pool has answered already."""


def search(pool: Pool, **options: Any) -> Searched:
    """Find images of a pool: those like a picture, duplicates, outliers.

    Args:
        pool: that embed has worked on.
        options: fields of `evaluate.settings.Searching`, those aside that tell an encoder.

    Raises:
        UserError: the pool has no features, or an option that it answers itself.
    """
    if own := [name for name in OWN if options.get(name) is not None]:
        raise UserError(
            f"{own[0]} is the pool's own, by its embed: leave it out, or search ENCODER DATA"
        )
    asked = Searching.of(**options)
    checked(asked)
    index = index_of(pool, asked)
    return searched(index, opened(list(asked.query), index.data) if asked.query else [], asked)


def index_of(pool: Pool, asked: Searching) -> Index:
    """An index of the images that are left, of the features that the pool has."""
    made, told = pool.stage("embed"), pool.verdict("embed")
    assert isinstance(made, Embed)
    vectors, small = (made.arrays("look", name) for name in ("vectors", "small"))
    of = np.searchsorted([block.start for block in pool.blocks], told["row"], side="right") - 1
    store, rows, alive = Store(None, made.about), np.full(pool.count, -1), pool.alive()
    start = 0
    for block, part, pictures in zip(pool.blocks, vectors, small):
        mine = (of == block.number) & (told["at"] >= 0)
        order = np.argsort(told["at"][mine])
        own, pixels = told["row"][mine][order], told["pixels"][mine][order]
        store.parts.append(Part(block.name, own.astype(np.uint64), pixels, pictures, part))
        rows[own] = np.where(alive[own], start + np.arange(len(own)), -1)
        start += len(own)
    network, model = made.network, made.asked.model
    where = device_for(model, network, asked.device)
    return Index(
        network, made.samples, store, rows, made.side, where, made.asked.precision, asked.engine
    )
