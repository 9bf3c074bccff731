"""Networks that a new one is to learn from, by the words that a user names them with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftaught import code, export, timm_names
from selftaught.backbones import Encoder, build
from selftaught.backbones.weights.told import network_of
from selftaught.errors import UserError
from selftaught.export.facts import is_path
from selftaught.sides import Size

ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz")
"""Of files of weights."""


def teachers(names: Sequence[str], size: Size | None = None, channels: int = 3) -> list[Encoder]:
    """The encoders that `names` stand for, each with weights that it has learned.

    Args:
        names: see `teacher`.
        size: of the images that they see; their own unless given.
        channels: of the images.

    Raises:
        UserError: no name, or one that stands for nothing.
    """
    if not any(names):
        raise UserError(
            "distill_features learns from another network: name it with --teacher, such as a run "
            "folder, or the name of a timm model whose weights are to be taken"
        )
    return [teacher(name.strip(), size, channels) for name in names]


def teacher(name: str, size: Size | None = None, channels: int = 3) -> Encoder:
    """The encoder that `name` stands for.

    Args:
        name: folder of a run or of an encoder, or its safetensors file; timm's name of a model,
            perhaps behind `timm:`; a file of weights, or NAME=FILE where it does not tell of which
            model; or file.py:function.
        size, channels: of the images it is built for, where it is built.
    """
    given: dict[str, Any] = {"channels": channels} | ({"size": size} if size else {})
    net, _, file = name.partition("=")
    if file and not is_path(net):
        return build(net, pretrained=True, weights=Path(file), **given)
    if name.startswith("timm:"):
        return build(name.removeprefix("timm:"), pretrained=True, **given)
    if code.names(name) and not Path(name).exists():
        found = build(name, **given)
        found.trained = True  # a function that builds a teacher is trusted to fill it
        return found
    if not is_path(name):
        timm_names.check(name)
        return build(name, pretrained=True, **given)
    path = Path(name)
    if path.is_file() and path.suffix in ENDINGS and not (path.parent / "encoder.json").exists():
        try:
            net = network_of(path)
        except UserError as error:
            raise UserError(
                f"the teacher {name} is a file of weights that does not say of which network: name "
                f"it, too, as in --teacher vit_small_patch16_224={name}"
            ) from error
        return build(net, weights=path, **given)
    return export.load(path)
