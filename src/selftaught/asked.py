"""What can be told of a command's values before torch is imported, which takes seconds: names that
nothing has, folders that are no runs, files that cannot be written or read. Numbers out of bounds
are told before, by their roles.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftaught import code, kinds, timm_names
from selftaught.backbones.weights.header import refuse_others
from selftaught.backbones.weights.places import TIMM, located
from selftaught.classifier import places
from selftaught.data.absent import missing
from selftaught.errors import UserError
from selftaught.export.facts import content, encoder_files, is_path, trained

if TYPE_CHECKING:
    from selftaught.engine.settings import Settings

ENDINGS = {
    "embed": (".npz", ".npy", ".parquet", ".csv"),
    "search": (".html", ".csv", ".parquet"),
    "evaluate": (".json",),
    "compare": (".html",),
}
"""Command -> what the name of the file may end in that it writes to `out`."""

CHEAP = 1 << 20
"""Bytes of a file that is opened twice without anybody waiting for it."""


def check(command: str, values: dict[str, Any]) -> None:
    """Refuse what the function of a command would refuse, too, but only seconds later.

    Args:
        command: name of it.
        values: what was given, each of its type.

    Raises:
        UserError: a value that cannot work.
    """
    for key in ("data", "test", "run"):
        for place in values.get(key) or () if command == "curate scan" else [values.get(key)]:
            if place:
                exists(place)
    for run in values.get("runs", ()):
        exists(run)
    if not re.fullmatch(r"auto|[a-z]{3,}(:\d+)?", values.get("device", "auto")):
        raise UserError(f"--device is such as cpu, cuda or cuda:1, got {values['device']!r}")
    out, endings = values.get("out"), ENDINGS.get(command)
    for file in out if isinstance(out, tuple) else () if out is None else (out,):
        if endings and file.suffix not in endings:
            listed = " or ".join(endings)
            raise UserError(f"{file} must end in {listed}: name another file with --out")
    if command == "compare":
        _runs(values["runs"])
    elif command == "report":
        trained(Path(values["run"]))
    elif command == "demo" and out is not None:
        from selftaught.engine.folder import occupied

        occupied(out, resume=False, overwrite=False)
    elif command == "export":
        encoder_files(Path(values["run"]))
    elif command == "predict":
        places.free(out or Path("predictions.csv"), values.get("overwrite", False))
        places.found(Path(values["model"]))
    elif command in ("reconstruct", "segment"):
        _painting(command, Path(values["run"]), values["images"])
    elif "encoder" in values:
        encoder(values["encoder"])
        if values.get("weights"):
            refuse_others(located(values["weights"]))
        if command == "classify":
            default = places.default_out(values["encoder"], values["data"])
            places.taken(out or default, values.get("overwrite", False))
        for key in ("data", "test"):
            if values.get(key):
                how = values.get("labels"), values.get("path_column")
                _readable(values["encoder"], values[key], *how)


def training(settings: "Settings", weights: str | Path | None) -> None:
    """Refuse a training whose places are not there, or taken.

    Args:
        settings: of it.
        weights: file that the encoder is to start from.

    Raises:
        UserError: a place that cannot work.
    """
    from selftaught.engine.folder import occupied

    # a run that goes on has what it began with
    for place in (None if settings.resume else settings.start, settings.test):
        if isinstance(place, str | Path):
            exists(str(place))
    if weights is not None and str(weights) != TIMM and not settings.resume:
        refuse_others(located(weights))  # whatever is no file of weights
    if settings.out is not None:
        occupied(settings.out, settings.resume, settings.overwrite)


def exists(place: str) -> None:
    """Refuse a path that leads nowhere; patterns and addresses are looked at by whoever opens."""
    if not (os.path.exists(place) or any(c in place for c in "{*?[") or "://" in place):
        raise missing(Path(place))


def encoder(name: str) -> None:
    """Refuse what stands for no encoder: neither a run, nor weights, nor a model of timm."""
    names_code = code.names(name) and not Path(name).exists()
    if names_code:
        return
    if is_path(name):
        encoder_files(Path(name))
    else:
        timm_names.check(name)


def _runs(runs: tuple[str, ...]) -> None:
    if len(runs) < 2:
        raise UserError(
            f"a comparison needs two runs or more, got {len(runs)}, such as: "
            "selftaught compare runs/first runs/second"
        )
    if len({Path(run).resolve() for run in runs}) < len(runs):
        raise UserError(f"{', '.join(runs)} names a run twice; name each once")
    for run in runs:
        trained(Path(run))


def _painting(command: str, run: Path, images: tuple[str, ...]) -> None:
    from selftaught.engine.folder import settings_of

    settings = settings_of(run)
    if command == "segment":
        from selftaught import config

        method = config.load(settings).get("method")
        if method != "stego":
            raise UserError(f"{run} was trained by {method}; stego segments images")
    for name in images:
        if not Path(name).exists():
            raise UserError(f"{name} does not exist; give files of images")


def _readable(encoder: str, data: str, labels: str | None, path_column: str | None) -> None:
    """Refuse data of which nothing can be read, where looking takes no time."""
    from selftaught.data.image.formats import IMAGE

    path = Path(data)
    filed = is_path(encoder) and not code.names(encoder)
    about = content(encoder_files(Path(encoder))[0]) if filed else {}
    kind = kinds.made(about.get("kind"))
    known = {*IMAGE, ".parquet", ".arrow", ".tar", ".npy", ".npz"}
    if path.is_dir():
        files = (file for _, _, names in os.walk(path) for file in names)
        if any(os.path.splitext(file)[1].lower() in known for file in files):
            return
    elif path.suffix.lower() in known or not path.is_file() or path.stat().st_size > CHEAP:
        return
    from selftaught.data import open_data

    open_data(data, labels=labels, path_column=path_column, kind=kind)
