"""`Index`: the images of a dataset by what an encoder makes of them."""

import hashlib
import json
import logging
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import kinds
from selftaught.backbones import Encoder
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.data.source import digest
from selftaught.errors import DataError, UserError
from selftaught.evaluate.features import (
    Asked,
    NoneReadable,
    Progress,
    device_for,
    one_pass,
    open_samples,
    resolve,
    running,
    tell_skipped,
)
from selftaught.evaluate.writing import texts
from selftaught.index import approximate, kept, likeness
from selftaught.index.exact import Near, Vectors, nearest
from selftaught.index.found import Found
from selftaught.index.likeness import SIDE
from selftaught.index.queries import Query, opened
from selftaught.index.store import Store
from selftaught.nouns import worded
from selftaught.sides import Size, both

log = logging.getLogger("selftaught")

PART = 4096
"""Images of a part: what is embedded again, at most, after a process was killed."""
SMALL = 2048
"""Images whose small pictures are compared at once."""
CHUNK = 16_384
"""Images whose neighbors are looked for between two reports of progress."""
NEIGHBORS = 10
"""That an outlier is far from."""
OUTLIERS = ("rank", "distance", "path", "nearest", "index")
HOW = ("channels", "value_range", "truncated", "nodata", "layout")
"""Attributes of samples by which images are read."""

Engine = Literal["auto", "exact", "faiss"]


class Index:
    """Images of a dataset, to be found by their likeness: cosines of an encoder's features.

    Made by `Index.of`. Nothing that it finds is touched.

    Attributes:
        data: all images; positions: [N] of those that can be read; samples: these.
        network: that embeds.
        added: images that were embedded when it was opened.
        skipped: names of those that cannot be read -> why.
    """

    def __init__(
        self,
        network: Encoder,
        data: Samples,
        store: Store,
        rows: np.ndarray,
        side: Size,
        device: torch.device,
        precision: Literal["fp32", "bf16"] = "fp32",
        engine: Engine = "auto",
    ):
        self.network, self.side, self.device, self.precision = network, side, device, precision
        self.store, self.engine, self.data = store, engine, data
        self.positions = np.flatnonzero(rows >= 0)
        self.samples = select(data, self.positions)
        rows = rows[self.positions]
        self.vectors = Vectors([part.vectors for part in store.parts], rows)
        self.pixels = np.concatenate([part.pixels for part in store.parts])[rows]
        self.added = 0
        self.skipped: dict[str, str] = {}
        self.progress: Progress | None = None
        self._faiss: approximate.Approximate | None = None

    @classmethod
    def of(
        cls,
        encoder: Asked | Encoder | nn.Module | str | Path,
        data: Any,
        folder: str | Path | None = None,
        *,
        path_column: str | None = None,
        size: Size | None = None,
        batch: int = 256,
        workers: int | None = None,
        device: str = "auto",
        precision: Literal["fp32", "bf16"] = "fp32",
        engine: Engine = "auto",
        progress: Progress | None = None,
    ) -> "Index":
        """An index of `data`: images are embedded unless `folder` has them as they are now.

        Args:
            encoder, data, path_column, size, batch, workers, device, precision, progress: as of
                `embed`.
            folder: where features are kept, part by part: what was embedded before is taken from
                there, new and changed images are added, those that are gone are left out; with
                another encoder it is made anew. None keeps them in memory.
            engine: exact comparison, faiss, or auto: faiss for 100,000 images and more where it is
                installed.

        Raises:
            UserError: an argument that cannot work, or `folder` holds something else.
            DataError: no image can be read.
            TrainingError: the network gives features that are not finite.
        """
        if engine == "faiss":
            approximate.needed()
        network = resolve(encoder, size)
        samples = open_samples(data, network, None, path_column)
        where = device_for(encoder, network, device)
        side = size or network.size
        store = Store(
            None if folder is None else Path(folder), about(network, samples, side, precision)
        )
        keys = np.fromiter((key(samples, i) for i in range(len(samples))), np.uint64, len(samples))
        todo, kind = np.flatnonzero(_rows(store, keys) < 0), kinds.of(network)

        def prints(x: Tensor) -> Tensor:
            return fingerprints(kind.shown(x))

        skipped: dict[str, str] = {}
        with running(network, where, precision) as forward:
            for a in range(0, len(todo), PART):

                def told(done: int, _: int, a: int = a) -> None:
                    if progress is not None:
                        progress(a + done, len(todo))

                some = todo[a : a + PART]
                try:
                    found, rest = one_pass(
                        [forward, prints], select(samples, some), side, batch, workers, told
                    )
                except NoneReadable as error:  # others can, perhaps
                    tell_skipped(error.skipped)
                    skipped |= error.skipped
                    continue
                skipped |= rest.skipped
                at = some[rest.index]
                names = texts(samples, at)
                unit = F.normalize(torch.from_numpy(found[0].reshape(len(at), -1)), dim=1).numpy()
                store.add(names, keys[at], *apart(found[1]), unit)
        rows = _rows(store, keys)
        if (rows < 0).all():
            name, reason = next(iter(skipped.items()), ("", "there is none"))
            raise DataError(
                f"none of the {len(samples)} images can be read; the first: {name}: {reason}"
            )
        made = cls(network, samples, store, rows, side, where, precision, engine)
        made.progress = progress
        made.added, made.skipped = len(todo) - len(skipped), skipped
        return made

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        where = "in memory" if self.store.folder is None else str(self.store.folder)
        new = f", {self.added:,} of them embedded now" if self.added else ", all embedded before"
        bad = f"; {len(self.skipped):,} cannot be read and are left out" if self.skipped else ""
        how = ""
        if self._faiss is not None:
            how = f"; faiss finds {self._faiss.recall:.1%} of the 10 most similar"
        count = worded(f"{len(self):,} images")
        return f"index {where}: {count} x {self.vectors.dim} numbers{new}{bad}{how}"

    def name(self, i: int) -> str:
        """Path of an image."""
        return self.samples.name(i)

    def query(self, images: Any, k: int = 10, min: float | None = None) -> Found:
        """The images most similar to others.

        Args:
            images: one or several: paths, arrays [H, W, C], Pillow images; names or numbers of
                images of the index.
            k: how many of each, at most as many as there are.
            min: similarity that they have at least.

        Returns:
            query, rank (from 1), similarity, path, index. An image that is itself in the index
            comes first, with a similarity of 1.

        Raises:
            UserError: an image cannot be read, or is not there.
        """
        _check(k, min)
        asked = opened(images, self.data)
        near = self._nearest(self._embedded(asked), k)
        rows = [
            (query.name, rank, s, self.name(i), int(self.positions[i]))
            for query, index, similarity in zip(asked, *near)
            for rank, (i, s) in enumerate(zip(index.tolist(), similarity.tolist()), 1)
            if i >= 0 and (min is None or s >= min)
        ]
        bound = "cosine" if min is None else f"a cosine of {min:g} or more"
        few = f"; {k} were asked for" if k > len(self) else ""
        note = f"the most similar of {len(self):,} images, by {bound}{few}"
        return Found.of("matches", ("query", "rank", "similarity", "path", "index"), rows, note)

    def duplicates(self, min: float | None = None) -> Found:
        """Groups of images that are one image: the same pixels, or nearer than by chance.

        Args:
            min: similarity of near duplicates, at least; by default from the data, as
                `likeness.threshold` says.

        Returns:
            group (from 1), keep (the largest image of its group), similarity (to that one), kind
            (kept, identical file, same pixels, near), width, height, bytes, path, index. Groups of
            the most alike come first. Of what is no image size stands for width and height, in the
            unit of its kind, and same view for same pixels.
        """
        _check(min=min)
        # of images with the same pixels one stands for all: they are each other's neighbors
        first, which = np.unique(self.pixels, return_index=True, return_inverse=True)[1:]
        same = np.stack([np.arange(len(self)), first[which]], 1)
        pairs = [same[same[:, 0] != same[:, 1]]]
        near = self._neighbors(first, likeness.AROUND)
        if min is None:
            hit, note = self._closer(first, near)
        else:
            hit, note = near.similarity >= min, f"; near means a similarity of {min:g} or more"
        rows, ranks = np.nonzero(hit)
        pairs.append(np.stack([first[rows], near.index[rows, ranks]], 1))
        found = likeness.groups(len(self), pairs)
        about = [kept.described(self, group) for group in found]
        about.sort(key=lambda rows: (-rows[-1][1], rows[0][-2]))  # similarity, path
        rows = [(n, *row) for n, group in enumerate(about, 1) for row in group]
        more = sum(len(group) - 1 for group in found)
        told = f"{len(found):,} group{'s' * (len(found) > 1)} of duplicates, {more:,} to spare,"
        return Found.of(
            "duplicates",
            ("group", *kept.columns(self)),
            rows,
            f"{told if found else 'no duplicates'} among {len(self):,} images{note}",
        )

    def outliers(self, k: int = NEIGHBORS) -> Found:
        """All images, those most unlike the others first.

        Args:
            k: nearest others by which an image is judged.

        Returns:
            rank (from 1), distance (mean of 1 - cosine to the k nearest others), path, nearest (the
            path of the nearest), index. Nothing where there is one image alone.
        """
        _check(k)
        near = self._neighbors(np.arange(len(self)), k)
        if not near.index.shape[1]:
            return Found.of("outliers", OUTLIERS, [], "one image has no others to be unlike of")
        distance = 1 - near.similarity.mean(1, dtype=np.float64)
        rows = [
            (
                rank,
                float(distance[i]),
                self.name(i),
                self.name(int(near.index[i, 0])),
                int(self.positions[i]),
            )
            for rank, i in enumerate(np.argsort(-distance, kind="stable").tolist(), 1)
        ]
        note = (
            f"{len(self):,} images by their mean distance (1 - cosine) to the "
            f"{near.index.shape[1]} nearest others"
        )
        return Found.of("outliers", OUTLIERS, rows, note)

    def _closer(self, of: np.ndarray, near: Near) -> tuple[np.ndarray, str]:
        """Which neighbors of each of `of` are near duplicates, and how that was told."""
        hit = np.zeros(near.index.shape, bool)
        for a in range(0, len(of), SMALL):
            some = slice(a, a + SMALL)
            others = self._small(near.index[some].reshape(-1)).reshape(*hit[some].shape, SIDE**2)
            hit[some] = (
                likeness.alike(self._small(of[some]), others, both(self.side)[1]) >= likeness.ALIKE
            )
        pictures = (
            "the same picture"
            if kinds.of(self.samples).photos
            else "that views have the same picture"
        )
        same = f"near means {pictures} at {SIDE} x {SIDE} pixels, mirrored or not"
        if len(of) < likeness.FEW:
            return hit, f"; {same} ({len(of)} images are too few to tell by features; see --min)"
        bars = likeness.bars(near.similarity)
        if bars is None:
            log.warning(
                "the features of all images are nearly the same, as of an encoder that has "
                "collapsed: duplicates are told by their pixels alone"
            )
            return hit, f"; {same}"
        least = np.full(len(self), np.inf)
        least[of] = bars
        hit |= near.similarity >= np.maximum(bars[:, None], least[near.index])
        low, high = bars.min(), bars.max()
        span = f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}, by what is around"
        return hit & (near.index >= 0), (
            f"; {same}, or a similarity of {span}: closer than one image in all comes by chance"
        )

    def _small(self, positions: np.ndarray) -> np.ndarray:
        """[n, 256] small pictures."""
        return self.vectors.of([part.small for part in self.store.parts], positions)

    def _neighbors(self, of: np.ndarray, k: int) -> Near:
        """The nearest others, among `of`, of each of `of`; positions are those of the index."""
        some = Vectors(self.vectors.parts, self.vectors.rows[of])
        k = min(k, len(of) - 1)
        if k < 1:
            return Near(np.empty((len(of), 0), np.int64), np.empty((len(of), 0), np.float32))
        engine = self._approximate()
        parts = []
        for a in range(0, len(of), CHUNK):
            own = np.arange(a, min(a + CHUNK, len(of)))
            queries = some.at(own)
            if engine is not None:
                parts.append(engine.nearest(some, queries, k, own))
            else:
                parts.append(nearest(some, queries, k, own, self.device))
            if self.progress is not None:
                self.progress(int(own[-1]) + 1, len(of))
        index, similarity = (np.concatenate(x) for x in zip(*parts))
        return Near(np.where(index < 0, -1, of[index]), similarity)

    def _nearest(self, queries: Tensor, k: int) -> Near:
        engine = self._approximate()
        if engine is not None:
            return engine.nearest(self.vectors, queries, k)
        return nearest(self.vectors, queries, k, device=self.device)

    def _approximate(self) -> approximate.Approximate | None:
        """faiss' part, where it is to be used."""
        many = len(self) >= approximate.ENOUGH and approximate.installed()
        if self._faiss is None and (self.engine == "faiss" or (self.engine == "auto" and many)):
            names = [part.name for part in self.store.parts]
            self._faiss = approximate.opened(
                self.vectors, self.store.folder, self.store.mark, names
            )
        return self._faiss

    def _embedded(self, queries: list[Query]) -> Tensor:
        """[Q, D] of unit length."""
        with running(self.network, self.device, self.precision) as forward:
            found = [one_pass([forward], q.image, self.side, workers=0)[0][0] for q in queries]
        return F.normalize(torch.from_numpy(np.concatenate(found).reshape(len(queries), -1)), dim=1)


def _check(k: int = 1, min: float | None = None) -> None:
    """Refuse a number of images, or a similarity, that cannot be: UserError."""
    if not isinstance(k, Integral) or k < 1:
        raise UserError(f"k={k} must be a whole number, at least 1: of the images to be found")
    if min is not None and not -1 <= min <= 1:
        raise UserError(f"min={min} is a similarity, from -1 to 1")


def about(network: Encoder, samples: Samples, side: Size, precision: str) -> dict[str, Any]:
    """Plain values that differ where features would."""
    config = {k: v for k, v in network.config.items() if k not in ("pretrained", "weights")}
    found = {
        "network": network.name,
        "size": side,
        "weights": _checksum(network),
        "normalization": {"mean": list(network.mean), "std": list(network.std)},
        "settings": config,
        "precision": precision,
        "reading": {name: getattr(samples, name) for name in HOW},
    }
    return json.loads(json.dumps(found, default=str))  # as it is read again


def _checksum(network: Encoder) -> str:
    state = hashlib.blake2b(digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        state.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        state.update(flat.view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def key(samples: Samples, i: int) -> int:
    """64 bits that are others where sample i is another image, or another state of it."""
    return int(digest(samples.name(i), samples.stamp(i)), 16)


def fingerprints(views: Tensor) -> Tensor:
    """uint8 [B, C, S, S] -> [B, 4 + 256]: a hash, 16 bits each, and 16 x 16 gray values."""
    hashes = [hashlib.blake2b(view.numpy().tobytes(), digest_size=8).digest() for view in views]
    bits = torch.from_numpy(np.frombuffer(b"".join(hashes), "<u2").astype(np.float32)).view(-1, 4)
    sides = SIDE, SIDE
    gray = F.interpolate(
        views.float().mean(1, keepdim=True), sides, mode="bilinear", antialias=True
    ).round()
    return torch.cat([bits, gray.flatten(1)], 1)


def apart(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `fingerprints` gives, as hashes [B] uint64 and gray values [B, 256] uint8."""
    bits = np.ascontiguousarray(found[:, :4].astype("<u2"))
    return bits.view("<u8").reshape(-1), found[:, 4:].astype(np.uint8)


def _rows(store: Store, keys: np.ndarray) -> np.ndarray:
    """[N] row of the store for each key; -1 where there is none."""
    if not store.parts:
        return np.full(len(keys), -1)
    known = np.concatenate([part.keys for part in store.parts])
    order = np.argsort(known, kind="stable")
    where = np.searchsorted(known[order], keys).clip(0, len(known) - 1)
    return np.where(known[order[where]] == keys, order[where], -1)
