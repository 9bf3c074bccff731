"""Who follows a run beside the files in its folder: trackers of experiments, a function of yours.

Each tracker is a few lines around its own package, imported where it was asked for, and follows its
own settings: WANDB_MODE, MLFLOW_TRACKING_URI, TRACKIO_SPACE_ID and the like.
"""

import json
import logging
import math
import os
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, final

import torch

from selftaught.engine.randomness import Generators
from selftaught.errors import UserError
from selftaught.export.facts import content

log = logging.getLogger("selftaught")

FILE = "track.json"
"""In the run folder: which run a tracker knows it as, so that one that goes on is the same."""

PROJECT = "selftaught"
"""Where runs are listed, unless the tracker's own settings name another place."""

Row = dict[str, float]


class Follower(Protocol):
    """Is handed rows, with the times at which they were made, in seconds since the epoch."""

    def add(self, rows: Sequence[tuple[float, Row]]) -> None: ...
    def close(self) -> None: ...


class Service(Protocol):
    """A tracker of experiments."""

    def log(self, values: Row, step: int) -> None: ...
    def finish(self) -> None: ...


@final
class Apart:
    """Calls code that is not ours: what it raises stops nothing and is told once, and what it draws
    from the generators leaves training as it is.

    Args:
        name: for messages.
        device: of the training.
    """

    def __init__(self, name: str, device: torch.device):
        self.name, self.device, self.told = name, device, False

    def __call__(self, call: Callable[..., Any], *given: Any) -> None:
        generators = Generators.now(self.device)
        try:
            call(*given)
        except Exception:
            if not self.told:
                log.warning(
                    "%s failed. Training goes on; it is called again, and told of no more:\n%s",
                    self.name,
                    traceback.format_exc(),
                )
            self.told = True
        finally:
            generators.put_back(self.device)


@final
class Following:
    """A service as a follower.

    Args:
        service: that is handed finite numbers alone.
        apart: calls it.
    """

    def __init__(self, service: Service, apart: Apart):
        self.service, self.apart = service, apart

    def add(self, rows: Sequence[tuple[float, Row]]) -> None:
        """Log each row under its step."""
        for _, row in rows:
            values = {n: float(v) for n, v in row.items() if n != "step" and math.isfinite(v)}
            self.apart(self.service.log, values, int(row["step"]))

    def close(self) -> None:
        """Nothing comes any more."""
        self.apart(self.service.finish)


@final
class WandB:
    """Weights & Biases.

    Args:
        out: run folder.
        settings: of the run, as run.yaml has them.
        known: name of a tracker -> what it knows this run as; added to.
    """

    def __init__(self, out: Path, settings: dict[str, Any], known: dict[str, Any]):
        project = {} if "WANDB_PROJECT" in os.environ else {"project": PROJECT}
        known.setdefault("wandb", uuid.uuid4().hex)
        self.run = import_module("wandb").init(
            name=out.name,
            dir=str(out),
            config=settings,
            id=known["wandb"],
            resume="allow",
            **project,
        )

    def log(self, values: Row, step: int) -> None:
        """Numbers of a step."""
        self.run.log(values, step=step)

    def finish(self) -> None:
        """End the run."""
        self.run.finish()


@final
class MLflow:
    """MLflow; inside of a run that is going on already, as one nested in it.

    Args:
        out, settings, known: as of `WandB`.
    """

    def __init__(self, out: Path, settings: dict[str, Any], known: dict[str, Any]):
        self.mlflow = import_module("mlflow")
        if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
            self.mlflow.set_experiment(PROJECT)
        before = {"run_id": known["mlflow"]} if "mlflow" in known else {"run_name": out.name}
        inside = self.mlflow.active_run() is not None
        run = self.mlflow.start_run(nested=inside, **before)
        if "mlflow" not in known:
            self.mlflow.log_params({name: str(v)[:500] for name, v in _flat(settings)})
        known["mlflow"] = run.info.run_id

    def log(self, values: Row, step: int) -> None:
        """Numbers of a step."""
        self.mlflow.log_metrics(values, step=step)

    def finish(self) -> None:
        """End the run."""
        self.mlflow.end_run()


@final
class Trackio:
    """trackio.

    Args:
        out, settings, known: as of `WandB`.
    """

    def __init__(self, out: Path, settings: dict[str, Any], known: dict[str, Any]):
        self.trackio = import_module("trackio")
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        known.setdefault("trackio", f"{out.name}-{uuid.uuid4().hex[:8]}")
        self.trackio.init(project=project, name=known["trackio"], config=settings, resume="allow")

    def log(self, values: Row, step: int) -> None:
        """Numbers of a step."""
        self.trackio.log(values, step=step)

    def finish(self) -> None:
        """End the run."""
        self.trackio.finish()


SERVICES = {"wandb": WandB, "mlflow": MLflow, "trackio": Trackio}


def check(names: Iterable[str]) -> None:
    """Raise UserError where the package of a tracker is not there."""
    for name in names:
        if name == "csv":
            continue
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(
                f"--track {name} needs a package that cannot be imported ({error}): pip install "
                f"{name}, or leave it out"
            ) from error


def followers(
    names: Iterable[str], out: Path, step: int, settings: dict[str, Any], device: torch.device
) -> list[Follower]:
    """Those that were asked for, and TensorBoard where it is installed; CSV is written anyway.

    Args:
        names: of trackers.
        out: run folder.
        step: steps that are done.
        settings: of the run, as run.yaml has them.
        device: of the training.

    Raises:
        UserError: a tracker cannot begin.
    """
    found: list[Follower] = []
    known = content(out / FILE) if step else {}
    for name in dict.fromkeys(n for n in names if n in SERVICES):
        try:
            service = SERVICES[name](out, settings, known)
        except Exception as error:  # of a package that we know nothing of
            for other in found:
                other.close()
            raise UserError(
                f"--track {name} cannot begin ({type(error).__name__}: {error}): change its own "
                "settings, or leave it out"
            ) from error
        found.append(Following(service, Apart(name, device)))
    if known:
        (out / FILE).write_text(json.dumps(known) + "\n", "utf-8")
    if find_spec("tensorboard"):  # an extra
        from selftaught.engine.board import Board

        found.append(Board(out / "tensorboard", step))
    return found


def _flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
