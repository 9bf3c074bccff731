"""What a training will do, settled before anything of it is done: a `Plan`."""

import dataclasses
import logging
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from selftaught import config, kinds, methods
from selftaught.backbones import Encoder, is_encoder
from selftaught.backbones.blocks import blocks
from selftaught.choose import HALF_LIFE, REASONS
from selftaught.chosen import Chosen, plain
from selftaught.data import Samples, open_data
from selftaught.data.image.masks import Masked, Masks, check_degrees, open_masks
from selftaught.data.paired import Paired, pair
from selftaught.data.selection import select, without
from selftaught.diagnose.before import Before
from selftaught.diagnose.preflight import known, refuse
from selftaught.engine import (
    beginning,
    choosing,
    continued,
    kept,
    launchers,
    optim,
    own_optimizer,
    precision,
    resolution,
    restore,
    second,
    shard,
    trackers,
)
from selftaught.engine.build import (
    SIZES,
    Second,
    assemble,
    count_classes,
    describe,
    fitting_size,
    image_of,
    method_name,
    options_of,
)
from selftaught.engine.checkpoint import Checkpoints, size_of
from selftaught.engine.classes import agreed
from selftaught.engine.colors import settled
from selftaught.engine.estimate import Estimate, of_step, readable, room
from selftaught.engine.folder import changes, default_out, occupied
from selftaught.engine.machine import fabric_for, precision_of, spare_cores
from selftaught.engine.progress import duration
from selftaught.engine.restore import backbone_of, weights_of
from selftaught.engine.second import samples_of
from selftaught.engine.settings import NOT_COMPARED, Settings, named, seconds
from selftaught.engine.unmix import query
from selftaught.engine.views import views_of
from selftaught.errors import UserError
from selftaught.evaluate.comparing import labeled
from selftaught.export.facts import SETTINGS
from selftaught.feed.order import OWN_ORDER
from selftaught.feed.views import ViewDataset, collate
from selftaught.method import Batch, Method, Pipeline, Recipe, encoders
from selftaught.method import prepared as as_taken
from selftaught.parts import fingerprint
from selftaught.sides import short
from selftaught.signature import current, read_object, values_by_role

log = logging.getLogger("selftaught")


@dataclass(frozen=True)
class Plan:
    """A training, decided: `Run` carries it out.

    Args:
        method: what is trained, as it is before anything is loaded into it.
        settings: that were asked for.
        out: run folder.
        fabric: device, precision and processes; not launched.
        samples: what is trained on.
        partners: the same things in a second modality, or the masks of the images.
        held: labeled images to be scored on.
        pairs: test pairs, of a training on two modalities.
        recipe: the paper's, with the user's changes.
        batch: images a step, over all devices and parts.
        parts: that a step's batch is computed in.
        compared: images that a loss compares at once.
        steps, per_epoch: of the training and of an epoch.
        phase: of the last steps with images of another size.
        rest: number of first steps in which the backbone rests and new heads learn alone.
        chosen: settings that nobody gave.
        pipeline: what an image is turned into.
        workers: processes that make views.
        content: of run.yaml.
        weights: of an earlier run, to begin with.
        state: to go on from.
        tried: candidates that this one was taken from, with `--try`.
        step: what a step needs, where that was measured to find how many there is time for.
    """

    method: Method
    settings: Settings
    out: Path
    fabric: Fabric
    samples: Samples
    partners: Paired | Masks | None
    held: Samples | None
    pairs: Paired | None
    recipe: Recipe
    batch: int
    parts: int
    compared: int
    steps: int
    per_epoch: int
    phase: resolution.Phase | None
    rest: int
    chosen: list[Chosen]
    pipeline: Pipeline
    workers: int
    content: dict[str, Any]
    weights: dict[str, Tensor] | None
    state: dict[str, Any] | None
    tried: dict[str, Any] | None = None
    step: Estimate | None = None

    @property
    def image(self) -> Encoder:
        """The encoder, which knows its size and colors."""
        return image_of(self.method)

    @property
    def continued(self) -> bool:
        """Whether the encoder begins with weights of a run, a file or a maker, not a fresh draw."""
        return self.settings.start is not None or self.image.trained

    @property
    def rates(self) -> optim.Rates:
        """Learning rate and weight decay of each step."""
        return continued.rates(
            self.recipe, self.settings, self.batch, self.steps, self.per_epoch, self.rest
        )

    @property
    def intake(self) -> Before:
        """What the doctor can know of it before the images are looked at."""
        paper, fitted = self.method.recipe, {"lr", "optimizer"} & {c.name for c in self.chosen}
        own = self.recipe.optimizer == paper.optimizer and not fitted
        theirs = optim.Rates(paper, self.batch, self.steps, self.per_epoch).peak
        return known(
            self.method,
            self.rates,
            images=len(self.samples),
            size=self.image.size,
            batch=self.compared,
            steps=self.steps,
            views=self.pipeline,
            paper_lr=(paper.lr, theirs) if own else None,
        )

    @property
    def fingerprint(self) -> str:
        """Of the data: a resumed run has the same."""
        data = self.partners if isinstance(self.partners, Paired) else self.samples
        return data.fingerprint

    def seen(self, samples: Samples) -> Samples | Paired | Masked:
        """What pipelines are handed: `samples`, with their partners where there are any."""
        return _seen(samples, self.partners)


def _seen(samples: Samples, partners: Paired | Masks | None) -> Samples | Paired | Masked:
    if isinstance(partners, Paired):
        return partners.over(samples)
    return samples if partners is None else Masked(samples, partners)


def prepared(
    method: str | type[Method] | Method,
    data: Any,
    settings: Settings,
    image: dict[str, Any],
    options: dict[str, Any],
    samples: Samples | None = None,
) -> Plan:
    """The plan of a training, its data opened and its method built.

    Args:
        method, data, settings: as of `pretrain`.
        image, options: parameters of the backbone and of the method, where it is to be built.
        samples: the data, where it is open already.
    """
    if isinstance(method, Method):
        if image or options:
            raise UserError(
                f"{method_name(method)} was built already: {next(iter(image | options))} cannot be "
                f"changed any more; give its class, {type(method).__name__}, and its parameters"
            )
        seen = image_of(method)
        samples = settings.open(data, seen.channels, kinds.of(seen))
        return plan(method, samples, settings, source=data)
    if samples is None:
        samples = settings.open(data, image.get("channels", 3))
    kind = methods.find(method) if isinstance(method, str) else method
    name = methods.short(methods.reference(kind))
    out = settings.out or default_out(f"{name}-{stem(data)}", settings.resume)
    restore.check(settings.start, image)
    begins = settings.start is not None
    goes_on = settings.resume and bool(Checkpoints.of(out).steps())
    start = out if goes_on else settings.start
    told = backbone_of(start, image) if begins else image  # type: ignore[arg-type]
    seen, asked = restore.sample_of(samples, settings, out).fill(told, samples)
    of_data = asked.keys() - told.keys()
    if seen != kinds.of(samples):
        samples = samples.seen_as(seen, asked.get("channels"))
    kept = without(samples, settings.quarantine) if settings.quarantine else samples
    # what the rules know of small images is no matter of other kinds
    side = short(asked.get("size") or fitting_size(kept)) if seen.native else SIZES[-1]
    options = _of_second(kind, settings, options)
    choice = choosing.choice(kind, settings, out, kept, side, asked, options)
    if isinstance(options.get("other"), Second):
        facts = choosing.facts_of(settings, kept, side, begins, labels=False)
        options["other"], beside = second.filled(options, settings, out, kind.needs, facts)
        choice.chosen += beside
    settings = choice.settings
    begun = beginning.going_on(choice.image, out) if settings.resume else choice.image
    made = assemble(method, begun, options, kept, settings.seed, begins, choice.fit)
    if begun is not choice.image:
        beginning.as_named(image_of(made), choice.image)
    channels = image_of(made).channels
    if channels != samples.channels and "channels" not in {
        *image,
        *of_data,
    }:  # a module of one's own says it
        samples = settings.open(data, channels, seen)
    knows = settings.start or settings.resume or image_of(made).trained
    if made.needs.learned and not knows:
        raise UserError(
            f"{method_name(made)} takes its encoder as it is, and that of {image_of(made).name} "
            "has learned nothing yet: begin with a run (--start), a file (--weights) or "
            "timm's weights (--pretrained)"
        )
    return plan(
        made, samples, settings, source=data, given=False, said=options, chosen=choice.chosen
    )


def _of_second(kind: type[Method], settings: Settings, options: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a method that has a second modality where the data of one is named."""
    paired = settings.second is not None and "pair" in read_object(kind)
    return ({"pair": "modalities"} if paired else {}) | options


def plan(
    method: Method,
    samples: Samples,
    settings: Settings,
    *,
    source: Any = None,
    given: bool = True,
    said: Collection[str] = (),
    chosen: Sequence[Chosen] = (),
) -> Plan:
    """Decide all of a training that can be decided without doing any of it.

    Nothing is written and `method` is left as it is, but for a momentum that a short training is to
    have: whatever the user is to change is told here.

    Args:
        method: what to train.
        samples: all images.
        settings: of the training.
        source: what `samples` were opened from; they themselves unless given.
        given: whether the weights of `method` were made by the user: run.yaml then says that it
            does not hold them. False where they follow from the settings.
        said: names of parameters of `method` that the user gave.
        chosen: what was chosen for what the user did not give.

    Raises:
        UserError: method, data, settings, machine or run folder do not go together.
    """
    source = samples if source is None else source
    trackers.check(settings.track)
    out = settings.out or default_out(f"{method_name(method)}-{stem(source)}", settings.resume)
    begins = continued.begins(image_of(method), settings, out)
    settings, lengths = choosing.settled(method, settings, out, samples, begins)
    continued.check(method, settings, begins)
    if settings.shuffle == "blocks" and method.needs.order == "own":
        raise UserError(f"{method_name(method)}: {OWN_ORDER}")
    chosen = [*chosen, *lengths]
    assert settings.batch is not None
    batch, parts = settings.batch, settings.accumulate
    if settings.effective_batch is not None:
        parts = _divided(method, settings, settings.effective_batch)
        batch = settings.effective_batch
    compared = batch // settings.accumulate
    auto = continued.recipe(method, settings) if begins else None
    recipe = _recipe(method, auto or choosing.recipe(method, settings, batch, out), settings)
    optim.build(method, recipe)  # tells what the recipe names and the method has not
    # partners belong to all images: first they are found, then both lose what is left out
    paired = _paired(source, samples, settings, method)
    masks = _masks(source, samples, settings, method)
    partners = masks if paired is None else paired
    if paired is not None:
        samples = paired.first  # of which some may have been left out
    if settings.quarantine:
        samples = without(samples, settings.quarantine)
        partners = partners and partners.of(samples)
    if method.needs.labels:
        everything = samples
        teacher = options_of(method).get("teacher")
        samples = _labeled(agreed(samples, teacher, settings.start), method)
        partners = partners if samples is everything else partners and partners.of(samples)
    weights = None
    # a run that was stopped before its first checkpoint begins again
    if settings.start is not None and not (settings.resume and Checkpoints.of(out).steps()):
        weights = weights_of(method, settings.start)
    pairs = _test_pairs(settings, method)
    held = None if pairs else _held_out(settings, samples, method)
    computed_in = precision.asked(settings.precision, out if settings.resume else None)
    at = settings.accelerator, settings.devices, computed_in
    fabric = fabric_for(*at, image_of(method), settings.shard)
    shard.layout(settings, fabric.world_size)
    if settings.shard:
        shard.check(method, settings, precision_of(fabric))
    _fits(method, len(samples), batch, parts, fabric.world_size, compared)
    per_epoch = len(samples) // batch
    pipeline = views_of(method, image_of(method).size, settings)
    workers = spare_cores(fabric) if settings.workers is None else settings.workers
    step = None
    told = None if settings.time is None else launchers.handed_over()
    if told is not None:
        settings = dataclasses.replace(settings, time=None, **told)
    elif settings.time is not None:
        views = ViewDataset(_seen(samples, partners), pipeline, settings.seed, settings.reduced)
        asked = {"batch": batch, "accumulate": parts, "optimizer": recipe.optimizer}
        step = of_step(method, views, fabric, makers=workers, **asked)
        each = per_epoch * step.seconds
        why = f"{settings.time} at {duration(each)} a pass, some left for the scores"
        scored = [samples] if settings.evaluate and samples.labels is not None else []
        count = sum(map(len, [*scored, held or ()]))
        least = room(seconds(settings.time), step.seconds / batch, len(samples), count)
        lengths = choosing.passes(least / each, per_epoch, why)
        chosen += lengths
        length = {c.name: c.value for c in lengths}
        settings = dataclasses.replace(settings, time=None, **length)
        if fabric.world_size > 1:
            launchers.hand_over(length)
    epochs, most = settings.epochs, settings.max_steps
    if epochs is None:
        assert most is not None
        epochs = -(-most // per_epoch)
        settings = dataclasses.replace(settings, epochs=epochs)
    steps = min(per_epoch * epochs, most or per_epoch * epochs)
    rest = continued.resting(method, settings, steps, set(weights or ())) if begins else 0
    reasons = continued.REASONS if begins else REASONS
    chosen += continued.chosen(method, settings, recipe, batch, steps, rest, reasons)
    if "momentum" not in said:
        half_life = continued.HALF_LIFE if begins else HALF_LIFE
        chosen += continued.fit_momentum(method, settings, out, steps, half_life)
    phase = None
    if settings.resolution_phase:
        phase = resolution.phase(method, settings.resolution_phase, steps)
    made = Plan(
        method=method,
        settings=settings,
        out=out,
        fabric=fabric,
        samples=samples,
        partners=partners,
        held=held,
        pairs=pairs,
        recipe=recipe,
        batch=batch,
        parts=parts,
        compared=compared,
        steps=steps,
        per_epoch=per_epoch,
        phase=phase,
        rest=rest,
        chosen=chosen,
        pipeline=pipeline,
        workers=workers,
        content={},
        weights=weights,
        state=None,
        step=step,
    )
    if settings.recompute:
        _recomputed(method)
    kept.check(settings, made.image, made.continued, method.needs.labels)
    refuse(made.intake)
    if settings.augmentation is not None:  # the first view tells what is wrong with all
        readable(ViewDataset(samples, pipeline, settings.seed), 0)
    if settings.unmix is not None:
        _mixes(made)
    # one process looks at the folder: it may have written there before the others get this far
    return _with_folder(made, source, given) if fabric.global_rank == 0 else made


def _recomputed(method: Method) -> None:
    """Refuse to recompute blocks where there are none."""
    if not any(p.requires_grad for block in blocks(method) for p in block.parameters()):
        raise UserError(
            f"--recompute runs blocks of transformers again, and {image_of(method).name} in "
            f"{method_name(method)} trains none: save memory with --accumulate, or take a backbone "
            "such as vit_small_patch16_224"
        )


def _mixes(made: Plan) -> None:
    """Refuse Un-Mix for a method whose views it cannot mix."""
    views = ViewDataset(made.seen(made.samples), made.pipeline, made.settings.seed)
    item = collate([readable(views, 0)] * 2)
    query(made.method, Batch(as_taken(made.method, item.views), item.index))


def _with_folder(made: Plan, source: Any, given: bool) -> Plan:
    """The plan with what its run folder holds and will hold, where that goes together."""
    settings, out = made.settings, made.out
    occupied(out, settings.resume, settings.overwrite)
    before = out if settings.resume else None
    training = settings.repeated() | {"precision": precision_of(made.fabric)}
    training["colors"] = settled(settings.colors, made.pipeline, made.fabric.device, before)
    if callable(made.recipe.optimizer):
        training["optimizer"] = f"<{made.recipe.optimizer}>"
    content = describe(made.method, source, training)
    content["chosen"] = plain(made.chosen)
    content["made_by"]["images"] = len(made.samples)
    drawn = made.method.state_dict().keys() - (made.weights or {}).keys()
    if given and drawn and not settings.resume:
        content["initial"] = {"weights": f"sha256 {fingerprint(made.method)}"}
    state = None
    if settings.resume:
        state = Checkpoints.of(out).training()
        _compare(made, content, state)
    size = size_of(made.method.state_dict()) * 3  # weights and what the optimizer keeps for them
    free = shutil.disk_usage(next(p for p in (out, *out.absolute().parents) if p.exists())).free
    if free < 3 * size:
        raise UserError(
            f"{out} has {free / 2**20:.0f} MiB of space left; three checkpoints need about "
            f"{3 * size / 2**20:.0f} MiB: free some, or name another folder with --out"
        )
    return dataclasses.replace(made, content=content, state=state)


def _compare(made: Plan, content: dict[str, Any], state: dict[str, Any] | None) -> None:
    """Refuse to resume what would not be the same run, unless it is forced."""
    out = made.out
    before = config.load(out / SETTINGS)  # which says what is wrong with a damaged one
    if "initial" in before:  # how a run began does not change as it goes on
        content["initial"] = before["initial"]
    if _class(before.get("method")) == _class(content["method"]):  # its file may have moved
        before["method"] = content["method"]
    now = yaml.safe_load(config.dump(content))
    for section, given in before.items():
        if isinstance(given, dict) and isinstance(now.get(section), dict):
            before[section] = current(given, now[section])
    if isinstance(before.get("training"), dict):  # what an earlier version had not, it left alone
        before["training"] = Settings().repeated() | before["training"]
        before["training"] |= {n: now["training"][n] for n in NOT_COMPARED}
    differences = changes(before, now)
    finished = Checkpoints.of(out).finished
    length = [d for d in differences if d.startswith(("training.epochs", "training.max_steps"))]
    if state is None:
        log.warning("%s has no checkpoint yet: starting from its first step", out)
    else:
        if state["data"] != made.fingerprint:
            differences.append("the dataset: files were added, removed or changed")
        if state["step"] > made.steps or finished == made.steps:
            longer = "--max-steps" if made.steps == made.settings.max_steps else "--epochs"
            raise UserError(
                f"the run in {out} is finished ({state['step']} steps); to extend it give a "
                f"larger {longer} with --resume: its schedules are then laid over the new length, "
                "so the learning rate jumps back up"
            )
        if state["step"] == made.steps:
            log.info("the training in %s is complete; exporting, scoring and reporting", out)
    others = [d for d in differences if d not in length]
    if others and not made.settings.force:
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
            "is that of the same step in a training of %s steps",
            f"{made.steps:,}",
        )


def _class(name: Any) -> str:
    return str(name).rpartition(":")[2]


def _recipe(method: Method, paper: Recipe, settings: Settings) -> Recipe:
    """The paper's recipe with the user's changes; a rate that the user gives is not scaled."""
    fields = {f.name for f in dataclasses.fields(Recipe)} - {"batch"}
    changed = {k: v for k, v in vars(settings).items() if k in fields and v is not None}
    if settings.lr is not None:
        if settings.scaling not in (None, "none"):
            raise UserError(
                f"--lr {settings.lr:g} is the rate for this batch, whatever its size: drop it, or "
                "--scaling"
            )
        changed["scaling"] = "none"
    elif settings.optimizer not in (None, paper.optimizer) and not callable(settings.optimizer):
        raise UserError(
            f"the learning rate {paper.lr} is for {paper.optimizer}; with --optimizer "
            f"{settings.optimizer} give --lr too"
        )
    if callable(settings.optimizer):
        changed |= own_optimizer.changes(settings.optimizer, method, paper, settings)
    return dataclasses.replace(paper, **changed)


def stem(source: Any) -> str:
    """What data is called in the name of a run folder."""
    if isinstance(source, str | Path):
        return Path(source).resolve().stem or "data"
    return type(source).__name__.lower()


def _labeled(samples: Samples, method: Method) -> Samples:
    """The samples that a supervised method can learn from."""
    count = count_classes(samples, method_name(method))
    # losses that only compare labels have no outputs for them
    outputs = min(values_by_role(method).get("classes", ()), default=count)
    if count > outputs:
        raise UserError(
            f"the labels of this data go up to {count - 1}, and this {type(method).__name__} has "
            f"outputs for {outputs} classes; make it with classes={count}"
        )
    known = np.flatnonzero(np.asarray(samples.labels) >= 0)
    if len(known) < len(samples):
        log.info("%s of %s images have labels", f"{len(known):,}", f"{len(samples):,}")
    return samples if len(known) == len(samples) else select(samples, known)


def _masks(source: Any, samples: Samples, settings: Settings, method: Method) -> Masks | None:
    """The masks of the samples, for a method that learns from them."""
    if method.needs.beside == "masks":
        try:
            found = open_masks(source, samples, settings.masks)
        except UserError as error:
            raise UserError(f"{error}; `selftaught frames` makes both of clips") from error
        check_degrees(found)
        return found
    if settings.masks is not None:
        raise UserError(
            f"{method_name(method)} does not learn from masks; drop --masks {settings.masks}"
        )
    return None


def _held_out(settings: Settings, samples: Samples, method: Method) -> Samples | None:
    """The test data, opened before minutes are spent on what could not be scored."""
    if not settings.evaluate or settings.test is None:
        return None
    if samples.labels is None:
        raise UserError(
            "--test needs labels in the training data too: sort its images into one folder a class,"
            " or name a column or a CSV of path,label with --labels"
        )
    held = open_data(
        settings.test,
        labels=settings.labels,
        path_column=settings.path_column,
        channels=image_of(method).channels,
        kind=kinds.of(samples),
    )
    if held.labels is None:
        raise UserError(
            f"the test data {named(settings.test)} has no labels: sort its images into one folder "
            "a class, or name a column or a CSV of path,label with --labels"
        )
    labeled([samples, held])
    return held


def _paired(source: Any, samples: Samples, settings: Settings, method: Method) -> Paired | None:
    """The samples beside those of a second modality, where the method compares two."""
    encoder = method.get_submodule(method.needs.second) if method.needs.second else None
    if encoder is None and settings.second is None:
        return None
    if encoder is None:
        raise UserError(
            f"{type(method).__name__} sees one image a sample, and --second gives another: take a "
            "method of pairs (infonce, vicreg, dcca, dccae, ace), or drop --second"
        )
    if settings.second is None:
        raise UserError(
            "--pair modalities compares two samples of the same thing: name the data of the other "
            "modality with --second"
        )
    assert is_encoder(encoder)
    return pair(
        samples,
        samples_of(settings, kinds.of(encoder), encoder.channels),
        (source, settings.second),
        settings.pair_by,
        settings.unpaired,
    )


def _test_pairs(settings: Settings, method: Method) -> Paired | None:
    """The pairs to score on, opened before minutes are spent on what could not be scored."""
    if settings.second_test is None or not settings.evaluate:
        return None
    if settings.test is None or not method.needs.second:
        raise UserError(
            "--second-test names one side of test pairs: name the other one with --test, and the "
            "second modality that is trained on with --second"
        )
    one, other = encoders(method)
    sources = settings.test, settings.second_test
    first = settings.open(sources[0], one.channels, kinds.of(one))
    second = samples_of(replace(settings, second=sources[1]), kinds.of(other), other.channels)
    return pair(first, second, sources, settings.pair_by, settings.unpaired)


def _divided(method: Method, settings: Settings, whole: int) -> int:
    """Parts that a batch of `whole` images is computed in, `settings.batch` at a time."""
    batch = settings.batch or whole
    if whole % batch or whole < batch:
        raise UserError(
            f"an effective batch of {whole} is not made of whole batches of {batch}; use "
            f"--effective-batch {max(1, round(whole / batch)) * batch}, or another --batch"
        )
    if settings.accumulate > 1:
        raise UserError(
            "--accumulate adds up losses of parts, --effective-batch makes one loss of all: give "
            "one of them"
        )
    if settings.compile:
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
    if count < method.needs.batch:
        raise UserError(
            f"{method_name(method)} compares images of a batch, {method.needs.batch} at least, and "
            f"there {'is' if count == 1 else 'are'} {count}: add images"
        )
    if count < batch:
        raise UserError(
            f"{count} images are fewer than a batch of {batch}; use --batch {max(count, 1)} or "
            "less, or add images"
        )
    if compared < method.needs.batch:
        raise UserError(
            f"{method_name(method)} compares images of a batch and needs at least "
            f"{method.needs.batch} at once, got {compared}; use --batch "
            f"{method.needs.batch * (batch // compared)} or more"
        )
    if batch // parts % method.needs.group:
        raise UserError(
            f"{method_name(method)} takes images {method.needs.group} at a time, and a batch of "
            f"{batch} leaves {batch // parts} to each of {parts} parts; use a multiple of "
            f"{method.needs.group * parts}"
        )
    if method.needs.batchnorm == "own" and batch // parts < 2:
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
