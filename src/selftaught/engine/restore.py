"""Weights of earlier runs and of encoders, and those that a new run begins with."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftaught import code, config, kinds
from selftaught.backbones import Image
from selftaught.backbones.image.create import plain_vit
from selftaught.backbones.positions import grid_of, resampled
from selftaught.backbones.weights.reading import read_weights
from selftaught.data import Samples
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.folder import settings_of
from selftaught.engine.settings import Settings
from selftaught.errors import UserError
from selftaught.export.facts import KEPT, SETTINGS, WEIGHTS, content, encoder_files
from selftaught.kinds import Kind
from selftaught.method import Method
from selftaught.parts import lora
from selftaught.sides import Size
from selftaught.signature import current

log = logging.getLogger("selftaught")

BACKBONE = "backbone."
NOT_ITS = {"weights", "pretrained", "drop_path"}
"""Parameters of a backbone that do not follow from the weights to begin with."""


def weights_of(method: Method, start: str | Path) -> dict[str, Tensor]:
    """The weights that `method` can begin with: the backbone's, and parts alike in both.

    A part of which a tensor is missing or has another shape, such as a head of another width, is
    new as a whole, and so is what follows it (its momentum encoder).

    Args:
        method: that begins.
        start: run, folder of an encoder, or its file.

    Raises:
        UserError: there is no such thing, or its backbone is another.
    """
    ours = method.state_dict()
    theirs = _on_grid(began(Path(start)), method, said(Path(start)).get("size"))
    unlike = [n for n, x in ours.items() if n not in theirs or theirs[n].shape != x.shape]
    first = next((name for name in unlike if name.startswith(BACKBONE)), None)
    if first is not None:
        raise UserError(
            f"{start} was trained with another backbone: {first} is "
            f"{'of another shape' if first in theirs else 'absent there'}; give this training the "
            "same --backbone, --size and --channels"
        )
    copies = method.insight.copies
    parts = [target for target, _ in copies]
    new = {_part(name, parts) for name in unlike}
    new |= {target for target, online in copies if online in new}
    return {n: theirs[n] for n in ours if n in theirs and _part(n, parts) not in new}


def _part(name: str, parts: list[str]) -> str:
    """The part of a method that a tensor belongs to: one that is told of, or a child."""
    return next((p for p in parts if name.startswith(f"{p}.")), name.split(".")[0])


def _on_grid(theirs: dict[str, Tensor], method: Method, size: Size | None) -> dict[str, Tensor]:
    """With the backbone's table of positions, of images of `size`, for the images of `method`."""
    image, name = method.backbone, f"{BACKBONE}net.pos_embed"
    net = plain_vit(image.net) if isinstance(image, Image) else None
    table = theirs.get(name)
    if net is None or net.pos_embed is None or table is None:
        return theirs
    vit: Image = image  # type: ignore[assignment]
    own, grid = net.pos_embed, vit.grid(vit.size)
    prefix = own.shape[1] - grid[0] * grid[1]
    count = table.shape[1] - prefix
    old = grid_of(count, size, vit.patch) or grid_of(count, None, vit.patch)
    if old is None or old == grid or table.shape[2] != own.shape[2]:
        return theirs
    log.info("positions of %d x %d patches are carried to %d x %d", *old, *grid)
    how = image.resample or "plain"
    return theirs | {name: resampled(table, old, grid, prefix, how)}


def begin_with(method: Method, run: str | Path, shared: dict[str, Tensor] | None = None) -> None:
    """Give `method` the weights of an earlier run, as `weights_of` finds them or has found them.

    Momentum encoders and EMA teachers are made anew from the parts that they follow.
    """
    shared = weights_of(method, run) if shared is None else shared
    method.load_state_dict(shared, strict=False)
    with torch.no_grad():
        for target, online in method.insight.copies:
            if not any(name.startswith(f"{target}.") for name in shared):
                followed = method.get_submodule(online).state_dict()
                method.get_submodule(target).load_state_dict(followed)
    ours = method.state_dict()
    new = sorted({name.split(".")[0] for name in ours if name not in shared})
    log.info(
        "%d of %d tensors come from %s%s",
        len(shared),
        len(ours),
        run,
        f"; new: {', '.join(new)}" if new else "",
    )


def sample_of(samples: Samples, settings: Settings, out: Path) -> Kind:
    """What samples are, as the run has it that goes on in `out`, or the one to begin with."""
    start = out if settings.resume else settings.start
    if start is None:
        return kinds.of(samples)
    return kinds.of(samples).beside(Path(start) if Path(start).is_dir() else Path(start).parent)


def check(start: str | Path | None, image: dict[str, Any]) -> None:
    """Refuse a backbone that is to begin with several weights at once.

    Args:
        start: run or encoder to begin with.
        image: parameters of the backbone that were given.
    """
    named = [f"--start {start}"] if start is not None else []
    if image.get("weights") is not None:
        named.append(f"--weights {image['weights']}")
    if image.get("pretrained"):
        named.append("--pretrained")
    if len(named) > 1:
        raise UserError(
            f"{' and '.join(named)} each say what the backbone is to begin with: give one of them "
            "(in a file of settings, weights: null and pretrained: false leave theirs out)"
        )


def backbone_of(start: str | Path, given: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a backbone that is to begin with `start`: those `given`, else what it says.

    Raises:
        UserError: it is no run and no encoder, or code that came with it would have to run.
    """
    path = Path(start)
    known = {k: v for k, v in said(path).items() if k not in NOT_ITS and v is not None}
    name = str(known.get("name", ""))
    if given.get("name", name) != name:
        # another one may fit all the same, but little of what is said here
        known = {k: v for k, v in known.items() if k in ("mean", "std", "size", "channels")}
    elif code.names(name) and "name" not in given and not code.at_hand(name, path):
        raise UserError(
            f"the backbone of {start} is built by {name}, which is not in the folder where you "
            f"are: name it, so that its code may run, with --backbone {name}"
        )
    if given.get("channels") not in (None, known.get("channels")):
        known = {k: v for k, v in known.items() if k not in ("mean", "std")}
    return {**known, **given}


def said(start: Path) -> dict[str, Any]:
    """Parameters of the backbone that a run or an encoder says it has."""
    if (start / SETTINGS).is_file():
        known = config.load(start / SETTINGS).get("backbone") or {}
        known = {"name": known} if isinstance(known, str) else dict(known)
    else:
        about = content(encoder_files(start)[0])
        known = dict(about.get("encoder") or {})
        if not about.get("kind"):  # of others that is no matter of the encoder
            known |= {"mean": about.get("mean"), "std": about.get("std")}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in current(known).items()}


def began(start: Path) -> dict[str, Any]:
    """What there is to begin with: a run's newest checkpoint, or an encoder as the backbone.

    Raises:
        UserError: there is neither.
    """
    if (start / SETTINGS).is_file() and Checkpoints.of(start).steps():
        kept = content(start / KEPT).get("kept", "end")
        if kept != "end":
            log.info(
                "%s begins with its end, and it kept %s: --start %s begins with that",
                start,
                kept,
                start / WEIGHTS,
            )
        return state_of(start)
    if (start / SETTINGS).is_file() and not (start / "encoder.json").is_file():
        return state_of(start)  # which says what is missing
    _, weights = encoder_files(start)
    return {f"{BACKBONE}net.{name}": x for name, x in read_weights(weights).items()}


def state_of(run: Path) -> dict[str, Any]:
    """What the newest checkpoint of `run` holds of its method.

    Raises:
        UserError: there is no such run, or it has no checkpoint.
    """
    settings_of(run)
    state = Checkpoints.of(run).training()
    if state is None:
        raise UserError(f"the run in {run} has no checkpoint yet; wait for its first one")
    return lora.plain(state["method"])
