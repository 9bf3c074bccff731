"""Segmentation by an encoder and its floors: images and masks from files to scores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selftaught import augment
from selftaught.augment.image.render import plain_mask
from selftaught.data import BadSample, Samples
from selftaught.data.image.masks import Masks, open_masks
from selftaught.errors import UserError
from selftaught.evaluate.features import Local, color_and_place
from selftaught.evaluate.finding import evenly
from selftaught.evaluate.floors import ENCODER, PLACES
from selftaught.evaluate.image.places import segment
from selftaught.evaluate.settings import Scoring
from selftaught.sides import both

if TYPE_CHECKING:
    from selftaught.evaluate.comparing import Look, Scores

FIELDS = 500
"""Images with masks of each set that are looked at, at most: their local features are kept."""

GLANCES = 50
"""Masks that are compared with their images before anything else is done."""


def opened(sources: Sequence[Any], sets: Sequence[Samples], asked: Scoring) -> tuple[Masks, Masks]:
    """Training and test images with their masks; a fifth is held out where no test is given.

    Args:
        sources: what the images were opened from.
        sets: the images, of training and perhaps of test.
        asked: where masks are.

    Raises:
        UserError: they are missing, or do not fit.
    """
    masks = (asked.masks, asked.test_masks or asked.masks)
    found = [open_masks(d, s, m) for d, s, m in zip(sources, sets, masks)]
    for each in found:
        for i in evenly(len(each), GLANCES).tolist():
            _mask(each, i)
    if len(found) == 1:
        order = np.random.default_rng(asked.seed).permutation(len(found[0]))
        few = max(1, len(order) // 5)
        if len(order) < 2:
            raise UserError("segmentation needs two images with masks at least, one to test on")
        found = [found[0].select(np.sort(part)) for part in (order[few:], order[:few])]
    train, test = (m.select(evenly(len(m), FIELDS).numpy()) for m in found)
    return train, test


def _mask(masks: Masks, i: int) -> np.ndarray:
    """Mask i, of the size of its image. UserError where it cannot be had."""
    try:
        found, header = masks.read(i), masks.samples.header(i)
    except BadSample as error:
        raise UserError(f"{masks.name(i)}, a mask or its image, cannot be used: {error}") from error
    if found.shape != (header.height, header.width):
        raise UserError(
            f"the mask {masks.name(i)} has {found.shape[1]} x {found.shape[0]} pixels and its "
            f"image {header.width} x {header.height}: both must be of one size"
        )
    return found


def scored(look: "Look", fields: tuple[Masks, Masks]) -> "Scores":
    """Segmentation by the encoder and by its floors.

    Args:
        look: networks, and how images are shown to them.
        fields: as `opened` gives them.
    """
    local = [Local() for _ in look.networks]
    networks = look.each(local)
    channels = look.networks[ENCODER].channels
    blank = torch.zeros(1, channels, *both(look.size), dtype=torch.uint8)
    for network in networks:  # what has no local features is told before the images are read
        network(blank)
    networks.append(color_and_place(local[0].grid))
    grids = [found.grid for found in (*local, local[0])]
    pipeline = augment.plain(look.size)
    sides = []
    for masks in fields:
        features, rest = look.at(masks.samples, networks)
        shown = [plain_mask(_mask(masks, int(i)), pipeline.resize, look.size) for i in rest.index]
        sides.append([(f, np.stack(shown)) for f in features])
    return {
        name: segment(a, b, grid=grid, ignore=look.asked.ignore, seed=look.asked.seed)
        for name, grid, a, b in zip((*look.networks, *PLACES[1:]), grids, *sides, strict=True)
    }
