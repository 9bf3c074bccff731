"""What a training may be asked for: each setting once, with its type, default, meaning and bounds.

The command line, YAML and the documentation read them here. Nothing heavy is imported.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import isfunction
from pathlib import Path
from typing import Any, Literal

from selftaught import code
from selftaught.data import Samples, open_data
from selftaught.data.opening import HOW
from selftaught.errors import UserError
from selftaught.kinds import Kind
from selftaught.roles import Count, Fraction, Number, PartialShare, Positive, Rate, Share, Weight
from selftaught.signature import Options

NOT_REPEATED = {"out", "resume", "auto_resume", "overwrite", "force", "on_record", "time", "try_"}
"""Settings that run.yaml leaves out: a repetition is a run of its own, a function is no text, and a
time has become epochs."""

NOT_COMPARED = {"recompute", "shard", "mesh"}
"""Settings that a run may go on with another value of: where it computes, not what."""


@dataclass(frozen=True)
class Settings(Options):
    """Train a method on unlabeled images; leave a run folder with the encoder and a report.

    Args:
        out: run folder; by default runs/METHOD-DATA, numbered where that exists.
        epochs: passes over the data; by default as many as its images call for, or as `time` has
            room for.
        time: that the training may take, such as 20m or 1h30m, from which its length follows, and
            the network where none is named.
        batch: images a step, over all devices and accumulated parts; by default fits the data.
        lr: peak learning rate for this batch, instead of the paper's scaled to it.
        seed: of everything random; the same seed gives the same losses to the last bit.
        workers: processes that read images and make views; by default as many as cores are free.
        labels: CSV of path,label or name of a column; class folders are found by themselves.
        test: labeled images to evaluate on; by default a fifth of the labeled data.
        freeze: stages or blocks of the backbone, from its stem on, that stay as they are, or all.
        start: run or encoder to begin with: its backbone, and parts of a run that fit this method.
        resume: whether to continue the run in `out`, bit for bit.
        try_: whether to compare a handful of methods, or settings of the one that is named, in a
            seventh of the time, and to train what is best in the rest.

    Other Args:
        recipe: what nobody gave: `auto` begins with weights in the caches of timm and torch where
            the backbone is open, and fits all else to data, network and machine (AdamW for small
            batches, queues and prototypes as there are images, heads as the backbone is wide; of
            a training that begins with weights a low rate, new heads first), and is told; `paper`
            is the method's own, made for a million images and a fresh draw.
        anchor: what keeps the network near the weights that it begins with, and how much: cosine
            (features), gram (likeness of places, DINOv3) or l2sp (weights), such as
            cosine:1.0,l2sp:0.01; gram:2@0.25 counts in the last quarter of training alone.
        lora: rank of what is learned beside the backbone's layers, which stay as they are (LoRA);
            it is merged into them at the end. By default 16 on a CPU from somebody's weights,
            unless another setting says what stays as it was; 0 for none.
        max_steps: at which a training ends, within an epoch or not, that would be longer.
        accumulate: parts that a step's batch is computed in, to save memory.
        effective_batch: images a step whose loss is exactly that of one batch, computed with the
            memory of `batch` images at a time, for a second forward pass.
        unmix: chance of mixing whole images, in [0, 1], else regions: adds the mixtures of Un-Mix,
            0.5 for images as small as CIFAR's and 0 for large ones; by default nothing is mixed.
        optimizer: instead of the paper's; in Python also a function that makes one of groups of
            parameters, whose rate and weight decay hold unless others are given.
        scaling: how the paper's rate follows the batch, instead of as in the paper.
        weight_decay: constant, or at the start and at the end of a cosine, instead of the paper's.
        layer_decay: the learning rate of a layer of a ViT, as a fraction of that of the layer above
            it, instead of the paper's; 1 for the same rate everywhere.
        warmup: fraction of training in which the learning rate rises, instead of the paper's.
        clip: largest gradient norm, instead of the paper's.
        head_warmup: fraction of training, at its beginning, in which what is new learns alone and
            the backbone rests; 0.05 with the recipe `auto` where a training begins with weights.
        norm_statistics: of the backbone's batch norms while a training goes on from weights: those
            of the batch, or those of the start.
        lora_alpha: scale of what is learned by low rank, as a multiple of 1 / rank; the rank itself
            unless given.
        lora_layers: names of the layers to learn it in, such as qkv,proj; by default all linear
            layers and 1 x 1 convolutions that are wide enough.
        shuffle: `full` permutes all samples, an epoch at a time; `blocks` reads what lies together
            at about the same time, from a few hundred blocks of shards or tables that are mixed:
            for data that is fetched, or far larger than memory.
        read_timeout: seconds for a batch after which a process that reads counts as hung.
        accelerator: what to train on; the best that the machine has by default.
        devices: number of GPUs (or CPU processes).
        precision: of the forward pass; by default the fastest that the processor has natively.
        channels_last: memory layout that convolutions are faster with, on CPUs and GPUs.
        compile: whether to compile the backbone, and the blocks of all transformers, which pays on
            long GPU runs.
        recompute: whether blocks of transformers keep their input alone and run again in the
            backward pass: a fraction of the memory, for a third more time.
        shard: whether each process keeps a part of every weight, of its gradient and its state,
            for networks that are too large for one device (FSDP2).
        mesh: groups of processes x processes of a group, such as 2x8: weights are divided within a
            group, as within a machine, and each group has all of them.
        resolution_phase: such as 518@0.02: the last 2 % of training with images of 518 px.
        column: of the images in a Parquet file or dataset.
        second: the same things in a second modality, for methods with `pair` modalities: files of
            the same names in another folder, a table with a column of these names, or as many rows
            of a table or array.
        second_test: the second modality of test pairs, whose first is `test`: they find each other
            at the end of the training, and no labels are needed.
        second_column: column of the second modality in its table.
        pair_by: what belongs together: what has one name, or rows of one number, files in the order
            of their names; by default rows where neither side has names.
        unpaired: whether samples without a partner in the second modality are refused, or left out.
        path_column: column of a list that holds the paths, where it is not found by itself.
        value_range: black and white of float images, as LOW,HIGH.
        truncated: whether images that end too early are skipped or kept as far as they go.
        nodata: value for missing ones (NaN, or what a GeoTIFF names), in images of more than 8
            bits; also one that stands for missing ones itself.
        max_pixels: width x height above which an image is refused; a file that is too small to be
            a picture of so many is refused before, unless another number is given.
        layout: order of an array's axes; HWC unless given, refused where it looks like CHW.
        masks: for methods that learn from them: folder of masks with the names of the images, or
            the column that holds them (mask).
        quarantine: list of files to leave out, as `check` writes it.
        cache: whether to keep all images in memory as pixels, decoded once.
        crop_scale: smallest and largest area of the crops, as fractions of the image; local crops
            keep theirs.
        flips: ways in which views are flipped at random: both where there is no up and down, as in
            aerial images, cells and surfaces.
        quarter_turns: whether views are turned at random by 0, 90, 180 or 270 degrees.
        color_jitter: strength, as a multiple of the method's; 0 for none.
        grayscale: probability of dropping the colors of a view.
        gaussian_blur: probability of blurring a view.
        random_erasing: probability of filling a rectangle of a view with the mean color.
        augmentation: file.py:function of your own that makes a view of an image; nothing else is
            done to it.
        reduced: whether large JPEGs are decoded at 1/2, 1/4 or 1/8 where no crop gets smaller than
            its view by it; much faster, and almost the same views.
        colors: who makes colors, blur and solarization of views: the processes that read images,
            or the device, batch by batch; with an NVIDIA GPU the faster one is found by measuring.
        max_bad: share of unreadable images above which training stops.
        keep: of a run that begins with weights: the encoder that labeled training images say is
            better (the end, the start, or weights between them), or the end as it is, or the end
            with the start's statistics of batch norms.
        evaluate: whether to score the encoder against floors at the end, where labels exist, and
            to look at it on the way.
        curve: whether to look at the encoder while it trains, on held-out images, in at most 3 % of
            the time: by k-NN and probe where labels exist, else by rank and the like.
        track: who follows the run beside its folder; metrics.csv is written always, TensorBoard
            where it is installed.
        on_record: in Python, a function that is handed each row of metrics and each look.
        log_every: steps between two rows of metrics.
        save_every: minutes between two checkpoints.
        auto_resume: whether to continue the run in `out` where there is one, and to start it where
            there is none, for jobs that are started again with one command.
        overwrite: whether to move an earlier run in `out` aside.
        force: whether to resume although settings or data have changed, and to export what the
            doctor says has failed.

    Raises:
        UserError: a value of another type, or outside of its bounds.
    """

    out: Path | None = None
    epochs: Count | None = None
    time: str | None = None
    batch: Count | None = None
    max_steps: Count | None = None
    accumulate: Count = 1
    effective_batch: Count | None = None
    unmix: Share | None = None
    optimizer: (
        Literal["sgd", "adam", "adamw", "adamw_bert", "lamb", "lars", "lars_tf", "larc"] | None
    ) = None
    lr: Rate | None = None
    scaling: Literal["linear", "sqrt", "none"] | None = None
    weight_decay: Weight | tuple[Weight, Weight] | None = None
    layer_decay: Fraction | None = None
    warmup: Share | None = None
    clip: Rate | None = None
    recipe: Literal["auto", "paper"] = "auto"
    head_warmup: PartialShare | None = None
    norm_statistics: Literal["batch", "start"] = "batch"
    freeze: Number | Literal["all"] | None = None
    lora: Number | None = None
    lora_alpha: Positive | None = None
    lora_layers: tuple[str, ...] | None = None
    anchor: tuple[str, ...] | None = None
    seed: Number = 0
    workers: Number | None = None
    shuffle: Literal["full", "blocks"] = "full"
    read_timeout: Positive = 600.0
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Count = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    recompute: bool = False
    shard: bool = False
    mesh: str | None = None
    resolution_phase: str | None = None
    column: str | None = None
    second: str | None = None
    second_test: str | None = None
    second_column: str | None = None
    pair_by: Literal["auto", "name", "row"] = "auto"
    unpaired: Literal["refuse", "skip"] = "refuse"
    labels: str | None = None
    path_column: str | None = None
    test: str | None = None
    value_range: tuple[float, float] | None = None
    truncated: Literal["skip", "keep"] = "skip"
    nodata: float | None = None
    max_pixels: Count = 179_000_000
    layout: Literal["HWC", "CHW"] | None = None
    masks: str | None = None
    quarantine: Path | None = None
    crop_scale: tuple[Fraction, Fraction] | None = None
    flips: Literal["none", "horizontal", "vertical", "both"] | None = None
    quarter_turns: bool = False
    color_jitter: Weight | None = None
    grayscale: Share | None = None
    gaussian_blur: Share | None = None
    random_erasing: Share | None = None
    augmentation: str | None = None
    cache: bool = False
    reduced: bool = True
    colors: Literal["auto", "loader", "device"] = "auto"
    max_bad: Share = 0.05
    keep: Literal["auto", "end", "start-statistics"] = "auto"
    evaluate: bool = True
    curve: bool = True
    track: tuple[Literal["wandb", "mlflow", "trackio", "csv", "tensorboard"], ...] = ()
    on_record: Callable[[dict[str, float]], None] | None = None
    log_every: Count = 10
    save_every: Weight = 10.0
    start: Path | None = None
    resume: bool = False
    auto_resume: bool = False
    overwrite: bool = False
    try_: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, str) and self.optimizer.startswith("<"):
            raise UserError(
                f"the optimizer of this run, {self.optimizer[1:-1]}, was made in Python, which a "
                "file of settings does not hold: repeat it there with optimizer=, or name one with "
                "--optimizer and --lr"
            )
        super().__post_init__()
        if self.time is not None:
            seconds(self.time)
            for name, given in (("epochs", self.epochs), ("max-steps", self.max_steps)):
                if given is not None:
                    raise UserError(
                        f"--time {self.time} and --{name} {given} both say how long: drop one"
                    )
        if not (isinstance(self.optimizer, str | None) or callable(self.optimizer)):
            raise UserError(
                "optimizer must be a name or a function of groups of parameters, such as "
                f"torch.optim.RAdam, got an object ({type(self.optimizer).__name__})"
            )
        if self.on_record is not None and not callable(self.on_record):
            raise UserError(f"on_record must be a function of one row, got {self.on_record!r}")
        if not (isinstance(self.augmentation, str | None) or callable(self.augmentation)):
            raise UserError(
                f"augmentation must be a function of an image, or name one, got "
                f"{self.augmentation!r}"
            )

    def repeated(self) -> dict[str, Any]:
        """What run.yaml holds of them, as plain values."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        for data in ("second", "second_test", "test"):
            given[data] = None if given[data] is None else named(given[data])
        given["augmentation"] = _function(self.augmentation)
        given["optimizer"] = None if self.optimizer is None else named(self.optimizer)
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in given.items()
            if name not in NOT_REPEATED
        }

    def open(self, data: Any, channels: int = 3, kind: Kind | None = None) -> Samples:
        """The dataset as these settings say it is to be read, and as it is where it is open."""
        how = {n: getattr(self, n) for n in ("labels", *HOW)}
        return open_data(data, channels=channels, kind=kind, **how)


_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def seconds(text: str) -> float:
    """Of a time such as 20m, 1h30m or 90s.

    Raises:
        UserError: it is none.
    """
    match = _TIME.fullmatch(text.strip().lower())
    hours, minutes, rest = (float(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + rest
    if not total > 0:
        raise UserError(f"--time must be a time such as 20m, 1h30m or 90s, got {text!r}")
    return total


def _function(given: Any) -> str | None:
    """What run.yaml calls a function: where it is defined, or what kind of object it was."""
    if isinstance(given, str):
        return code.settled(given)
    known = isfunction(given) and given.__qualname__.isidentifier()
    return None if given is None else code.reference(given) if known else named(given)


def named(data: Any) -> str:
    """What run.yaml calls data: where it is, or what kind of object it was."""
    return str(data) if isinstance(data, str | Path) else f"<{type(data).__name__}>"
