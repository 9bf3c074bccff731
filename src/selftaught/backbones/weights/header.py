"""What a file of weights holds, read without torch, which takes seconds to import, and without
running any code: names and shapes of tensors, and objects that are none.
"""

import json
import pickle
import struct
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from selftaught.errors import UserError

NAMED = {
    ".onnx": ("an ONNX graph", "PyTorch weights"),
    ".gguf": ("a GGUF file of llama.cpp", "PyTorch weights"),
    ".ggml": ("a GGML file", "PyTorch weights"),
    ".h5": ("a Keras file", "PyTorch weights"),
    ".hdf5": ("a Keras file", "PyTorch weights"),
    ".keras": ("a Keras file", "PyTorch weights"),
    ".pb": ("a TensorFlow graph", "PyTorch weights"),
    ".tflite": ("a TensorFlow Lite model", "PyTorch weights"),
    ".index": ("a part of a TensorFlow checkpoint", "PyTorch weights"),
    ".msgpack": ("weights of Flax", "PyTorch weights"),
    ".npz": ("arrays of NumPy, as JAX keeps weights in", "PyTorch weights"),
    ".npy": ("an array of NumPy", "PyTorch weights"),
    ".mlmodel": ("a Core ML model", "PyTorch weights"),
    ".mlpackage": ("a Core ML model", "PyTorch weights"),
    ".engine": ("a TensorRT engine", "the PyTorch weights that it was made of"),
    ".pt2": ("an exported program", "the state dict of the module that it was made of"),
    ".pdparams": ("weights of PaddlePaddle", "PyTorch weights"),
    ".zip": ("an archive", "the file of weights in it, unpacked"),
    ".tar": ("an archive", "the file of weights in it, unpacked"),
    ".tgz": ("an archive", "the file of weights in it, unpacked"),
    ".gz": ("an archive", "the file of weights in it, unpacked"),
    ".7z": ("an archive", "the file of weights in it, unpacked"),
    ".py": ("a program", "the file of weights"),
    ".yaml": ("a file of settings", "the file of weights beside it"),
    ".yml": ("a file of settings", "the file of weights beside it"),
}
"""Endings of files that are no weights of PyTorch -> what they are, and what to give instead."""
SETTINGS = (
    *("accelerate", "argparse", "collections", "datetime", "decimal", "easydict", "enum"),
    *("fairseq", "functools", "fvcore", "hydra", "lightly", "lightly_train", "lightning"),
    *("lightning_fabric", "ml_collections", "mmcv", "mmengine", "numpy", "omegaconf", "pathlib"),
    *("pytorch_lightning", "solo", "stable_pretraining", "stable_ssl", "timm", "torch"),
    *("torchmetrics", "torchvision", "transformers", "typing", "uuid", "vissl", "yacs"),
)
"""Packages whose objects trainings leave beside weights: settings, which are passed over."""
VALUES = (
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"),
    *("object", "range", "set", "slice", "str", "tuple", "type"),
)
"""Builtins that settings are made of, or say what they are made of."""
READ = "a file of torch (.pth, .pt, .bin, .ckpt, .tar of torch.save) or .safetensors"


@dataclass(frozen=True)
class Shape:
    """A tensor without its values; kind: of its numbers, such as F32 or BFloat16. storage: where
    they lie in a file of torch."""

    shape: tuple[int, ...]
    kind: str
    storage: str = ""

    @property
    def count(self) -> int:
        """How many numbers."""
        total = 1
        for side in self.shape:
            total *= side
        return total


@dataclass
class Header:
    """tensors: by dotted names. objects: what else a pickle names, which would be imported."""

    tensors: dict[str, Shape]
    objects: set[str] = field(default_factory=set)
    content: Any = None


def code_of(objects: Collection[str]) -> list[str]:
    """Those of the objects that a pickle names which are no settings."""
    values = {f"builtins.{name}" for name in VALUES}
    return sorted(n for n in objects if n not in values and n.partition(".")[0] not in SETTINGS)


def refuse_others(path: Path) -> None:
    """Tell what is no file of weights by its name or its first bytes.

    Raises:
        UserError: with what it is, and what to give in its place.
    """
    try:
        with path.open("rb") as file:
            first = file.read(512)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    if not first:
        raise UserError(f"{path} is no whole file of weights (it is empty); copy it again")
    if first.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path} is a pointer of Git LFS, and the weights are elsewhere: run `git lfs pull` in "
            "its repository, or download the file itself"
        )
    text = first.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(
            f"{path} is a web page and no weights: the address asks for a login, or shows the file "
            "instead of giving it; log in with a browser and download the file itself"
        )
    known = _known(path, first)
    if known:
        raise UserError(f"{path} is {known[0]}, which is not read here; give {known[1]}: {READ}")


def _known(path: Path, first: bytes) -> tuple[str, str] | None:
    zipped, pickled = first.startswith(b"PK"), first.startswith(b"\x80")
    if first.startswith(b"GGUF"):
        return NAMED[".gguf"]
    if first.startswith(b"\x89HDF"):
        return NAMED[".h5"]
    if first.startswith(b"\x93NUMPY"):
        return NAMED[".npy"]
    if first.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ")):
        return NAMED[".gz"]
    if zipped:
        return _zipped(path)
    if not pickled and ".data-" in path.name:
        return NAMED[".index"]
    if pickled or path.suffix == ".safetensors":
        return None
    if path.suffix.lower() in NAMED:
        return NAMED[path.suffix.lower()]
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in first):
        return "a text file", "the file of weights"
    return None


def _zipped(path: Path) -> tuple[str, str] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return None  # a file of torch that was cut short: its reader says so
    if any(n.endswith("constants.pkl") for n in names):
        return (
            "a TorchScript program",
            "its weights, which torch.save(torch.jit.load(FILE).state_dict(), ...) keeps",
        )
    if any(n.endswith("data.pkl") for n in names):
        return None
    kind = path.suffix.lower()
    if kind in (".npz", ".keras", ".pt2") or any(n.endswith(".npy") for n in names):
        return NAMED[kind if kind in NAMED else ".npz"]
    return NAMED[".zip"]


def header(path: Path) -> Header:
    """What is in a file; nothing of a pickle is run, and no values are read.

    Raises:
        UserError: it is no file of weights, or damaged.
    """
    refuse_others(path)
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path)
        objects: set[str] = set()
        content = _content(path, objects)
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError) as error:
        raise _damaged(path, error) from error
    except (
        AttributeError,
        TypeError,
        OSError,
        RecursionError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        raise _damaged(path, error) from error
    return Header(dict(flat(content, Shape)), objects, content)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = next(iter(str(error).splitlines()), "it ends too early")
    return UserError(f"{path} is no whole file of weights ({reason}); copy it again")


def _safetensors(path: Path) -> Header:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        told = json.loads(file.read(length))
        ends = [v["data_offsets"][1] for k, v in told.items() if k != "__metadata__"]
        if ends and 8 + length + max(ends) > path.stat().st_size:
            raise ValueError("it ends too early")
    return Header(
        {
            name: Shape(tuple(about["shape"]), about["dtype"])
            for name, about in told.items()
            if name != "__metadata__"
        },
        content=told.get("__metadata__", {}),
    )


class Inert(dict[Any, Any]):
    """What stands for an object of a pickle that is no weight: takes everything, does nothing.

    What is put into it by name stays there, as in the dictionaries with attributes of trainings.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()
        self.state: Any = None

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def add(self, item: Any) -> None: ...

    append = extend = add


class Unpickler(pickle.Unpickler):
    """Imports nothing: tensors become shapes, everything else plain or `Inert`.

    Args:
        file: of a pickle.
        objects: gets the names of what is neither.
    """

    def __init__(self, file: BinaryIO, objects: set[str]):
        super().__init__(file, encoding="latin1")
        self.objects = objects

    def find_class(self, module: str, name: str) -> Any:
        known = IMPORT_MAPPING.get(module, module), name  # what they are called since Python 3
        module, name = NAME_MAPPING.get((module, name), known)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name.startswith("_rebuild_tensor"):
            return self.tensor
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return _parameter
        if module == "torch" and name.endswith("Storage"):
            return type(name.removesuffix("Storage"), (), {})
        if (module, name) == ("torch", "Size"):
            return tuple
        if module not in _PLAIN and (module, name) not in _TAKEN:
            self.objects.add(f"{module}.{name}")
        return type(name, (Inert,), {"__module__": module})

    def persistent_load(self, pid: Any) -> Any:
        return pid

    def tensor(self, storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> Any:
        """What a tensor becomes, of a part of a storage."""
        kind = getattr(storage[1], "__name__", str(storage[1]))
        return Shape(tuple(shape), kind, str(storage[2]))


_PLAIN = {"_codecs", "torch", "torch._tensor", "torch._utils"}
"""Modules of which torch takes what weights need without importing anything."""
_TAKEN = {("argparse", "Namespace"), ("collections", "Counter")}
"""What else it takes, or is allowed to take."""


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _content(path: Path, objects: set[str]) -> Any:
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            return legacy(file, lambda inner: Unpickler(inner, objects))[0]
    with zipfile.ZipFile(path) as archive, archive.open(pickle_in(archive)) as inner:
        return Unpickler(inner, objects).load()  # type: ignore[arg-type]


def legacy(file: BinaryIO, made: Callable[[BinaryIO], Any]) -> tuple[Any, bool]:
    """What a file holds that is no archive, and whether storages follow.

    Until torch 1.6 these were pickles one after the other, the first of which is a number; other
    programs write a single one.

    Args:
        file: at its beginning.
        made: an unpickler of what comes next.
    """
    first = made(file).load()
    if not isinstance(first, int):
        return first, False
    for _ in range(2):
        made(file).load()
    return made(file).load(), True


def pickle_in(archive: zipfile.ZipFile) -> str:
    """Name of the pickle in an archive of torch."""
    return next(n for n in archive.namelist() if n.endswith("data.pkl"))


def flat(content: Any, kind: type, before: str = "", deep: int = 8) -> Iterator[tuple[str, Any]]:
    """Values of one kind in nested dictionaries by dotted names, without what wrappers add."""
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        name = ".".join(part for part in f"{before}{key}".split(".") if part not in WRAPPERS)
        if isinstance(value, kind):
            yield name, value
        elif isinstance(value, dict) and deep:
            yield from flat(value, kind, f"{name}." if name else "", deep - 1)


WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def shards(index: Path) -> list[Path]:
    """The files that an index of weights in several files names.

    Raises:
        UserError: it is damaged, or a file is missing.
    """
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        files = [index.parent / Path(name).name for name in sorted(names)]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{index} is no index of weights ({error}); copy it again") from error
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise UserError(f"{index} names {', '.join(absent[:3])}, not there; copy all of its files")
    return files
