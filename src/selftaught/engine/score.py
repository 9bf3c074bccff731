"""What `selftaught evaluate` runs: scores from features, and those that take training."""

import copy
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast

import numpy as np
import torch
from torch import Tensor

from selftaught.backbones import Encoder
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.engine import beginning, pairs
from selftaught.engine.build import image_of
from selftaught.engine.plan import prepared
from selftaught.engine.run import Run
from selftaught.engine.settings import Settings
from selftaught.errors import Interrupted, UserError
from selftaught.evaluate.comparing import PROBES, compared, fingerprints, labeled, named
from selftaught.evaluate.features import (
    Embeddings,
    device_for,
    one_pass,
    open_samples,
    resolve,
    running,
    untrained,
)
from selftaught.evaluate.few_labels import choose
from selftaught.evaluate.floors import ENCODER, FINE_TUNED, UNTRAINED, Comparison
from selftaught.evaluate.scores import Score, Task, split
from selftaught.evaluate.settings import Scoring
from selftaught.export.facts import CLASSIFIER, CONFIG, keep
from selftaught.feed.readers import limited
from selftaught.methods.supervised.finetune import Finetune
from selftaught.sides import as_option, told_size
from selftaught.signature import takes
from selftaught.verdict import START
from selftaught.voice import counted

if TYPE_CHECKING:
    from selftaught.options import ScoringOptions

log = logging.getLogger("selftaught")

STEP = 128
"""Images a step of a fine-tuning."""

LEAST_STEPS = 200
"""Of a fine-tuning: few labels are shown more often."""


@takes(Scoring)
def evaluate_command(encoder: str, data: str, **options: "Unpack[ScoringOptions]") -> Comparison:
    """Score an encoder on labeled images beside floors: as it began, untrained, raw pixels.

    Args:
        encoder: run folder, encoder.safetensors, name of a timm model (pretrained), or the function
            that builds a module, as package.module:function.
        data: labeled images: folder of class folders, list file, Parquet, tar shards.
        options: fields of `Scoring`.
    """
    asked = Scoring.of(**options)
    probes, size = asked.probes, asked.size
    if asked.out is not None and asked.out.suffix != ".json":
        raise UserError(f"{asked.out} must end in .json")
    if not probes:
        raise UserError(f"probes must name some of {', '.join((*PROBES, 'finetune'))}")
    if asked.seed >= 2**63:
        raise UserError(f"seed={asked.seed} must be from 0 to 2**63 - 1")
    if asked.second is not None:
        with limited(asked.read_timeout), counted("embedding") as progress:
            found = pairs.evaluated(encoder, data, asked, progress)
        return _told(encoder, data, asked, found)
    network = resolve(named(encoder, asked), size)
    start = beginning.beside(network, encoder)
    pair = None
    if "finetune" in probes:  # what cannot be is told before the others take their time
        pair = _sets(network, data, asked)
        _check_tuning(asked.shares, asked.epochs)
        if size is not None and size != network.size:
            raise UserError(
                f"--size {as_option(size)}: finetune trains {encoder} at its own "
                f"{told_size(network.size)} px; leave --size out, or name the other probes alone"
            )
    given = tuple(p for p in probes if p != "finetune")
    found = None
    if given:
        with limited(asked.read_timeout), counted("embedding") as progress:
            found = compared(encoder, data, replace(asked, probes=given), True, progress, start)
    if pair is not None:
        begun = time.perf_counter()
        scores = finetune(
            network,
            *pair,
            shares=asked.shares,
            epochs=asked.epochs,
            seed=asked.seed,
            batch=asked.batch,
            workers=asked.workers,
            device=asked.device,
            precision=asked.precision,
            read_timeout=asked.read_timeout,
            start=start,
        )
        seconds = time.perf_counter() - begun
        side = size or network.size
        name = f"{network.name}, {told_size(side)} px from {encoder}"
        tuned = Comparison(name, scores, 0, seconds, fingerprints(pair), side)
        found = tuned if found is None else found.joined(tuned)
    assert found is not None
    return _told(encoder, data, asked, found)


def _told(encoder: str, data: str, asked: Scoring, found: Comparison) -> Comparison:
    """The scores, written where they are to be."""
    if asked.out is not None:
        found.save(asked.out)
    _keep(Path(encoder), data, asked.test, found)
    return found


def _keep(run: Path, data: str, test: str | None, found: Comparison) -> None:
    """Leave the scores of a run in its folder, where report, compare and export find them."""
    if not (run / CONFIG).is_file() or (run / CLASSIFIER).is_file():  # which has scores of its own
        return
    try:
        path = keep(run, data, test, found.as_dict())
    except UserError as error:  # the scores themselves are worth more
        log.warning("%s; the scores are not kept there", error)
    else:
        log.info("kept in %s; selftaught report %s puts them on the page", path, run)


def finetune(
    encoder: Encoder,
    train: Samples,
    test: Samples,
    *,
    shares: Sequence[float] = (0.1, 1.0),
    epochs: int = 30,
    seed: int = 0,
    batch: int = 256,
    workers: int | None = None,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    read_timeout: float = 600.0,
    start: Encoder | None = None,
) -> dict[str, tuple[Score, ...]]:
    """Accuracy after fine-tuning, from the encoder's weights, from fresh ones, and from its start.

    All are trained alike, by the method `finetune`; from fresh weights that is what labels alone
    give. With shares of the labels the two curves tell how many labels the encoder saves.

    Args:
        encoder: which is copied and stays as it is.
        train, test: labeled samples.
        shares: of the training labels, of each class alike; one training each.
        epochs: of a training with all labels; fewer are shown more often, up to 200 steps.
        seed: of fresh weights, of the choice of labels and of the trainings.
        batch: images a forward pass on the test images; trainings take up to 128 a step.
        workers, device, precision: as of `embed`.
        read_timeout: seconds for a batch, as of trainings.
        start: the encoder as its own training began, where that was with weights.

    Returns:
        Scores of "this encoder", of "as it began" where there is a start, and of "untrained".

    Raises:
        UserError: a share or a number of epochs that cannot be.
    """
    _check_tuning(shares, epochs)
    starts = {ENCODER: encoder} | ({} if start is None else {START: start})
    starts[UNTRAINED] = untrained(encoder, seed)
    y = np.asarray(train.labels)
    codes, each = np.unique(y, return_counts=True)
    found: dict[str, tuple[Score, ...]] = {}
    for name, begun_with in starts.items():
        scores = []
        for share in sorted(shares):
            begun = time.perf_counter()
            wanted = np.maximum(1, np.round(share * each)).astype(int)
            chosen = choose(np.searchsorted(codes, y), wanted, seed)
            step = min(STEP, len(chosen))
            rounds = max(epochs, -(-LEAST_STEPS // (len(chosen) // step)))
            copied = copy.deepcopy(begun_with)
            if name == START:  # which is kept frozen
                _as_free(copied, encoder)
            # methods say Image and take any encoder
            method = Finetune(copied, classes=int(codes[-1]) + 1)  # pyrefly: ignore[bad-argument-type]
            log.info(
                "fine-tuning from %s weights on %d labels, %d of %d; its run folder is temporary",
                {ENCODER: "these", START: "its first"}.get(name, "fresh"),
                len(chosen),
                len(found) * len(shares) + len(scores) + 1,
                len(starts) * len(shares),
            )
            with tempfile.TemporaryDirectory() as folder, not_kept():
                settings = Settings(
                    out=Path(folder) / "run",
                    recipe="paper",  # the same from any start
                    epochs=rounds,
                    batch=step,
                    seed=seed,
                    workers=workers,
                    accelerator=accelerator(device),
                    precision=precision,
                    read_timeout=read_timeout,
                    evaluate=False,
                    force=True,  # the score tells whether it failed
                )
                Run(prepared(method, select(train, chosen), settings, {}, {})).complete()
            with limited(read_timeout):
                task, predicted = _predictions(method, train, test, codes, batch, workers)
            score = task.score(
                f"{FINE_TUNED}, {100 * share:g} % of labels",
                predicted,
                f"{task.protocol}; all of the network trained on {len(chosen)} labels for "
                f"{rounds} epochs in batches of {step}, AdamW, crops and flips, one training",
                begun,
            )
            scores.append(replace(score, labels=len(chosen)))
        found[name] = tuple(scores)
    return found


def _as_free(network: Encoder, like: Encoder) -> None:
    """Let those weights of `network` be trained that are trained in `like`."""
    fixed = {n for n, p in cast(Any, like).named_parameters() if not p.requires_grad}
    for name, parameter in cast(Any, network).named_parameters():
        parameter.requires_grad_(name not in fixed)


def _sets(network: Encoder, data: str, asked: Scoring) -> tuple[Samples, Samples]:
    """Labeled training and test samples; a fifth of each class is held out without a test."""
    given = [
        open_samples(d, network, asked.labels, asked.path_column)
        for d in (data, asked.test)
        if d is not None
    ]
    sets = labeled(given, strict=True)
    if len(sets) == 1:
        fit, held = split(np.asarray(sets[0].labels))
        return select(sets[0], fit), select(sets[0], held)
    return sets[0], sets[1]


@contextmanager
def not_kept() -> Iterator[None]:
    """A block whose run is gone when it is stopped, so that it cannot be resumed."""
    try:
        yield
    except Interrupted as error:
        raise Interrupted(
            "stopped while fine-tuning, of which nothing is kept: repeat the command",
            error.exit_code,
        ) from error


def _check_tuning(shares: Sequence[float], epochs: int) -> None:
    if epochs < 1 or not shares or not all(0 < share <= 1 for share in shares):
        raise UserError(
            f"epochs={epochs} must be at least 1 and shares={list(shares)} above 0 and at most 1"
        )


def accelerator(device: str) -> Literal["auto", "cpu", "cuda", "mps"]:
    """What a training calls a device of this name."""
    for name in ("cpu", "cuda", "mps"):
        if device.startswith(name):
            return name
    return "auto"


def _predictions(
    method: Finetune,
    train: Samples,
    test: Samples,
    codes: np.ndarray,
    batch: int,
    workers: int | None,
) -> tuple[Task, Tensor]:
    """The task, and the classes of its test samples that a trained method says."""
    image = image_of(method)
    device = device_for(image, image, "auto")

    def logits(network: Encoder, x: Tensor) -> Tensor:
        return method.classifier(network(x))

    with running(image, device, "fp32", logits) as forward:
        (outputs,), rest = one_pass([forward], test, image.size, batch, workers)
    classes = None if train.classes is None else tuple(train.classes)
    none = np.zeros((len(train), outputs.shape[1]), np.float32)
    task = Task.of(
        Embeddings(none, np.asarray(train.labels), classes=classes), Embeddings(outputs, *rest)
    )
    return task, task.test_x[:, torch.from_numpy(codes)].argmax(1)
