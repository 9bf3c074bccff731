"""What of weights are no numbers, or all zeros, read without torch."""

import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selftaught.backbones.weights.header import Shape

KINDS = {
    **dict.fromkeys(("F32", "Float"), "<f4"),
    **dict.fromkeys(("F64", "Double"), "<f8"),
    **dict.fromkeys(("F16", "Half"), "<f2"),
    **dict.fromkeys(("BF16", "BFloat16"), "<u2"),
}
"""Kinds of numbers as files call them -> as NumPy reads them."""
MOST = 2**31
"""Bytes of a file above which nobody is to wait for its values."""


def lost(path: Path, tensors: Mapping[str, Shape]) -> tuple[list[str], list[str]]:
    """Names of tensors that hold values that are no numbers, and of positions that are all zeros.

    Nothing is found in files of torch before 1.6, whose parts lie where only torch knows.
    """
    import numpy as np

    if path.stat().st_size > MOST:
        return [], []
    broken, zeros = [], []
    for name, raw, kind in _parts(path, tensors):
        values = np.frombuffer(raw, kind)
        if kind == "<u2":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        if not np.isfinite(values).all():
            broken.append(name)
        elif name.rpartition(".")[2] in _POSITIONS and not values.any():
            zeros.append(name)
    return broken, zeros


_POSITIONS = ("pos_embed", "position_embeddings", "pos_embedding")


def _parts(path: Path, tensors: Mapping[str, Shape]) -> Iterator[tuple[str, Any, str]]:
    """Name, bytes and kind of each tensor of floats."""
    floats = {name: t for name, t in tensors.items() if t.kind in KINDS and t.count}
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            told = json.loads(file.read(length))
            for name, tensor in floats.items():
                start, end = told[name]["data_offsets"]
                file.seek(8 + length + start)
                yield name, file.read(end - start), KINDS[tensor.kind]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = {n.rpartition("/data/")[2]: n for n in archive.namelist() if "/data/" in n}
            for name, tensor in floats.items():
                if tensor.storage in members:
                    yield name, archive.read(members[tensor.storage]), KINDS[tensor.kind]
