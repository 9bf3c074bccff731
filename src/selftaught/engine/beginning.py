"""What a training began with, where that was more than a fresh draw: it is to end better."""

import copy
import logging
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from selftaught import export
from selftaught.backbones import Encoder
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

FILE = "start.safetensors"
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
