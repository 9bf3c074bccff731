"""Between a configuration (plain values, as in run.yaml) and a method (modules)."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import selftaught
from selftaught import code, config, kinds, methods
from selftaught.backbones import Encoder, Image, is_encoder
from selftaught.backbones.image import encoder as image_module
from selftaught.backbones.image.depth import with_drop_path
from selftaught.backbones.weights.places import TIMM
from selftaught.backbones.weights.told import network_of
from selftaught.backbones.wrapped import maker
from selftaught.data import Samples
from selftaught.data.files import only_folder
from selftaught.engine.folder import settings_of
from selftaught.engine.restore import state_of
from selftaught.engine.settings import named
from selftaught.engine.teachers import teachers
from selftaught.errors import UserError
from selftaught.export.facts import SECOND, SETTINGS
from selftaught.kinds import Kind
from selftaught.method import Method, encoders
from selftaught.signature import read_class, read_object

SIZES = (32, 64, 96, 128, 160, 224)
"""Sides that training uses when the user names none."""


Fit = Callable[[type[Method], Encoder, dict[str, Any]], dict[str, Any]]
"""(method, backbone, parameters) -> parameters, with those that fit the backbone."""


@dataclass(frozen=True)
class Second:
    """What stands for the encoder of a second modality, a method's `other`, until it is built.

    Args:
        samples: of that modality; None where `given` has all that they would tell.
        kind: of them.
        given: parameters of the encoder.
    """

    samples: Samples | None
    kind: Kind
    given: Mapping[str, Any]

    def build(self) -> Encoder:
        """The encoder, with weights drawn now."""
        return self.kind.build(**self.given)


def fitting_size(samples: Any, probes: int = 100) -> int:
    """The largest usual side that most images have: their median short side, rounded down.

    Args:
        samples: the dataset; headers of at most `probes` of its images are read.
    """
    step = max(1, len(samples) // probes)
    sides = []
    for i in range(0, len(samples), step):
        try:
            header = samples.header(i)
        except selftaught.data.BadSample:
            continue
        sides.append(min(header.width, header.height))
    if not sides:
        raise UserError(
            f"none of {len(range(0, len(samples), step))} images looked at can be read; run "
            "`selftaught check` on the data to see why"
        )
    middle = sorted(sides)[len(sides) // 2]
    return max((s for s in SIZES if s <= middle), default=SIZES[0])


def assemble(
    method: str | type[Method],
    image: dict[str, Any],
    options: dict[str, Any],
    samples: Any,
    seed: int,
    begins: bool = False,
    fit: Fit | None = None,
    of: Kind | None = None,
) -> Method:
    """A method around a new backbone, from plain values; the seed is set before weights are drawn.

    Args:
        method: its name, or its class.
        image: parameters of the backbone; `name` and `size` may be absent.
        options: parameters of the method.
        samples: the dataset, for its length and the size of its images; None where `image` and
            `options` have all that it would tell.
        seed: of the initial weights.
        begins: whether the backbone gets other weights later, so that none are to be drawn for it.
        fit: what is to fit the backbone.
        of: what samples are; by default what `samples` say.

    Raises:
        UserError: the method does not learn from samples of this kind.
    """
    kind = methods.find(method) if isinstance(method, str) else method
    name, signature = methods.short(methods.reference(kind)), read_object(kind)
    seen = of or kinds.of(samples)
    if "other" not in options:  # which asks nothing of what it stands beside
        _learns(kind, seen)
    given = dict(image)
    weights = given.get("weights")
    if "name" not in given and weights is not None and str(weights) != TIMM:
        given["name"] = network_of(weights)
    given.setdefault("name", usual_of(kind, seen))
    own = code.names(given["name"])
    if own:
        maker(given["name"])  # what its file does when it is imported comes before the seed
    if given.get("size") is None:
        given["usual" if own else "size"] = fitting_size(samples)  # the function may say its own
    count = {"samples": len, "classes": partial(count_classes, name=name)}
    for parameter in signature.parameters:
        if parameter.from_data and parameter.name not in options:
            options = {parameter.name: count[parameter.from_data.name](samples)} | options
    if "network" in signature:
        options = {"network": taught_by(kind, image, options)} | options
    torch.manual_seed(seed)
    encoder = seen.build(**given)
    encoder.trained = encoder.trained or begins
    taught = options.get("network") is not None  # by which no path is dropped
    if "drop_path" not in given and not taught and isinstance(encoder, Image):
        with_drop_path(encoder, kind.needs.drop_path)
    if isinstance(second := options.get("other"), Second):
        options = options | {"other": second.build()}
    return kind(encoder, **(fit(kind, encoder, options) if fit else options))


def usual_of(method: type[Method], kind: Kind) -> str:
    """The backbone of a method around samples of a kind, where nobody names one."""
    theirs = method.needs.kinds != "any" and kind.word in method.needs.kinds
    return (None if theirs else kind.backbone) or method.needs.backbone


def _learns(method: type[Method], kind: Kind) -> None:
    """Refuse a method that learns from other samples."""
    known = kinds.among(method.needs.kinds)
    if kind.word not in known:
        name = methods.short(methods.reference(method))
        raise UserError(
            f"{name} learns from samples of kind {' or '.join(f'`{word}`' for word in known)}, and "
            f"this data is taken for `{kind.word}`: say what it is with --kind={known[0]}, or take "
            "another method"
        )


def taught_by(kind: type[Method], image: dict[str, Any], options: dict[str, Any]) -> Any:
    """What the method `kind` is to learn from, by its parameter `teacher`.

    Where that is one path it is a run, whose method is taken with its heads, or None where it is
    not needed; where it is a list of words, each is an encoder.
    """
    teacher = options.get("teacher")
    if read_object(kind)["teacher"].type is not Path:
        size, channels = options.get("teacher_size"), image.get("channels", 3)
        return teachers(teacher or (), size, channels)
    if teacher in (None, Path()):
        if not read_object(kind)["network"].required:
            return None
        name = methods.short(methods.reference(kind))
        raise UserError(f"{name} learns from another run: name its folder with --teacher")
    return restored(str(teacher))


def restored(run: str | Path) -> Method:
    """The method that was trained in the folder `run`, as its newest checkpoint has it.

    Raises:
        UserError: there is no such run, it has no checkpoint, or its method has changed.
    """
    asked, state = asked_of(Path(run)), state_of(Path(run))
    signature = methods.signature(asked["method"])
    if "network" in signature:
        if signature["network"].required:
            raise UserError(
                f"{run} was itself taught by another network; give the run of its teacher, "
                f"{asked['options'].get('teacher')}"
            )
        asked["options"].pop("teacher", None)  # of which only what it taught is needed
        state = {name: x for name, x in state.items() if not name.startswith("network.")}
    # The weights that it began with are not needed, and their file may have gone.
    given = asked["backbone"]
    backbone = given | {k: v for k, v in (("weights", None), ("pretrained", False)) if k in given}
    of = kinds.made(asked["sample"]).beside(Path(run))
    if asked.get("second_sample"):
        asked["options"]["other"] = second_of(asked, Path(run))
    method = assemble(asked["method"], backbone, asked["options"], None, seed=0, of=of)
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"the checkpoint in {run} does not fit its {SETTINGS}: {error}") from error
    return method


def second_of(asked: Mapping[str, Any], run: Path) -> Second:
    """The second modality of a run whose settings have one of another kind."""
    kind = kinds.made(asked["second_sample"]).beside(run / SECOND)
    given = {k: v for k, v in asked["second_backbone"].items() if k != "weights"}
    fresh = {"pretrained": False} if "pretrained" in given else {}
    return Second(None, kind, given | fresh)


def asked_of(run: Path) -> dict[str, Any]:
    """The settings of a run folder, those included that its data gave."""
    settings = settings_of(run)
    written = config.load(settings)
    name = written.get("method")
    if isinstance(name, str) and ":" in name and name not in methods.plugins().values():
        raise UserError(
            f"{run} was trained by {name}, which is no method of the library or of an installed "
            "package, and reading a run runs no code that it names: build the method in Python "
            "and load the newest file of its checkpoints/"
        )
    asked = config.validate(written, settings)
    own = asked["backbone"].get("name", "")
    if code.names(own) and not code.at_hand(own, run):
        raise UserError(
            f"the backbone of {run} is built by {own}, whose file is not in the folder where you "
            "are, apart from the run: go there, or bring it"
        )
    given = {p.name for p in methods.signature(asked["method"]).parameters if p.from_data}
    asked["options"] |= {k: v for k, v in written["options"].items() if k in given}
    return asked


def count_classes(samples: Any, name: str) -> int:
    """Number of classes of labeled data.

    Raises:
        UserError: there are no labels, or fewer than two classes.
    """
    labels = samples.labels
    count = 0 if labels is None or not len(labels) else int(labels.max()) + 1
    if count < 2:
        folder = only_folder(samples)
        known = "no labels" if count < 1 else "labels of one class"
        known = f"one folder, {folder}" if folder else known
        raise UserError(
            f"{name} learns from labels of two classes at least, and this data has {known}: sort "
            "the images into one folder a class, or name a column or a CSV of path,label with "
            "--labels"
        )
    return count


def image_of(method: Method) -> Encoder:
    """The encoder of a method; UserError where it is none that can be trained."""
    encoder = method.encoder
    if not is_encoder(encoder):
        raise UserError(
            f"the encoder of {type(method).__name__} is a {type(encoder).__name__}; training needs "
            "one that knows its image size and colors: selftaught.backbones.backbone(...), or a "
            "module in Wrapped(module, size=...)"
        )
    weights = {p.dtype for p in encoder.parameters()}
    if not weights:
        raise UserError(f"{encoder.name} has no weights, so that there is nothing to train")
    if torch.float64 in weights:
        raise UserError(
            f"weights of {encoder.name} are float64, and images come as float32: give "
            "module.float()"
        )
    return encoder


def method_name(method: Method) -> str:
    """What a method is called in a sentence: the name of its file, or its class's in small."""
    return methods.short(methods.reference(type(method)))


def options_of(method: Method) -> dict[str, Any]:
    """Values of the parameters that a user can set."""
    return {
        p.name: _plain(method, p.name)
        for p in read_object(type(method)).parameters
        if p.type is not None
    }


def _plain(module: nn.Module, name: str) -> Any:
    """The value of a parameter as YAML can hold it."""
    value = getattr(module, name, module)
    value = value.item() if isinstance(value, np.generic) else value
    value = str(value) if isinstance(value, Path) else value
    for item in value if isinstance(value, tuple | list) else (value,):
        if not (item is None or isinstance(item, bool | int | float | str)):
            raise UserError(
                f"{type(module).__name__} must keep its parameter {name} under its own name, as "
                f"self.{name} = {name}: it is what run.yaml repeats the run by"
            )
    return value


def _backbone(encoder: Encoder) -> dict[str, Any]:
    if not isinstance(encoder, Image):  # whose weights are a file that is named
        return encoder.config
    image = read_class(Path(image_module.__file__), name="Image")
    return {p.name: _plain(encoder, p.name) for p in image.parameters}


def _second(method: Method) -> dict[str, Any]:
    """What run.yaml says of a second modality, where not both are images."""
    every = encoders(method)
    if len(every) == 1 or all(kinds.of(e).photos for e in every):
        return {}
    return {"second_sample": kinds.of(every[1]).config, "second_backbone": _backbone(every[1])}


def describe(method: Method, data: Any, training: dict[str, Any]) -> dict[str, Any]:
    """All that repeats this run, as plain values: the content of run.yaml."""
    return {
        "method": methods.reference(type(method)),
        "data": named(data),
        "backbone": _backbone(image_of(method)),
        "options": options_of(method),
        **kinds.of(image_of(method)).written("sample"),
        **_second(method),
        "training": training,
        "made_by": {
            "selftaught": selftaught.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }
