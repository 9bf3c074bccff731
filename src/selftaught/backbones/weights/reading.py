"""Files of weights: found by what a user calls them, and read without running code in them."""

import argparse
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from selftaught.backbones.weights import hub
from selftaught.backbones.weights.header import Inert, header, refuse_others
from selftaught.backbones.weights.normalization import Normalization, beside
from selftaught.errors import UserError

TIMM, HUB, FOLDER = "timm", "hf-hub:", "local-dir:"
"""What stands for weights and is no path: timm's own, a repository of a hub, a folder."""
ENCODER = "encoder.safetensors"
USUAL = (ENCODER, *hub.FILES, "pytorch_model.bin.index.json")
"""Names of weights in a folder, of which the first counts."""
ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
SETTINGS = ("argparse", "collections", "easydict", "lightly", "lightly_train", "lightning")
SETTINGS += (
    "lightning_fabric",
    "ml_collections",
    "numpy",
    "omegaconf",
    "pathlib",
    "solo",
    "typing",
)
SETTINGS += ("pytorch_lightning", "stable_pretraining", "stable_ssl", "timm", "torch", "yacs")
"""Packages whose objects trainings leave beside weights: settings, which are passed over."""


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


def located(weights: str | Path) -> Path:
    """The file that a path, a folder or a name of weights stands for.

    Raises:
        UserError: there is none, or several.
    """
    word = str(weights)
    if word.startswith(HUB):
        return _within(hub.fetch(word.removeprefix(HUB)), word)
    path = Path(word.removeprefix(FOLDER))
    if not path.exists():
        raise UserError(
            f"{path} cannot be read (it does not exist); --weights takes a file, a folder, "
            f"{HUB}ORGANIZATION/NAME or {TIMM}"
        )
    return _within(path, word) if path.is_dir() else path


def _within(folder: Path, word: str) -> Path:
    for name in USUAL:
        if (folder / name).is_file():
            return folder / name
    steps = sorted((folder / "checkpoints").glob("step-*.pt"))
    if steps:
        return max(steps, key=lambda p: (len(p.name), p.name))
    found = sorted(p for p in folder.iterdir() if p.suffix in ENDINGS and p.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(p.name for p in found[:5])
        raise UserError(f"{word} holds several files of weights ({names}): name one of them")
    raise UserError(
        f"{word} is a folder without weights ({', '.join(USUAL[:3])}, or one file that ends in "
        f"{', '.join(ENDINGS)}); name the file itself"
    )


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
        raise UserError(
            f"{path} is no file of weights, or holds objects whose loading could run code; save "
            "its state dict alone with torch.save(model.state_dict(), ...), or as safetensors"
            f"{_objects(path)}"
        ) from error
    except (RuntimeError, EOFError, SafetensorError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), "it ends too early")
        raise UserError(f"{path} is no whole file of weights ({reason}); copy it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not weights by name")
    return found


def _unpickled(path: Path) -> Any:
    """By torch, which imports nothing that it does not know; settings of trainings are `Inert`."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # of many training scripts
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        try:
            named = header(path).objects
        except UserError:
            named = set()
        if not named or any(name.partition(".")[0] not in SETTINGS for name in named):
            raise
        inert = [(type("Inert", (Inert,), {}), name) for name in named]
        with torch.serialization.safe_globals([argparse.Namespace, *inert]):
            return torch.load(path, map_location="cpu", weights_only=True)


def _objects(path: Path) -> str:
    """Which, where they can be told."""
    try:
        named = sorted(header(path).objects)
    except UserError:
        return ""
    return f" (it names {', '.join(named[:3])})" if named else ""


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
