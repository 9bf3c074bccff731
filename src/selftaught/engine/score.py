"""What `selftaught evaluate` runs: scores from features, and those that take training."""

import copy
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from selftaught import evaluate
from selftaught.backbones import Encoder
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.engine import beginning
from selftaught.engine.pretrain import pretrain
from selftaught.errors import Interrupted, UserError
from selftaught.evaluate.commands import bar
from selftaught.evaluate.comparing import PROBES, fingerprints, labeled
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
from selftaught.evaluate.floors import ENCODER, FINE_TUNED, FLOORS, Comparison
from selftaught.evaluate.scores import Score, Task, split
from selftaught.export.facts import CONFIG, keep
from selftaught.feed.readers import limited
from selftaught.methods.supervised.finetune import Finetune
from selftaught.roles import Count, Fraction, Number, Positive, Several, Temperature
from selftaught.verdict import START

log = logging.getLogger("selftaught")

STEP = 128
"""Images a step of a fine-tuning."""

LEAST_STEPS = 200
"""Of a fine-tuning: few labels are shown more often."""


def evaluate_command(
    encoder: str,
    data: str,
    *,
    probes: tuple[
        Literal[
            "knn",
            "ridge",
            "linear",
            "lowshot",
            "finetune",
            "retrieval",
            "segment",
            "cluster",
            "robustness",
        ],
        ...,
    ] = ("knn", "ridge"),
    test: str | None = None,
    labels: str | None = None,
    path_column: str | None = None,
    masks: str | None = None,
    test_masks: str | None = None,
    ignore: tuple[int, ...] = (255,),
    k: Count = 20,
    temperature: Temperature = 0.07,
    altered: Several = 1000,
    shares: tuple[Fraction, ...] = (0.1, 1.0),
    epochs: Count = 30,
    size: Count | None = None,
    batch: Count = 256,
    workers: Number | None = None,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    read_timeout: Positive = 600.0,
    seed: Number = 0,
    out: Path | None = None,
) -> Comparison:
    """Score an encoder on labeled images beside floors: raw pixels, the untrained network, and,
    for a run that began with weights, those as they were.

    Args:
        encoder: run folder, encoder.safetensors, or name of a timm model (pretrained).
        data: labeled images: folder of class folders, list file, Parquet, tar shards.
        probes: which scores: knn, ridge, linear, lowshot, retrieval, cluster, robustness, segment,
            or finetune, which trains the whole network and takes longest.
        test: labeled images to score on; by default a fifth of each class of data is held out.
        labels: CSV of path,label or name of a column; class folders are found by themselves.
        k: neighbors that vote.
        size: side of the views in pixels; by default the encoder's own.
        batch: images a forward pass.
        workers: processes that read images; by default one a core, none for few images.
        device: such as cpu or cuda; by default the best that the machine has.
        out: JSON file for the scores.

    Other Args:
        path_column: column of a list that holds the paths, where it is not found by itself.
        masks: for segment: folder of masks with the names of the images, or a column (mask).
        test_masks: for segment: folder of the test images' masks, where it is another one.
        ignore: for segment: values of masks that count for nothing.
        temperature: of their votes.
        altered: for robustness and retrieval: test images that are corrupted and copied, at most.
        shares: for finetune: of the labels that are used, one training each.
        epochs: for finetune: of a training with all labels; more where they are under 200 steps.
        precision: of the forward pass; bf16 is used only on processors that have it natively.
        read_timeout: seconds for a batch after which a process that reads counts as hung.
        seed: of the untrained network and of the probes.
    """
    if out is not None and out.suffix != ".json":
        raise UserError(f"{out} must end in .json")
    if not probes:
        raise UserError(f"probes must name some of {', '.join((*PROBES, 'finetune'))}")
    if not 0 <= seed < 2**63:
        raise UserError(f"seed={seed} must be from 0 to 2**63 - 1")
    network = resolve(encoder, size)
    start = beginning.beside(network, encoder)
    pair = None
    if "finetune" in probes:  # what cannot be is told before the others take their time
        pair = _sets(network, data, test, labels, path_column)
        _check_tuning(shares, epochs)
        if size not in (None, network.size):
            raise UserError(
                f"--size {size}: finetune trains {encoder} at its own {network.size} px; leave "
                "--size out, or name the other probes alone"
            )
    given = [p for p in probes if p != "finetune"]
    found = None
    if given:
        with bar() as progress, limited(read_timeout):
            found = evaluate.compare(
                encoder,
                data,
                test,
                probes=given,
                labels=labels,
                path_column=path_column,
                masks=masks,
                test_masks=test_masks,
                ignore=ignore,
                k=k,
                temperature=temperature,
                altered=altered,
                size=size,
                batch=batch,
                workers=workers,
                device=device,
                precision=precision,
                seed=seed,
                strict=True,
                progress=progress,
                start=start,
            )
    if pair is not None:
        begun = time.perf_counter()
        scores = finetune(
            network,
            *pair,
            shares=shares,
            epochs=epochs,
            seed=seed,
            batch=batch,
            workers=workers,
            device=device,
            precision=precision,
            read_timeout=read_timeout,
            start=start,
        )
        seconds = time.perf_counter() - begun
        name = f"{network.name}, {size or network.size} px from {encoder}"
        side = size or network.size
        tuned = Comparison(name, scores, 0, seconds, fingerprints(pair), side)
        found = tuned if found is None else found.joined(tuned)
    assert found is not None
    if out is not None:
        found.save(out)
    _keep(Path(encoder), data, test, found)
    return found


def _keep(run: Path, data: str, test: str | None, found: Comparison) -> None:
    """Leave the scores of a run in its folder, where report, compare and export find them."""
    if not (run / CONFIG).is_file():
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
    starts[FLOORS[0]] = untrained(encoder, seed)
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
            method = Finetune(copied, classes=int(codes[-1]) + 1)
            log.info(
                "fine-tuning from %s weights on %d labels, %d of %d; its run folder is temporary",
                {ENCODER: "these", START: "its first"}.get(name, "fresh"),
                len(chosen),
                len(found) * len(shares) + len(scores) + 1,
                len(starts) * len(shares),
            )
            with tempfile.TemporaryDirectory() as folder, _not_kept():
                pretrain(
                    method,
                    select(train, chosen),
                    Path(folder) / "run",
                    epochs=rounds,
                    batch=step,
                    seed=seed,
                    workers=workers,
                    accelerator=_accelerator(device),
                    precision=precision,
                    read_timeout=read_timeout,
                    evaluate=False,
                    force=True,  # the score tells whether it failed
                )
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


def _sets(
    network: Encoder, data: str, test: str | None, labels: str | None, path_column: str | None
) -> tuple[Samples, Samples]:
    """Labeled training and test samples; a fifth of each class is held out without `test`."""
    given = [
        open_samples(d, labels, network.channels, path_column)
        for d in (data, test)
        if d is not None
    ]
    sets = labeled(given, strict=True)
    if len(sets) == 1:
        fit, held = split(np.asarray(sets[0].labels))
        return select(sets[0], fit), select(sets[0], held)
    return sets[0], sets[1]


@contextmanager
def _not_kept() -> Iterator[None]:
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


def _accelerator(device: str) -> Literal["auto", "cpu", "cuda", "mps"]:
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
    image = method.backbone
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
