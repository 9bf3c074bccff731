"""Pictures of what a method did, made when training has ended and kept in the run folder."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from selftaught import kinds
from selftaught.augment.pairs import Modalities
from selftaught.backbones import Encoder
from selftaught.data import Samples
from selftaught.data.paired import Paired
from selftaught.data.selection import select
from selftaught.engine.estimate import readable
from selftaught.evaluate.features import one_pass
from selftaught.feed.views import Fetched, ViewDataset, collate
from selftaught.kinds import Kind
from selftaught.method import Batch, Method, Passages, prepared
from selftaught.report.image.gallery import Cell, Gallery, save
from selftaught.report.image.pictures import THUMB, encode

log = logging.getLogger("selftaught")

_SEARCHED = 1000
"""Images among which those nearest to a prototype are looked for."""
_PROTOTYPES, _NEAR = 12, 8
"""Prototypes that are shown, and images of each."""


SHOWN = 12
"""Images whose views are kept for the report."""


def keep_views(views: ViewDataset, out: Path) -> None:
    """Views of a few images as the method saw them in its first epoch, for the report."""
    items = [readable(views, i).views for i in range(min(SHOWN, len(views.samples)))]
    columns: dict[str, Any] = {}
    for leaves in zip(*(_seen(item, views) for item in items), strict=True):
        columns[f"view{len(columns)}"] = np.stack(leaves)
    np.savez_compressed(out / "views.npz", **columns)


def _seen(item: Any, views: ViewDataset) -> list[np.ndarray]:
    """The pictures of the views of a sample; of pairs, those of both sides."""
    samples, pipeline = views.samples, views.pipeline
    if not isinstance(samples, Paired):
        return _images(item, kinds.of(samples))
    left, right = item
    if isinstance(pipeline, Modalities) and pipeline.normalized:
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (pipeline.mean, pipeline.std))
        right = (255 * (right * std + mean)).clip(0, 255).round().astype(np.uint8)
    sides = (left, kinds.of(samples.first)), (right, kinds.of(samples.second))
    return [picture for node, kind in sides for picture in _images(node, kind)]


def _images(node: Any, kind: Kind) -> list[np.ndarray]:
    """The pictures [C, h, w] of nested views, in order."""
    if isinstance(node, Tensor):  # of declared views
        node = node.numpy()
    if isinstance(node, np.ndarray):
        return kind.pictures(node)
    if isinstance(node, dict):
        node = list(node.values())
    return (
        [leaf for child in node for leaf in _images(child, kind)]
        if isinstance(node, list | tuple)
        else []
    )


def keep_pictures(
    method: Method, image: Encoder, items: list[Fetched], data: Samples, out: Path
) -> None:
    """Let `method` show what it did, and what its prototypes stand for.

    A method whose `show` fail costs a warning, not the end of a training.

    Args:
        method: trained; left in the mode and state that it was in.
        image: its encoder.
        items: a few samples as the method sees them, not collated.
        data: where images that are near to prototypes are looked for.
        out: run folder.
    """
    try:
        with _resting(method):
            made = [_shown(method, image, items), _prototypes(method, image, data)]
    except Exception as error:
        log.warning(
            "no pictures of what %s did, because making them failed (%s: %s)",
            type(method).__name__,
            type(error).__name__,
            error,
        )
        made = []
    save(out, [gallery for gallery in made if gallery])


@contextmanager
def _resting(method: Method) -> Iterator[None]:
    """In evaluation mode, without gradients."""
    modes = {module: module.training for module in method.modules()}
    try:
        with torch.no_grad():
            method.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _shown(method: Method, image: Encoder, items: list[Fetched]) -> Gallery | None:
    item, device = collate(items), next(method.parameters()).device
    views = prepared(method, move_data_to_device(item.views, device))
    found = method.show(Batch(views, item.index.to(device)))
    if found is None:
        return None
    if isinstance(found, Passages):
        cells = [Cell(json.dumps(text).encode(), "words") for text in found.texts]
        return Gallery(found.title, found.note, tuple(("", (cell,)) for cell in cells))
    columns = {name: as_bytes(x, image) for name, x in found.columns.items()}
    none = [""] * len(items)
    rows = [
        (
            "",
            tuple(
                _cell(x[i], name, found.captions.get(name, none)[i]) for name, x in columns.items()
            ),
        )
        for i in range(len(items))
    ]
    return Gallery(found.title, found.note, tuple(rows))


def _prototypes(method: Method, image: Encoder, data: Samples) -> Gallery | None:
    """The prototypes that most images belong to, each with the images that belong to it most."""
    if type(method).assign is Method.assign:
        return None
    some = select(data, np.sort(np.random.default_rng(0).permutation(len(data))[:_SEARCHED]))
    device, count = next(method.parameters()).device, 0

    def best(x: Tensor) -> Tensor:
        nonlocal count
        belongs = method.assign(kinds.of(image).prepare(x.to(device), image))
        assert belongs is not None
        count = belongs.shape[1]
        strength, which = belongs.float().max(1)
        return torch.stack([which.float(), strength], 1)

    (found,), rest = one_pass([best], some, image.size)
    which, strength = found[:, 0].astype(int), found[:, 1]
    sizes = np.bincount(which, minlength=count)
    rows = []
    for prototype in np.argsort(-sizes, kind="stable")[: min(_PROTOTYPES, int((sizes > 0).sum()))]:
        members = np.flatnonzero(which == prototype)
        members = members[np.argsort(-strength[members], kind="stable")][:_NEAR]
        cells = [_thumb(some, int(rest.index[i])) for i in members]
        rows.append((f"number {prototype}: {sizes[prototype]} images", tuple(cells)))
    note = (
        f"{int((sizes > 0).sum()):,} of {count:,} are the nearest of any of {len(which):,} images; "
        f"the {len(rows)} that are so most often, with the images that belong to them most."
    )
    return Gallery("Prototypes and their nearest images", note, tuple(rows))


def _thumb(samples: Samples, i: int) -> Cell:
    data, kind = encode(kinds.of(samples).thumbnail(samples.read(i, min_side=2 * THUMB), THUMB))
    return Cell(data, kind, samples.name(i))


def _cell(x: np.ndarray, name: str, caption: str) -> Cell:
    data, kind = encode(x)
    return Cell(data, kind, name, caption)


def as_bytes(x: Tensor, image: Encoder) -> np.ndarray:
    """Normalized images as uint8."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (image.mean, image.std))
    return ((x.float().cpu() * std + mean).nan_to_num() * 255).clamp(0, 255).round().byte().numpy()
