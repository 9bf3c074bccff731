"""What a training began with, where that was more than a fresh draw: it is to end better."""

import copy
import logging
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from selftaught import config, export
from selftaught.backbones import Encoder
from selftaught.backbones.image.encoder import begun_with
from selftaught.engine.checkpoint import Checkpoints
from selftaught.errors import UserError
from selftaught.export.facts import SETTINGS, content
from selftaught.signature import current

log = logging.getLogger("selftaught")

FILE = config.START
"""In the run folder: the encoder's weights before the first step, for runs that are resumed."""


def keep(encoder: Encoder, folder: Path | None) -> Encoder:
    """A frozen copy of `encoder` on the CPU, in evaluation mode; its weights are left in `folder`.

    Args:
        encoder: before the first step.
        folder: of the run; None in processes that write nothing.

    Raises:
        Unwritable: the folder cannot be written.
    """
    kept = _still(encoder)
    if folder is not None:
        with export.atomic(folder / FILE) as temporary:
            save_file(
                {
                    n: x.clone(memory_format=torch.contiguous_format)
                    for n, x in kept.state_dict().items()
                },
                temporary,
            )
    return kept


def kept(encoder: Encoder, folder: Path) -> Encoder | None:
    """What `keep` left in `folder`, as a frozen copy of `encoder`; None where it left nothing.

    Raises:
        UserError: the file is damaged.
    """
    if not (folder / FILE).exists():
        return None
    found = _still(encoder)
    try:
        found.load_state_dict(load_file(folder / FILE))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{folder / FILE}, the weights that the run began with, is damaged ({error}); copy it "
            "again from where the run was made"
        ) from error
    return found


SETTLED = ("name", "mean", "std", "pool", "class_token", "positions", "resample")
"""Parameters of a backbone that follow from the weights that it begins with."""


def going_on(image: dict[str, Any], run: Path) -> dict[str, Any]:
    """Parameters of the backbone of a run that goes on, without the place that its weights came
    from, which may have gone: checkpoints hold what became of them, and `run` what they were.

    Args:
        image: parameters as they were given; where they begin with other weights they stay.
        run: folder of it.
    """
    before = current(content(run / SETTINGS).get("backbone") or {})
    (timms, file), was = (
        begun_with(bool(x.get("pretrained")), x.get("weights")) for x in (image, before)
    )
    if not (timms or file) or (timms, str(file)) != (was[0], str(was[1])):
        return image
    # timm's are built otherwise than a file's, so that only a checkpoint can stand in for them
    if not (run / FILE).is_file() or (timms and not Checkpoints.of(run).steps()):
        return image
    settled = {n: before[n] for n in SETTLED if before.get(n) is not None}
    settled = {n: tuple(v) if isinstance(v, list) else v for n, v in settled.items()}
    return settled | image | {"weights": None if timms else run / FILE, "pretrained": False}


def as_named(encoder: Encoder, image: dict[str, Any]) -> None:
    """Let an encoder say that it begins with what `image` names, not with what stood in for it."""
    pretrained, weights = begun_with(bool(image.get("pretrained")), image.get("weights"))
    named: Any = encoder
    named.pretrained, named.weights, named.trained = pretrained, weights, True


def _still(encoder: Encoder) -> Any:
    """A copy on the CPU, in evaluation mode, that is not trained."""
    return cast(Any, copy.deepcopy(encoder)).cpu().float().eval().requires_grad_(False)


def beside(encoder: Encoder, path: str | Path) -> Encoder | None:
    """What the encoder of a run folder, or of the file in it, began as; None where nobody knows.

    A start that is damaged or of another network is told and done without: the scores of the
    encoder are worth more.
    """
    place = Path(path)  # or a name, of which there is no folder
    try:
        return kept(encoder, place.parent if place.is_file() else place)
    except UserError as error:
        log.warning("%s; there are no scores of it", error)
        return None
