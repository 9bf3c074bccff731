"""Where the samples of many shards lie, in columns of a few bytes a sample, in memory or mapped."""

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Self, final

import numpy as np
import pyarrow as pa

from selftaught.errors import UserError

PLACES, KEYS = "places.arrow", "keys.arrow"
"""Files of an index: (shard, offset, size, label) of each sample, and its key."""
_SCHEMA = {"shard": np.int32, "offset": np.int64, "size": np.int32, "label": np.int64}


class Gathered:
    """Samples of one shard, as they are found.

    offsets, sizes, ends: of each; its key ends there in `names`. texts: number of its label among
    those that `Labels` has met.
    """

    def __init__(self) -> None:
        self.offsets, self.sizes, self.ends = array("q"), array("i"), array("q")
        self.texts, self.names = array("i"), bytearray()

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, key: str, offset: int, size: int, text: int) -> None:
        self.names += os.fsencode(key)
        self.ends.append(len(self.names))
        self.offsets.append(offset)
        self.sizes.append(size)
        self.texts.append(text)


class Labels:
    """Texts that were met, each once; those of samples are numbers of them."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {"": 0}
        self.met = False  # whether any sample has a file for its label
        self._lock = Lock()  # several shards are scanned at a time

    def add(self, text: str) -> int:
        with self._lock:
            return self.number.setdefault(text, len(self.number))

    def of(self, numbers: np.ndarray) -> Iterator[str]:
        texts = list(self.number)
        return (texts[n] for n in numbers)


@final
@dataclass
class Columns:
    """Samples of many shards, in order.

    shards: int32 [N]. offsets: int64 [N]. sizes: int32 [N]. keys: bytes of each name. labels: int64
    [N], -1 where unknown, or None. files: what they are mapped from; None where they are in memory.
    """

    shards: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    keys: pa.LargeBinaryArray
    labels: np.ndarray | None = None
    files: tuple[Path, Path] | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    def __reduce__(self) -> Any:
        """Another process maps the same files, and is sent none of it."""
        if self.files is not None:
            return Columns.mapped, self.files
        return Columns, (self.shards, self.offsets, self.sizes, self.keys, self.labels)

    @classmethod
    def of(cls, parts: Sequence[Gathered]) -> Self:
        """In memory, of the parts of each shard."""
        shards = np.repeat(np.arange(len(parts), dtype=np.int32), [len(p) for p in parts])
        starts = np.cumsum([0, *(len(p.names) for p in parts)])
        ends = [np.frombuffer(p.ends, np.int64) + s for p, s in zip(parts, starts) if len(p)]
        names = b"".join(p.names for p in parts)
        return cls(
            shards,
            _joined([p.offsets for p in parts], np.int64),
            _joined([p.sizes for p in parts], np.int32),
            keys_of(np.concatenate([np.zeros(1, np.int64), *ends]), names),
        )

    @classmethod
    def mapped(cls, of_places: Path, of_keys: Path) -> Self:
        """Of files, of which only what is asked for is read, and shared by all processes.

        Raises:
            UserError: they are damaged.
        """
        try:
            places = pa.ipc.open_file(pa.memory_map(str(of_places))).get_batch(0)
            keys = pa.ipc.open_file(pa.memory_map(str(of_keys))).get_batch(0)
            numbers = {
                name: places.column(name).to_numpy(zero_copy_only=True)
                for name in _SCHEMA
                if name in places.schema.names
            }
            if places.num_rows != keys.num_rows:
                raise ValueError(f"{places.num_rows:,} places and {keys.num_rows:,} keys")
            return cls(
                numbers["shard"],
                numbers["offset"],
                numbers["size"],
                keys.column("key"),
                numbers.get("label"),
                (of_places, of_keys),
            )
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise UserError(
                f"{of_places.parent} is damaged ({error}): index the shards again"
            ) from error


def keys_of(ends: np.ndarray, names: Any) -> pa.LargeBinaryArray:
    """Keys that end at `ends` [N + 1], from 0 on, in `names`; nothing is copied."""
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(names)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(ends) - 1, buffers)


def _joined(parts: Sequence[array], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *(np.frombuffer(p, kind) for p in parts if len(p))])


@final
class Writer:
    """Writes columns shard by shard, with no more in memory than one of them.

    Args:
        folder: where the files of an index are to be.
    """

    def __init__(self, folder: Path):
        self.folder, self.count, self._names = folder, 0, 0
        self._files = {
            name: (folder / f"{name}.part").open("wb")
            for name in ("shard", "offset", "size", "label", "end", "name")
        }
        self._files["end"].write(bytes(8))

    def add(self, shard: int, part: Gathered) -> None:
        self._put("shard", np.full(len(part), shard, np.int32))
        self._put("offset", np.frombuffer(part.offsets, np.int64))
        self._put("size", np.frombuffer(part.sizes, np.int32))
        self._put("label", np.frombuffer(part.texts, np.int32))
        self._put("end", np.frombuffer(part.ends, np.int64) + self._names)
        self._files["name"].write(part.names)
        self.count, self._names = self.count + len(part), self._names + len(part.names)

    def texts(self) -> np.ndarray:
        """Numbers of the labels' texts, int32 [N]; mapped."""
        for file in self._files.values():
            file.flush()
        return self._part("label", np.int32)

    def finish(self, labels: np.ndarray | None) -> None:
        """Lay the columns out as Arrow files.

        Args:
            labels: int64 [N], or None where there are none.
        """
        for file in self._files.values():
            file.close()
        given = {n: self._part(n, kind) for n, kind in _SCHEMA.items() if n != "label"}
        if labels is not None:
            given["label"] = labels
        names = list(given)
        columns = list(map(_array, given.values()))
        _write(self.folder / PLACES, pa.RecordBatch.from_arrays(columns, names))
        keys = keys_of(self._part("end", np.int64), self._part("name", np.uint8))
        _write(self.folder / KEYS, pa.RecordBatch.from_arrays([keys], ["key"]))
        self.close()

    def close(self) -> None:
        """Drop what is not laid out."""
        for name, file in self._files.items():
            file.close()
            (self.folder / f"{name}.part").unlink(missing_ok=True)

    def _put(self, name: str, values: np.ndarray) -> None:
        self._files[name].write(np.ascontiguousarray(values).data)

    def _part(self, name: str, kind: type) -> np.ndarray:
        file = self.folder / f"{name}.part"
        return np.memmap(file, kind, "r") if file.stat().st_size else np.zeros(0, kind)


def _array(values: np.ndarray) -> pa.Array:
    """Without a copy: the buffer is the array's own."""
    kind, buffer = pa.from_numpy_dtype(values.dtype), pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])


def _write(path: Path, batch: pa.RecordBatch) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
