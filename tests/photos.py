"""The photos that are shipped, and what the reference pipeline makes of images."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image as Picture

from selftaught.augment import Views
from selftaught.augment.image import render
from selftaught.demo import PHOTOS


def shipped(count: int) -> list[bytes]:
    """The first photos for training, as they lie in files."""
    rows = pq.read_table(PHOTOS / "train.parquet").column("image").slice(0, count).to_pylist()
    return [row["bytes"] if isinstance(row, dict) else row for row in rows]


def two_classes(folder: Path) -> None:
    """Sixteen small PNG files in `folder`: dark ones in 0, bright ones in 1."""
    rng = np.random.default_rng(0)
    for label in range(2):
        (folder / str(label)).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 90, (40, 40, 3), np.uint8) + np.uint8(120 * label)
            Picture.fromarray(pixels).save(folder / str(label) / f"{i}.png")


def by_reference(pipeline: Views, images, rngs) -> list[np.ndarray]:
    """[V][B, C, S, S] from torch's pipeline, one view at a time."""
    rows = []
    for image, rng in zip(images, rngs):
        params = pipeline.draw(rng, *image.shape[:2])
        rows.append([render.render_view(image, v, p) for v, p in zip(pipeline.views, params)])
    return [np.stack(view) for view in zip(*rows)]
