"""Files of torch with settings beside weights, read without importing what the settings are."""

import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from selftaught.backbones.weights.header import Unpickler, legacy, pickle_in

KINDS = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
"""Kinds of numbers as storages of torch are called by them."""


def read(path: Path) -> Any:
    """The content of a file of torch: tensors and plain values, everything else `Inert`.

    Raises:
        ValueError: it ends too early, or holds numbers of another kind.
    """
    storages: dict[str, Tensor] = {}
    with path.open("rb") as file:
        if not zipfile.is_zipfile(path):
            found, more = legacy(file, lambda inner: _Reader(inner, storages))
            keys = Unpickler(file, set()).load() if more else []
            for key in keys:
                (count,) = torch.frombuffer(_exactly(file, 8), dtype=torch.int64).tolist()
                _fill(storages[key], count, file)
            return found
    with zipfile.ZipFile(path) as archive:
        name = pickle_in(archive)
        with archive.open(name) as inner:
            found = _Reader(inner, storages).load()  # type: ignore[arg-type]
        for key, values in storages.items():
            with archive.open(f"{name.removesuffix('data.pkl')}data/{key}") as inner:
                _fill(values, len(values), inner)  # type: ignore[arg-type]
    return found


class _Reader(Unpickler):
    """Tensors become views of `storages`, which are filled later."""

    def __init__(self, file: BinaryIO, storages: dict[str, Tensor]):
        super().__init__(file, set())
        self.storages = storages

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, count = pid[:5]
        if kind.__name__ not in KINDS:
            raise ValueError(f"numbers of the kind {kind.__name__} are not known")
        if key not in self.storages:
            self.storages[key] = torch.zeros(count, dtype=KINDS[kind.__name__])
        return self.storages[key]

    def tensor(self, storage: Tensor, offset: int, shape: Any, strides: Any, *_: Any) -> Tensor:
        ends = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if math.prod(shape) and not 0 <= ends < len(storage):
            raise ValueError("a tensor is larger than what there is of it")
        return storage.as_strided(tuple(shape), tuple(strides), offset)


def _fill(values: Tensor, count: int, file: BinaryIO) -> None:
    if count != len(values):
        raise ValueError("a tensor has another length than its name says")
    if count:
        values.copy_(torch.frombuffer(_exactly(file, values.nbytes), dtype=values.dtype))


def _exactly(file: BinaryIO, count: int) -> bytearray:
    found = bytearray(file.read(count))
    if len(found) < count:
        raise ValueError("it ends too early")
    return found
