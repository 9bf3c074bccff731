"""`pretrain`: what the command of the same name and Python users call."""

import logging
from pathlib import Path
from typing import Any, Literal

from selftaught.method import Method

log = logging.getLogger("selftaught")


def pretrain(
    method: Method,
    data: Any,
    out: Path | None = None,
    *,
    epochs: int = 100,
    batch: int = 256,
    accumulate: int = 1,
    optimizer: Literal["sgd", "adamw", "lamb", "lars", "lars_tf", "larc"] | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    warmup: float | None = None,
    clip: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    devices: int = 1,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    channels_last: bool | None = None,
    compile: bool = False,
    column: str | None = None,
    labels: str | None = None,
    test: str | None = None,
    value_range: tuple[float, float] | None = None,
    truncated: Literal["skip", "keep"] = "skip",
    quarantine: Path | None = None,
    max_bad: float = 0.05,
    evaluate: bool = True,
    log_every: int = 10,
    save_every: float = 10.0,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
) -> Method:
    """Train a method on unlabelled images; leave a run folder with the encoder and a report.

    Args:
        method: what to train, around its backbone.
        data: folder, list file, Parquet, tar shards, array, or dataset of images.
        out: run folder; by default runs/METHOD-DATA.
        epochs: passes over the data.
        batch: images a step, over all devices and accumulated parts.
        accumulate: parts that a step's batch is computed in, to save memory.
        optimizer: instead of the paper's.
        lr: peak learning rate for this batch, instead of the paper's scaled to it.
        weight_decay: constant, instead of the paper's.
        warmup: fraction of training in which the learning rate rises, instead of the paper's.
        clip: largest gradient norm, instead of the paper's.
        seed: of everything random; the same seed gives the same losses to the last bit.
        workers: processes that read images and make views; by default as many as cores are free.
        accelerator: what to train on; the best that the machine has by default.
        devices: number of GPUs (or CPU processes).
        precision: of the forward pass; by default the fastest that the processor has natively.
        channels_last: memory layout of convolutions; by default where it is faster.
        compile: whether to compile the backbone, which pays on long GPU runs.
        column: of the images in a Parquet file or dataset.
        labels: CSV of path,label or name of a column; class folders are found by themselves.
        test: labelled images to evaluate on; by default a fifth of the labelled data.
        value_range: black and white of float images, as LOW,HIGH.
        truncated: whether images that end too early are skipped or kept as far as they go.
        quarantine: list of files to leave out, as `check` writes it.
        max_bad: share of unreadable images above which training stops.
        evaluate: whether to score the encoder against floors at the end, where labels exist.
        log_every: steps between two rows of metrics.
        save_every: minutes between two checkpoints.
        resume: whether to continue the run in `out`, bit for bit.
        overwrite: whether to move an earlier run in `out` aside.
        force: whether to resume although settings or data have changed.

    Returns:
        The trained method; `method.encoder` is the network to use.

    Raises:
        UserError: a setting or an input that cannot work, before any step.
        DataError: more than `max_bad` of the images cannot be read.
        TrainingError: a loss that is not finite; nothing is exported.
        Interrupted: a signal came; the run is saved and can be resumed.
    """
    raise NotImplementedError
