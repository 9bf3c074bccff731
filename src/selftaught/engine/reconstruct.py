"""What a trained masked method paints in images of one's own."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from selftaught import kinds
from selftaught.augment import normalize, plain, sample_rng
from selftaught.augment.image.view import View
from selftaught.data import BadSample, Samples, open_data
from selftaught.engine.build import asked_of, restored
from selftaught.engine.pictures import as_bytes
from selftaught.errors import UserError
from selftaught.method import Batch, Pictures
from selftaught.report.image.pictures import write_png
from selftaught.roles import Number
from selftaught.sides import Size

GAP = 4
"""Pixels between two pictures of a row."""


def reconstruct(
    run: Path, images: tuple[str, ...], *, out: Path = Path("reconstructions"), seed: Number = 0
) -> list[Path]:
    """Write what a masked method paints: for each image a row of masked | painted | original.

    Each image is cut to its central square and hidden in part by chance, as in training.

    Args:
        run: folder of a training by mae, simmim, inpainting or another method that shows pictures.
        images: files.
        out: folder for the rows, one NAME.png an image.
        seed: of what is hidden.

    Returns:
        The files, in the order of the images.

    Raises:
        UserError: the run or an image cannot be read, or the method has nothing to show.
    """
    asked = asked_of(Path(run))
    if (word := asked["sample"].get("kind", "image")) != "image":
        raise UserError(
            f"{run} learned from {kinds.find(word).many}, which are not painted; what it said of "
            f"some stands in {Path(run) / 'report.html'}"
        )
    samples = open_each(images, out, asked["backbone"].get("channels", 3))
    method = restored(Path(run))
    if method.needs.beside:
        raise UserError(
            f"{asked['method']} learns from images with masks, not from images alone; the report "
            f"of the run, {Path(run) / 'report.html'}, shows what it finds"
        )
    image: Any = method.encoder
    pipeline = still(method.views(image.size))
    squares = [square(name, s, image.size).transpose(1, 2, 0) for name, s in zip(images, samples)]
    views = [pipeline(x, sample_rng(seed, 0, i)) for i, x in enumerate(squares)]
    with torch.no_grad():
        batch = normalize(default_collate(views), image.mean, image.std)
        found = method.eval().show(Batch(batch, torch.arange(len(views))))
    if not isinstance(found, Pictures):
        raise UserError(
            f"{asked['method']} paints no images; mae, simmim, inpainting and discrete_vae do"
        )
    columns = [as_bytes(x, image) for x in found.columns.values()]
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for i, name in enumerate(images):
        path = free_name(out / f"{Path(name).stem}.png", written)
        write_png(_row([column[i] for column in columns]), path)
        written.append(path)
    return written


def open_each(images: tuple[str, ...], out: Path, channels: int) -> list[Samples]:
    """Each of the files as data of one image; refused before anything that takes long."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder with --out")
    for name in images:
        if Path(name).is_dir():
            raise UserError(f"{name} is a folder; name the images in it, such as {name}/*.jpg")
        if not Path(name).exists():
            raise UserError(f"{name} does not exist; give files of images")
    return [open_data([name], channels=channels) for name in images]


def square(name: str, sample: Samples, size: Size) -> np.ndarray:
    """uint8 [C, size, size] from the middle of the one image of a file."""
    try:
        return plain(size)(sample.read(0))
    except BadSample as error:
        raise UserError(f"{name} {error}") from error


def still(pipeline: Any) -> Any:
    """A pipeline whose views show the whole image as it is; all else of it stays random."""
    if isinstance(pipeline, View):
        return View(pipeline.size, (1.0, 1.0), (1.0, 1.0), pipeline.interpolation, flip=0.0)
    if isinstance(pipeline, tuple):
        return tuple(still(part) for part in pipeline)
    if is_dataclass(pipeline) and not isinstance(pipeline, type):
        parts = {f.name: still(getattr(pipeline, f.name)) for f in fields(pipeline)}
        return replace(pipeline, **parts)
    return pipeline


def _row(pictures: list[np.ndarray]) -> np.ndarray:
    """Side by side, white between them."""
    gap = np.full((*pictures[0].shape[:2], GAP), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], 2)


def free_name(path: Path, taken: list[Path]) -> Path:
    """`path`, numbered where images of two folders have one name."""
    count, found = 1, path
    while found in taken:
        count += 1
        found = path.with_stem(f"{path.stem}-{count}")
    return found
