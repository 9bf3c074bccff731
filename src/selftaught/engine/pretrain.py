"""`pretrain`: what the command of the same name and Python users call."""

import dataclasses
import io
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies import DDPStrategy
from rich.console import Console
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from selftaught import config, dist, export, report
from selftaught import evaluate as evaluation
from selftaught.augment.device import normalize
from selftaught.backbones import Image
from selftaught.data import Samples, open_data
from selftaught.data import quarantine as quarantined
from selftaught.data.cached import cached
from selftaught.data.left import tell
from selftaught.data.masks import Masked, Masks, check_degrees, open_masks
from selftaught.data.paired import Paired, pair
from selftaught.data.selection import select, without
from selftaught.diagnose.doctor import FILE, Doctor
from selftaught.diagnose.intake import intake
from selftaught.engine import optim, resolution
from selftaught.engine.build import count_classes, describe, method_name, named, options_of
from selftaught.engine.cache import GradientCache
from selftaught.engine.checkpoint import Checkpoints, size_of
from selftaught.engine.colours import CHOICES, choose, fed, settled
from selftaught.engine.convolution import mend
from selftaught.engine.ending import together, told
from selftaught.engine.estimate import PROBE, Estimate, measure, peak_flops
from selftaught.engine.feed import Item, Order, Views, Whole, collate, loader
from selftaught.engine.folder import Metrics, changes, default_out, prepare, write_text
from selftaught.engine.guard import Guard, guard
from selftaught.engine.loop import Loop, random_state, seed_all, set_random_state
from selftaught.engine.pictures import keep_pictures
from selftaught.engine.progress import Progress, duration
from selftaught.engine.restore import begin_with
from selftaught.engine.signals import StopSignals
from selftaught.engine.unmix import with_mixed
from selftaught.errors import DataError, SelftaughtError, TrainingError, UserError
from selftaught.export.facts import SETTINGS
from selftaught.method import Batch, Method, Recipe
from selftaught.parts import synchronize

log = logging.getLogger("selftaught")

NOT_REPEATED = {"method", "data", "out", "resume", "overwrite", "force"}
"""Arguments that run.yaml leaves out: a repetition is a run of its own."""

SHOWN = 12
"""Images whose views are kept for the report."""


def pretrain(
    method: Method,
    data: Any,
    out: Path | None = None,
    *,
    epochs: int = 100,
    batch: int = 256,
    accumulate: int = 1,
    effective_batch: int | None = None,
    unmix: float | None = None,
    optimizer: Literal["sgd", "adam", "adamw", "adamw_bert", "lamb", "lars", "lars_tf", "larc"]
    | None = None,
    lr: float | None = None,
    scaling: Literal["linear", "sqrt", "none"] | None = None,
    weight_decay: float | tuple[float, float] | None = None,
    layer_decay: float | None = None,
    warmup: float | None = None,
    clip: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    devices: int = 1,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    channels_last: bool = True,
    compile: bool = False,
    resolution_phase: str | None = None,
    column: str | None = None,
    second: str | None = None,
    labels: str | None = None,
    test: str | None = None,
    value_range: tuple[float, float] | None = None,
    truncated: Literal["skip", "keep"] = "skip",
    layout: Literal["HWC", "CHW"] | None = None,
    masks: str | None = None,
    quarantine: Path | None = None,
    cache: bool = False,
    reduced: bool = True,
    colours: Literal["auto", "loader", "device"] = "auto",
    max_bad: float = 0.05,
    evaluate: bool = True,
    log_every: int = 10,
    save_every: float = 10.0,
    start: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
) -> Method:
    """Train a method on unlabelled images; leave a run folder with the encoder and a report.

    Args:
        method: what to train, around its backbone.
        data: folder, list file, Parquet, tar shards, array, or dataset of images; or what
            `open_data` made of one.
        out: run folder; by default runs/METHOD-DATA, numbered where that exists.
        epochs: passes over the data.
        batch: images a step, over all devices and accumulated parts.
        accumulate: parts that a step's batch is computed in, to save memory.
        effective_batch: images a step whose loss is exactly that of one batch, computed with the
            memory of `batch` images at a time, for a second forward pass.
        unmix: chance of mixing whole images, in [0, 1], else regions: adds the mixtures of Un-Mix,
            0.5 for images as small as CIFAR's and 0 for large ones; by default nothing is mixed.
        optimizer: instead of the paper's.
        lr: peak learning rate for this batch, instead of the paper's scaled to it.
        scaling: how the paper's rate follows the batch, instead of as in the paper.
        weight_decay: constant, or at the start and at the end of a cosine, instead of the paper's.
        layer_decay: the learning rate of a layer of a ViT, as a fraction of that of the layer above
            it, instead of the paper's; 1 for the same rate everywhere.
        warmup: fraction of training in which the learning rate rises, instead of the paper's.
        clip: largest gradient norm, instead of the paper's.
        seed: of everything random; the same seed gives the same losses to the last bit.
        workers: processes that read images and make views; by default as many as cores are free.
        accelerator: what to train on; the best that the machine has by default.
        devices: number of GPUs (or CPU processes).
        precision: of the forward pass; by default the fastest that the processor has natively.
        channels_last: memory layout that convolutions are faster with, on CPUs and GPUs.
        compile: whether to compile the backbone, which pays on long GPU runs.
        resolution_phase: such as 518@0.02: the last 2 % of training with images of 518 px.
        column: of the images in a Parquet file or dataset.
        second: the same things in a second modality, for methods with `pair` modalities: images of
            the same names in another folder, or as many rows of a table or array.
        labels: CSV of path,label or name of a column; class folders are found by themselves.
        test: labelled images to evaluate on; by default a fifth of the labelled data.
        value_range: black and white of float images, as LOW,HIGH.
        truncated: whether images that end too early are skipped or kept as far as they go.
        layout: order of an array's axes; HWC unless given, refused where it looks like CHW.
        masks: for methods that learn from them: folder of masks with the names of the images, or
            the column that holds them (mask).
        quarantine: list of files to leave out, as `check` writes it.
        cache: whether to keep all images in memory as pixels, decoded once.
        reduced: whether large JPEGs are decoded at 1/2, 1/4 or 1/8 where no crop gets smaller than
            its view by it; much faster, and almost the same views.
        colours: who makes colours, blur and solarization of views: the processes that read images,
            or the device, batch by batch; with an NVIDIA GPU the faster one is found by measuring.
        max_bad: share of unreadable images above which training stops.
        evaluate: whether to score the encoder against floors at the end, where labels exist.
        log_every: steps between two rows of metrics.
        save_every: minutes between two checkpoints.
        start: run to begin with the weights of: all of its parts that this method has too.
        resume: whether to continue the run in `out`, bit for bit.
        overwrite: whether to move an earlier run in `out` aside.
        force: whether to resume although settings or data have changed, and to export what the
            doctor says has failed.

    Returns:
        The trained method; `method.encoder` is the network to use.

    Raises:
        UserError: a setting or an input that cannot work, before any step.
        DataError: more than `max_bad` of the images cannot be read.
        TrainingError: a loss that is not finite, or a training that failed by the doctor's
            verdict; nothing is exported.
        Interrupted: a signal came; the run is saved and can be resumed.
    """
    settings = {k: v for k, v in locals().items() if k not in NOT_REPEATED}
    _check(settings)
    recipe = _recipe(method.recipe, optimizer, lr, scaling, weight_decay, layer_decay, warmup, clip)
    parts = accumulate
    if effective_batch is not None:
        parts = _divided(method, batch, accumulate, effective_batch, compile)
        batch = effective_batch
    compared = batch // accumulate
    samples = data
    if not isinstance(data, Samples):
        samples = open_data(
            data,
            column=column,
            labels=labels,
            channels=_image(method).channels,
            value_range=value_range,
            truncated=truncated,
            layout=layout,
        )
    paired = _paired(samples, second, method, value_range)
    beside = _masks(data, samples, masks, method)
    if quarantine:
        samples = without(samples, quarantine)
        beside, paired = beside and beside.of(samples), paired and paired.of(samples)
    if method.supervised:
        samples = _labelled(samples, method)
    if start is not None and not resume:
        begin_with(method, start)
    held = _held_out(test, labels, samples, method) if evaluate and test else None
    fabric = _fabric(accelerator, devices, precision)
    _fits(method, len(samples), batch, parts, fabric.world_size, compared)
    out = Path(out) if out else default_out(f"{method_name(method)}-{_stem(data)}", resume)
    settings["precision"] = _words(fabric)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    settings["second"] = None if second is None else named(second)
    facts = {"data": samples.fingerprint if paired is None else paired.fingerprint}
    per_epoch = len(samples) // batch
    steps = per_epoch * epochs
    phase = resolution.phase(method, resolution_phase, steps) if resolution_phase else None
    pipeline = method.views(_image(method).size)
    content: dict[str, Any] = {}
    by, state = colours, None
    with StopSignals() as signals, told(out, signals), _no_denormals(), _room_to_read(fabric):
        if fabric.global_rank == 0:  # whatever is wrong is told before there are others
            by = settled(colours, pipeline, fabric.device, out if resume else None)
            content = describe(method, data, settings | {"colours": by})
            content["made_by"]["images"] = len(samples)
            state = _begin(out, content, facts, steps, method, resume, overwrite, force)
        if fabric.world_size > 1:
            together(fabric.global_rank)
        fabric.launch()
        out, by = Path(fabric.broadcast(str(out))), str(fabric.broadcast(by))
        checkpoints = Checkpoints(out / "checkpoints")
        if resume and dist.rank():
            state = checkpoints.load()

        torch.backends.cudnn.deterministic = True
        if dist.world() > 1 and method.sync_batchnorm:
            synchronize(method)
        if channels_last:
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        method.to(fabric.device)
        if fabric.device.type == "cpu":
            mend(method)
        if compile:
            method.backbone.compile()

        makers = _workers(fabric) if workers is None else workers
        if cache:
            samples = cached(samples, max(1, makers))
        seen: Samples | Paired | Masked = samples
        if paired is not None:
            seen = Paired(samples, paired.second)
        elif beside is not None:
            seen = Masked(samples, beside)
        views = Views(seen, pipeline, seed, reduced)
        order = Order(len(samples), batch // parts, per_epoch * parts, seed)
        late = phase and Views(seen, method.views(phase.size), seed, reduced)
        first = phase.first if phase else steps
        need = _estimate(fabric, method, recipe, views, batch, parts, first, makers)
        if late:
            rest = _estimate(fabric, method, recipe, late, batch, parts, steps - first, makers)
            need = Estimate(max(need.memory, rest.memory), need.seconds + rest.seconds, need.flops)
        classes = torch.from_numpy(samples.labels) if method.supervised else None
        if by == "auto":
            by = choose(
                method,
                views,
                batch=batch // parts // dist.world(),
                makers=makers,
                device=fabric.device,
                context=fabric.autocast,
                channels_last=channels_last,
                labels=classes,
            )
            if dist.rank() == 0:
                content["training"]["colours"] = by
                write_text(out / SETTINGS, config.dump(content))
        if dist.rank() == 0:
            _keep_views(views, out)
            _announce(method, samples, out, need, fabric, steps, batch, phase)
        if unmix is not None:
            method.loss = with_mixed(method, unmix)  # type: ignore[method-assign]
        loop = Loop(
            fabric=fabric,
            method=method,
            recipe=recipe,
            plan=optim.Plan(recipe, batch, steps, per_epoch),
            order=order,
            batches=loader(fed(views, by), order, makers, fabric.device.type == "cuda"),
            late=late
            and (first, loader(fed(late, by), order, makers, fabric.device.type == "cuda")),
            accumulate=parts,
            cache=None
            if effective_batch is None
            else GradientCache(method, batch // parts // dist.world(), fabric.autocast),
            steps=steps,
            per_epoch=per_epoch,
            corpus=Whole(samples, _image(method), batch // parts, makers, fabric.device),
            checkpoints=checkpoints,
            metrics=Metrics(out, state["step"] if state else 0) if dist.rank() == 0 else None,
            progress=Progress(steps, per_epoch, batch, (need.flops, peak_flops(fabric.device))),
            signals=signals,
            facts=facts,
            log_every=log_every,
            save_every=60 * save_every,
            channels_last=channels_last,
            max_bad=int(max_bad * len(samples)),
            names=samples.name,
            labels=classes,
            doctor=Doctor(method, out / FILE, steps, compared, state["step"] if state else 0)
            if dist.rank() == 0
            else None,
        )
        seed_all(seed + dist.rank())
        if state:
            loop.restore(state)
            log.info("resuming at step %d of %d", loop.step, steps)
        elif loop.doctor:
            _look_before(loop, samples, batch, compared, need)
        if dist.rank() == 0 and evaluate and not method.supervised:
            loop.guard = guard(_image(method), samples, out, steps, bool(state))
        try:
            loop.run()
        except TrainingError as error:
            if loop.doctor:
                loop.doctor.save(loop.doctor.conclude(str(error)))
            raise
        finally:
            if unmix is not None:
                del method.loss
            if dist.rank() == 0 and loop.bad:
                listed = {samples.name(i): quarantined.Bad(*why) for i, why in loop.bad.items()}
                quarantined.append(out / quarantined.FILE, listed)
            if loop.metrics:
                loop.metrics.close()
        if dist.rank() == 0:  # the others need not wait: that could take longer than they may wait
            _finish(method, samples, held, out, loop, views, seed, evaluate, force)
            checkpoints.finish(steps)
    return method


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Take values next to zero for zero: they make CPUs many times slower."""
    least = torch.tensor(5e-324, dtype=torch.float64)
    before = not bool(least * 1 > 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def _room_to_read(fabric: Fabric) -> Iterator[None]:
    """Leave cores to the processes that make views.

    Threads of one operation wait for each other: with one thread on a core that has other work all
    are as slow as that one, several times slower than without it. Their number depends on the
    machine alone, not on how many processes read, because the last digits of sums depend on it.
    """
    before = torch.get_num_threads()
    if fabric.device.type == "cpu":
        torch.set_num_threads(max(1, min(before, _cores(fabric) - _workers(fabric))))
    try:
        yield
    finally:
        torch.set_num_threads(before)


# before the first step -----------------------------------------------------------------------


def _image(method: Method) -> Image:
    encoder = method.encoder
    if not isinstance(encoder, Image):
        raise UserError(
            f"the encoder of {type(method).__name__} is a {type(encoder).__name__}; training needs "
            "one from selftaught.backbones.backbone(...), which knows its image size and colours"
        )
    return encoder


def _stem(data: Any) -> str:
    if isinstance(data, str | Path):
        return Path(data).resolve().stem or "data"
    return type(data).__name__.lower()


def _check(settings: dict[str, Any]) -> None:
    """Refuse values that cannot work, before anything is read."""
    least = {"epochs": 1, "batch": 1, "accumulate": 1, "devices": 1, "log_every": 1, "seed": 0}
    for name, bound in least.items():
        if settings[name] < bound:
            raise UserError(f"{name} must be at least {bound}, got {settings[name]}")
    if settings["colours"] not in CHOICES:
        raise UserError(
            f"colours must be {', '.join(CHOICES[:-1])} or {CHOICES[-1]}, got "
            f"{settings['colours']!r}"
        )
    for name in ("lr", "clip"):
        if settings[name] is not None and not settings[name] > 0:
            raise UserError(f"{name} must be above 0, got {settings[name]}")
    for name in ("weight_decay", "workers", "save_every"):
        if settings[name] is not None and not np.all(np.asarray(settings[name]) >= 0):
            raise UserError(f"{name} must be at least 0, got {settings[name]}")
    if settings["layer_decay"] is not None and not 0 < settings["layer_decay"] <= 1:
        raise UserError(
            f"layer_decay is a fraction above 0, at most 1, got {settings['layer_decay']}"
        )
    for name, top in (("warmup", 1), ("max_bad", 1), ("unmix", 1)):
        if settings[name] is not None and not 0 <= settings[name] <= top:
            raise UserError(f"{name} is a fraction from 0 to 1, got {settings[name]}")


def _labelled(samples: Samples, method: Method) -> Samples:
    """The samples that a supervised method can learn from."""
    count = count_classes(samples, method_name(method))
    outputs = options_of(method).get("classes")  # losses that only compare labels have none
    if outputs is not None and count > outputs:
        raise UserError(
            f"the labels of this data go up to {count - 1}, and this {type(method).__name__} has "
            f"outputs for {outputs} classes; make it with classes={count}"
        )
    known = np.flatnonzero(np.asarray(samples.labels) >= 0)
    if len(known) < len(samples):
        log.info("%s of %s images have labels", f"{len(known):,}", f"{len(samples):,}")
    return samples if len(known) == len(samples) else select(samples, known)


def _masks(data: Any, samples: Samples, masks: str | None, method: Method) -> Masks | None:
    """The masks of the samples, for a method that learns from them."""
    if method.with_masks:
        try:
            found = open_masks(data, samples, masks)
        except UserError as error:
            raise UserError(f"{error}; `selftaught frames` makes both of clips") from error
        check_degrees(found)
        return found
    if masks is not None:
        raise UserError(f"{method_name(method)} does not learn from masks; drop --masks {masks}")
    return None


def _held_out(test: str, labels: str | None, samples: Samples, method: Method) -> Samples:
    """The test data, opened before minutes are spent on what could not be scored."""
    if samples.labels is None:
        raise UserError(
            "--test needs labels in the training data too: sort its images into one folder a class,"
            " or name a column or a CSV of path,label with --labels"
        )
    held = open_data(test, labels=labels, channels=_image(method).channels)
    if held.labels is None:
        raise UserError(
            f"the test data {test} has no labels: sort its images into one folder a class, or name "
            "a column or a CSV of path,label with --labels"
        )
    return held


def _paired(
    samples: Samples,
    second: Any,
    method: Method,
    value_range: tuple[float, float] | None,
) -> Paired | None:
    """The samples beside those of a second modality, where the method compares two."""
    if method.second is None and second is None:
        return None
    if method.second is None:
        raise UserError(
            f"{type(method).__name__} sees one image a sample, and --second gives another: add "
            "--pair modalities where the method has it (vicreg, dcca, dccae, ace), or drop --second"
        )
    if second is None:
        raise UserError(
            "--pair modalities compares two pictures of the same thing: name the data of the other "
            "modality with --second"
        )
    return pair(
        samples, open_data(second, channels=method.second.channels, value_range=value_range)
    )


def _divided(method: Method, batch: int, accumulate: int, whole: int, compile: bool) -> int:
    """Parts that a batch of `whole` images is computed in, `batch` at a time."""
    if whole % batch or whole < batch:
        raise UserError(
            f"an effective batch of {whole} is not made of whole batches of {batch}; use "
            f"--effective-batch {max(1, round(whole / batch)) * batch}, or another --batch"
        )
    if accumulate > 1:
        raise UserError(
            "--accumulate adds up losses of parts, --effective-batch makes one loss of all: give "
            "one of them"
        )
    if compile:
        raise UserError("--effective-batch runs the backbone twice, not compiled; drop --compile")
    norms = [m for m in method.backbone.modules() if isinstance(m, _BatchNorm)]
    if norms and whole > batch:
        log.warning(
            "the loss is that of %d images, but the %d batch norms of the backbone see %d at a "
            "time; a backbone without them, such as a ViT, makes it exact",
            whole,
            len(norms),
            batch,
        )
    return whole // batch


def _fits(
    method: Method,
    count: int,
    batch: int,
    accumulate: int,
    processes: int,
    compared: int | None = None,
) -> None:
    """Refuse a batch that the data or the method cannot serve, or too few images `compared`."""
    parts = processes * accumulate
    compared = compared or batch // accumulate
    if batch % parts:
        raise UserError(
            f"a batch of {batch} cannot be split evenly over {processes} processes and "
            f"{accumulate} parts each; use a multiple of {parts}"
        )
    if count < batch:
        raise UserError(
            f"{count} images are fewer than a batch of {batch}; use --batch {max(count, 1)} or "
            "less, or add images"
        )
    if compared < method.min_batch:
        raise UserError(
            f"{method_name(method)} compares images of a batch and needs at least "
            f"{method.min_batch} at once, got {compared}; use --batch "
            f"{method.min_batch * (batch // compared)} or more"
        )
    if batch // parts % method.together:
        raise UserError(
            f"{method_name(method)} takes images {method.together} at a time, and a batch of "
            f"{batch} leaves {batch // parts} to each of {parts} parts; use a multiple of "
            f"{method.together * parts}"
        )
    if not method.sync_batchnorm and batch // parts < 2:
        raise UserError(
            f"{method_name(method)} keeps the batch norms of each process apart, which need 2 "
            f"images at once, and a batch of {batch} leaves {batch // parts} to each of {parts} "
            f"parts; use --batch {2 * parts} or more"
        )
    options = options_of(method)
    samples, queue = options.get("samples", count), options.get("queue", 0)
    if samples != count:
        raise UserError(
            f"this {method_name(method)} was made for {samples} images and got {count}; make one "
            f"with samples={count}"
        )
    if isinstance(queue, int) and queue > count:
        raise UserError(
            f"a queue of {queue} embeddings is longer than the dataset of {count} images: an image "
            f"would meet itself in it; use --queue {max(batch, count // 2)} or less"
        )


class _Autocast(MixedPrecision):
    """Half precision inside the forward pass alone: images and targets stay in float32."""

    def convert_input(self, data: Any) -> Any:
        return data

    def convert_output(self, data: Any) -> Any:
        return data


def _fabric(accelerator: str, devices: int, precision: str) -> Fabric:
    """The engine, on the device and in the precision that were asked for or are best."""
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and torch.cuda.device_count() < devices:
        raise UserError(
            f"{devices} GPUs were asked for, this machine has {torch.cuda.device_count()}; use "
            "--devices or --accelerator cpu"
        )
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise UserError("this machine has no Apple GPU; use --accelerator cpu")
    if precision == "auto":
        precision = _fastest(accelerator)
    if precision == "fp16" and accelerator == "cpu":
        raise UserError("fp16 needs a GPU; use --precision fp32 or bf16 on a CPU")
    plugins: list[Any] = []
    if precision != "fp32":
        kind: Any = {"bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
        plugins.append(_Autocast(kind, accelerator))
    nodes = 1
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun has the processes, and knows how many
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each process
    many = devices * nodes > 1
    # buffers are alike by construction; sending queues around at each step would cost more than
    # the step
    strategy = DDPStrategy(broadcast_buffers=False) if many else "auto"
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        plugins=plugins,
    )


def _fastest(accelerator: str) -> str:
    """The precision that the processor computes natively."""
    if accelerator == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if accelerator == "cpu":
        # without native instructions bf16 is emulated, 2.5 to 3 times slower than fp32
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if native else "fp32"
    return "fp32"


def _words(fabric: Fabric) -> str:
    name = fabric.strategy.precision.precision
    return {"bf16-mixed": "bf16", "16-mixed": "fp16"}.get(str(name), "fp32")


def _cores(fabric: Fabric) -> int:
    """Of this machine, for each process of the run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", fabric.world_size)))


def _workers(fabric: Fabric) -> int:
    """Processes that make views: all cores but one for a GPU; on a CPU the network needs them."""
    cores = _cores(fabric)
    return max(1, min(16, cores - 1) if fabric.device.type != "cpu" else cores // 4)


def _recipe(
    recipe: Recipe,
    optimizer: str | None,
    lr: float | None,
    scaling: str | None,
    weight_decay: float | tuple[float, float] | None,
    layer_decay: float | None,
    warmup: float | None,
    clip: float | None,
) -> Recipe:
    """The paper's recipe with the user's changes; a rate that the user gives is not scaled."""
    changed: dict[str, Any] = {
        "optimizer": optimizer,
        "scaling": scaling,
        "weight_decay": weight_decay,
        "layer_decay": layer_decay,
        "warmup": warmup,
        "clip": clip,
    }
    if lr is not None and scaling not in (None, "none"):
        raise UserError(
            f"--lr {lr:g} is the rate for this batch, whatever its size: drop it, or --scaling"
        )
    if lr is not None:
        changed |= {"lr": lr, "scaling": "none"}
    elif optimizer is not None and optimizer != recipe.optimizer:
        raise UserError(
            f"the paper's learning rate {recipe.lr} is for {recipe.optimizer}; with --optimizer "
            f"{optimizer} give --lr too"
        )
    return dataclasses.replace(recipe, **{k: v for k, v in changed.items() if v is not None})


def _begin(
    out: Path,
    content: dict[str, Any],
    facts: dict[str, Any],
    steps: int,
    method: Method,
    resume: bool,
    overwrite: bool,
    force: bool,
) -> dict[str, Any] | None:
    """Make the run folder ready; the state to go on from, where there is one."""
    prepare(out, resume, overwrite)
    state = None
    if resume:
        checkpoints = Checkpoints(out / "checkpoints")
        state = checkpoints.load()
        _compare(out, content, state, facts, steps, checkpoints, force)
    size = size_of(method.state_dict()) * 3  # weights and what the optimizer keeps for them
    free = shutil.disk_usage(out).free
    if free < 3 * size:
        raise UserError(
            f"{out} has {free / 2**20:.0f} MiB of space left; three checkpoints need about "
            f"{3 * size / 2**20:.0f} MiB: free some, or name another folder with --out"
        )
    try:
        write_text(out / SETTINGS, config.dump(content))
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}); free some space, or name another folder "
            "with --out"
        ) from error
    return state


def _compare(
    out: Path,
    content: dict[str, Any],
    state: dict[str, Any] | None,
    facts: dict[str, Any],
    steps: int,
    checkpoints: Checkpoints,
    force: bool,
) -> None:
    """Refuse to resume what would not be the same run, unless it is forced."""
    before = yaml.safe_load((out / SETTINGS).read_text(encoding="utf-8"))
    now = yaml.safe_load(config.dump(content))
    differences = changes(before, now)
    length = [d for d in differences if d.startswith("training.epochs")]
    if state is None:
        log.warning("%s has no checkpoint yet: starting from its first step", out)
    else:
        if state["data"] != facts["data"]:
            differences.append("the dataset: files were added, removed or changed")
        if state["step"] > steps or checkpoints.finished == steps:
            raise UserError(
                f"the run in {out} is finished ({state['step']} steps); to extend it give a "
                "larger --epochs with --resume: its schedules are then laid over the new length, "
                "so the learning rate jumps back up"
            )
        if state["step"] == steps:
            log.info("the training in %s is complete; exporting, scoring and reporting", out)
    others = [d for d in differences if d not in length]
    if others and not force:
        raise UserError(
            f"{out} was started with other settings, so it would not be the same run:\n  "
            + "\n  ".join(others)
            + "\nrepeat the first command, or accept the change with --force"
        )
    for difference in differences:
        log.warning("resuming with a change: %s", difference)
    if length:
        log.warning(
            "the schedules are laid over the new length: from the next step on the learning rate "
            "is that of the same step in a training of %s epochs",
            content["training"]["epochs"],
        )


def _estimate(
    fabric: Fabric,
    method: Method,
    recipe: Recipe,
    views: Views,
    batch: int,
    accumulate: int,
    steps: int,
    makers: int,
) -> Estimate:
    """Measure a few images on a copy; every generator is left as it was."""
    before = random_state(fabric.device)
    count = max(PROBE, method.min_batch)
    _readable(views, 0)  # the first one loads libraries and opens files
    begun = time.perf_counter()
    items = [_readable(views, i % len(views.samples)) for i in range(count)]
    each = (time.perf_counter() - begun) / count
    item, samples = collate(items), views.samples
    moved, index = fabric.to_device((item.views, item.index))
    label = torch.from_numpy(samples.labels)[item.index] if method.supervised else None
    small = Batch(
        normalize(moved, _image(method).mean, _image(method).std), index, fabric.to_device(label)
    )
    need = measure(
        method,
        small,
        fabric.autocast,
        batch=batch // dist.world(),
        accumulate=accumulate,
        steps=steps,
        seconds_per_view=each,
        makers=makers,
        optimizer_states=2 if recipe.optimizer in ("adam", "adamw", "adamw_bert", "lamb") else 1,
    )
    set_random_state(before, fabric.device)
    return need


def _readable(views: Views, i: int) -> Item:
    item = views[0, i]
    if item.views is None:
        raise DataError(
            f"none of {len({bad.index for bad in item.bad})} images that were looked at can be "
            f"used, the last for this reason: {item.bad[-1].reason}; run `selftaught check` on the "
            "data"
        )
    return item


def _announce(
    method: Method,
    samples: Any,
    out: Path,
    need: Estimate,
    fabric: Fabric,
    steps: int,
    batch: int,
    phase: resolution.Phase | None,
) -> None:
    image = _image(method)
    where = "CPU" if fabric.device.type == "cpu" else torch.cuda.get_device_name(fabric.device)
    log.info(
        "%s with %s at %d px on %s images, %d steps of %d, %s in %s",
        type(method).__name__,
        image.name,
        image.size,
        f"{len(samples):,}",
        steps,
        batch,
        where,
        _words(fabric),
    )
    tell(samples)
    if phase:
        log.info("the last %d steps see images of %d px", steps - phase.first, phase.size)
    log.info(
        "about %s of memory and %s of time; the run is kept in %s",
        f"{need.memory / 2**30:.1f} GiB",
        duration(need.seconds),
        out,
    )
    if fabric.device.type == "cuda":
        total = torch.cuda.get_device_properties(fabric.device).total_memory
        if need.memory > total:
            log.warning(
                "that is more than the %.0f GiB of the GPU: use a smaller --batch, or --accumulate",
                total / 2**30,
            )


def _look_before(loop: Loop, samples: Samples, batch: int, compared: int, need: Estimate) -> None:
    """Let the doctor see what is known before the first step."""
    begun = time.perf_counter()
    paper, recipe = loop.method.recipe, loop.recipe
    theirs = optim.Plan(paper, batch, loop.steps, loop.per_epoch).peak
    facts = intake(
        loop.method,
        samples,
        options=options_of(loop.method),
        size=_image(loop.method).size,
        batch=compared,
        steps=loop.steps,
        rate=loop.plan.lr,
        optimizer=recipe.optimizer,
        paper_lr=(paper.lr, theirs) if recipe.optimizer == paper.optimizer else None,
        seconds=max(0.2, need.seconds / 500),
    )
    if loop.doctor:
        loop.doctor.begin(facts, time.perf_counter() - begun)


# after the last step -------------------------------------------------------------------------


def _finish(
    method: Method,
    samples: Samples,
    held: Samples | None,
    out: Path,
    loop: Loop,
    views: Views,
    seed: int,
    evaluate: bool,
    force: bool,
) -> None:
    """Give the verdict, export, score, report."""
    if loop.bad:
        log.warning("%d images could not be read: %s", len(loop.bad), out / quarantined.FILE)
    shown = [_readable(views, i) for i in range(min(SHOWN, len(samples)))]
    keep_pictures(method, _image(method), shown, samples, out)
    if loop.doctor:
        found = loop.doctor.conclude()
        loop.doctor.save(found)
        log.info("doctor: %s", found.sentence())
        if found.verdict == "failed" and not force:
            report.write(out)
            raise TrainingError(
                f"the training failed: {found.evidence[0]}; nothing was exported. The "
                f"report in {out} says more; repeat the command with --resume --force to export "
                "the encoder all the same"
            )
    image = _image(method).float()
    export.save(image, out)
    if evaluate and method.supervised and held is None:
        log.info("the encoder is not scored: it has learned these labels; name others with --test")
    elif evaluate and samples.labels is not None:
        try:
            comparison = evaluation.compare(image, samples, held, seed=seed)
        except SelftaughtError as error:  # too few labels, say: no reason to go without a report
            log.warning("the encoder is not scored: %s", error)
        else:
            comparison.save(out / "scores.json")
            if isinstance(loop.guard, Guard):
                loop.guard.compare(loop.guard.score(), "at the end")
            log.info("%s", _rendered(comparison))
    report.write(out, samples)


def _rendered(table: Any) -> str:
    """What rich would print, as text."""
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _keep_views(views: Views, out: Path) -> None:
    """Views of a few images as the method saw them in its first epoch, for the report."""
    items = [_readable(views, i).views for i in range(min(SHOWN, len(views.samples)))]
    columns: dict[str, np.ndarray] = {}
    for leaves in zip(*map(_images, items), strict=True):
        columns[f"view{len(columns)}"] = np.stack(leaves)
    np.savez_compressed(out / "views.npz", **columns)  # type: ignore[arg-type]


def _images(node: Any) -> list[np.ndarray]:
    """The images [C, h, w] among nested views, in order; stacks of them one by one."""
    if isinstance(node, Tensor):  # of declared views
        node = node.numpy()
    if isinstance(node, np.ndarray) and node.dtype == np.uint8 and node.ndim >= 3:
        return list(node.reshape(-1, *node.shape[-3:]))
    if isinstance(node, dict):
        node = list(node.values())
    return (
        [leaf for child in node for leaf in _images(child)]
        if isinstance(node, list | tuple)
        else []
    )
