"""Between a configuration (plain values, as in run.yaml) and a method (modules)."""

import inspect
import platform
from pathlib import Path
from typing import Any

import torch

import selftaught
from selftaught import config, methods
from selftaught.backbones import Image
from selftaught.backbones import image as image_module
from selftaught.backbones.depth import with_drop_path
from selftaught.engine.folder import settings_of
from selftaught.engine.restore import state_of
from selftaught.errors import UserError
from selftaught.export.facts import SETTINGS
from selftaught.method import Method
from selftaught.signature import Signature, read_class

SIZES = (32, 64, 96, 128, 160, 224)
"""Sides that training uses when the user names none."""


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


def assemble(name: str, image: dict[str, Any], options: dict[str, Any], samples: Any, seed: int):
    """The method called `name` around a new backbone, from plain values.

    Args:
        name: of the method.
        image: parameters of the backbone; `name` and `size` may be absent.
        options: parameters of the method.
        samples: the dataset, for its length and the size of its images; None where `image` and
            `options` have all that it would tell.
        seed: of the initial weights.
    """
    _check(options)
    signature = methods.signature(name)
    kind = methods.find(name)
    given = dict(image)
    given.setdefault("name", kind.default_backbone)
    if given.get("size") is None:
        given["size"] = fitting_size(samples)
    if "samples" in signature and "samples" not in options:
        options = {"samples": len(samples)} | options
    if "classes" in signature and "classes" not in options:
        options = {"classes": count_classes(samples, name)} | options
    if "network" in signature:
        teacher = Path(options.get("teacher") or "")
        if teacher == Path():
            raise UserError(f"{name} learns from another run: name its folder with --teacher")
        options = {"network": restored(teacher)} | options
    torch.manual_seed(seed)
    encoder = Image(**given)
    if "drop_path" not in given:
        with_drop_path(encoder, kind.default_drop_path)
    return kind(encoder, **options)


COUNTS = {"dim", "hidden", "layers", "prototypes", "clusters", "bottleneck", "width"}
TEMPERATURES = {"temperature", "student_temp", "teacher_temp"}
SHARES = {"momentum", "memory_momentum", "center_momentum", "cluster_start"}


def _check(options: dict[str, Any]) -> None:
    """Refuse values that no method can work with, whatever else it says of them."""
    for key, value in options.items():
        each = value if isinstance(value, tuple | list) else (value,)
        for v in each if value is not None else ():
            if key in COUNTS and v < 1:
                raise UserError(f"{key} must be at least 1, got {value}")
            if key in TEMPERATURES and not v > 0:
                raise UserError(f"{key} must be above 0, got {value}")
            if key in SHARES and not 0 <= v <= 1:
                raise UserError(f"{key} must be from 0 to 1, got {value}")


def restored(run: str | Path) -> Method:
    """The method that was trained in the folder `run`, as its newest checkpoint has it.

    Raises:
        UserError: there is no such run, it has no checkpoint, or its method has changed.
    """
    asked, state = asked_of(Path(run)), state_of(Path(run))
    if "network" in methods.signature(asked["method"]):
        raise UserError(
            f"{run} was itself taught by another network; give the run of its teacher, "
            f"{asked['options'].get('teacher')}"
        )
    # The weights that it began with are not needed, and their file may have gone.
    backbone = {**asked["backbone"], "weights": None, "pretrained": False}
    method = assemble(asked["method"], backbone, asked["options"], None, seed=0)
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"the checkpoint in {run} does not fit its {SETTINGS}: {error}") from error
    return method


def asked_of(run: Path) -> dict[str, Any]:
    """The settings of a run folder, those included that its data gave."""
    settings = settings_of(run)
    written = config.load(settings)
    asked = config.validate(written, settings)
    asked["options"] |= {k: v for k, v in written["options"].items() if k in config.FILLED}
    return asked


def count_classes(samples: Any, name: str) -> int:
    """Number of classes of labelled data.

    Raises:
        UserError: there are no labels, or fewer than two classes.
    """
    labels = samples.labels
    count = 0 if labels is None or not len(labels) else int(labels.max()) + 1
    if count < 2:
        known = "no labels" if count < 1 else "labels of one class"
        raise UserError(
            f"{name} learns from labels of two classes at least, and this data has {known}: sort "
            "the images into one folder a class, or name a column or a CSV of path,label with "
            "--labels"
        )
    return count


def method_name(method: Method) -> str:
    """What the command line calls this method: the name of its file."""
    return type(method).__module__.rpartition(".")[2]


def signature_of(method: Method) -> Signature:
    """Parameters of a method, its class being here or in the user's own file."""
    return read_class(Path(inspect.getfile(type(method))), name=type(method).__name__)


def options_of(method: Method) -> dict[str, Any]:
    """Values of the parameters that a user can set."""
    parameters = signature_of(method).parameters
    return {p.name: _plain(getattr(method, p.name)) for p in parameters if p.type is not None}


def named(data: Any) -> str:
    """What run.yaml calls data: where it is, or what kind of object it was."""
    return str(data) if isinstance(data, str | Path) else f"<{type(data).__name__}>"


def _plain(value: Any) -> Any:
    """What YAML can hold."""
    return str(value) if isinstance(value, Path) else value


def describe(method: Method, data: Any, training: dict[str, Any]) -> dict[str, Any]:
    """All that repeats this run, as plain values: the content of run.yaml."""
    encoder = method.encoder
    if not isinstance(encoder, Image):
        raise UserError(
            f"the encoder of {type(method).__name__} is a {type(encoder).__name__}; training needs "
            "one from selftaught.backbones.backbone(...), which knows its image size and colours"
        )
    image = read_class(Path(image_module.__file__), name="Image")
    return {
        "method": method_name(method),
        "data": named(data),
        "backbone": {p.name: _plain(getattr(encoder, p.name)) for p in image.parameters},
        "options": options_of(method),
        "training": training,
        "made_by": {
            "selftaught": selftaught.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }
