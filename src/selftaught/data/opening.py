"""`open_data`: one function from whatever holds images, or what else there is, to `Samples`."""

import glob
import logging
import os
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from selftaught.data import arrays, files, lists, pool, sharded, tar
from selftaught.data.absent import missing
from selftaught.data.image.decode import MAX_PIXELS, Layout
from selftaught.data.image.formats import IMAGE, way
from selftaught.data.labels import warn_once
from selftaught.data.remote.address import ending, is_address, matching
from selftaught.data.source import Samples, Source
from selftaught.errors import UserError
from selftaught.nouns import speak_of

if TYPE_CHECKING:
    from selftaught.kinds import Kind

log = logging.getLogger("selftaught")

_KINDS = (
    "a folder, a list (.txt, .csv, .tsv, .jsonl), .parquet, .arrow, .tar shards, .npy, .npz, or an "
    "image"
)


HOW = ("column", "path_column", "value_range", "truncated", "nodata", "max_pixels", "layout")
"""Parameters of `open_data` by which images are read, which whoever reads them again must give."""


def how_read(training: dict[str, Any]) -> dict[str, Any]:
    """Of the settings of a training, as run.yaml holds them, how its images were opened."""
    options = {n: training[n] for n in HOW if training.get(n) is not None}
    if "value_range" in options:
        options["value_range"] = tuple(options["value_range"])
    return options


def open_data(
    source: Any,
    *,
    column: str | None = None,
    labels: str | None = None,
    path_column: str | None = None,
    channels: int = 3,
    value_range: tuple[float, float] | None = None,
    truncated: Literal["skip", "keep"] = "skip",
    max_pixels: int = MAX_PIXELS,
    nodata: float | None = None,
    layout: Layout | None = None,
    kind: "Kind | None" = None,
) -> Samples:
    """Samples of a folder, a list file, Parquet, Hugging Face data, tar shards, arrays or objects.

    Args:
        source: path or pattern (`shard-{000..012}.tar`), array [N, H, W] or [N, H, W, C], list of
            paths, arrays or Pillow images, `datasets.Dataset`, or any object with `__len__` and
            `__getitem__` that yields images or (image, label); samples that are open stay as
            they are.
        column: column of a table, array of a .npz or extension in a tar that holds the images,
            where it is not found by itself.
        labels: column, .npz array or .json field of labels; for a folder a CSV of path,label.
        path_column: column of a list that holds the paths, where it is not found by itself.
        channels: channels of every sample that is read.
        value_range: values that become 0 and 255, for images of more than 8 bits.
        truncated: whether images that end early are refused, or kept with the missing part black.
        max_pixels: width x height above which an image is refused before it is decoded.
        nodata: what becomes of values that are missing, in images of more than 8 bits.
        layout: order of the axes of arrays, CHW where channels come first; HWC unless given, and
            refused where an array looks like CHW or may be either.
        kind: what a sample is, as `selftaught.kinds` has it; an image unless given.

    Raises:
        UserError: when there is nothing that can be read, saying what there was.
    """
    if isinstance(source, Samples):
        return source
    if isinstance(inside := getattr(source, "samples", None), Samples):  # a pool
        return inside
    if kind is not None and kind.photos:
        kind = None
    speak_of(*(("image", "images") if kind is None else (kind.one, kind.many, kind.blank_words)))
    if kind is None:
        found = raw_samples(source, None, column, labels, path_column)
    else:
        found = kind.open(source, column, labels, path_column)
    if len(found) == 0:
        many = "images" if kind is None else kind.many
        raise UserError(f"{_shown(source)} holds no {many}{_beside(found)}")
    if isinstance(found, arrays.ArraySource):
        found.check_layout(channels, layout)
    return Samples(
        found,
        channels=channels,
        value_range=value_range,
        truncated=truncated,
        max_pixels=max_pixels,
        nodata=nodata,
        layout=layout,
        kind=kind,
    )


def _shown(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__}"


def _beside(source: Source) -> str:
    left = source.skipped.advice()
    return f"; left out: {left}" if left else ""


def raw_samples(
    source: Any,
    kind: "Kind | None",
    column: str | None,
    labels: str | None,
    path_column: str | None,
) -> Source:
    """What `source` holds of a kind, of images where that is None; see `open_data`."""
    if isinstance(source, str | os.PathLike):
        return _path(os.fspath(source), kind, column, labels, path_column)
    if isinstance(source, np.ndarray):
        return arrays.ArraySource(source)
    if isinstance(source, list | tuple):
        if source and all(isinstance(s, str | os.PathLike) for s in source):
            paths = [os.fspath(s) for s in source]
            if all(p.lower().endswith(".tar") for p in paths):
                return sharded.tars(paths, column, labels, kind)
            if all(p.lower().endswith(".parquet") for p in paths):
                return _table().parquet(paths, column, labels, *_columns(kind))
            if not any(os.path.exists(p) for p in paths):
                raise UserError(f"none of the {len(paths)} files exists; the first is {paths[0]}")
            return files.from_paths(paths)
        return arrays.items(source)
    if type(source).__module__.split(".")[0] == "datasets":  # known without importing it
        if isinstance(source, dict):
            raise UserError(f"the DatasetDict has the splits {', '.join(source)}: pass one of them")
        return _table().HubSource(source, column, labels, *_columns(kind))
    if isinstance(source, Sized) and callable(getattr(type(source), "__getitem__", None)):
        return arrays.ObjectSource(source, column, labels)  # type: ignore[arg-type]
    if isinstance(source, Iterable) and not isinstance(source, Sized):
        raise UserError(
            f"a {type(source).__name__} is a stream without length: samples are shuffled, and "
            "remembered, by their number; give it __len__ and __getitem__, or pass list(it) where "
            "its images fit into memory"
        )
    raise UserError(f"a {type(source).__name__} holds no images that can be read: {_KINDS}, array")


def _table() -> Any:
    """The module of tables: pyarrow's Parquet reader is loaded where one is read."""
    from selftaught.data import table

    return table


def _suffixes(kind: "Kind | None") -> tuple[frozenset[str], ...]:
    """Endings of files, where they are not those of images."""
    return () if kind is None else (kind.suffixes,)


def _columns(kind: "Kind | None") -> tuple[tuple[str, ...], ...]:
    """Names of columns, where they are not those of images."""
    return () if kind is None else (kind.columns,)


def _path(
    text: str,
    kind: "Kind | None",
    column: str | None,
    labels: str | None,
    path_column: str | None,
) -> Source:
    if text.startswith("pipe:"):
        raise UserError(f"{text} is not a local path: fetch the data first")
    if is_address(text):
        return _address(text, kind, column, labels)
    path = Path(text)
    if not path.exists() and path.suffix.lower() == ".tar" and _is_pattern(text):
        paths = tar.expand(text)
        if not paths:
            raise UserError(f"no file matches {text}")
        return sharded.tars(paths, column, labels, kind)
    if not path.exists():
        raise missing(path)
    if path.is_dir():
        return _folder(path, kind, column, labels, path_column)
    match path.suffix.lower():
        case suffix if kind is not None and suffix in kind.suffixes:
            return files.from_paths([path.name], str(path.parent))
        case suffix if suffix in lists.LISTS:
            return lists.listed(path, labels, path_column, *_suffixes(kind))
        case ".parquet":
            return _table().parquet([text], column, labels, *_columns(kind))
        case ".arrow":
            return _table().arrow([text], column, labels, *_columns(kind))
        case ".tar":
            return sharded.tars([text], column, labels, kind)
        case ".npy" | ".npz" if kind is None:
            return arrays.array_file(path, column, labels)
        case ".gz" | ".tgz" | ".zip" | ".bz2" | ".xz" | ".zst":
            raise UserError(f"{path} is compressed: unpack it, random access needs plain files")
        case suffix if kind is None and suffix in IMAGE:
            return files.from_paths([path.name], str(path.parent))
    if kind is not None:
        raise UserError(
            f"{path} holds no {kind.many} that can be read: needed is a folder or list of files "
            f"({', '.join(sorted(kind.suffixes))}), or a table with a column of them "
            f"({', '.join(kind.columns)})"
        )
    how = f" ({way(path.suffix.lower())})" if way(path.suffix.lower()) else ""
    raise UserError(f"{path} holds no images that can be read{how}: needed is {_KINDS}")


def _address(text: str, kind: "Kind | None", column: str | None, labels: str | None) -> Source:
    """Shards or tables that lie elsewhere."""
    if not ending(text) and (listed := sharded.index(text, kind, column, labels)) is not None:
        return listed
    paths = matching(text)
    for extension in (".tar", ".parquet"):
        if found := [path for path in paths if ending(path) == extension]:
            if extension == ".tar":
                return sharded.tars(found, column, labels, kind)
            return _table().parquet(found, column, labels, *_columns(kind))
    raise UserError(
        f"{text} holds no .tar shards and no .parquet files, which alone are read from afar: pack "
        "the data into shards, or fetch it first"
    )


def _is_pattern(text: str) -> bool:
    return "{" in text or glob.has_magic(text)


def _folder(
    path: Path,
    kind: "Kind | None",
    column: str | None,
    labels: str | None,
    path_column: str | None,
) -> Source:
    if (listed := sharded.index(str(path), kind, column, labels)) is not None:
        return listed
    if kind is None and pool.is_pool(path):
        return pool.kept(path, raw_samples)
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return _table().saved(path, column, labels, *_columns(kind))
    source = files.folder(path, *_suffixes(kind))
    if not len(source) or (len(source) < 1000 and files.only_arrays(source)):
        for extension, reader in ((".parquet", "parquet"), (".tar", "tar"), (".arrow", "arrow")):
            if not source.skipped.ignored.get(extension):
                continue
            inside = files.walk(str(path), frozenset({extension}), look_inside=False)
            paths = [inside.path(i) for i in range(len(inside))]
            log.info("reading %d %s files in %s", len(paths), extension, path)
            if reader == "tar":
                return sharded.tars(paths, column, labels, kind)
            read = getattr(_table(), reader)
            return read(paths, column, labels, *_columns(kind))
    if labels is not None and len(source):
        file = next((p for p in (path / labels, Path(labels)) if p.is_file()), None)
        if file is None and source.labels is not None and not Path(labels).suffix:
            # the name of a column, which the other one of training and test data has
            warn_once(f"{path} has no columns, so {labels} is none of it: its folders are classes")
        elif file is None:
            raise UserError(f"labels={labels} is neither a file in {path} nor one here")
        else:
            lists.label_from(source, file, path_column, *_suffixes(kind))
    return source
