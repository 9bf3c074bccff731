"""Images for a page: as data URLs, and each with its nearest neighbours."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

from selftaught import augment
from selftaught.data import Samples, open_data
from selftaught.data.selection import select
from selftaught.evaluate import embed, features
from selftaught.report.folder import Run

QUERIES, NEAR = 12, 8
THUMB = 96
_SEED = 0


def encode(image: np.ndarray) -> tuple[bytes, str]:
    """uint8 [C, h, w] as a "png" where it is small, otherwise a "jpeg".

    Of any channels; 1 or the first 3 are shown.
    """
    shown = image[:3] if len(image) >= 3 else image[:1]
    picture = Picture.fromarray(shown.transpose(1, 2, 0).squeeze())
    picture.thumbnail((2 * THUMB, 2 * THUMB))
    kind = "png" if max(picture.size) <= 64 else "jpeg"
    out = io.BytesIO()
    picture.save(out, kind, **({"optimize": True} if kind == "png" else {"quality": 82}))
    return out.getvalue(), kind


def url(data: bytes, kind: str) -> str:
    """What `encode` gave, as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def data_url(image: np.ndarray) -> str:
    """`encode`, as a data URL."""
    return url(*encode(image))


@dataclass(frozen=True)
class Neighbour:
    """An image among the neighbours of another. same: whether the classes are, None if unknown."""

    url: str
    name: str
    similarity: float
    same: bool | None


@dataclass(frozen=True)
class Neighbours:
    """rows: a query, then its neighbours by falling cosine. among: number of images searched."""

    rows: list[list[Neighbour]]
    among: int
    total: int


def neighbours(run: Run, data: Any = None) -> Neighbours:
    """The nearest images of a few, under the encoder of the run; both drawn from a fixed seed.

    Args:
        run: with an encoder.
        data: where to draw from; by default the data of the run.

    Raises:
        SelftaughtError: the encoder or the data cannot be read.
    """
    encoder = features.resolve(run.path)
    samples = data if isinstance(data, Samples) else _open(run, data, encoder.channels)
    gpu = torch.cuda.is_available()
    rng = np.random.default_rng(_SEED)
    count = min(len(samples), 1000 if gpu else 500)
    some = select(samples, np.sort(rng.permutation(len(samples))[:count]))
    found = embed(encoder, some, device="cuda" if gpu else "cpu")
    x = found.features / (np.linalg.norm(found.features, axis=1, keepdims=True) + 1e-12)
    rows = []
    for query in rng.permutation(len(x))[:QUERIES]:
        similarity = x @ x[query]
        similarity[query] = np.inf  # itself first, also among duplicates
        near = np.argsort(-similarity, kind="stable")[: NEAR + 1]
        rows.append([_show(some, found, int(i), int(query), float(similarity[i])) for i in near])
    return Neighbours(rows, len(x), len(samples))


def _open(run: Run, data: Any, channels: int) -> Samples:
    training = run.settings.get("training") or {}
    names = ("column", "labels", "value_range", "truncated")
    options = {n: training[n] for n in names if training.get(n) is not None}
    if "value_range" in options:
        options["value_range"] = tuple(options["value_range"])
    source = data if data is not None else str(run.settings.get("data"))
    return open_data(source, channels=channels, **options)


def _show(
    samples: Samples, found: features.Embeddings, i: int, query: int, similarity: float
) -> Neighbour:
    where = int(found.index[i])
    image = augment.plain(THUMB)(samples.read(where, min_side=2 * THUMB))
    y = found.labels
    known = y is not None and y[i] >= 0 and y[query] >= 0
    same = bool(y[i] == y[query]) if known and y is not None else None
    return Neighbour(data_url(image), samples.name(where), similarity, same)
