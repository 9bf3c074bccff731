"""Files of weights: found by what a user calls them, and read without running code in them."""

import argparse
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from selftaught.backbones.weights import inert
from selftaught.backbones.weights.header import code_of, flat, header, refuse_others, shards
from selftaught.backbones.weights.normalization import Normalization, beside
from selftaught.backbones.weights.places import located
from selftaught.errors import UserError


@dataclass(frozen=True)
class Source:
    """content: what a file holds. path: of it. normalization: where something beside it says."""

    content: dict[str, Any]
    path: Path
    normalization: Normalization | None


def opened(weights: str | Path) -> Source:
    """What a path, a folder or a name of weights stands for, read.

    Raises:
        UserError: there is no such thing, it cannot be had or read, or is no weights.
    """
    path = located(weights)
    return Source(read_weights(path), path, beside(path))


def read_weights(path: str | Path) -> dict[str, Any]:
    """The content of a file of torch or of safetensors; code in it is never run.

    Raises:
        UserError: it cannot be read, or holds more than weights and plain values.
    """
    path = Path(path)
    if path.name.endswith(".index.json"):
        return {k: v for shard in shards(path) for k, v in read_weights(shard).items()}
    refuse_others(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = _unpickled(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except pickle.UnpicklingError as error:
        raise _of_objects(path, _objects(path)) from error
    except (*_DAMAGES, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "it ends too early")
        raise UserError(f"{path} is no whole file of weights ({reason}); copy it again") from error
    if next(flat(found, torch.Tensor), None) is None and (objects := _objects(path)):
        raise _of_objects(path, objects)
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not weights by name")
    return found


_DAMAGES = (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError)
"""What comes of a file that was cut short or changed."""


def _unpickled(path: Path) -> Any:
    """By torch, which imports nothing that it does not know, or past settings of trainings."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # of many training scripts
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        named = _objects(path)
        if not named or code_of(named):
            raise
        return inert.read(path)


def _objects(path: Path) -> list[str]:
    """What a pickle names that is no weight, where it can be told; what is no settings first."""
    if path.suffix == ".safetensors":
        return []
    try:
        named = header(path).objects
    except UserError:
        return []
    code = code_of(named)
    return [*code, *sorted(named - set(code))]


def _of_objects(path: Path, named: list[str]) -> UserError:
    """The error for a file of more than weights."""
    told = f" (it names {', '.join(named[:3])})" if named else ""
    return UserError(
        f"{path} is no file of weights, or holds objects whose loading could run code; save "
        "its state dict alone with torch.save(model.state_dict(), ...), or as safetensors"
        f"{told}"
    )
