"""What `selftaught evaluate RUN DATA --second DATA` scores: pairs that find each other."""

import logging
from pathlib import Path
from typing import Any

from selftaught import config
from selftaught.data import open_data
from selftaught.data.labels import without_labels
from selftaught.data.paired import Paired, pair
from selftaught.engine.build import restored
from selftaught.errors import UserError
from selftaught.evaluate.features import Progress, device_for, open_samples
from selftaught.evaluate.floors import Comparison
from selftaught.evaluate.pairing import Tower, compare_pairs
from selftaught.evaluate.settings import Scoring
from selftaught.export.facts import SETTINGS
from selftaught.kinds import of
from selftaught.method import Method, encoders
from selftaught.nouns import going_on

log = logging.getLogger("selftaught")


def towers(method: Method) -> tuple[Tower, Tower]:
    """Both encoders of a method of pairs, each with what maps its features to where they meet.

    Raises:
        UserError: the method compares no pairs.
    """
    first, *others = encoders(method)
    if not others or not method.insight.other:
        raise UserError(
            f"{type(method).__name__} was not trained on two modalities, and --second names one: "
            "drop it, or take a run that was"
        )
    embedding, beside = method.insight.embedding, method.insight.other
    return (
        Tower(first, method.get_submodule(embedding)),
        Tower(others[0], method.get_submodule(beside)),
    )


def evaluated(run: str, data: str, asked: Scoring, progress: Progress | None) -> Comparison:
    """Recall of pairs, of a run that was trained on pairs; see `compare_pairs`."""
    folder = Path(run)
    if not (folder / SETTINGS).is_file():
        raise UserError(
            f"{run} is no run folder, and pairs are scored of a run that was trained on two "
            "modalities: name its folder, or drop --second"
        )
    method = restored(folder)
    both = towers(method)
    for tower in both:
        tower.encoder.to(device_for(run, tower.encoder, asked.device))
    train = opened(both, data, asked.second, asked)
    test = None
    if asked.test is not None or asked.second_test is not None:
        test = opened(both, asked.test or data, asked.second_test or asked.second, asked)
    if _seen(folder, asked.test or data, asked.second_test or asked.second):
        log.warning(
            "%s has learned from these pairs: that they find each other says nothing of others; "
            "name pairs that it has not seen with --test and --second-test",
            run,
        )
    return compare_pairs(
        both, train, test, asked, name=f" from {run}", seed=asked.seed, progress=progress
    )


def opened(both: tuple[Tower, Tower], data: Any, second: Any, asked: Scoring) -> Paired:
    """Pairs to score on; samples without a partner are left out."""
    one, other = (tower.encoder for tower in both)
    first = open_samples(data, one, None, asked.path_column)
    with going_on(), without_labels():
        samples = open_data(
            second, column=asked.second_column, channels=other.channels, kind=of(other)
        )
    return pair(first, samples, (data, second), asked.pair_by, "skip")


def _seen(run: Path, data: Any, second: Any) -> bool:
    """Whether a run was trained on these pairs, by the places that it names."""
    told = config.load(run / SETTINGS)
    trained = (told.get("data"), (told.get("training") or {}).get("second"))
    return all(
        isinstance(a, str) and isinstance(b, str) and Path(a).resolve() == Path(b).resolve()
        for a, b in zip(trained, (data, second))
    )
