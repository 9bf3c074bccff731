"""Images in arrays, in lists, and in map-style objects of other libraries."""

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol, cast, final

import numpy as np
from PIL import Image

from selftaught.data.image.decode import BadSample, Layout, layout_of, npy_header, read_bytes
from selftaught.data.labels import as_text, encode, tell_unlabeled
from selftaught.data.memory import SHARE, free_memory
from selftaught.data.source import Raw, Source, digest
from selftaught.errors import UserError

_IMAGES = ("image", "images", "x", "x_train", "data", "imgs", "arr_0")
_LABELS = ("label", "labels", "y", "y_train", "targets", "arr_1")


class MapStyle(Protocol):
    """What PyTorch calls a map-style dataset."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Any: ...


class Place(NamedTuple):
    """Where the values of an array lie in a file, so that they can be mapped."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]

    def map(self) -> np.ndarray:
        there = os.path.getsize(self.path) - self.offset
        if there < self.bytes:
            raise ValueError(f"it ends early, {there:,} of {self.bytes:,} bytes are there")
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, self.order)

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@final
class ArraySource(Source):
    """[N, H, W], [N, H, W, C] or [N, C, H, W]; one in a file is mapped anew by each process."""

    numbered = True

    def __init__(self, array: np.ndarray, place: Place | None = None, label: str = "array"):
        shape = array.shape
        if array.ndim not in (3, 4) or array.dtype.kind not in "buif":
            raise UserError(
                f"an array of shape {shape} and type {array.dtype} is no set of images: "
                "[N, H, W] or [N, H, W, C] of numbers is needed"
            )
        if array.ndim == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) > 4:
            raise UserError(
                f"the array of shape {shape} looks like one image [H, W, C]; a set of images is "
                "[N, H, W, C]: array[None]"
            )
        self.place, self.label = place, label
        self.shape, self.dtype = shape, str(array.dtype)
        self._array: np.ndarray | None = array

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_array": self._array if self.place is None else None}

    def check_layout(self, channels: int, layout: Layout | None) -> None:
        """Refuse, before anything is read, what no image of it could be read as."""
        try:
            layout_of(self.shape[1:], channels, layout)
        except BadSample as error:
            raise UserError(f"each image in {self.label} {error.reason}") from error

    @property
    def array(self) -> np.ndarray:
        if self._array is None and self.place is not None:
            self._array = self.place.map()
        return cast(np.ndarray, self._array)

    def __len__(self) -> int:
        return self.shape[0]

    def load(self, i: int) -> np.ndarray:
        return self.array[i]

    def name(self, i: int) -> str:
        return f"{self.label}::{i}"

    def fingerprint(self) -> str:
        flat = self.array.reshape(-1)
        return digest(str(self.shape), self.dtype, flat[:: max(1, flat.size // 4096)])


def array_file(path: Path, column: str | None, labels: str | None) -> ArraySource:
    """A .npy, or a .npz of images and perhaps labels; mapped, but for what is compressed."""
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                place = _place(file, path, 0)
            return ArraySource(place.map(), place, path.name)
        with zipfile.ZipFile(path) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            return _from_npz(path, archive, members, column, labels)
    except (ValueError, OSError, EOFError, OverflowError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not an array that can be read: {error}") from error
    except (MemoryError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read: {error or 'it needs too much memory'}") from error


def _from_npz(
    path: Path,
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    column: str | None,
    labels: str | None,
) -> ArraySource:
    lower = {n.lower(): n for n in members}
    image = column or next((lower[n] for n in _IMAGES if n in lower), None)
    if image is None or image not in members:
        raise UserError(
            f"{path} has no array {column or 'of images'}; it has {', '.join(members)}: "
            "name one with --column"
        )
    source = _member(path, archive, members[image])
    label = labels or next((lower[n] for n in _LABELS if n in lower), None)
    if label is None:
        others = [name for name in members if name != image]
        if others:
            tell_unlabeled(path, others, "array")
        return source
    if label not in members:
        raise UserError(f"{path} has no array {label}; it has {', '.join(members)}")
    values = _read(archive, members[label]).reshape(-1)
    if len(values) == len(source) and values.dtype.kind in "biufUS":
        source.labels, source.classes = encode(map(as_text, values.tolist()), f"{label} in {path}")
    elif labels is not None:
        raise UserError(
            f"array {label} of {path} has {len(values)} values of type {values.dtype}; "
            f"{len(source)} numbers or texts are needed"
        )
    return source


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> ArraySource:
    """An array of an archive: mapped where it lies there as it is, read where it fits."""
    label = path.name
    with archive.open(member) as file:
        if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
            with path.open("rb") as whole:
                whole.seek(member.header_offset + 26)
                name, extra = struct.unpack("<HH", whole.read(4))
                start = member.header_offset + 30 + name + extra
            place = _place(cast(IO[bytes], file), path, start)
            return ArraySource(place.map(), place, label)
        need = _place(cast(IO[bytes], file), path, 0).bytes
    free = free_memory()
    if free is not None and need > SHARE * free:
        raise UserError(
            f"{path} is compressed and would take {need / 2**30:.1f} GiB of memory, of which "
            f"{free / 2**30:.1f} GiB are free: save the array as .npy, or with numpy.savez, which "
            "are read where they lie"
        )
    return ArraySource(_read(archive, member), None, label)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _place(file: IO[bytes], path: Path, start: int) -> Place:
    """Where the values of an array lie whose header `file` begins with, `start` into `path`."""
    shape, fortran, dtype = npy_header(file)
    return Place(str(path), start + file.tell(), shape, dtype, "F" if fortran else "C")


@final
class ObjectSource(Source):
    """A map-style object: an image, (image, label) or {"image": ..., "label": ...} an item.

    An image is a Pillow image, an array or a tensor [H, W], [H, W, C] or [C, H, W] (which has to be
    said), encoded bytes, or a path. `labels` are
    collected by one pass over the items, the first time that somebody asks.
    """

    numbered = True

    def __init__(self, items: MapStyle, column: str | None, label: str | None):
        self.items, self.column, self.label = items, column, label
        self._found: tuple[np.ndarray | None, list[str] | None] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def load(self, i: int) -> Raw:
        if not 0 <= i < len(self):
            raise IndexError(i)
        try:
            image, _ = self._split(self.items[i])
        except BadSample:
            raise
        except Exception as error:  # another library's code: whatever it raises spoils one sample
            raise BadSample(f"cannot be read: {type(error).__name__}: {error}") from error
        if type(image).__module__.split(".")[0] == "torch":  # known without importing it
            image = _of_torch(image)
        if isinstance(image, str | Path):
            return read_bytes(str(image))
        if isinstance(image, bytes | np.ndarray | Image.Image):
            return image
        raise BadSample(
            f"is a {type(image).__module__}.{type(image).__qualname__}; a Pillow image, an array "
            "[H, W, C], bytes or a path is needed"
        )

    def name(self, i: int) -> str:
        return f"{type(self.items).__name__}::{i}"

    def fingerprint(self) -> str:
        return digest(len(self), type(self.items).__qualname__)

    def stamp(self, i: int) -> str:
        return self.content(i)  # nothing else tells of an object

    @property
    def labels(self) -> np.ndarray | None:  # type: ignore[override]
        return self._read_labels()[0]

    @property
    def classes(self) -> list[str] | None:  # type: ignore[override]
        return self._read_labels()[1]

    def _read_labels(self) -> tuple[np.ndarray | None, list[str] | None]:
        if self._found is None:
            texts = [self._label(i) for i in range(len(self))]
            self._found = encode(texts, self.name(0)[:-3]) if any(texts) else (None, None)
        return self._found

    def _label(self, i: int) -> str:
        """The label of item `i` as text: of a number, a truth value or a name; else empty."""
        try:
            _, label = self._split(self.items[i])
        except Exception:
            return ""
        if hasattr(label, "item") and getattr(label, "ndim", None) == 0:
            label = label.item()
        return as_text(label) if isinstance(label, bool | int | float | str) else ""

    def _split(self, item: Any) -> tuple[Any, Any]:
        if isinstance(item, Mapping):
            name = self.column or next((k for k in item if str(k).lower() in _IMAGES), None)
            if name not in item:
                raise BadSample(f"has no image among {', '.join(map(str, item))}")
            label = self.label or next((k for k in item if str(k).lower() in _LABELS), None)
            return item[name], item.get(label)
        if isinstance(item, tuple | list) and len(item) >= 2:
            return item[0], item[1]
        return (item[0] if isinstance(item, tuple | list) and item else item), None


def _of_torch(tensor: Any) -> np.ndarray:
    try:
        return tensor.numpy(force=True)
    except (TypeError, AttributeError, RuntimeError) as error:
        raise BadSample(f"is a tensor that no array can be made of: {error}") from error


def items(sequence: Sequence[Any]) -> ObjectSource:
    """A list of arrays, Pillow images or bytes."""
    return ObjectSource(sequence, None, None)
