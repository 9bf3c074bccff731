"""Pictures to search by: files, pictures in memory, images of the data itself."""

import os
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

from selftaught import kinds
from selftaught.data import BadSample, Samples, open_data
from selftaught.data.selection import select
from selftaught.errors import UserError


class Query(NamedTuple):
    """name: what it is called. image: one sample, which can be read."""

    name: str
    image: Samples


def opened(images: Any, data: Samples) -> list[Query]:
    """Each of `images`, one or several, as data of one image that can be read.

    Args:
        images: paths, arrays, Pillow images, bytes; names or numbers of images of `data`.
        data: that is searched.

    Raises:
        UserError: one is not there, or cannot be read.
    """
    if not isinstance(images, list | tuple) or isinstance(images, Query):
        images = [images]
    if not images:
        raise UserError("there is no picture to search by: give files of images")
    found = [_one(n, image, data) for n, image in enumerate(images)]
    return list({query.name: query for query in found}.values())


def _one(number: int, image: Any, data: Samples) -> Query:
    if isinstance(image, Query):
        return image
    if isinstance(image, str | Path):
        query = _named(str(image), data)
    elif isinstance(image, Integral):  # NumPy's have no other base in common
        query = _row(int(image), data)
    else:
        query = Query(f"query {number}", open_data([image], channels=data.channels, kind=data.kind))
    try:
        query.image.read(0)
    except BadSample as error:
        raise UserError(f"{query.name} cannot be searched by: {error}") from error
    return query


def _named(word: str, data: Samples) -> Query:
    """A file, else an image of the data by its name, else by its number; else a text, typed."""
    if Path(word).is_dir():
        raise UserError(f"{word} is a folder; name the images in it, such as {word}/*.jpg")
    if Path(word).exists():
        return Query(word, open_data([word], channels=data.channels, kind=data.kind))
    for i in range(len(data)):
        if data.name(i) == word or os.path.normpath(data.name(i)) == word:
            return _row(i, data)
    if word.isdecimal():
        return _row(int(word), data)
    if kinds.of(data).typed:
        return Query(word, open_data([word], channels=data.channels, kind=data.kind))
    raise UserError(
        f"{word} is neither a file nor an image of the data; give a file, or a path or number as "
        "embed writes them"
    )


def _row(i: int, data: Samples) -> Query:
    if not 0 <= i < len(data):
        raise UserError(f"there is no image {i}: the data has 0 to {len(data) - 1}")
    return Query(data.name(i), select(data, [i]))
