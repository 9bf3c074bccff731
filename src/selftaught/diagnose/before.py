"""What can be wrong with a training before its first step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from selftaught.diagnose.images import Looks
from selftaught.diagnose.rules import Rule
from selftaught.signature import Valued


class Movement(NamedTuple):
    """How far a training can take the weights; None where that is not known.

    decay: share of a weight that weight decay alone takes away in a step, at most.
    left: share of a weight that it would leave after all steps, without a gradient.
    way: length of all steps together at most, as a multiple of the weights' own.
    clipped: usual size of a weight's gradient, after clipping, for Adam and the like.
    """

    decay: float = 0.0
    left: float = 1.0
    way: float | None = None
    clipped: float | None = None


class Term(NamedTuple):
    """A term of the loss: its weight, and the one that it has unless given."""

    name: str
    weight: float
    usual: float


@dataclass(frozen=True)
class Before:
    """What is known before the first step.

    Args:
        method: its class.
        settings: values of the method's parameters, with their roles and defaults.
        images: samples in the dataset.
        batch: samples that are compared at once.
        compares: whether the loss compares samples of a batch.
        steps: of the training.
        optimizer: its name.
        transformer: whether the network is one.
        lr: peak learning rate.
        paper_lr: the paper's own, and scaled to this batch; None where the optimizer is another.
        top: fraction of training at which the learning rate is highest.
        movement: how far the training can take the weights.
        copy: whether there is a EMA copy (momentum encoder, EMA teacher).
        size: the shorter side of the views in pixels.
        crop: largest area of a crop, as a share of the image; of several that are made into whole
            views the smallest.
        jitter: largest strength of a change of brightness, contrast or saturation.
        dropped: largest share that is dropped: of numbers (dropout) or branches (drop path).
        half: share of the weights that are kept in half precision.
        apart: distance of hidden pixels from the nearest seen one, on average, as a share of the
            shorter side; None where no masks can be drawn.
        looks: what images are like.
        shares: of the labeled images, those of each class, the largest first.
    """

    method: str
    settings: Sequence[Valued]
    images: int
    batch: int
    compares: bool
    steps: int
    optimizer: str
    lr: float
    paper_lr: tuple[float, float] | None
    top: float
    copy: bool
    size: int
    transformer: bool = False
    movement: Movement = field(default_factory=Movement)
    crop: float = 1.0
    jitter: float = 0.0
    dropped: float = 0.0
    half: float = 0.0
    apart: float | None = None
    looks: Looks = field(default_factory=Looks)
    shares: tuple[float, ...] = ()

    step = 0
    progress = 0.0

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """Of the method's parameters, by their roles."""
        found: dict[str, list[float]] = {}
        for setting in self.settings:
            found.setdefault(setting.role, []).append(setting.value)
        return found

    def least(self, role: str) -> float | None:
        """Smallest value of a role."""
        return min(self.values.get(role, ()), default=None)

    def most(self, role: str) -> float | None:
        """Largest value of a role."""
        return max(self.values.get(role, ()), default=None)

    @property
    def prototypes(self) -> int | None:
        """Groups that images are sorted into."""
        return max(map(int, self.values.get("prototypes", ())), default=None)

    @property
    def momentum(self) -> float | None:
        """Of the EMA copy, at the start."""
        return next(iter(self.values.get("momentum", ())), None) if self.copy else None

    @property
    def papers_momentum(self) -> bool:
        """Whether it is the paper's, which nobody has asked for."""
        return all(s.value == s.default for s in self.settings if s.role == "momentum")

    @property
    def half_life(self) -> float | None:
        """Steps after which half of the EMA copy is new, as a fraction of the training."""
        if self.momentum is None or not 0 < self.momentum < 1:
            return None
        return math.log(0.5) / math.log(self.momentum) / self.steps

    @property
    def softness(self) -> list[float]:
        """Temperatures of targets as multiples of the student's: from 1 on, what the student is to
        tell is softer than what it says, and each step makes it softer yet."""
        students = [*self.values.get("temperature", ())]
        teachers = self.values.get("teacher temperature", ())
        for each in teachers:
            students.remove(each)
        ratios = [each / max(students) for each in teachers] if students else []
        return [*ratios, *self.values.get("sharpening", ())]

    @property
    def flatness(self) -> float | None:
        """Of targets over prototypes: from 1 on, an image that lies on its prototype, orthogonal to
        all others, is still said to belong to most of them."""
        teacher = self.most("teacher temperature")
        return teacher * math.log(self.prototypes) if teacher and self.prototypes else None

    @property
    def terms(self) -> list[Term]:
        """Of the loss, which have weights."""
        found = []
        for name, role, value, usual in self.settings:
            if usual is not None and role in ("term weight", "term share"):
                found.append(Term(name, value, usual))
                if role == "term share":
                    found.append(Term(f"the rest of {name}", 1 - value, 1 - usual))
        return found

    @property
    def silent(self) -> list[str]:
        """Names of terms that have a weight of 0, and a larger one usually."""
        return [t.name for t in self.terms if t.usual and t.weight <= 1e-9]

    @property
    def named(self) -> str:
        """The silent terms."""
        return ", ".join(self.silent)

    @property
    def uneven(self) -> tuple[float, str]:
        """How many times too large or too small the weight of a term is beside the others, if all
        have their usual ones, and the name of the term for which that is most."""
        terms = [t for t in self.terms if t.weight > 1e-9]
        top = max((t.usual for t in terms), default=0) or 1.0
        logs = [math.log(t.weight / (t.usual or top)) for t in terms]
        found = [(1.0, "")]
        for i, (term, own) in enumerate(zip(terms, logs)):
            others = logs[:i] + logs[i + 1 :] or [0.0]
            found.append((math.exp(abs(own - sorted(others)[len(others) // 2])), term.name))
        return max(found)

    @property
    def far(self) -> tuple[float, str]:
        """How many times a scale of the method is larger or smaller than it is usually, at most,
        and the name of the parameter."""
        ratios = [
            (math.exp(abs(math.log(s.value / s.default))), s.name)
            for s in self.settings
            if s.role in SCALES and s.value > 0 and s.default
        ]
        return max(ratios, default=(1.0, ""))

    @property
    def top_rate(self) -> float | None:
        """The highest learning rate that the optimizer is known to train such a network with."""
        rates = _TOP_RATE.get(self.optimizer)
        return rates and rates[self.transformer]


SCALES = ("margin", "positive", "temperature", "strength")
"""Roles of numbers of which a hundredth or a hundred times as much is a slip."""

_TOP_RATE = {"sgd": (30.0, 5.0), "larc": (30.0, 30.0), "lars": (100.0, 100.0)}
_TOP_RATE |= {"lars_tf": _TOP_RATE["lars"], "lamb": (0.1, 0.1)}
_TOP_RATE |= dict.fromkeys(("adam", "adamw", "adamw_bert"), (0.03, 0.02))
"""Peak learning rates above which an optimizer is not known to train anything: convolutions, and
transformers."""


_SLOW = (
    "half of the EMA copy is new only after {figure:.1f} times the whole training of "
    "{facts.steps} steps (at most {limit:g} times)",
    ("momentum {facts.momentum:g} is for trainings of hundreds of thousands of steps",),
    "lower momentum, to 0.99 where there are more than some hundred steps, or train longer",
)
"""What is said, why, and what to do; whether somebody asked for it or the paper has it."""

REFUSED: tuple[Rule[Before], ...] = (
    Rule(
        "softer teacher",
        lambda f: min(f.softness, default=None),
        1 - 1e-9,
        "the temperature of the targets is {figure:.3g} times the student's, and has to be "
        "below it",
        ("the student would learn to be less and less sure, until all prototypes are alike",),
        "set it to about half of the student's, as papers do",
    ),
    Rule(
        "nothing to fill in",
        lambda f: min((min(h, 1 - h) for h in f.values.get("hidden share", ())), default=None),
        1e-9,
        "the share of an image that is hidden is 0 or 1, and has to lie between them",
        ("there would be nothing to fill in, or nothing to fill it in from",),
        "leave it out: the paper's is the default",
        below=True,
    ),
    Rule(
        "weights decayed at once",
        lambda f: f.movement.decay,
        1.0 - 1e-9,
        "learning rate and weight decay together take {figure:.3g} times each weight away in a "
        "step, and have to leave most of it",
        ("no weight would stay longer than a step",),
        "lower --lr, or --weight-decay to 0.1 or less",
    ),
)
"""What cannot work, whatever the data: a run with it does not begin."""

BEFORE: tuple[Rule[Before], ...] = (
    Rule(
        "constant images",
        lambda f: f.looks.constant,
        0.9,
        "{figure:.0%} of the images looked at have a single color (at most {limit:.0%} may)",
        ("the files are empty or placeholders", "black and white of the data (--value-range) lie "
         "so far out that everything between them is one level"),
        "look at the images; `selftaught check` lists what is constant; set --value-range for "
        "float and 16-bit data",
        severity="failure",
    ),
    Rule(
        "some constant images",
        lambda f: f.looks.constant if f.looks.constant <= 0.9 else None,
        0.05,
        "{figure:.0%} of the images looked at have a single color (up to {limit:.0%} is usual)",
        ("placeholders for missing images", "empty tiles of larger images"),
        "leave them out: --quarantine takes a list of path,reason",
    ),
    Rule(
        "repeated images",
        lambda f: f.looks.repeated,
        0.9,
        "{figure:.0%} of the images looked at are exact copies of another one (at most {limit:.0%} "
        "may be)",
        ("one file was copied under many names", "the images were written by a loop that never "
         "moved on"),
        "train on different images: nothing can be told apart in these",
        severity="failure",
    ),
    Rule(
        "duplicates",
        lambda f: f.looks.copied if f.looks.repeated <= 0.9 else None,
        0.1,
        "{figure:.0%} of the images are exact copies of another one, as far as {facts.looks.count} "
        "of them tell (up to {limit:.0%} is usual)",
        ("the same files are in several folders", "frames of a video that stands still"),
        "keep one of each, and leave out the others: --quarantine takes a list of path,reason",
    ),
    Rule(
        "near-duplicates",
        lambda f: f.looks.near if f.looks.copied <= 0.1 else None,
        0.2,
        "{figure:.0%} of the images looked at are all but copies of another one (up to "
        "{limit:.0%} is usual), of {facts.looks.count} in pairs of neighbors all over the data",
        ("frames follow each other in a video", "the same pictures were written more than once, in "
         "another format or size"),
        "keep one of each: take every tenth frame or so, and leave out the others (--quarantine "
        "takes a list of path,reason); two images that are alike are told to be unlike",
    ),
    Rule(
        "mark in all images",
        lambda f: f.looks.mark if f.looks.bars <= 0.3 else None,
        1.0,
        "the images have the same detail at the same place, by {figure:.1f} standard deviations "
        "(at most {limit:g} is usual)",
        ("a watermark, a logo or a scale bar is in all of them", "a camera that does not move sees "
         "itself or what stands before it"),
        "cut it off, or cover it with its surroundings: it is the easiest thing to tell by which "
        "way up an image is, or where a piece of it lies",
    ),
    Rule(
        "mark in some images",
        lambda f: f.looks.marked if f.looks.bars <= 0.3 else None,
        8.0,
        "some images have the same detail at the same place and others have not: they are "
        "{figure:.0f} standard deviations apart (at most {limit:g} is usual)",
        ("images of one source have a watermark, a logo or a scale bar",),
        "cut it off, or cover it with its surroundings: it tells images apart, and augmentations "
        "leave it",
    ),
    Rule(
        "patch in images",
        lambda f: f.looks.patch if f.looks.bars <= 0.3 else None,
        0.5,
        "{figure:.0%} of the images looked at have a patch of one color at the same place, of "
        "another color than that of others (at most {limit:.0%} may)",
        ("a stamp, a bar or a border was drawn into each",),
        "cut it off: its color tells which image it is, so nothing else need be learned",
    ),
    Rule(
        "bars at edges",
        lambda f: f.looks.bars if f.looks.unlike_bars else None,
        0.3,
        "{figure:.0%} of the images looked at have bars or borders of one color, not all the same "
        "(up to {limit:.0%} is usual)",
        ("images of another shape were padded", "some cameras or scanners leave a border"),
        "cut them off: they tell images apart, and augmentations leave them",
    ),
    Rule(
        "same bars at edges",
        lambda f: None if f.looks.unlike_bars else f.looks.bars,
        0.3,
        "{figure:.0%} of the images looked at have the same bars or borders of one color (up to "
        "{limit:.0%} is usual)",
        ("a film was letterboxed", "a scanner leaves a border"),
        "cut them off: crops are spent on them",
        severity="note",
    ),
    Rule(
        "dull images",
        lambda f: f.looks.dull if f.looks.constant <= 0.05 else None,
        0.5,
        "{figure:.0%} of the images looked at have hardly any contrast: their levels deviate by "
        "less than 6 of 255 (up to {limit:.0%} is usual)",
        ("black and white of the data (--value-range) lie too far out", "they are under- or "
         "overexposed"),
        "set --value-range for float and 16-bit data; stretch the contrast of others",
    ),
    Rule(
        "tiny images",
        lambda f: f.looks.tiny,
        0.05,
        "the shorter side of {figure:.0%} of the images looked at is below a third of the middle "
        "one, {facts.looks.side} px (up to {limit:.0%} is usual)",
        ("thumbnails are among the images",),
        "leave them out: enlarged, they are told by their blur",
        severity="note",
    ),
    Rule(
        "two cameras",
        lambda f: f.looks.cameras,
        6.0,
        "the images are of two groups with other colors, {figure:.1f} standard deviations apart "
        "(up to {limit:g} is usual)",
        ("they come from two cameras, scanners or stains", "day and night"),
        "look whether features tell the groups apart rather than what is seen; stronger "
        "--color-jitter helps",
        severity="note",
    ),
    Rule(
        "one class",
        lambda f: f.shares[0] if len(f.shares) > 2 else None,
        0.8,
        "{figure:.0%} of the labeled images are of the classes alone (up to "
        "{limit:.0%} is usual)",
        ("some classes are rare",),
        "judge by the mean over classes; balance the training images where that is possible",
        severity="note",
    ),
    Rule(
        "small images",
        lambda f: f.size / f.looks.side if f.looks.side else None,
        2.0,
        "views of {facts.size} px are cut from images whose shorter side is {facts.looks.side} px "
        "in the middle ({figure:.1f} times as large, at most {limit:g})",
        ("--size is meant for larger images",),
        "use --size {facts.looks.side} or less: enlarging adds cost and no detail",
        severity="note",
    ),
    Rule(
        "long warm-up",
        lambda f: f.top if f.steps >= 10 else None,
        0.5,
        "the learning rate is highest after {figure:.0%} of training (at most {limit:.0%} is "
        "usual): the warm-up is about as long as the training",
        ("--warmup is a fraction of training, and {figure:.2g} was taken for it",),
        "use --warmup 0.1 or less",
    ),
    Rule(
        "high learning rate",
        lambda f: f.lr / max(f.paper_lr) if f.paper_lr else None,
        100.0,
        "the peak learning rate {facts.lr:.3g} is {figure:.0f} times the paper's, which is "
        "{facts.paper_lr[1]:.3g} for a batch of {facts.batch} (at most {limit:g} times)",
        ("--lr was meant for another optimizer or in another unit",
         "the paper's rate was scaled to the batch by hand, and once more"),
        "leave --lr out, or start from {facts.paper_lr[1]:.3g}",
    ),
    Rule(
        "rate for optimizer",
        lambda f: f.lr / f.top_rate
        if f.top_rate and not (f.paper_lr and f.lr > 100 * max(f.paper_lr))
        else None,
        1.0,
        "the peak learning rate {facts.lr:.3g} is {figure:.2g} times the largest that "
        "{facts.optimizer} is known to train such a network with",
        ("the learning rate is one for SGD or LARS, which are hundreds of times higher",),
        "with adam, adamw or lamb start from 1e-3, with sgd from 0.03",
    ),
    Rule(
        "way of the weights",
        lambda f: f.movement.way
        if f.steps >= 50 and not (f.paper_lr and f.lr < 0.01 * min(f.paper_lr))
        else None,
        0.003,
        "all {facts.steps} steps together can change the weights by {figure:.2g} of their length "
        "(at least {limit:g}): the learning rate {facts.lr:.3g} is too low for {facts.optimizer}, "
        "or gradients are clipped too much",
        ("--lr was meant for another optimizer or in another unit", "--clip is far below what "
         "gradients are"),
        "leave --lr and --clip out; with adamw start from 1e-3, with sgd from 0.03, with lars from "
        "0.3",
        below=True,
    ),
    Rule(
        "tiny clip",
        lambda f: f.movement.clipped,
        1e-8,
        "gradients are clipped to {figure:.2g} a weight (at least {limit:g}), below what "
        "{facts.optimizer} adds to its denominator: no step moves anything",
        ("--clip was given in another unit",),
        "leave --clip out, or start from 1",
        below=True,
    ),
    Rule(
        "strong weight decay",
        lambda f: f.movement.decay if f.movement.left < 0.2 else None,
        0.01,
        "weight decay takes {figure:.2g} of each weight in a step (at most {limit:g}), and would "
        "leave {facts.movement.left:.1g} of it in the whole training",
        ("--weight-decay is far above the usual 1e-6 to 0.4", "the learning rate, which it is "
         "multiplied by, is too high"),
        "leave --weight-decay out, or start from 1e-4",
    ),
    Rule(
        "low learning rate",
        lambda f: f.lr / min(f.paper_lr) if f.paper_lr else None,
        0.01,
        "the peak learning rate {facts.lr:.3g} is {figure:.2g} times the paper's, which is "
        "{facts.paper_lr[1]:.3g} for a batch of {facts.batch} (at least {limit:g} times)",
        ("--lr was meant for another optimizer or in another unit",),
        "leave --lr out, or start from {facts.paper_lr[1]:.3g}",
        below=True,
    ),
    Rule(
        "small batch",
        lambda f: f.batch if f.compares else None,
        8,
        "{figure:.0f} images are compared at a time (at least {limit:.0f}): too few for "
        "batch norms, and for telling images from each other",
        ("--batch was lowered to save memory", "--accumulate splits the batch: each part is "
         "compared alone"),
        "raise --batch, with smaller --size or --backbone where memory is short; or take a method "
        "that compares nothing, such as mae or rotation",
        below=True,
    ),
    Rule(
        "fixed target",
        lambda f: f.momentum,
        1 - 1e-9,
        "the momentum of the EMA copy is {figure:g} (below 1 it has to be): the copy never moves",
        ("momentum was set to its end, 1, instead of its start",),
        "use a momentum of 0.99 for short and 0.996 for long trainings",
    ),
    Rule(
        "falling momentum",
        lambda f: f.values["momentum"][1] - f.values["momentum"][0]
        if f.copy and len(f.values.get("momentum", ())) == 2
        else None,
        0.0,
        "momentum of the EMA copy changes by {figure:.2g} in the training (at least {limit:g}): "
        "the copy comes closer and closer to the network",
        ("start and end were swapped",),
        "give the smaller one first, as in 0.99,1",
        below=True,
    ),
    Rule(
        "fast target",
        lambda f: f.momentum,
        0.5,
        "the momentum of the EMA copy starts at {figure:g} (at least {limit:g}): the copy is all "
        "but the network itself",
        ("momentum was taken for the share of the network, not of the copy",),
        "use a momentum of 0.99 for short and 0.996 for long trainings",
        below=True,
    ),
    Rule(
        "slow target",
        lambda f: f.half_life if f.steps >= 50 and not f.papers_momentum else None,
        1.0,
        *_SLOW,
    ),
    Rule(
        "slow target of the paper",
        lambda f: f.half_life if f.steps >= 50 and f.papers_momentum else None,
        1.0,
        *_SLOW,
        severity="note",
    ),
    Rule(
        "temperature",
        lambda f: f.least("temperature"),
        0.01,
        "a softmax has the temperature {figure:g} (at least {limit:g}): only the nearest counts, "
        "and gradients are huge",
        ("a digit slipped",),
        "leave it out: the paper's is the default",
        below=True,
    ),
    Rule(
        "high temperature",
        lambda f: f.most("temperature"),
        3.0,
        "a softmax has the temperature {figure:g} (at most {limit:g}): it is flat, and gradients "
        "are tiny",
        ("it was given as the factor that similarities are multiplied by",),
        "leave it out: the paper's is the default",
    ),
    Rule(
        "soft teacher",
        lambda f: max(f.softness, default=None),
        0.9,
        "the temperature of the targets comes to {figure:.2g} times the student's (at most "
        "{limit:g}): from 1 on, outputs become alike",
        ("temperatures of teacher and student were swapped", "a digit slipped"),
        "set it to about half of the student's, as papers do",
    ),
    Rule(
        "flat targets",
        lambda f: f.flatness if max(f.softness, default=0) <= 0.9 else None,
        1.0,
        "the temperature of the targets, or Sinkhorn's epsilon, times ln {facts.prototypes} "
        "prototypes is {figure:.2f} (at most {limit:g}): images are said to belong to most of them",
        ("epsilon is too large for so many prototypes",),
        "use an epsilon or a temperature of 0.05",
    ),
    Rule(
        "term of no weight",
        lambda f: len(f.silent) if f.terms else None,
        0,
        "the weight of {figure:g} of the terms of the loss is 0 (of none it is usually): "
        "{facts.named}",
        ("a term was switched off",),
        "leave the weight out: the paper's is the default",
    ),
    Rule(
        "weights of terms",
        lambda f: f.uneven[0],
        50,
        "the weight of a term, {facts.uneven[1]}, is {figure:.0f} times as large or as small "
        "beside the others as in the paper (at most {limit:g} times): one of them alone counts",
        ("a digit slipped", "terms are means here and were sums, or the other way round"),
        "leave the weight out: the paper's is the default",
    ),
    Rule(
        "far from the paper",
        lambda f: f.far[0],
        50,
        "{facts.far[1]} is {figure:.0f} times as large or as small as the paper's (at most "
        "{limit:g} times)",
        ("a digit slipped", "it was meant in another unit"),
        "leave it out: the paper's is the default",
    ),
    Rule(
        "small crops",
        lambda f: f.crop,
        0.2,
        "the largest crop is {figure:.0%} of an image (at least {limit:.0%}): two views of it show "
        "different things",
        ("--crop-scale is the area of a crop as a share of the image, and was taken for something "
         "else",),
        "leave --crop-scale out, or use 0.2,1",
        below=True,
    ),
    Rule(
        "strong distortion",
        lambda f: f.jitter,
        2.0,
        "brightness, contrast or saturation of views change by {figure:g} (at most {limit:g} is "
        "usual, as multiples): most pixels become black or white",
        ("--color-jitter is a multiple of what the method has, and was taken for levels",),
        "leave --color-jitter out, or use 1",
    ),
    Rule(
        "strong dropout",
        lambda f: f.dropped,
        0.7,
        "dropout or drop path leaves out {figure:.0%} (at most {limit:.0%}): little is left to "
        "learn from",
        ("the share that is dropped was taken for the share that is kept",),
        "leave it out: 0 to 0.3 is usual",
    ),
    Rule(
        "narrow head",
        lambda f: f.least("head width"),
        8,
        "a layer between the backbone and the loss has {figure:.0f} numbers (at least "
        "{limit:.0f}): what is compared tells hardly any images apart",
        ("the width was taken for a number of classes",),
        "leave the width out: the default fits the backbone",
        below=True,
    ),
    Rule(
        "narrow decoder",
        lambda f: f.least("decoder width"),
        16,
        "the decoder describes a place in {figure:.0f} numbers (at least {limit:.0f}): it cannot "
        "paint or predict what is there",
        ("the width was taken for a number of layers",),
        "leave the width out: the default fits the method",
        below=True,
    ),
    Rule(
        "few prototypes",
        lambda f: f.least("prototypes"),
        4,
        "images are sorted into {figure:.0f} groups (at least {limit:.0f}): that asks for hardly "
        "anything",
        ("it was taken for something else",),
        "use about a tenth as many prototypes as images",
        below=True,
    ),
    Rule(
        "short queue",
        lambda f: min((q for q in f.values.get("queue", ()) if q), default=None),
        8,
        "{figure:.0f} earlier outputs are kept to be compared with (at least {limit:.0f})",
        ("a length in batches was given",),
        "leave the length out, or use half of the images",
        below=True,
    ),
    Rule(
        "all hidden",
        lambda f: max(f.most("hidden share") or 0, f.least("mask ratio") or 0) or None,
        0.95,
        "{figure:.0%} of each image is hidden (at most {limit:.0%}): what is seen tells nothing of "
        "it",
        ("ratio is the share that is hidden, and was taken for the share that is seen",),
        "leave it out: the paper's is the default",
    ),
    Rule(
        "large blocks",
        lambda f: f.least("target block"),
        0.5,
        "a block to be predicted is {figure:.0%} of an image (at most {limit:.0%}): nothing is "
        "left to predict it from",
        ("areas of what is predicted and what is seen were swapped",),
        "leave the areas out: the paper's are the defaults",
    ),
    Rule(
        "small context",
        lambda f: f.most("context block"),
        0.2,
        "what blocks are predicted from is {figure:.0%} of an image at most (at least "
        "{limit:.0%})",
        ("areas of what is predicted and what is seen were swapped",),
        "leave the areas out: the paper's are the defaults",
        below=True,
    ),
    Rule(
        "nothing hidden",
        lambda f: f.least("hidden share"),
        0.2,
        "{figure:.0%} of each image is hidden (at least {limit:.0%}): what is seen need only be "
        "copied",
        ("ratio is the share that is hidden, and was taken for the share that is seen",),
        "leave ratio out: the paper's is the default",
        below=True,
    ),
    Rule(
        "hidden beside what is seen",
        lambda f: f.apart,
        0.02,
        "a hidden pixel is {figure:.1%} of the side from the nearest seen one on average (at least "
        "{limit:.0%}; SimMIM's best are from 5 to 10 %): it can be copied from beside it",
        ("the squares that are hidden are small, or few",),
        "use a larger unit, or a larger ratio",
        below=True,
        severity="note",
    ),
    Rule(
        "more prototypes than images",
        lambda f: f.prototypes / f.images if f.prototypes else None,
        1.0,
        "{facts.prototypes} prototypes are there for {facts.images} images: each image can have "
        "one of its own ({figure:.1f} prototypes an image, at most {limit:g})",
        ("the default is the paper's, for a million images",),
        "use about a tenth as many prototypes as images",
        severity="note",
    ),
    Rule(
        "half-precision weights",
        lambda f: f.half,
        0.0,
        "{figure:.0%} of the weights are kept in half precision (none may be): bf16 has 8 bits, "
        "and steps below 1/256 of a weight are lost",
        ("the method or its backbone was converted with .bfloat16() or .half()",),
        "keep the weights in float32 and pass --precision bf16, which converts in the forward pass "
        "alone",
    ),
)  # fmt: skip
