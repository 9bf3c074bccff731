"""Images in arrays, in lists, and in map-style objects of other libraries."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from PIL import Image

from selftaught.data.decode import BadSample, read_bytes
from selftaught.data.labels import as_text, encode
from selftaught.data.source import Raw, Source, digest
from selftaught.errors import UserError

_IMAGES = ("image", "images", "x", "x_train", "data", "imgs", "arr_0")
_LABELS = ("label", "labels", "y", "y_train", "targets", "arr_1")


class MapStyle(Protocol):
    """What PyTorch calls a map-style dataset."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Any: ...


@final
class ArraySource(Source):
    """[N, H, W] or [N, H, W, C]; one that lies in a .npy is mapped anew by each process."""

    numbered = True

    def __init__(self, array: np.ndarray, path: str | None = None, label: str = "array"):
        if array.ndim not in (3, 4) or array.dtype.kind not in "buif":
            raise UserError(
                f"an array of shape {array.shape} and type {array.dtype} is no set of images: "
                "[N, H, W] or [N, H, W, C] of numbers is needed"
            )
        if array.ndim == 4 and array.shape[1] <= 4 < array.shape[3]:
            raise UserError(
                f"the array of shape {array.shape} looks like [N, C, H, W]; [N, H, W, C] is needed:"
                " array.transpose(0, 2, 3, 1)"
            )
        self.path, self.label = path, label
        self.shape, self.dtype = array.shape, str(array.dtype)
        self._array: np.ndarray | None = array

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_array": self._array if self.path is None else None}

    @property
    def array(self) -> np.ndarray:
        if self._array is None:
            self._array = np.load(str(self.path), mmap_mode="r", allow_pickle=False)
        return self._array

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
    """A .npy, memory-mapped; or a .npz of images and perhaps labels, which is read whole."""
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return ArraySource(array, str(path), path.name)
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            lower = {n.lower(): n for n in names}
            image = (
                column if column in names else next((lower[n] for n in _IMAGES if n in lower), None)
            )
            if image is None or (column is not None and column not in names):
                raise UserError(
                    f"{path} has no array {column or 'of images'}; it has {', '.join(names)}: "
                    "name one with --column"
                )
            source = ArraySource(archive[image], None, path.name)
            label = labels or next((lower[n] for n in _LABELS if n in lower), None)
            if label is not None:
                if label not in names:
                    raise UserError(f"{path} has no array {label}; it has {', '.join(names)}")
                values = archive[label].reshape(-1)
                if len(values) == len(source) and values.dtype.kind in "biufUS":
                    texts = map(as_text, values.tolist())
                    source.labels, source.classes = encode(texts, f"{label} in {path}")
                elif labels is not None:
                    raise UserError(
                        f"array {label} of {path} has {len(values)} values of type {values.dtype}; "
                        f"{len(source)} numbers or texts are needed"
                    )
            return source
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not an array that can be read: {error}") from error


@final
class ObjectSource(Source):
    """A map-style object: an image, (image, label) or {"image": ..., "label": ...} an item.

    An image is a Pillow image, an array [H, W] or [H, W, C], encoded bytes, or a path. `labels` are
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


def items(sequence: Sequence[Any]) -> ObjectSource:
    """A list of arrays, Pillow images or bytes."""
    return ObjectSource(sequence, None, None)
