"""What the files of a run folder say of it: for the model card and for the report."""

import json
import logging
from pathlib import Path
from typing import Any

import yaml

from selftaught.data.files import RUN
from selftaught.export.files import atomic
from selftaught.verdict import Verdict, judge

log = logging.getLogger("selftaught")

SETTINGS, DIAGNOSIS, CONFIG = RUN, "diagnosis.json", "encoder.json"
SCORES = "scores.json"
"""What training itself found at its end."""
EVALUATED = "evaluated.json"
"""What `selftaught evaluate` found later, the newest last."""


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
    return judge(content(run / DIAGNOSIS), evaluations(run))


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
