"""Weights of earlier runs, and those that a new one begins with."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.folder import settings_of
from selftaught.errors import UserError
from selftaught.method import Method
from selftaught.parts import lora

log = logging.getLogger("selftaught")


def weights_of(method: Method, run: str | Path) -> dict[str, Tensor]:
    """The weights of an earlier run that `method` can begin with: parts called the same in both.

    Raises:
        UserError: there is no such run, its backbone is another, or parts have other shapes.
    """
    theirs, ours = state_of(Path(run)), method.state_dict()
    wanted = [name for name in ours if name.startswith("backbone.")]
    lacking = [name for name in wanted if name not in theirs]
    shared = {name: x for name, x in theirs.items() if name in ours}
    unlike = [name for name, x in shared.items() if x.shape != ours[name].shape]
    if lacking or [n for n in unlike if n.startswith("backbone.")]:
        first = (lacking or unlike)[0]
        raise UserError(
            f"{run} was trained with another backbone: {first} is "
            f"{'absent there' if lacking else 'of another shape'}; give this training the same "
            "--backbone, --size and --channels"
        )
    if unlike:
        raise UserError(
            f"{unlike[0]} has shape {list(theirs[unlike[0]].shape)} in {run} and "
            f"{list(ours[unlike[0]].shape)} here: give the head the same widths as there"
        )
    return shared


def begin_with(method: Method, run: str | Path, shared: dict[str, Tensor] | None = None) -> None:
    """Give `method` the weights of an earlier run, as `weights_of` finds them or has found them.

    Momentum encoders and EMA teachers are made anew from the parts that they follow.
    """
    shared = weights_of(method, run) if shared is None else shared
    method.load_state_dict(shared, strict=False)
    with torch.no_grad():
        for target, online in method.insight.copies:
            if not any(name.startswith(target) for name in shared):
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
