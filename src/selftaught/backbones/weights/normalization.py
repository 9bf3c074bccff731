"""What images are normalized with, where a file beside weights says it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from selftaught.sides import Size, one


@dataclass(frozen=True)
class Normalization:
    """mean, std: of each channel. where: what says so. size: of the images, or None."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    where: str
    size: Size | None = None


def beside(weights: Path) -> Normalization | None:
    """What the files that belong to weights say: ours, those of transformers and of timm.

    Damaged ones say nothing.
    """
    folder = weights.parent
    if weights.name == "encoder.safetensors":
        return _of(folder / "encoder.json", ("mean", "std"), ("encoder", "size"))
    if folder.name == "checkpoints":
        return _of(folder.parent / "run.yaml", ("mean", "std"), ("size",), within="backbone")
    if not weights.name.startswith(("model.", "pytorch_model.", "model-", "pytorch_model-")):
        return None
    return _of(
        folder / "preprocessor_config.json", ("image_mean", "image_std"), ("size", "height")
    ) or _of(folder / "config.json", ("mean", "std"), ("input_size",), within="pretrained_cfg")


def content(path: Path) -> dict[str, Any]:
    """The mapping in a file of JSON or YAML; empty where there is none, or it is damaged."""
    try:
        text = path.read_text("utf-8")
        found = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _of(
    path: Path, names: tuple[str, str], size: tuple[str, ...], within: str = ""
) -> Normalization | None:
    told = content(path)
    told = told.get(within, told) if within else told
    if not isinstance(told, dict):
        return None
    mean, std = (_numbers(told.get(name)) for name in names)
    if not mean or not std or min(std) <= 0:
        return None
    side: Any = told
    for word in size:
        side = side.get(word) if isinstance(side, Mapping) else None
    if isinstance(side, list):  # of timm with the channels before it
        sides = side[-2:] if all(type(n) is int for n in side) else []
        side = one(sides) if len(sides) == 2 else next(iter(sides), None)
    return Normalization(
        tuple(map(float, mean)),
        tuple(map(float, std)),
        path.name,
        side if type(side) in (int, tuple) else None,
    )


def _numbers(values: Any) -> tuple[float, ...]:
    """A list of numbers; empty where it is none."""
    if not isinstance(values, list):
        return ()
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return tuple(map(float, values)) if plain else ()
