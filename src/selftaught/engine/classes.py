"""Which class each output of a trained classifier stands for, for those that go on from it."""

import json
import logging
from pathlib import Path

import numpy as np

from selftaught.data import Samples
from selftaught.data.labels import match, name_of, names_of
from selftaught.data.selection import Selected, select
from selftaught.engine.folder import write_text
from selftaught.errors import UserError
from selftaught.evaluate.scores import few, unlike

log = logging.getLogger("selftaught")

FILE = "classes.json"
"""In the folder of a supervised run: names of the classes by their number."""


def keep(out: Path, samples: Samples) -> None:
    """Write which classes the numbers stand for."""
    count = int(np.asarray(samples.labels).max()) + 1
    names = [name_of(code, samples.classes) for code in range(count)]
    write_text(out / FILE, json.dumps(names) + "\n")


def agreed(samples: Samples, teacher: str | Path | None, start: Path | None) -> Samples:
    """Labels in the numbers of the run that a training goes on from: they are compared by name.

    A teacher says its own classes alone, so images of others lose their labels. A run that only
    gives its weights may be trained on other classes; its numbers count where the names are all
    the same.

    Raises:
        UserError: the data has no class of the teacher.
    """
    given = teacher or start
    run = Path(given or "")
    if given is None or samples.labels is None or not (run / FILE).is_file():
        return samples
    ours = names_of(np.asarray(samples.labels), samples.classes)
    theirs = dict(enumerate(map(str, json.loads((run / FILE).read_text("utf-8")))))
    found, _ = match(ours, theirs)
    if teacher is None and len(found) < len(ours):
        return samples
    if ours and not found:
        raise UserError(unlike(ours.values(), theirs.values(), "images"))
    lost = [name for code, name in ours.items() if code not in found]
    if lost:
        log.warning("images of classes that %s does not know are left out: %s", run, few(lost))
    renumbered = select(samples, np.arange(len(samples)))
    assert isinstance(renumbered.source, Selected)
    codes, where = np.unique(np.asarray(samples.labels), return_inverse=True)
    numbers = np.array([found.get(int(c), -1) for c in codes], np.int64)
    renumbered.source.labels = numbers[where.reshape(-1)]
    renumbered.source.classes = list(theirs.values())
    return renumbered if lost or found != {c: c for c in ours} else samples
