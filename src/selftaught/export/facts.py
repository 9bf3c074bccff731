"""What the files of a run folder say of it: for the model card and for the report."""

import json
import logging
from pathlib import Path
from typing import Any

import yaml

from selftaught import timm_names
from selftaught.data.image.formats import RUN
from selftaught.errors import UserError
from selftaught.export.files import atomic
from selftaught.verdict import Verdict, judge

log = logging.getLogger("selftaught")

SETTINGS, DIAGNOSIS, CONFIG = RUN, "diagnosis.json", "encoder.json"
WEIGHTS = "encoder.safetensors"
SECOND = "second"
"""Folder in that of a run with the encoder of a second modality."""
SCORES = "scores.json"
"""What training itself found at its end."""
EVALUATED = "evaluated.json"
"""What `selftaught evaluate` found later, the newest last."""
KEPT = "kept.json"
"""Which encoder a run that began with weights kept, and why."""
TRIED = "tried.json"
"""Candidates that `--try` compared, what it took and why."""
CLASSIFIER = "model.json"
"""What `classify` has made, beside the encoder that it is of."""
TRAINED = (SETTINGS, "metrics.csv", CONFIG, SCORES)
"""Files that a training leaves, the first one being there from its start."""


def is_path(encoder: str) -> bool:
    """Whether a word for an encoder is a place, rather than the name of a timm model.

    Such a name may end in the tag of its weights, resnet18.a1_in1k, which is no file's ending.
    """
    path = Path(encoder)
    named = encoder.partition(".")[0] in timm_names.known()[1]
    return path.exists() or len(path.parts) > 1 or (bool(path.suffix) and not named)


def encoder_files(path: Path) -> tuple[Path, Path]:
    """encoder.json and weights of a run folder or beside a file; UserError where one is not."""
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl"):
        raise UserError(
            f"{path} is a pickle, which can run code when it is read; give a run folder or an "
            f"{WEIGHTS}. To bring weights from elsewhere, read them with torch.load(FILE, "
            "weights_only=True), load them into selftaught.backbone(NAME).net and give that "
            "backbone to selftaught.export.save; a training begins with them by --weights"
        )
    folder = path if path.is_dir() else path.parent
    weights = folder / WEIGHTS if path.is_dir() else path
    if not path.exists():
        raise UserError(f"{path} does not exist; give a run folder or an {WEIGHTS}")
    if path.is_file() and path.suffix != ".safetensors":
        raise UserError(f"{path} is no file of weights; give a run folder or an {WEIGHTS}")
    for file in (weights, folder / CONFIG):
        if not file.is_file():
            way = "pretrain writes them at the end of a run, and selftaught.export.save any time"
            if (folder / SETTINGS).is_file():
                way = (
                    "this run has not ended with them: go on with selftaught pretrain --config "
                    f"{folder}/{SETTINGS} --out {folder} --resume, and --force if the doctor says "
                    "that it failed"
                )
            raise UserError(
                f"{file} is missing: an encoder is {WEIGHTS} and {CONFIG} side by side; {way}"
            )
    return folder / CONFIG, weights


def trained(run: Path) -> None:
    """Refuse what is no run folder: UserError."""
    if not run.is_dir():
        raise UserError(f"{run} is not a folder; a report is made of a run folder of pretrain")
    if not any((run / name).is_file() for name in TRAINED):
        raise UserError(f"{run} holds no run: none of {', '.join(TRAINED)} is there")
    if (run / CLASSIFIER).is_file():
        raise UserError(
            f"{run} is a classifier and no run of pretrain: what it is worth stands in "
            f"{run / 'report.html'}, which classify has written"
        )


def content(path: Path) -> dict[str, Any]:
    """The mapping in a file of JSON or YAML; empty where it is missing, damaged or none."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text("utf-8", errors="backslashreplace")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        log.warning("%s is damaged (%s) and is left out", path, error)
        return {}
    return found if isinstance(found, dict) else {}


def evaluations(run: Path) -> list[dict[str, Any]]:
    """All scores of the encoder in a run folder: of training first, then the newest last.

    Each is what `Comparison.as_dict` gives; those of later say of which `data`, and `test`, too.
    Where training went on since, what was found before it is left out.
    """
    return [found for found in (content(run / SCORES), *_kept(run)) if found]


def of_folder(run: Path) -> Verdict:
    """The verdict on the run in a folder."""
    return judge(content(run / DIAGNOSIS), evaluations(run), content(run / KEPT))


def keep(run: Path, data: str, test: str | None, found: dict[str, Any]) -> Path:
    """Add what an evaluation found to a run folder; what it repeats on the same data goes.

    Args:
        run: folder of a run.
        data, test: what was evaluated on.
        found: what `Comparison.as_dict` gives.

    Returns:
        The file.

    Raises:
        UserError: it cannot be written.
    """
    entry = {"encoder_sha256": _weights(run), "data": data, "test": test, **found}
    others = [e for e in _kept(run) if _on(e) != _on(entry) or not _names(e) <= _names(entry)]
    with atomic(run / EVALUATED) as temporary:
        text = json.dumps({"evaluations": [*others, entry]}, indent=2)
        temporary.write_text(text + "\n", "utf-8")
    return run / EVALUATED


def _kept(run: Path) -> list[dict[str, Any]]:
    found, weights = content(run / EVALUATED).get("evaluations"), _weights(run)
    entries = [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []
    return [e for e in entries if e.get("encoder_sha256") == weights]


def _on(entry: dict[str, Any]) -> tuple[Any, Any]:
    return entry.get("data"), entry.get("test")


def _names(entry: dict[str, Any]) -> set[str]:
    rows = entry.get("scores")
    return (
        {str(r.get("score")) for r in rows if isinstance(r, dict)}
        if isinstance(rows, list)
        else set()
    )


def _weights(run: Path) -> Any:
    """Checksum of the encoder's weights."""
    return content(run / CONFIG).get("sha256")
